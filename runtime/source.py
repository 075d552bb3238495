"""Opens whatever a user names as the input."""

from pathlib import Path
from typing import Final

import av
from av.container import InputContainer

from stylize.runtime.errors import InputMediaError

__all__ = ["open_source"]

_TIMEOUT_SECONDS: Final = (10.0, 30.0)  # open, read: a dead network source must not hang


def open_source(source: str | Path) -> InputContainer:
    """Open a path, or an address FFmpeg can read (`https://...`, `rtsp://...`).

    Raises:
        InputMediaError: missing, unreadable or not media.
    """
    address = str(source)
    is_local = isinstance(source, Path) or "://" not in address
    # An absolute path cannot be mistaken for a protocol, however many colons its name has.
    name = str(Path(address).absolute()) if is_local else address
    # A picture called `scan%03d.png` is a file, not a pattern.
    options = {"pattern_type": "none"} if is_local and "%" in name else {}
    try:
        if is_local and Path(name).is_dir():
            raise InputMediaError(source, "is a folder, expected a video or a picture")
        return av.open(name, options=options, metadata_errors="replace", timeout=None if is_local else _TIMEOUT_SECONDS)
    except av.FileNotFoundError as error:
        raise InputMediaError(source, "no such file") from error
    except av.InvalidDataError as error:
        raise InputMediaError(source, "is not a video or picture, or its header is damaged") from error
    except (av.FFmpegError, OSError) as error:
        raise InputMediaError(source, f"cannot be opened: {error.strerror}") from error
