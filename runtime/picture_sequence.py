"""Numbered picture files out."""

from pathlib import Path
from types import TracebackType
from typing import Self

from stylize.runtime.errors import OutputMediaError
from stylize.runtime.frame import Frame
from stylize.runtime.partial_file import PartialFile
from stylize.runtime.selection import Item
from stylize.runtime.source import number_pattern
from stylize.runtime.still import write_still

__all__ = ["PictureSequence"]


class PictureSequence:
    """Writes each frame to a file of its own, numbered from 1; each appears when it is complete."""

    def __init__(self, pattern: Path, *, repeats_frames: bool) -> None:
        """Prepare to write `pattern`, a name with `%d` or `%04d` in it.

        Args:
            pattern: the files to write; older ones of the same number are replaced.
            repeats_frames: write each frame once for every tick of its duration.

        Raises:
            OutputMediaError: the folder is missing.
            ValueError: there is no number in the pattern.
        """
        number = number_pattern(pattern)
        if number is None:
            raise ValueError(f"{pattern} has no single %d in its name")
        if not pattern.parent.is_dir():
            raise OutputMediaError(pattern, f"no such folder: {pattern.parent}")
        self.num_frames = 0
        """Files written."""
        self.has_transparency = False
        """Whether any of the frames was transparent anywhere."""
        self.pattern = pattern
        self._before, self._after = pattern.name[: number.start()], pattern.name[number.end() :]
        self._num_digits = int(number[1] or 0)
        self._repeats_frames = repeats_frames

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing to do: every file is finished by itself."""

    def write(self, item: Item) -> None:
        """Write a frame; packets have no place in pictures.

        Raises:
            OutputMediaError: the encoder failed or the disk is full.
        """
        if not isinstance(item, Frame):
            return
        self.has_transparency = self.has_transparency or item.is_transparent
        for _ in range(item.duration if self._repeats_frames else 1):
            number = str(self.num_frames + 1).zfill(self._num_digits)
            with PartialFile(self.pattern.with_name(self._before + number + self._after)) as output:
                write_still(item, output)
                output.commit()
            self.num_frames += 1
