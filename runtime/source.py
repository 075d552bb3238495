"""Opens whatever a user names as the input: a file, an address, a pipe, or a sequence of pictures."""

import re
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Final

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer

from stylize.runtime.errors import InputMediaError, OptionError
from stylize.runtime.input_options import doubts
from stylize.runtime.selection import Selection
from stylize.runtime.still import STILL_SUFFIXES

__all__ = [
    "PIPE",
    "Source",
    "has_sought",
    "is_live",
    "is_pipe",
    "local_files",
    "number_pattern",
    "open_source",
    "pipe_hint",
    "scheme_of",
]

PIPE: Final = "-"
"""The name of standard input and output."""

_TIMEOUT_SECONDS: Final = (10.0, 30.0)  # open, read: a dead network source must not hang
_LIVE_TIMEOUT_SECONDS: Final = (10.0, 10.0)  # silence as long as that is the end of a live one
_LISTENING_TIMEOUT_SECONDS: Final = (60.0, 10.0)  # to start the sender
_LIVE_SCHEMES: Final = frozenset({"camera", "rtmp", "rtmps", "rtp", "rtsp", "rtsps", "tcp", "udp"})
# FFmpeg's device, how it names camera N, and what it must be told, by Python's name of the system.
_CAMERAS: Final = {
    "linux": ("v4l2", "/dev/video{}", {}),
    "darwin": ("avfoundation", "{}:none", {"framerate": "30"}),  # its default of 29.97 no camera has
}
_CAMERA: Final = re.compile(r"camera:(\d+)")
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


def scheme_of(address: str | Path) -> str:
    """`rtmp` of `rtmp://host/app`, `camera` of `camera:0`; empty for a file."""
    if isinstance(address, Path):
        return ""
    return "camera" if _CAMERA.fullmatch(address) else address.partition("://")[0] if "://" in address else ""


def is_live(source: str | Path) -> bool:
    """Whether `source` is a camera or an address whose frames come when they are made."""
    return scheme_of(source) in _LIVE_SCHEMES


def is_pipe(name: str | Path) -> bool:
    """Whether what has this name can be read or written only once: `-`, or what is neither file nor folder."""
    path = Path(name)
    return str(name) == PIPE or (not scheme_of(name) and path.exists() and not path.is_file() and not path.is_dir())


def number_pattern(path: str | Path) -> re.Match[str] | None:
    """The `%d` or `%04d` in a file's name, None when there is none or more than one."""
    found = list(_NUMBER.finditer(Path(path).name))
    return found[0] if len(found) == 1 else None


def open_source(
    source: str | Path,
    *,
    picture_rate: Fraction,
    hwaccel: HWAccel | None = None,
    options: Mapping[str, str] | None = None,
) -> Source:
    """Open the input named `source`.

    Args:
        source: a path, an address FFmpeg can read (`https://...`, `rtsp://...`), `-` for standard input,
            `camera:0`, a folder of pictures, or numbered pictures such as `frames/%04d.png`.
        picture_rate: pictures per second, where the source is a folder or numbered pictures.
        hwaccel: decodes videos, None to do it on the CPU.
        options: FFmpeg's, of the container, device or protocol.

    Raises:
        InputMediaError: missing, unreadable or not media.
        OptionError: options for pictures.
    """
    address, scheme, options = str(source), scheme_of(source), dict(options or {})
    is_pipe = address == PIPE
    # An absolute path cannot be mistaken for a protocol, however many colons its name has.
    name = "pipe:0" if is_pipe else address if scheme else str(Path(address).absolute())
    device: str | None = None
    asked = ", ".join(options)
    unchecked = doubts(options)  # for PyAV does not tell which of them FFmpeg took
    notes: list[str] = []
    if scheme == "camera":
        device, name, options = _camera(address, options)
    try:
        if not scheme and not is_pipe:
            pictures, notes = _pictures(Path(name), source)
            if pictures:
                if asked:
                    raise OptionError(f"--input-option {asked}: numbered pictures and folders take none; drop it")
                notes.append(f"{len(pictures)} pictures are shown at {float(picture_rate):g} per second")
                return Source(_open_list(pictures, picture_rate), notes)
            if picture_rate != Selection.picture_rate:
                notes.append("--input-fps is for pictures: this input has a rate of its own, --fps changes it")
            if "%" in name:
                options["pattern_type"] = "none"  # a picture called `scan%03d.png` is a file, not a pattern
        if scheme.startswith("rtsp"):
            options.setdefault("rtsp_flags", "prefer_tcp")  # pictures with holes are of no use to anybody
            if "listen" in options["rtsp_flags"]:
                options.setdefault("listen_timeout", f"{_LISTENING_TIMEOUT_SECONDS[0]:.0f}")  # it refuses its default
        timeout = _TIMEOUT_SECONDS if scheme else None
        if is_live(source):
            waits = {"listen", "listen_timeout"} & options.keys() or scheme in {"udp", "rtp"}
            timeout = _LISTENING_TIMEOUT_SECONDS if waits else _LIVE_TIMEOUT_SECONDS
        return Source(
            av.open(name, format=device, options=options, metadata_errors="replace", timeout=timeout, hwaccel=hwaccel),
            notes + unchecked,
        )
    except av.FileNotFoundError as error:
        raise InputMediaError(source, _missing(scheme, name)) from error
    except av.InvalidDataError as error:
        raise InputMediaError(
            source, f"is not a video or picture, or its header is damaged{pipe_hint(source)}"
        ) from error
    except av.ProtocolNotFoundError as error:
        raise InputMediaError(source, f"the FFmpeg inside PyAV has no {scheme}://") from error
    except av.ExitError as error:
        raise InputMediaError(source, "does not answer") from error
    except (av.FFmpegError, OSError) as error:
        raise InputMediaError(source, f"cannot be opened: {error.strerror}") from error


def _camera(address: str, options: dict[str, str]) -> tuple[str, str, dict[str, str]]:
    """FFmpeg's device, its name of the camera, and the options with those it needs.

    Raises:
        InputMediaError: this system's cameras cannot be read.
    """
    device, name, needed = _CAMERAS.get(sys.platform, ("dshow", "", {}))
    if not name or not any(device in known.split(",") for known in av.formats_available):
        raise InputMediaError(
            address, f"the FFmpeg inside PyAV reads no cameras on {sys.platform}: send it as a stream, such as udp://"
        )
    number = address.partition(":")[2]
    return device, name.format(number), needed | options


def _missing(scheme: str, name: str) -> str:
    if scheme != "camera":
        return "no such file"
    found = sorted(path.name.removeprefix("video") for path in Path("/dev").glob("video*"))
    return f"no such camera ({name}); there is {', '.join(f'camera:{number}' for number in found) or 'none'}"


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
    if is_pipe(source) or scheme_of(source):
        return []
    path = Path(source).absolute()
    return _pictures(path, source)[0] or [path]


def pipe_hint(source: str | Path) -> str:
    """What to add to a message about an input that could not be read."""
    return "; an MP4 with its index at the end cannot come through a pipe" if is_pipe(source) else ""


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
