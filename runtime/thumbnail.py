"""A picture in a terminal."""

from pathlib import Path

import numpy as np
from rich.color import Color
from rich.style import Style
from rich.text import Text

from stylize.runtime.decode import Decoder
from stylize.runtime.frame import Frame

__all__ = ["thumbnail"]


def thumbnail(picture: Path, *, num_columns: int = 32) -> Text:
    """The picture in half blocks: each character shows two pixels, one above the other.

    Args:
        picture: any file the decoder reads; at least `num_columns` pixels wide.
        num_columns: characters of a line.

    Raises:
        InputMediaError: the picture cannot be read.
    """
    with Decoder(picture) as decoder:
        frame = next(item for item in decoder if isinstance(item, Frame))
    size = frame.width // num_columns  # a square of that side becomes one pixel
    num_rows = frame.height // size // 2 * 2
    squares = frame.to_array()[: num_rows * size, : num_columns * size].reshape(num_rows, size, num_columns, size, 3)
    pixels = np.round(squares.mean(axis=(1, 3))).astype(int)
    text = Text()
    for upper, lower in zip(pixels[::2], pixels[1::2], strict=True):
        for top, bottom in zip(upper, lower, strict=True):
            text.append("▀", Style(color=Color.from_rgb(*top), bgcolor=Color.from_rgb(*bottom)))
        text.append("\n")
    return text
