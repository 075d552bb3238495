"""Pictures as a result: numbered ones, or a single one."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from stylize.runtime.container import reported
from stylize.runtime.decode import Decoder
from stylize.runtime.errors import OptionError, OutputMediaError
from stylize.runtime.frame import Frame
from stylize.runtime.output import Output, Result
from stylize.runtime.partial_file import PartialFile
from stylize.runtime.selection import Item
from stylize.runtime.source import number_pattern
from stylize.runtime.still import still_description, write_still

__all__ = ["PictureSequence", "SinglePicture"]


class _Pictures(Output):
    """What is left out when a source becomes pictures."""

    def __init__(self, target: Path, decoder: Decoder) -> None:
        super().__init__(decoder)
        self._target = target
        self._is_transparent = False

    def _result(self, *notes: str) -> Result:
        """What is known about the pictures written."""
        decoder = self._decoder
        description, losses = still_description(
            self._target.suffix, decoder.info.pix_fmt, is_transparent=self._is_transparent
        )
        return Result(
            num_frames=self.num_frames,
            size=(decoder.info.width, decoder.info.height),
            encoder=description,
            notes=(*decoder.notes, *losses, *notes),
            problems=tuple(decoder.problems),
        )


class PictureSequence(_Pictures):
    """Writes each frame to a file of its own, numbered from 1; each appears when it is complete.

    The folder is made with the first one where it is missing. The folder it lies in must be there: it may be that of
    a disk which is not.
    """

    def __init__(self, pattern: Path, decoder: Decoder) -> None:
        """Prepare to write `pattern`, a name with `%d` or `%04d` in it; older files of the same number are replaced.

        Raises:
            OutputMediaError: there is no place for the folder.
            ValueError: there is no number in the pattern.
        """
        number = number_pattern(pattern)
        if number is None:
            raise ValueError(f"{pattern} has no single %d in its name")
        super().__init__(pattern, decoder)
        folder = pattern.parent
        self._makes_folder = not folder.exists()
        if not (folder.parent if self._makes_folder else folder).is_dir():
            raise OutputMediaError(pattern, f"no such folder: {folder.parent if self._makes_folder else folder}")
        self._before, self._after = pattern.name[: number.start()], pattern.name[number.end() :]
        self._num_digits = int(number[1] or 0)

    def write(self, item: Item) -> None:
        """Write a frame, once for every tick where frames are resampled; packets have no place in pictures."""
        if not isinstance(item, Frame):
            return
        if self._makes_folder and self.num_frames == 0:
            with reported(self._target, "its folder cannot be made: "):
                self._target.parent.mkdir(exist_ok=True)
        self._is_transparent = self._is_transparent or item.is_transparent
        for _ in range(item.duration if self._decoder.info.is_resampled else 1):
            number = str(self.num_frames + 1).zfill(self._num_digits)
            with PartialFile(self._target.with_name(self._before + number + self._after)) as output:
                write_still(item, output)
                output.commit()
            self.num_frames += 1

    def finish(self) -> Result:
        """Nothing is left to do: every file is finished by itself."""
        others = self._decoder.other_streams
        return self._result(*(f"{other.type} track {other.index} left out: pictures hold none" for other in others))

    def __exit__(self, *_: object) -> None:
        """A folder made for the files is not left empty."""
        if self._makes_folder and self.num_frames == 0:
            with suppress(OSError):
                self._target.parent.rmdir()


class SinglePicture(_Pictures):
    """Writes the one frame of a picture."""

    is_alone = True

    def __init__(self, output: PartialFile, decoder: Decoder) -> None:
        """Write to `output`."""
        super().__init__(output.target, decoder)
        self._output = self._owned.enter_context(output)

    def missing(self) -> Iterator[Item]:
        """The frame.

        Raises:
            OptionError: there are more.
        """
        frames = list(islice((item for item in self._decoder if isinstance(item, Frame)), 2))
        if len(frames) > 1:
            raise OptionError(
                f"{self._decoder.source} is a video, {self._target} can hold one frame: choose .mp4, or %04d.png"
            )
        yield frames.pop()

    def write(self, item: Item) -> None:
        """See `Output`."""
        assert isinstance(item, Frame), "nothing else is missing"
        self._is_transparent = item.is_transparent
        write_still(item, self._output)
        self.num_frames = 1

    def finish(self) -> Result:
        """See `Output`."""
        self._output.commit()
        return self._result()
