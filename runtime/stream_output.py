"""Where a result goes that is no file: pipes, devices, and addresses that receive streams."""

import os
from pathlib import Path
from typing import Final, Self

from stylize.runtime.errors import OutputMediaError
from stylize.runtime.source import PIPE, is_pipe, scheme_of

__all__ = ["RECEIVER_SECONDS", "StreamOutput"]

RECEIVER_SECONDS: Final = 3.0
"""How long a receiver may take nothing before Ctrl-C waits for it no more."""

# FFmpeg's name of the container that receivers of each expect.
_CONTAINERS: Final = {
    PIPE: "matroska",
    "rtmp": "flv",
    "rtmps": "flv",
    "rtp": "rtp_mpegts",
    "rtsp": "rtsp",
    "rtsps": "rtsp",
    "tcp": "mpegts",
    "udp": "mpegts",
}
_CONTAINERS_OF_SUFFIXES: Final = {".mp4": "mp4", ".mov": "mov", ".webm": "webm", ".ts": "mpegts", ".flv": "flv"}
_UDP_BYTES: Final = "1316"  # seven packets of a transport stream: the most that an Ethernet frame holds


class StreamOutput:
    """Takes what a file would; what is written is gone, so nothing is left to name, check or remove.

    A context manager, which holds the pipe or device open.
    """

    def __init__(self, target: str) -> None:
        """Prepare for `-`, a named pipe or device, or an address such as `rtmp://host/app/key`.

        Raises:
            OutputMediaError: an address of another kind, or a pipe that cannot be written.
        """
        self.target = target
        self.is_pipe = is_pipe(target)
        """Whether it is written as fast as it is read, instead of at the speed of the video."""
        self.is_worth_keeping = False
        """As for a file; means nothing here."""
        self._descriptor: int | None = None
        scheme = PIPE if self.is_pipe else scheme_of(target)
        if scheme not in _CONTAINERS:
            known = ", ".join(f"{name}://" for name in _CONTAINERS if name != PIPE)
            raise OutputMediaError(
                target, f"{scheme}:// cannot be written: the FFmpeg inside PyAV sends to {known}; a file or - go too"
            )
        self.container = _CONTAINERS[scheme]
        """FFmpeg's name of what it should hold."""
        self.address = target
        """What FFmpeg opens."""
        if target == PIPE:
            self.address = "pipe:1"
        elif self.is_pipe:
            self.container = _CONTAINERS_OF_SUFFIXES.get(Path(target).suffix.lower(), self.container)
            try:
                self._descriptor = os.open(target, os.O_WRONLY)  # waits for who reads a named pipe
            except OSError as error:
                raise OutputMediaError(target, f"cannot be written: {error.strerror}") from error
            self.address = f"pipe:{self._descriptor}"
        if scheme == "udp" and "pkt_size=" not in target:
            self.address += f"{'&' if '?' in target else '?'}pkt_size={_UDP_BYTES}"

    @staticmethod
    def is_meant_by(target: str | Path) -> bool:
        """Whether `target` is no file."""
        return is_pipe(target) or bool(scheme_of(target))

    def commit(self) -> None:
        """Nothing to do."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Let the reader of a named pipe see the end."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
