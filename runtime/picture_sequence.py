"""Numbered picture files out."""

from contextlib import suppress
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
    """Writes each frame to a file of its own, numbered from 1; each appears when it is complete.

    The folder is made with the first one where it is missing. The folder it lies in must be there: it may be that of
    a disk which is not.
    """

    def __init__(self, pattern: Path, *, repeats_frames: bool) -> None:
        """Prepare to write `pattern`, a name with `%d` or `%04d` in it.

        Args:
            pattern: the files to write; older ones of the same number are replaced.
            repeats_frames: write each frame once for every tick of its duration.

        Raises:
            OutputMediaError: there is no place for the folder.
            ValueError: there is no number in the pattern.
        """
        number = number_pattern(pattern)
        if number is None:
            raise ValueError(f"{pattern} has no single %d in its name")
        folder = pattern.parent
        self._makes_folder = not folder.exists()
        if not (folder.parent if self._makes_folder else folder).is_dir():
            raise OutputMediaError(pattern, f"no such folder: {folder.parent if self._makes_folder else folder}")
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
        """Every file is finished by itself; a folder made for them is not left empty."""
        if self._makes_folder and self.num_frames == 0:
            with suppress(OSError):
                self.pattern.parent.rmdir()

    def write(self, item: Item) -> None:
        """Write a frame; packets have no place in pictures.

        Raises:
            OutputMediaError: the encoder failed or the disk is full.
        """
        if not isinstance(item, Frame):
            return
        if self._makes_folder and self.num_frames == 0:
            try:
                self.pattern.parent.mkdir(exist_ok=True)
            except OSError as error:
                raise OutputMediaError(self.pattern, f"its folder cannot be made: {error.strerror}") from error
        self.has_transparency = self.has_transparency or item.is_transparent
        for _ in range(item.duration if self._repeats_frames else 1):
            number = str(self.num_frames + 1).zfill(self._num_digits)
            with PartialFile(self.pattern.with_name(self._before + number + self._after)) as output:
                write_still(item, output)
                output.commit()
            self.num_frames += 1
