"""The time of each decoded picture."""

from fractions import Fraction

import av

__all__ = ["Clock"]


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

    @property
    def has_started(self) -> bool:
        """Whether any picture came."""
        return self._has_started

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
