"""Which part of a video is rendered, at what rate and size."""

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from itertools import chain
from math import floor
from typing import Any, Final, TypeAlias

from av.packet import Packet
from av.stream import Stream

from stylize.runtime.errors import OptionError
from stylize.runtime.frame import TimedPicture

__all__ = ["Cut", "Hdr", "Item", "Selection", "behind", "resampled", "seconds_from_text"]

Item: TypeAlias = "TimedPicture | Packet[Stream]"
"""What a decoder yields: a picture to stylize, or a packet of another stream to copy."""

_TIME: Final = re.compile(r"(?:(?:(\d+):)?(\d{1,2}):)?(\d+(?:\.\d*)?|\.\d+)")
_MAX_SIDE_PX: Final = 1 << 14  # libx264 and SVT-AV1 take no more than 16384
_MAX_RATE_HZ: Final = 1000  # Matroska's clock


class Hdr(StrEnum):
    """What becomes of high dynamic range."""

    SDR = "sdr"
    """Ordinary video, which every screen shows."""
    KEEP = "keep"
    """The same curve, primaries and brightness as the source."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The part, rate and size asked for; the defaults leave everything as it is."""

    start_seconds: Fraction = Fraction(0)
    """First moment to render, counted from the start of the file."""
    end_seconds: Fraction | None = None
    """First moment no longer rendered, None for the end of the file."""
    frame_rate: Fraction | None = None
    """Frames per second of the output at even distances, None to keep the source's times."""
    width: int | None = None
    """Pixels; None keeps the proportions to `height`, or the size when that is None too."""
    height: int | None = None
    """Pixels; None keeps the proportions to `width`."""

    picture_rate: Fraction = Fraction(25)
    """Pictures per second of a source that is a folder or numbered pictures; 25 is FFmpeg's own default."""

    hdr: Hdr = Hdr.SDR
    """What becomes of high dynamic range; ordinary video stays as it is."""
    input_options: tuple[tuple[str, str], ...] = ()
    """FFmpeg's options of what is read, such as a camera's `framerate`, by its names."""

    def __post_init__(self) -> None:
        if self.start_seconds < 0:
            raise OptionError(f"--start {float(self.start_seconds):g} is before the start of the file")
        if self.end_seconds is not None and self.end_seconds <= self.start_seconds:
            raise OptionError(
                f"--end {float(self.end_seconds):g} s must be after --start {float(self.start_seconds):g} s"
            )
        for option, rate in (("--fps", self.frame_rate), ("--input-fps", self.picture_rate)):
            if rate is not None and not 0 < rate <= _MAX_RATE_HZ:
                raise OptionError(f"{option} {float(rate):g} is outside 0..{_MAX_RATE_HZ}, 0 excluded")
        for side in (self.width, self.height):
            if side is not None and not 1 <= side <= _MAX_SIDE_PX:
                raise OptionError(f"--scale: {side} pixels are outside 1..{_MAX_SIDE_PX}")

    @property
    def is_cut(self) -> bool:
        """Whether a part of the file is left out."""
        return bool(self.start_seconds) or self.end_seconds is not None

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Width and height in pixels of a picture of `width` x `height`; a side left open becomes even."""
        if self.width is None and self.height is None:
            return width, height
        if self.height is None and self.width is not None:
            return self.width, _even(Fraction(self.width * height, width))
        if self.width is None and self.height is not None:
            return _even(Fraction(self.height * width, height)), self.height
        return self.width or width, self.height or height

    def notes_on(self, width: int, height: int, *, rate: Fraction) -> list[str]:
        """What changes for pictures of `width` x `height` pixels that come at `rate` per second."""
        size, notes = self.size_of(width, height), []
        if size != (width, height):
            notes.append(f"scaled from {width}x{height} to {size[0]}x{size[1]}")
        if self.frame_rate is not None:
            notes.append(
                f"resampled from {float(rate):g} to {float(self.frame_rate):g} frames per second: "
                "frames are repeated or left out"
            )
        return notes

    def sample_aspect_ratio_of(self, ratio: Fraction, *, width: int, height: int) -> Fraction:
        """The ratio that keeps the picture's shape when both sides are given, else `ratio` itself."""
        if self.width is None or self.height is None:
            return ratio
        kept = ratio * Fraction(width * self.height, height * self.width)
        # Within a pixel of the source's proportions nothing was meant to change.
        return ratio if abs(width * self.height - height * self.width) <= max(width, self.width) else kept

    def seconds_of(self, duration_seconds: float | None) -> float | None:
        """Length of what is left of `duration_seconds`; None when that depends on an unknown end."""
        if duration_seconds is None and self.end_seconds is None:
            return None
        ends = [float(end) for end in (duration_seconds, self.end_seconds) if end is not None]
        return max(0.0, min(ends) - float(self.start_seconds))


class Cut:
    """Applies the start and end of a selection to the streams of one file; used from front to back."""

    def __init__(
        self, selection: Selection, *, origin: Fraction, waits_for: Iterable[int], starts_at_zero: bool = False
    ) -> None:
        """Prepare for a file.

        Args:
            selection: start and end.
            origin: the file's start in seconds, to which both are relative.
            waits_for: indexes of the streams that must be past the end before reading stops.
            starts_at_zero: whether the part does so where nothing is cut off at its start, too.
        """
        self.first = origin + selection.start_seconds
        """Start of the part in the file's own seconds."""
        self._end = None if selection.end_seconds is None else origin + selection.end_seconds
        # Without a start to move to zero, times stay as they are.
        self._has_start = bool(selection.start_seconds)
        self._shift = self.first if self._has_start or starts_at_zero else Fraction(0)
        self._unfinished = set(waits_for)

    def has(self, seconds: Fraction) -> bool:
        """Whether what is shown at `seconds` belongs to the part."""
        if self._has_start and seconds < self.first:
            return False
        return self._end is None or seconds < self._end

    def source_seconds(self, seconds: Fraction) -> Fraction:
        """The file's own time for one of the part."""
        return seconds + self._shift

    def shift_ticks(self, time_base: Fraction) -> int:
        """What to subtract from times in ticks of `time_base` seconds."""
        return round(self._shift / time_base)

    def seconds_until_end(self, stream: Stream) -> float:
        """From the start of `stream` to the end of the part, which must have one."""
        assert self._end is not None, "asked only for a selection with an end"
        start = Fraction(0)
        if stream.start_time is not None and stream.time_base is not None:
            start = stream.start_time * stream.time_base
        return float(self._end - start)

    def is_over(self, packet: "Packet[Stream]") -> bool:
        """Whether everything from `packet` on lies behind the end in all streams waited for."""
        if self.is_behind(packet):
            self._unfinished.discard(packet.stream.index)
        return self._end is not None and not self._unfinished

    def is_behind(self, packet: "Packet[Stream]") -> bool:
        """Whether `packet`, and with it all that follows in its stream, lies behind the end."""
        return self._end is not None and packet.dts is not None and packet.dts * packet.time_base >= self._end

    def move(self, packet: "Packet[Stream]") -> bool:
        """Shift the times of a packet; False for one outside. Subtitles that reach into the part are kept."""
        ticks = packet.pts if packet.pts is not None else packet.dts
        if ticks is None:
            return not self._has_start
        is_inside = self.has(ticks * packet.time_base)
        shift = self.shift_ticks(packet.time_base)
        if not is_inside and packet.stream.type == "subtitle" and packet.duration:
            hidden = shift - ticks
            if not 0 < hidden < packet.duration:
                return False
            packet.duration -= hidden
            packet.pts = packet.dts = 0
            return True
        if packet.pts is not None:
            packet.pts -= shift
        if packet.dts is not None:
            packet.dts -= shift
        return is_inside

    def chapters_of(self, chapters: Iterable[Any]) -> list[Any]:
        """Chapters in PyAV's form, shifted and cut; without those wholly outside."""
        kept: list[Any] = []
        for chapter in chapters:
            time_base = chapter["time_base"]
            shift = self.shift_ticks(time_base)
            end = chapter["end"] - shift
            if self._end is not None:
                end = min(end, round(self._end / time_base) - shift)
            start = max(chapter["start"] - shift, 0) if shift else chapter["start"]
            if start < end:
                kept.append({**chapter, "start": start, "end": end})
        return kept


def resampled(items: Iterable[Item], rate: Fraction) -> Iterator[Item]:
    """Put frames on an even grid of `rate` per second, by their times; packets pass.

    A frame moves to the nearest tick and is shown until the next one: its duration becomes the number of
    ticks, 1 / `rate` seconds each. Where two fall on one tick the later is kept.
    """
    waiting: TimedPicture | None = None
    has_any = False
    for item in items:
        if not isinstance(item, TimedPicture):
            yield item
            continue
        tick = floor(item.pts * item.time_base * rate + Fraction(1, 2))
        length = floor((item.pts + item.duration) * item.time_base * rate + Fraction(1, 2)) - tick
        item.set_time(tick, duration=length, time_base=1 / rate)
        if waiting is not None and tick > waiting.pts:
            waiting.set_time(waiting.pts, duration=tick - waiting.pts, time_base=1 / rate)
            has_any = True
            yield waiting
        waiting = item
    if waiting is not None and (waiting.duration > 0 or not has_any):
        waiting.set_time(waiting.pts, duration=max(1, waiting.duration), time_base=1 / rate)
        yield waiting


def behind(last: Fraction, items: Iterator[Item], *, num_again: int) -> Iterator[Item] | None:
    """What comes after the frame shown at `last` seconds; None where no frame is shown just then.

    The latest `num_again` frames up to and with that one come first, as far as there are; packets before it never.
    """
    again: deque[Item] = deque(maxlen=num_again)
    for frame in items:
        if not isinstance(frame, TimedPicture):
            continue
        again.append(frame)
        seconds = frame.pts * frame.time_base
        if seconds >= last:
            return chain(again, items) if seconds == last else None
    return None


def seconds_from_text(text: str) -> Fraction:
    """Read `90`, `1.5`, `2:30` or `1:02:30.5`, exactly.

    Raises:
        ValueError: it is of another form.
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a time: write seconds (12.5) or hh:mm:ss (1:02:30.5)")
    hours, minutes, seconds = match.groups()
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + Fraction(seconds)


def _even(side: Fraction) -> int:
    return max(2, 2 * floor(side / 2 + Fraction(1, 2)))
