"""Containers out, those that keep the times of frames, and what goes wrong in writing."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

import av
from av.container import OutputContainer
from av.format import Flags

from stylize.runtime.errors import OptionError, OutputMediaError

__all__ = ["open_container", "reported"]

_USE: Final = "use .mp4, .mkv, .mov or .webm"
# Their muxers count frames, or round times to the frame rate, whatever the frames say.
_FORMATS_WITHOUT_TIMES: Final = {"asf", "avi", "ogg", "ogv", "yuv4mpegpipe"}


def open_container(file: str | BinaryIO, *, name: str | None, target: str | Path) -> OutputContainer:
    """Open a container to write to.

    Args:
        file: what FFmpeg opens; its suffix names the container where `name` does not.
        name: FFmpeg's name of the container.
        target: the output as asked for, for messages.

    Raises:
        OptionError: there is no container of that name.
        OutputMediaError: nor one of that suffix, or it keeps no times.
    """
    try:
        container = av.open(file, "w", format=name)
    except ValueError as error:
        if name is not None:
            raise OptionError(f"--format {name}: no such container; use mp4, matroska, mov, webm or mpegts") from error
        suffix = Path(target).suffix
        problem = f"no container has the suffix {suffix}; {_USE}"
        if not suffix:
            problem = f"its name has no suffix to tell the container; {_USE}, or {target}/%04d.png for pictures"
        raise OutputMediaError(target, problem) from error
    keeps_no_times = Flags.no_timestamps in Flags(container.format.flags)
    if keeps_no_times or container.format.name in _FORMATS_WITHOUT_TIMES:
        container.close()
        raise OutputMediaError(target, f"{container.format.name} keeps no frame times; {_USE}")
    return container


@contextmanager
def reported(target: str | Path, what: str = "") -> Iterator[None]:
    """Turn what FFmpeg or the disk raise into our error, which names the output as asked for and begins with `what`."""
    try:
        yield
    except OutputMediaError:
        raise
    except (av.FFmpegError, OSError) as error:
        raise OutputMediaError(target, what + (error.strerror or str(error))) from error
