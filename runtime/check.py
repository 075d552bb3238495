"""Compares a finished file with what was meant to be in it."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from stylize.runtime.errors import OutputMismatchError

__all__ = ["Track", "check_tracks", "tracks_of_file"]

# Matroska stores milliseconds, MP4 edit lists are exact: 2 ms covers the rounding of both ends.
_START_TOLERANCE = Fraction(2, 1000)


@dataclass
class Track:
    """Size and place in time of one stream."""

    kind: str
    num_packets: int = 0
    start: Fraction | None = None
    """Seconds; None for an empty stream."""
    end: Fraction = Fraction(0)
    """Seconds; end of the last packet."""
    last: Fraction = Fraction(0)
    """Seconds; start of the last packet."""

    def add(self, pts: int, duration: int, time_base: Fraction) -> None:
        """Count one frame or packet at `pts`, both times in ticks of `time_base` seconds."""
        self.num_packets += 1
        start = pts * time_base
        self.start = start if self.start is None else min(self.start, start)
        self.last = max(self.last, start)
        self.end = max(self.end, start + duration * time_base)


def tracks_of_file(path: Path) -> list[Track]:
    """Read the tracks of a file by walking its packets, without decoding."""
    with av.open(str(path.absolute())) as container:
        tracks = [Track(stream.type) for stream in container.streams]
        for packet in container.demux():
            if packet.size and packet.pts is not None:
                tracks[packet.stream.index].add(packet.pts, packet.duration or 0, packet.time_base)
    return tracks


def check_tracks(path: Path, written: list[Track], found: list[Track]) -> None:
    """Compare frame and packet counts, starts relative to each other, and the video's length.

    Args:
        path: the file, for the message.
        written: what was handed to the muxer.
        found: what the finished file holds.

    Raises:
        OutputMismatchError: naming the first difference.
    """
    # Some containers forget a track in which nothing came.
    written, found = ([track for track in tracks if track.num_packets] for tracks in (written, found))
    kinds, found_kinds = [track.kind for track in written], [track.kind for track in found]
    if kinds != found_kinds:
        raise OutputMismatchError(f"{path}: has tracks {found_kinds}, {kinds} were written")
    # A container without negative times moves all tracks together.
    offset = _earliest(found) - _earliest(written)
    for index, (want, have) in enumerate(zip(written, found, strict=True)):
        name = f"{path}: {want.kind} track {index}"
        # MP4 fills the gaps between subtitles with empty ones.
        if want.num_packets != have.num_packets and want.kind in {"video", "audio"}:
            raise OutputMismatchError(f"{name} has {have.num_packets} packets, {want.num_packets} were written")
        if want.start is None or have.start is None:
            continue
        if abs(have.start - offset - want.start) > _START_TOLERANCE:
            raise OutputMismatchError(
                f"{name} starts at {float(have.start - offset):.3f} s instead of {float(want.start):.3f} s"
            )
        if want.kind == "video" and abs(have.last - offset - want.last) > _START_TOLERANCE:
            raise OutputMismatchError(
                f"{name} shows its last frame at {float(have.last - offset):.3f} s instead of {float(want.last):.3f} s"
            )


def _earliest(tracks: list[Track]) -> Fraction:
    return min((track.start for track in tracks if track.start is not None), default=Fraction(0))
