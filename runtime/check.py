"""Compares a finished file with what was meant to be in it."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.packet import Packet
from av.stream import Stream

from stylize.runtime.errors import OutputMismatchError

__all__ = ["Track", "check_tracks", "is_shown", "tracks_of_file"]

# Matroska stores milliseconds: 2 ms covers the rounding of both ends.
_SPAN_TOLERANCE = Fraction(2, 1000)
# Containers without negative times cut or move the 21 ms by which AAC starts early. Sound 45 ms early is
# where viewers begin to notice (ITU-R BT.1359-1, figure 2).
_SYNC_TOLERANCE = Fraction(45, 1000)
_GAP_BYTES = 2  # the length, 0, of a text that is none (3GPP TS 26.245, 5.17)


@dataclass
class Track:
    """Size and place in time of one stream."""

    kind: str
    num_packets: int = 0
    start: Fraction = Fraction(0)
    """Seconds; time of the first packet shown."""
    last: Fraction = Fraction(0)
    """Seconds; time of the last packet shown."""
    tick: Fraction = Fraction(0)
    """Seconds; the coarsest time base of what was added."""

    def add(self, pts: int, time_base: Fraction) -> None:
        """Count one frame or packet shown at `pts`, in ticks of `time_base` seconds."""
        time = pts * time_base
        self.tick = max(self.tick, time_base)
        self.start = min(self.start, time) if self.num_packets else time
        self.last = max(self.last, time) if self.num_packets else time
        self.num_packets += 1


def tracks_of_file(path: Path) -> list[Track]:
    """Read the tracks of a file by walking its packets, without decoding; only what players show."""
    with av.open(str(path.absolute())) as container:
        tracks = [Track(stream.type) for stream in container.streams]
        for packet in container.demux():
            if is_shown(packet) and not _is_of_muxer(packet.stream):
                tracks[packet.stream.index].add(packet.pts or 0, packet.time_base)
    return tracks


def is_shown(packet: "Packet[Stream]") -> bool:
    """Whether a player shows what `packet` holds: not an MP4's gap between subtitles, or what its edit list hides."""
    if packet.pts is None or not packet.size:
        return False
    if packet.stream.type == "subtitle":
        return packet.size > _GAP_BYTES
    return not (packet.is_discard and packet.stream.type == "video")


def _is_of_muxer(stream: Stream) -> bool:
    """Whether the muxer made this track: of the tag `timecode`, or as the still in front of an AVIF that moves."""
    is_moving_avif = stream.container.metadata.get("major_brand") == "avis" and len(stream.container.streams.video) > 1
    return (stream.type == "data" and "timecode" in stream.metadata) or (is_moving_avif and stream.index == 0)


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
    want_start, have_start = _video_start(written), _video_start(found)
    for index, (want, have) in enumerate(zip(written, found, strict=True)):
        name = f"{path}: {want.kind} track {index}"
        # Where subtitles overlap MP4 cuts them into pieces.
        if want.num_packets != have.num_packets and want.kind in {"video", "audio"}:
            raise OutputMismatchError(f"{name} has {have.num_packets} packets, {want.num_packets} were written")
        if abs((have.start - have_start) - (want.start - want_start)) > _SYNC_TOLERANCE:
            raise OutputMismatchError(
                f"{name} starts {float(have.start - have_start):+.3f} s from the video instead of "
                f"{float(want.start - want_start):+.3f} s"
            )
        if want.kind == "video" and abs((have.last - have.start) - (want.last - want.start)) > max(
            _SPAN_TOLERANCE, have.tick if have.tick > want.tick else 0
        ):
            raise OutputMismatchError(
                f"{name} shows its last frame after {float(have.last - have.start):.3f} s instead of "
                f"{float(want.last - want.start):.3f} s"
            )


def _video_start(tracks: list[Track]) -> Fraction:
    return next((track.start for track in tracks if track.kind == "video"), Fraction(0))
