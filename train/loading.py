"""Which pairs each process sees in which step, and what loads them."""

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from stylize.train.frame_pair import FramePair

__all__ = ["BatchShare", "batch_of", "pair_loader"]


class BatchShare(Sampler[list[int]]):
    """Pair numbers of one process, pass by pass: step s of all processes together takes s * B ... (s + 1) * B - 1.

    So the same pairs make up a step however many processes and passes share it.

    Args:
        batch_size: pairs of a step, over all processes and passes.
        num_passes: into how many passes a process splits its share.
        rank: number of this process.
        num_processes: how many there are.
        steps: the steps to go through.

    Raises:
        ValueError: the batch cannot be shared evenly.
    """

    def __init__(self, batch_size: int, *, num_passes: int, rank: int, num_processes: int, steps: range) -> None:
        if batch_size % (num_passes * num_processes):
            raise ValueError(
                f"batch_size={batch_size} must be a multiple of {num_passes * num_processes} "
                f"({num_processes} processes, {num_passes} passes each)"
            )
        self._batch_size = batch_size
        self._share = batch_size // (num_passes * num_processes)
        self._num_passes, self._rank = num_passes, rank
        self._steps = steps

    def __len__(self) -> int:
        return len(self._steps) * self._num_passes

    def __iter__(self) -> Iterator[list[int]]:
        for step in self._steps:
            own = step * self._batch_size + self._rank * self._num_passes * self._share
            for number in range(self._num_passes):
                first = own + number * self._share
                yield list(range(first, first + self._share))


def pair_loader(pairs: Dataset[FramePair], share: BatchShare, *, device: torch.device) -> DataLoader[FramePair]:
    """Batches in the order of `share`; on a GPU, loaded ahead by other processes."""
    is_cuda = device.type == "cuda"
    # On a CPU the network already uses every core, so loader processes would only compete.
    return DataLoader(
        pairs, batch_sampler=share, num_workers=8 if is_cuda else 0, pin_memory=is_cuda, persistent_workers=is_cuda
    )


def batch_of(pairs: Dataset[FramePair], num_pairs: int, *, device: torch.device) -> FramePair:
    """The first pairs as one batch on a device."""
    batch = default_collate([pairs[index] for index in range(num_pairs)])
    return FramePair(*(column.to(device) for column in batch))
