"""Opens whatever a user names as the input: a file, an address, a pipe, or a sequence of pictures."""

import re
from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Final

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer

from stylize.runtime.errors import InputMediaError
from stylize.runtime.still import STILL_SUFFIXES

__all__ = ["PIPE", "Source", "has_sought", "local_files", "number_pattern", "open_source", "pipe_hint"]

PIPE: Final = "-"
"""The name of standard input and output."""

_TIMEOUT_SECONDS: Final = (10.0, 30.0)  # open, read: a dead network source must not hang
# Where seeking by the container's index finds the key frame before a time.
_INDEXED_FORMATS: Final = frozenset({"mov", "mp4", "matroska", "webm"})
_NUMBER: Final = re.compile(r"%0?(\d*)d")
_MICROSECONDS: Final = 1_000_000


@dataclass(frozen=True)
class Source:
    """An opened input."""

    container: InputContainer
    notes: list[str] = field(default_factory=list)
    """How the input was read, one sentence each."""


def number_pattern(path: str | Path) -> re.Match[str] | None:
    """The `%d` or `%04d` in a file's name, None when there is none or more than one."""
    found = list(_NUMBER.finditer(Path(path).name))
    return found[0] if len(found) == 1 else None


def open_source(source: str | Path, *, picture_rate: Fraction, hwaccel: HWAccel | None = None) -> Source:
    """Open the input named `source`.

    Args:
        source: a path, an address FFmpeg can read (`https://...`, `rtsp://...`), `-` for standard input,
            a folder of pictures, or numbered pictures such as `frames/%04d.png`.
        picture_rate: pictures per second, where the source is a folder or numbered pictures.
        hwaccel: decodes videos, None to do it on the CPU.

    Raises:
        InputMediaError: missing, unreadable or not media.
    """
    address = str(source)
    is_pipe = address == PIPE
    is_local = isinstance(source, Path) or "://" not in address
    # An absolute path cannot be mistaken for a protocol, however many colons its name has.
    name = "pipe:0" if is_pipe else str(Path(address).absolute()) if is_local else address
    try:
        if is_local and not is_pipe:
            pictures, notes = _pictures(Path(name), source)
            if pictures:
                notes.append(f"{len(pictures)} pictures are shown at {float(picture_rate):g} per second")
                return Source(_open_list(pictures, picture_rate), notes)
        # A picture called `scan%03d.png` is a file, not a pattern.
        options = {"pattern_type": "none"} if is_local and "%" in name else {}
        timeout = None if is_local else _TIMEOUT_SECONDS
        return Source(av.open(name, options=options, metadata_errors="replace", timeout=timeout, hwaccel=hwaccel))
    except av.FileNotFoundError as error:
        raise InputMediaError(source, "no such file") from error
    except av.InvalidDataError as error:
        raise InputMediaError(
            source, f"is not a video or picture, or its header is damaged{pipe_hint(source)}"
        ) from error
    except (av.FFmpegError, OSError) as error:
        raise InputMediaError(source, f"cannot be opened: {error.strerror}") from error


def has_sought(container: InputContainer, seconds: Fraction) -> bool:
    """Go to a key frame before `seconds`; False, and the container as it was, where none can be found exactly."""
    origin = Fraction(container.start_time or 0, av.time_base)
    if seconds <= origin or _INDEXED_FORMATS.isdisjoint(container.format.name.split(",")):
        return False
    try:
        container.seek(int(seconds * av.time_base))
    except av.FFmpegError:
        return False  # decoding from the front instead gives the same frames, later
    return True


def local_files(source: str | Path) -> list[Path]:
    """The files that `source` stands for: itself, or the pictures; none for a pipe or an address.

    Raises:
        InputMediaError: a folder without pictures, or no picture of that name.
    """
    if str(source) == PIPE or (isinstance(source, str) and "://" in source):
        return []
    path = Path(source).absolute()
    return _pictures(path, source)[0] or [path]


def pipe_hint(source: str | Path) -> str:
    """What to add to a message about an input that could not be read."""
    return "; an MP4 with its index at the end cannot come through a pipe" if str(source) == PIPE else ""


def _pictures(path: Path, source: str | Path) -> tuple[list[Path], list[str]]:
    """The pictures a folder or a numbered name stands for, in order, with notes; none for a single file."""
    notes: list[str] = []
    if path.is_dir():
        files = [file for file in path.iterdir() if file.suffix.lower() in STILL_SUFFIXES and file.is_file()]
        if not files:
            raise InputMediaError(source, "is a folder without pictures, expected a video or pictures")
        # One list of pictures has one decoder.
        suffix, num_files = Counter(file.suffix.lower() for file in files).most_common(1)[0]
        if num_files < len(files):
            notes.append(f"{len(files) - num_files} pictures that are not {suffix} are left out")
        return sorted((file for file in files if file.suffix.lower() == suffix), key=_natural_key), notes
    number = number_pattern(path)
    if number is None or path.exists():
        return [], notes
    if not path.parent.is_dir():
        raise InputMediaError(source, f"no such folder: {path.parent}")
    digits = rf"\d{{{number[1]},}}" if number[1] else r"\d+"
    name = re.compile(re.escape(path.name[: number.start()]) + f"({digits})" + re.escape(path.name[number.end() :]))
    found = {int(match[1]): file for file in path.parent.iterdir() if (match := name.fullmatch(file.name))}
    if not found:
        raise InputMediaError(source, "no file has a name of this form")
    num_missing = max(found) - min(found) + 1 - len(found)
    if num_missing:
        notes.append(f"{num_missing} numbers between {min(found)} and {max(found)} are missing: shown without a gap")
    return [found[index] for index in sorted(found)], notes


def _natural_key(path: Path) -> list[tuple[int, str]]:
    """Sorts `frame2` before `frame10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", path.name)]


def _open_list(pictures: list[Path], rate: Fraction) -> InputContainer:
    """Open pictures one after the other as one video, through FFmpeg's concat demuxer."""
    lines = ["ffconcat version 1.0"]
    for index, picture in enumerate(pictures):
        quoted = str(picture).replace("'", r"'\''")
        # The difference of rounded times, so that rounding to microseconds does not add up.
        begin, end = (round(count * _MICROSECONDS / rate) for count in (index, index + 1))
        lines += [f"file '{quoted}'", f"option framerate {rate}", f"duration {end - begin}us"]
    listing = BytesIO("\n".join(lines).encode())
    return av.open(listing, "r", format="concat", options={"safe": "0"})
