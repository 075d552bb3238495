"""The time of each decoded picture."""

import time
from fractions import Fraction
from typing import Final

import av
from av.packet import Packet
from av.stream import Stream

__all__ = ["Arrivals", "Clock", "Continuity"]

# As FFmpeg's own program has them: its dts_delta_threshold, and what it lets decoding times run back.
_MAX_GAP_SECONDS: Final = 10
_MAX_BACKWARD_SECONDS: Final = Fraction(1, 10)


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
    """Joins times where they jump: where a live sender starts anew, where transport streams were put together."""

    def __init__(self) -> None:
        self._offsets = [Fraction(0)]  # of each section between jumps, in seconds
        self._sections: dict[int, int] = {}  # in which each stream is
        self._last: dict[int, tuple[Fraction, Fraction]] = {}  # start and end of its last packet

    @property
    def num_jumps(self) -> int:
        """How often the times have jumped so far."""
        return len(self._offsets) - 1

    def mend(self, packet: "Packet[Stream]") -> bool:
        """Move the times of `packet`, which follows those before it, so that they go on where its section begins.

        Returns:
            False for sound that two sections have at the same time, of which the first one's is to be heard.
        """
        ticks = packet.dts if packet.dts is not None else packet.pts
        if ticks is None:
            return True
        seconds = ticks * packet.time_base
        if packet.stream.type in {"video", "audio"}:
            found = self._offset(packet.stream, seconds, (packet.duration or 0) * packet.time_base)
            if found is None:
                return False
            offset = found
        else:  # these may be far apart
            now = max((last for last, _ in self._last.values()), default=seconds)
            offset = min(self._offsets[-2:], key=lambda offset: abs(seconds + offset - now))
        shift = round(offset / packet.time_base)
        if shift:
            packet.pts = packet.pts + shift if packet.pts is not None else None
            packet.dts = packet.dts + shift if packet.dts is not None else None
        return True

    def _offset(self, stream: Stream, seconds: Fraction, duration: Fraction) -> Fraction | None:
        """What to add to the time of a packet, which begins a section where it does not follow the last.

        None where `mend` is to return False.
        """
        newest = len(self._offsets) - 1
        section = self._sections.get(stream.index, newest)
        start = seconds + self._offsets[section]
        last, end = self._last.get(stream.index, (start, start))
        if not last - _MAX_BACKWARD_SECONDS <= start <= last + _MAX_GAP_SECONDS:
            # Streams cross a jump one after the other, and keep their distance there.
            if section == newest or abs(seconds + self._offsets[newest] - end) > _MAX_GAP_SECONDS:
                self._offsets.append(end - seconds)
            section = len(self._offsets) - 1
            if stream.type == "video":
                self._offsets[section] = max(self._offsets[section], end - seconds)
            start = seconds + self._offsets[section]
            if start < end - duration / 2:
                return None
        self._sections[stream.index] = section
        self._last[stream.index] = start, start + (duration or max(start - last, Fraction(0)))
        return self._offsets[section]


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
