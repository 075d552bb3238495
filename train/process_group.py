"""Several processes training one network, each on its share of every batch, as torchrun starts them."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Self

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["ProcessGroup", "usable_device"]

_TIMEOUT = timedelta(hours=2)  # the first process may measure the motion of many clips while the others wait


def usable_device(name: str | None) -> torch.device:
    """The device called `cpu`, `cuda`, `cuda:1`, ...; for None CUDA when there is one.

    Raises:
        ValueError: nothing can be computed on it.
    """
    device = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:  # the latter where torch was built without CUDA
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {device!r} cannot be used here ({reason}): give another, or cpu") from error
    return torch.device(device)


class ProcessGroup:
    """The processes of this training: one, or as many as torchrun says in the environment.

    A context manager: inside it the processes can talk to each other.

    Args:
        device: as `usable_device` takes it; with `cuda` each process has a GPU of its own.

    Raises:
        ValueError: no such device here, or torchrun started more processes than there are GPUs.
    """

    def __init__(self, device: str | None) -> None:
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        self.device = self._own_device(device)

    @property
    def is_first(self) -> bool:
        """Whether this is the one process that writes files and talks."""
        return self.rank == 0

    def _own_device(self, name: str | None) -> torch.device:
        if self.size == 1 or not (name == "cuda" or (name is None and torch.cuda.is_available())):
            return usable_device(name)
        local_rank = int(os.environ.get("LOCAL_RANK", self.rank))
        if local_rank >= torch.cuda.device_count():
            raise ValueError(
                f"{self.size} processes for {torch.cuda.device_count()} GPUs on this machine: "
                "give torchrun --nproc-per-node as many as there are GPUs, or --device cpu"
            )
        return usable_device(f"cuda:{local_rank}")

    def __enter__(self) -> Self:
        if self.size > 1:
            backend = "nccl" if self.device.type == "cuda" else "gloo"
            distributed.init_process_group(backend, timeout=_TIMEOUT)
        return self

    def __exit__(self, *_: object) -> None:
        if self.size > 1:
            distributed.destroy_process_group()

    def share(self, module: nn.Module) -> nn.Module:
        """The module with its gradients averaged over the processes on the way back."""
        return DistributedDataParallel(module) if self.size > 1 else module

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """Let the first process do something before the others do: what it caches, they find."""
        if self.size > 1 and not self.is_first:
            distributed.barrier()
        yield
        if self.size > 1 and self.is_first:
            distributed.barrier()

    def mean(self, values: Sequence[float]) -> list[float]:
        """Each value averaged over the processes, the same in all of them."""
        if self.size == 1:
            return list(values)
        # float64, so that a value that is equal everywhere comes back as it was.
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(tensor)
        return [value / self.size for value in tensor.tolist()]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return self.mean([float(flag)])[0] > 0

    def from_first(self, value: float) -> float:
        """The first process's value, in all of them."""
        if self.size == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64, device=self.device)
        distributed.broadcast(tensor, src=0)
        return float(tensor.item())
