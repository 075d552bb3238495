"""Files that are there whole, or as they were before."""

import os
from pathlib import Path

__all__ = ["check_writable", "write_whole"]


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write beside the file and rename: a crash or a full disk leaves what was there before.

    Raises:
        OSError: the folder is missing or read-only, or the disk is full; its `filename` is `path`.
    """
    temporary = _beside(path)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Find out before hours of work.

    Raises:
        OSError: no file can be made there; its `filename` is `path`.
    """
    temporary = _beside(path)
    try:
        temporary.touch()
        temporary.unlink(missing_ok=True)  # another process of this training may look too
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")
