"""YUV <-> RGB from the definition, slowly: what the fast path is held against.

Source: ITU-T H.273 (2021), 8.3, equations 39 to 44 for the codes, table 4 for Kr and Kb.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# H.273 MatrixCoefficients -> (Kr, Kb)
LUMA_WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}


def yuv_from_rgb(rgb_HW3: Floats, *, matrix: int, is_full_range: bool, bits: int = 8) -> Floats:
    """Code values (H, W, 3), unrounded, of RGB in [0, 1]."""
    kr, kb = LUMA_WEIGHTS[matrix]
    red, green, blue = np.moveaxis(rgb_HW3, -1, 0)
    y = kr * red + (1 - kr - kb) * green + kb * blue
    cb, cr = (blue - y) / (2 * (1 - kb)), (red - y) / (2 * (1 - kr))
    scale, middle = 2 ** (bits - 8), 2 ** (bits - 1)
    if is_full_range:
        peak = 2**bits - 1
        return np.stack([y * peak, cb * peak + middle, cr * peak + middle], -1)
    return np.stack([(219 * y + 16) * scale, 224 * scale * cb + middle, 224 * scale * cr + middle], -1)


def rgb_from_yuv(yuv_HW3: Floats, *, matrix: int, is_full_range: bool, bits: int = 8) -> Floats:
    """RGB, unclipped, of code values (H, W, 3)."""
    kr, kb = LUMA_WEIGHTS[matrix]
    scale, middle = 2 ** (bits - 8), 2 ** (bits - 1)
    y, cb, cr = np.moveaxis(yuv_HW3, -1, 0)
    if is_full_range:
        peak = 2**bits - 1
        y, cb, cr = y / peak, (cb - middle) / peak, (cr - middle) / peak
    else:
        y, cb, cr = (y / scale - 16) / 219, (cb - middle) / (224 * scale), (cr - middle) / (224 * scale)
    red, blue = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    green = (y - kr * red - kb * blue) / (1 - kr - kb)
    return np.stack([red, green, blue], -1)


def upsampled(plane: Floats, *, width: int, height: int) -> Floats:
    """A chroma plane at full size by linear interpolation, samples in the middle of their pixels."""
    rows, columns = plane.shape
    x = (np.arange(width) + 0.5) * columns / width - 0.5
    y = (np.arange(height) + 0.5) * rows / height - 0.5
    wide = np.stack([np.interp(x, np.arange(columns), row) for row in plane])
    return np.stack([np.interp(y, np.arange(rows), column) for column in wide.T], -1)


def sited_upsampled(plane: Floats, *, width: int, height: int, site: str) -> Floats:
    """A 4:2:0 chroma plane at full size by linear interpolation between samples where `site` puts them."""
    shift_x, shift_y = _SITE_SHIFTS[site]
    rows, columns = plane.shape
    x = (np.arange(width) - shift_x) / 2
    y = (np.arange(height) - shift_y) / 2
    wide = np.stack([np.interp(x, np.arange(columns), row) for row in plane])
    return np.stack([np.interp(y, np.arange(rows), column) for column in wide.T], -1)


def sited_downsampled(plane: Floats, *, site: str) -> Floats:
    """A plane of even sides at half its size: the mean of two where chroma lies between them, else 1 2 1."""
    for axis, shift in ((1, _SITE_SHIFTS[site][0]), (0, _SITE_SHIFTS[site][1])):
        lines = np.moveaxis(plane, axis, 0)
        before = np.concatenate([lines[:1], lines[1:-1:2]])
        even, odd = lines[::2], lines[1::2]
        plane = np.moveaxis((even + odd) / 2 if shift else (before + 2 * even + odd) / 4, 0, axis)
    return plane


# Where chroma lies right of and below the even pixel, in pixels: H.273, figure 1
_SITE_SHIFTS = {"left": (0.0, 0.5), "center": (0.5, 0.5), "top_left": (0.0, 0.0)}
