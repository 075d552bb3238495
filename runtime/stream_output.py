"""Where a result goes that is no file: standard output, and addresses that receive streams."""

from pathlib import Path
from typing import Final, Self

from stylize.runtime.errors import OutputMediaError
from stylize.runtime.source import PIPE, scheme_of

__all__ = ["StreamOutput"]

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
_UDP_BYTES: Final = "1316"  # seven packets of a transport stream: the most that an Ethernet frame holds


class StreamOutput:
    """Takes what a file would; what is written is gone, so nothing is left to name, check or remove."""

    def __init__(self, target: str) -> None:
        """Prepare for `-` or an address such as `rtmp://host/app/key`.

        Raises:
            OutputMediaError: an address of another kind.
        """
        self.target = target
        self.is_pipe = target == PIPE
        self.is_worth_keeping = False
        """As for a file; means nothing here."""
        scheme = PIPE if self.is_pipe else scheme_of(target)
        if scheme not in _CONTAINERS:
            known = ", ".join(f"{name}://" for name in _CONTAINERS if name != PIPE)
            raise OutputMediaError(
                target, f"{scheme}:// cannot be written: the FFmpeg inside PyAV sends to {known}; a file or - go too"
            )
        self.container = _CONTAINERS[scheme]
        """FFmpeg's name of what it should hold."""
        self.address = "pipe:1" if self.is_pipe else target
        """What FFmpeg opens."""
        if scheme == "udp" and "pkt_size=" not in target:
            self.address += f"{'&' if '?' in target else '?'}pkt_size={_UDP_BYTES}"

    @staticmethod
    def is_meant_by(target: str | Path) -> bool:
        """Whether `target` is no file."""
        return str(target) == PIPE or bool(scheme_of(target))

    def commit(self) -> None:
        """Nothing to do."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to do."""
