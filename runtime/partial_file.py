"""A file that appears under its name complete or not at all."""

import logging
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from stylize.runtime.container import reported
from stylize.runtime.errors import OutputMediaError

__all__ = ["PartialFile", "check_place"]

logger = logging.getLogger(__name__)


class PartialFile:
    """A temporary name beside the target, of the same kind, so that what is there after a stop plays.

    Whoever writes opens `path` and `commit` renames it. A context manager: left without a commit, the
    file is removed, unless `is_worth_keeping` was set, and then its name is logged.
    """

    def __init__(self, target: Path) -> None:
        """Choose the temporary name for `target`; one left by an earlier run is replaced.

        Raises:
            OutputMediaError: the folder is missing or cannot be written, or the target is a folder.
        """
        self.target = target
        self.is_worth_keeping = False
        """Whether there is anything to see in the unfinished file."""
        self._is_committed = False
        check_place(target)
        self.path = target.with_name(f".{target.name}.partial{target.suffix}")
        with reported(target, "cannot be written: "):
            self.path.open("wb").close()

    @property
    def address(self) -> str:
        """What FFmpeg opens: absolute, so that no name is mistaken for a protocol."""
        return str(self.path.absolute())

    def commit(self, *, is_durable: bool = False) -> None:
        """Give the finished file its name, replacing what was there.

        Args:
            is_durable: wait until it is on the disk, before something else is deleted in its favour.

        Raises:
            OutputMediaError: the rename failed.
        """
        with reported(self.target, "cannot be replaced: "):
            if is_durable:
                with self.path.open("rb") as file:
                    os.fsync(file.fileno())
            os.replace(self.path, self.target)  # noqa: PTH105 - Path.replace says nothing about atomicity
            if is_durable:
                _sync_folder(self.target.parent)
        self._is_committed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._is_committed:
            return
        if self.is_worth_keeping:
            logger.warning("%s was not finished; what is done is kept in %s", self.target, self.path)
        else:
            self.path.unlink(missing_ok=True)


def check_place(target: Path) -> None:
    """See that there can be a file of this name.

    Raises:
        OutputMediaError: it is a folder, or there is none that it could lie in.
    """
    if target.is_dir():
        raise OutputMediaError(target, f"is a folder, expected a file name; for pictures {target}/%04d.png")
    if not target.parent.is_dir():
        raise OutputMediaError(target, f"no such folder: {target.parent}")


def _sync_folder(folder: Path) -> None:
    """Wait until the names in `folder` are on the disk; only POSIX systems can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
