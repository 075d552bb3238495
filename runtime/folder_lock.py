"""A lock on a folder that cannot be left behind."""

import errno
import logging
import sys
from pathlib import Path
from typing import BinaryIO

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["FolderLock"]

logger = logging.getLogger(__name__)

# What file systems without locks say, some network ones among them.
_HAS_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})


class FolderLock:
    """Held by one opener at a time; the system takes it back when a process ends, by kill -9 too."""

    def __init__(self, folder: Path) -> None:
        """Lock `folder`, by a file in it.

        Raises:
            BlockingIOError: somebody else holds the lock.
            OSError: the file cannot be written.
        """
        self._file = (folder / "lock").open("wb")
        try:
            _lock(self._file)
        except OSError as error:
            if error.errno not in _HAS_NO_LOCKS:
                self._file.close()
                raise
            logger.debug("%s: not locked: %s", folder, error)

    def close(self) -> None:
        """Give the lock back; calling it again is harmless."""
        self._file.close()


def _lock(file: BinaryIO) -> None:
    """Lock an open file.

    Raises:
        BlockingIOError: it is locked.
    """
    if sys.platform == "win32":
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(error.errno, error.strerror) from error
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
