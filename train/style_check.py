"""Which style pictures train badly, told before an hour is spent on them.

The thresholds lie between seven paintings that train well and pictures that do not, all with the short
side at 512 px or less: paintings have 0 to 14 % of flat blocks and a correlation of 0.32 to 0.59; two flat colours, a
gradient and a blurred painting have 79 to 100 % of flat blocks; a painting under noise of 16 % of the
range has a correlation of 0.10, noise alone -0.03.
"""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["StyleFacts", "style_facts", "style_warnings"]

_BLOCK_PX = 16  # about a brush stroke
_FLAT = 0.015  # standard deviation below which a block shows nothing, about 4 of 255
_MOST_FLAT = 0.5
_LEAST_CORRELATION = 0.2
_LEAST_NOISE = 0.025  # of the range; fainter noise is not learned
_SHORT_SIDE_PX = 512  # what the thresholds were measured at
_LEAST_SIDE_PX = 200  # thumbnails hold no strokes


class StyleFacts(NamedTuple):
    """What decides whether a picture has a texture that can be learned."""

    flat_share: float
    """Share of 16x16 blocks that show next to nothing."""
    noise: float
    """Standard deviation of pixel noise, of the range; strokes count too."""
    fine_correlation: float
    """Of the finest detail with itself a pixel further: strokes go on, noise does not."""


def style_facts(picture_HW3: NDArray[np.uint8]) -> StyleFacts:
    """Measure a picture.

    Args:
        picture_HW3: uint8 RGB of any size.
    """
    height, width = picture_HW3.shape[:2]
    scale = min(_SHORT_SIDE_PX / min(height, width), 1.0)  # enlarging would make strokes of the noise
    size = (max(round(width * scale), _BLOCK_PX), max(round(height * scale), _BLOCK_PX))
    resized = cv2.resize(picture_HW3, size, interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(resized, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    # Immerkaer, "Fast noise variance estimation" (CVIU 1996): a mask that straight edges and slopes do not reach.
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    noise = float(np.sqrt(np.pi / 2) / 6 * np.abs(cv2.filter2D(grey, -1, mask)).mean())
    rows, columns = (side // _BLOCK_PX for side in grey.shape)
    blocks = grey[: rows * _BLOCK_PX, : columns * _BLOCK_PX].reshape(rows, _BLOCK_PX, columns, _BLOCK_PX)
    fine = grey - cv2.GaussianBlur(grey, (0, 0), 1.0)
    correlation = float((fine[:, 1:] * fine[:, :-1]).mean() / max(float(fine.var()), 1e-12))
    return StyleFacts(float((blocks.std(axis=(1, 3)) < _FLAT).mean()), noise, correlation)


def style_warnings(picture_HW3: NDArray[np.uint8]) -> list[str]:
    """What speaks against a style picture, in plain words with the way out; empty for most.

    Args:
        picture_HW3: uint8 RGB of any size.
    """
    warnings = []
    height, width = picture_HW3.shape[:2]
    if min(height, width) < _LEAST_SIDE_PX:
        warnings.append(
            f"is small ({width}x{height}): enlarged, it has no fine strokes; find one of {_SHORT_SIDE_PX} px or more"
        )
    facts = style_facts(picture_HW3)
    if facts.flat_share > _MOST_FLAT:
        warnings.append(
            f"has little texture: {facts.flat_share:.0%} of it is flat, so little but its colours can be learned; "
            "crop it to where the strokes are"
        )
    elif facts.fine_correlation < _LEAST_CORRELATION and facts.noise > _LEAST_NOISE:
        warnings.append(
            f"is noisy: {facts.noise:.1%} of the range changes from pixel to pixel, and the network will paint that; "
            "use a cleaner scan, or lower style_size_px"
        )
    return warnings
