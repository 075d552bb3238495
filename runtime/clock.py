"""The time of each decoded picture."""

import time
from fractions import Fraction
from typing import Final

import av
from av.packet import Packet
from av.stream import Stream

__all__ = ["Arrivals", "Clock", "Continuity"]

_MAX_GAP_SECONDS: Final = 10  # as FFmpeg's dts_delta_threshold


class Clock:
    """Gives each frame its source time; where that is missing or runs backward, the nearest possible one."""

    def __init__(self, time_base: Fraction, frame_rate: Fraction) -> None:
        self.num_repaired = 0
        self._time_base = time_base
        self._usual_duration = max(1, round(1 / (frame_rate * time_base)))
        self._first_pts: int | None = None
        self._last_pts = self._end = 0
        self._has_started = False

    @property
    def span_seconds(self) -> float:
        """From the start of the first frame to the end of the last."""
        return float((self._end - (self._first_pts or 0)) * self._time_base)

    def set_first(self, pts: int) -> None:
        """Count the span from `pts` on, for pictures read from the middle of a file."""
        self._first_pts = pts

    def time_of(self, picture: av.VideoFrame) -> tuple[int, int]:
        """The (pts, duration) of the next picture, whose own time base a filter may have changed."""
        scale = (picture.time_base or self._time_base) / self._time_base
        # A container that stores no presentation times (AVI) still has decoding times.
        ticks = picture.pts if picture.pts is not None else picture.dts
        pts = self._end if ticks is None else round(ticks * scale)
        earliest = self._last_pts + 1 if self._has_started else pts
        self.num_repaired += picture.pts is None or pts < earliest
        pts = max(pts, earliest)
        duration = round(picture.duration * scale) or self._usual_duration
        if self._first_pts is None:
            self._first_pts = pts
        self._has_started = True
        self._last_pts, self._end = pts, pts + duration
        return pts, duration


class Continuity:
    """Joins the times of a live stream where they jump, as they do when its sender starts anew."""

    def __init__(self) -> None:
        self.num_jumps = 0
        self._offset = Fraction(0)
        self._last: dict[int, Fraction] = {}

    def mend(self, packet: "Packet[Stream]") -> None:
        """Move the times of `packet`, which follows those before it, by what all streams have jumped so far."""
        ticks = packet.dts if packet.dts is not None else packet.pts
        if ticks is None:
            return
        seconds, last = ticks * packet.time_base + self._offset, self._last.get(packet.stream.index)
        if last is not None and abs(seconds - last) > _MAX_GAP_SECONDS:
            self.num_jumps += 1
            self._offset += last - seconds
            seconds = last
        self._last[packet.stream.index] = seconds
        shift = round(self._offset / packet.time_base)
        if shift:
            packet.pts = packet.pts + shift if packet.pts is not None else None
            packet.dts = packet.dts + shift if packet.dts is not None else None


class Arrivals:
    """When the packets of a source come: the time of live frames that have no other."""

    def __init__(self) -> None:
        self.last = 0.0
        """When the last packet came, by `time.perf_counter`."""
        self._opened = time.perf_counter()
        self._last_ms = -1

    def note(self) -> None:
        """A packet has come."""
        self.last = time.perf_counter()

    def ticks(self, time_base: Fraction) -> int:
        """How long after opening the last packet came, in ticks of `time_base`; later at each call.

        In whole milliseconds, all different: Matroska and FLV know no shorter time.
        """
        self._last_ms = max(round((self.last - self._opened) * 1000), self._last_ms + 1)
        return round(self._last_ms / (1000 * time_base))
