"""High dynamic range (PQ, HLG) to ordinary video, so that a network trained on photographs sees one.

Light is decoded to nits (candela per square metre), compressed by the brightest channel so that hues stay,
brought from BT.2020 to BT.709 primaries, and encoded for an ordinary display. NumPy does it because the
FFmpeg inside PyAV lacks zscale, without which its own tone mapping cannot be fed.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from stylize.runtime.color import Color
from stylize.runtime.frame import WHITE, Frame

__all__ = ["SDR_COLOR", "ToneMapper"]

SDR_COLOR: Final = Color(matrix=1, is_full_range=False, primaries=1, transfer=1)
"""What comes out: BT.709."""

_SDR_WHITE_NITS: Final = 203.0  # reference white, ITU-R BT.2408-7, 2.2
_PEAK_NITS: Final = 1000.0  # the display of BT.2100-2 and the usual grade; brighter light is clipped
_DISPLAY_GAMMA: Final = 2.4  # ITU-R BT.1886
# ITU-R BT.2407-0, 2: linear BT.2020 to linear BT.709
_BT709_FROM_BT2020: Final = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
_BT2020_LUMA: Final = (0.2627, 0.6780, 0.0593)

Floats = NDArray[np.float64]


class ToneMapper:
    """Maps frames whose transfer curve is PQ or HLG; holds tables of 65,536 entries, no frame."""

    def __init__(self, transfer: str) -> None:
        """Prepare the tables.

        Args:
            transfer: `PQ` or `HLG`.
        """
        signal = np.minimum(np.arange(1 << 16) / WHITE, 1.0)
        self._is_scene_light = transfer == "HLG"
        self._nits = (hlg_scene(signal) if self._is_scene_light else pq_nits(signal)).astype(np.float32)
        # The curve is sampled evenly in PQ, where its steps are about equally visible.
        self._curve_nits = pq_nits(np.linspace(0, 1, 1024))
        self._curve_gains = tone_curve(self._curve_nits) / np.maximum(self._curve_nits, 1e-6)
        self._curve_gains[0] = 1.0

    def mapped(self, frame: Frame) -> Frame:
        """A new frame with the same picture in `SDR_COLOR`; time is unset, alpha and HDR metadata are left out."""
        light_CHW = np.stack([self._nits[plane] for plane in frame.planes])
        if self._is_scene_light:
            # BT.2100-2, table 5: the system gamma of 1.2 acts on luminance.
            luminance = sum(np.float32(share) * plane for share, plane in zip(_BT2020_LUMA, light_CHW, strict=True))
            light_CHW *= _PEAK_NITS * np.maximum(luminance, np.float32(1e-6)) ** np.float32(0.2)
        light_CHW *= np.interp(light_CHW.max(axis=0), self._curve_nits, self._curve_gains).astype(np.float32)
        light_CHW = np.tensordot(_BT709_FROM_BT2020, light_CHW, axes=1) * np.float32(1 / _SDR_WHITE_NITS)
        np.clip(light_CHW, 0, 1, out=light_CHW)
        np.power(light_CHW, np.float32(1 / _DISPLAY_GAMMA), out=light_CHW)
        result = Frame.blank(frame.width, frame.height)
        for plane, light in zip(result.planes, light_CHW, strict=True):
            np.multiply(light, np.float32(WHITE), out=plane, casting="unsafe")
        return result


def pq_nits(signal: Floats) -> Floats:
    """Nits of a PQ signal in [0, 1]: SMPTE ST 2084, equation 4.1."""
    root = signal ** (4096 / (2523 * 128))
    light: Floats = np.maximum(root - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * root)
    return 10_000 * light ** (16384 / 2610)


def pq_signal(nits: Floats) -> Floats:
    """The inverse of `pq_nits`: SMPTE ST 2084, equation 5.2."""
    root = (nits / 10_000) ** (2610 / 16384)
    signal: Floats = ((3424 / 4096 + 2413 / 128 * root) / (1 + 2392 / 128 * root)) ** (2523 * 128 / 4096)
    return signal


def hlg_scene(signal: Floats) -> Floats:
    """Scene light in [0, 1] of an HLG signal in [0, 1]: ITU-R BT.2100-2, table 5, inverse OETF."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    light: Floats = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return light


def tone_curve(nits: Floats) -> Floats:
    """Nits on a display of 203 nits for those of one of 1000: ITU-R BT.2390-11, 5.4.1 (EETF), black left alone."""
    peak = pq_signal(np.array(_PEAK_NITS))
    signal = np.minimum(pq_signal(nits) / peak, 1.0)
    target = float(pq_signal(np.array(_SDR_WHITE_NITS)) / peak)
    knee = 1.5 * target - 0.5
    t = np.maximum(signal - knee, 0) / (1 - knee)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * target
    return pq_nits(np.where(signal < knee, signal, spline) * peak)
