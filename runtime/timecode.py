"""The clock that editors read, `10:00:00:00`, of a part of a video or at another rate."""

import re
from fractions import Fraction
from typing import Final

__all__ = ["moved_timecode"]

_TIMECODE: Final = re.compile(r"(\d{2}):(\d{2}):(\d{2})([:;.])(\d{2,3})")
_HOURS: Final = 24
# Of each minute but every tenth, drop frame counting leaves out the first numbers: 2 at 29.97, 4 at 59.94 frames per
# second (SMPTE ST 12-1, 5.2.2).
_DROPS_PER_SECOND: Final = Fraction(2, 30)


def moved_timecode(text: str, *, by_seconds: Fraction, rate: Fraction, new_rate: Fraction) -> str | None:
    """The timecode of the frame shown `by_seconds` after the one of `text`.

    Args:
        text: hours, minutes, seconds and frames; `;` before the last where numbers are dropped.
        by_seconds: 0 or more.
        rate: frames per second that `text` counts.
        new_rate: frames per second that the result counts.

    Returns:
        None where `text` is none.
    """
    match = _TIMECODE.fullmatch(text)
    if match is None:
        return None
    hours, minutes, seconds, frames = (int(match[group]) for group in (1, 2, 3, 5))
    is_dropping = match[4] != ":"
    minutes += 60 * hours
    frames += (60 * minutes + seconds) * round(rate)
    if is_dropping:
        frames -= round(_DROPS_PER_SECOND * round(rate)) * (minutes - minutes // 10)
    frames = round((frames / rate + by_seconds) * new_rate)
    # FFmpeg knows no dropping at rates that are no multiple of 30.
    is_dropping = is_dropping and round(new_rate) % 30 == 0
    if is_dropping:
        frames = _numbered(frames, drops=round(_DROPS_PER_SECOND * round(new_rate)), rate=round(new_rate))
    seconds, frames = divmod(frames, round(new_rate))
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours % _HOURS:02}:{minutes:02}:{seconds:02}{';' if is_dropping else ':'}{frames:02}"


def _numbered(frames: int, *, drops: int, rate: int) -> int:
    """The number of a frame of which `frames` come before, with those that drop frame counting leaves out."""
    per_minute = 60 * rate - drops
    tens, rest = divmod(frames, 9 * per_minute + 60 * rate)  # the first of ten minutes is whole
    return frames + drops * (9 * tens + max(0, (rest - drops) // per_minute))
