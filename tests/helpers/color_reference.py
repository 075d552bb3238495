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
