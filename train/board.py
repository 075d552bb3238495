"""Curves and pictures for TensorBoard."""

from pathlib import Path
from types import TracebackType
from typing import Self

from torch import Tensor

__all__ = ["Board"]

_STEPS_PER_POINT = 10  # of a curve: finer than any screen shows for trainings worth watching


class Board:
    """What a training shows in TensorBoard; without a folder it shows nothing.

    Args:
        folder: where TensorBoard looks, `tensorboard --logdir` of it.
        first_step: points from here on replace those of an interrupted run.

    Raises:
        ValueError: the tensorboard package is not installed.
    """

    def __init__(self, folder: Path | None, *, first_step: int) -> None:
        self._writer = None
        if folder is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError(f"tensorboard={folder}: install it with pip install 'stylize[tensorboard]'") from error
        self._writer = SummaryWriter(str(folder), purge_step=first_step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Add a point to each curve, every few steps."""
        if self._writer is not None and step % _STEPS_PER_POINT == 0:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, picture_3HW: Tensor) -> None:
        """Add a picture, RGB in [0, 1]."""
        if self._writer is not None:
            self._writer.add_image(name, picture_3HW.clamp(0, 1), step)
