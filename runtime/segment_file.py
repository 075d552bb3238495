"""Encoded packets of one part of a video in a file that is there whole or not at all, power loss included."""

import json
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self, cast
from zlib import crc32

from av.packet import Packet, PktSideDataT
from av.video.stream import VideoStream

from stylize.runtime.errors import OptionError
from stylize.runtime.partial_file import PartialFile

__all__ = ["SegmentFile", "SegmentRecord", "read_packets", "read_record"]

_MAGIC: Final = b"stylize segment 2\n"
_PACKET: Final = struct.Struct("<qqBI")  # pts, duration, is key, bytes
_TAIL: Final = struct.Struct("<II")  # bytes of the record, CRC-32 of all before the tail
# Side data without which the muxer writes another picture: VP9's alpha, a changed header, a changed palette.
# All other kinds are statistics of the encoder.
_NEEDED_SIDE_DATA: Final[tuple[PktSideDataT, ...]] = ("matroska_block_additional", "new_extradata", "palette")


@dataclass(frozen=True, kw_only=True)
class SegmentRecord:
    """What stands at the end of a segment."""

    times: tuple[int, ...]
    """When its pictures are shown, in order, in ticks of the video's time base."""
    num_reordered: int
    """How many packets the decoding order is ahead of the order of showing, see `join.join_segments`."""
    last_pts: int | None
    """Time of its last frame, None for an empty one."""
    is_clean: bool
    """Whether everything up to its end was decoded without damage and with times of its own."""
    is_last: bool
    """Whether the source ends with it."""
    encoder: str
    """FFmpeg's name of what encoded it."""
    pix_fmt: str
    """Pixel format of what was encoded."""
    header: str
    """See `VideoEncoder.header`; alike in all segments that are joined."""
    notes: tuple[str, ...] = ()
    """What there is to say about its frames, and what the decoder had to say when the source had ended."""
    problems: tuple[str, ...] = ()
    """Damage met by then."""


class SegmentFile:
    """Writes one segment; a context manager: left without `commit`, the file is removed."""

    def __init__(self, path: Path) -> None:
        """Open a temporary file for the segment `path`."""
        self._partial = PartialFile(path)
        self._file: IO[bytes] = self._partial.path.open("wb")
        self._checksum = 0
        self._write(_MAGIC)

    def add(self, packet: "Packet[VideoStream]") -> None:
        """Append a packet.

        Raises:
            OptionError: it cannot be stored without loss.
        """
        if any(packet.has_sidedata(kind) for kind in _NEEDED_SIDE_DATA):
            raise OptionError("--resume cannot store what this encoder writes beside its pictures: drop the option")
        if packet.pts is None:
            raise OptionError("--resume cannot store what this encoder writes, as it has no times: drop the option")
        self._write(_PACKET.pack(packet.pts, packet.duration or 0, packet.is_keyframe, packet.size))
        self._write(bytes(packet))

    def commit(self, record: SegmentRecord) -> None:
        """Append `record`, wait until all is on the disk, and give the file its name."""
        text = json.dumps(asdict(record)).encode()
        self._write(text)
        self._file.write(_TAIL.pack(len(text), self._checksum))
        self._file.close()
        self._partial.commit(is_durable=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(OSError):  # what is removed need not be written
            self._file.close()
        self._partial.__exit__(kind, error, traceback)

    def _write(self, content: bytes) -> None:
        self._checksum = crc32(content, self._checksum)
        self._file.write(content)


def read_record(path: Path) -> SegmentRecord:
    """The record of the segment `path`, whose packets are not looked at.

    Raises:
        ValueError: it is not a whole segment.
    """
    with path.open("rb") as file:
        return _record_of(file)[0]


def read_packets(path: Path) -> "Iterator[Packet[VideoStream]]":
    """The packets of the segment `path` in the order they were added, without decoding times.

    Raises:
        ValueError: it is not a whole segment, or damaged.
    """
    with path.open("rb") as file:
        _, end, checksum = _record_of(file)
        file.seek(0)
        found = crc32(file.read(len(_MAGIC)))
        while file.tell() < end:
            header = file.read(_PACKET.size)
            pts, duration, is_key, num_bytes = _PACKET.unpack(header)
            content = file.read(num_bytes)
            found = crc32(content, crc32(header, found))
            packet = cast("Packet[VideoStream]", Packet(content))
            packet.pts, packet.duration, packet.is_keyframe = pts, duration, bool(is_key)
            yield packet
        if crc32(file.read(path.stat().st_size - _TAIL.size - end), found) != checksum:
            raise ValueError("its checksum differs")


def _record_of(file: IO[bytes]) -> tuple[SegmentRecord, int, int]:
    """The record, where it starts, and the checksum of everything before the tail."""
    try:
        is_segment = file.read(len(_MAGIC)) == _MAGIC
        file.seek(-_TAIL.size, os.SEEK_END)
        num_bytes, checksum = _TAIL.unpack(file.read())
        start = file.seek(-_TAIL.size - num_bytes, os.SEEK_END)
        fields = json.loads(file.read(num_bytes))
        lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
        record = SegmentRecord(**(fields | lists))
    except (OSError, struct.error, TypeError, AttributeError) as error:
        raise ValueError("it does not end as one") from error
    if not is_segment:
        raise ValueError("it does not begin as one")
    return record, start, checksum
