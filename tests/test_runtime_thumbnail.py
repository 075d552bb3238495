"""Pictures in a terminal."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.color import ColorTriplet

from stylize.runtime import builtin_styles
from stylize.runtime.artifact import BuiltinStyle
from stylize.runtime.thumbnail import thumbnail


def test_each_character_is_two_pixels(tmp_path: Path) -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:2, :2] = (200, 10, 30)  # RGB, above left
    pixels[2:, 4:] = (0, 90, 250)  # below right
    cv2.imwrite(str(tmp_path / "a.png"), pixels[..., ::-1])
    text = thumbnail(tmp_path / "a.png", num_columns=3)
    assert text.plain == "▀▀▀\n"
    first, _, last = (span.style for span in text.spans)
    assert first.color.triplet == ColorTriplet(200, 10, 30) and first.bgcolor.triplet == ColorTriplet(0, 0, 0)  # type: ignore[union-attr]
    assert last.color.triplet == ColorTriplet(0, 0, 0) and last.bgcolor.triplet == ColorTriplet(0, 90, 250)  # type: ignore[union-attr]


@pytest.mark.parametrize("style", builtin_styles(), ids=lambda style: style.name)
def test_every_builtin_style_has_one(style: BuiltinStyle) -> None:
    assert thumbnail(style.thumbnail).plain == ("▀" * 32 + "\n") * 9
