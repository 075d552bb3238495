"""Which part of a video is rendered, at what rate and size."""

import re
from fractions import Fraction
from typing import Final

__all__ = ["seconds_from_text"]

_TIME: Final = re.compile(r"(?:(?:(\d+):)?(\d{1,2}):)?(\d+(?:\.\d*)?|\.\d+)")


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
