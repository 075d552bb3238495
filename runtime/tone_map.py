"""High dynamic range (PQ, HLG) to ordinary video, so that a network trained on photographs sees one.

Light is decoded to nits (candela per square metre), compressed by the brightest channel so that hues stay,
brought from BT.2020 to BT.709 primaries, and encoded for an ordinary display. NumPy does it because the
FFmpeg inside PyAV lacks zscale, without which its own tone mapping cannot be fed.

Where the output is to stay HDR, the network still sees the compressed picture, of which its whole range is
about ordinary light: on PQ's own scale a white stroke would be 10,000 nits. What each pixel was compressed by is
kept and undone afterwards, so that lamps shine through the strokes and white paint is the white of paper.
"""

from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from stylize.runtime.color import Color
from stylize.runtime.frame import WHITE, Frame

__all__ = ["SDR_COLOR", "HdrRestorer", "ToneMapper"]

SDR_COLOR: Final = Color(matrix=1, is_full_range=False, primaries=1, transfer=1)
"""What comes out: BT.709."""

_SDR_WHITE_NITS: Final = 203.0  # reference white, ITU-R BT.2408-7, 2.2
_PEAK_NITS: Final = 1000.0  # the display of BT.2100-2 and the usual grade; brighter light is clipped
_PQ_PEAK_NITS: Final = 10_000.0  # SMPTE ST 2084
_DISPLAY_GAMMA: Final = 2.4  # ITU-R BT.1886
# ITU-R BT.2407-0, 2: linear BT.2020 to linear BT.709
_BT709_FROM_BT2020: Final = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
_BT2020_LUMA: Final = (0.2627, 0.6780, 0.0593)

# Where tables of light in [0, 1] are sampled: evenly in the fourth root, whose steps are about equally visible.
_ROOT_LIGHT: Final = np.linspace(0, 1, 1 << 16) ** 4

Floats = NDArray[np.float64]
ValueT = TypeVar("ValueT", np.float32, np.uint16)


class ToneMapper:
    """Maps frames whose transfer curve is PQ or HLG; holds tables of 65,536 entries, no frame."""

    def __init__(self, transfer: str, *, is_to_be_restored: bool = False) -> None:
        """Prepare the tables.

        Args:
            transfer: `PQ` or `HLG`.
            is_to_be_restored: keep what `HdrRestorer` needs, and the primaries.
        """
        self._is_to_be_restored = is_to_be_restored
        signal = np.minimum(np.arange(1 << 16) / WHITE, 1.0)
        self._is_scene_light = transfer == "HLG"
        self._nits = (hlg_scene(signal) if self._is_scene_light else pq_nits(signal)).astype(np.float32)
        nits = _ROOT_LIGHT * _PQ_PEAK_NITS
        self._gains = (tone_curve(nits) / np.maximum(nits, 1e-9)).astype(np.float32)
        self._gains[0] = 1.0
        self._codes = np.rint(_ROOT_LIGHT ** (1 / _DISPLAY_GAMMA) * WHITE).astype(np.uint16)

    def mapped(self, frame: Frame) -> Frame:
        """A new frame with the same picture in `SDR_COLOR`, or ready to be restored; time is unset, alpha left out."""
        light_CHW = np.stack([self._nits[plane] for plane in frame.planes])
        if self._is_scene_light:
            # BT.2100-2, table 5: the system gamma of 1.2 acts on luminance.
            luminance = sum(np.float32(share) * plane for share, plane in zip(_BT2020_LUMA, light_CHW, strict=True))
            light_CHW *= _PEAK_NITS * np.maximum(luminance, np.float32(1e-6)) ** np.float32(0.2)
        gains = _looked_up(self._gains, light_CHW.max(axis=0) * np.float32(1 / _PQ_PEAK_NITS))
        light_CHW *= gains * np.float32(1 / _SDR_WHITE_NITS)
        if not self._is_to_be_restored:
            light_CHW = np.tensordot(_BT709_FROM_BT2020, light_CHW, axes=1)
        result = Frame.blank(frame.width, frame.height)
        for plane, light in zip(result.planes, light_CHW, strict=True):
            plane[:] = _looked_up(self._codes, light)
        result.hdr_gains = gains if self._is_to_be_restored else None
        return result


class HdrRestorer:
    """Undoes a `ToneMapper`'s work on frames that were stylized meanwhile; holds tables of 65,536 entries, no frame."""

    def __init__(self, transfer: str) -> None:
        """Prepare the tables for `PQ` or `HLG`."""
        self._nits = _SDR_WHITE_NITS * (np.minimum(np.arange(1 << 16) / WHITE, 1.0) ** _DISPLAY_GAMMA)
        self._nits = self._nits.astype(np.float32)
        self._is_scene_light = transfer == "HLG"
        signal = hlg_signal(_ROOT_LIGHT) if self._is_scene_light else pq_signal(_ROOT_LIGHT * _PQ_PEAK_NITS)
        self._codes = np.rint(signal * WHITE).astype(np.uint16)

    def restored(self, frame: Frame) -> Frame:
        """A new frame with the light of `frame` on the curve; one that was not tone-mapped is returned as it is."""
        if frame.hdr_gains is None:
            return frame
        light_CHW = np.stack([self._nits[plane] for plane in frame.planes])
        light_CHW /= frame.hdr_gains
        if self._is_scene_light:
            light_CHW *= np.float32(1 / _PEAK_NITS)
            luminance = sum(np.float32(share) * plane for share, plane in zip(_BT2020_LUMA, light_CHW, strict=True))
            # The system gamma undone: Y ** 1.2 was displayed.
            light_CHW *= np.maximum(luminance, np.float32(1e-9)) ** np.float32(1 / 1.2 - 1)
        else:
            light_CHW *= np.float32(1 / _PQ_PEAK_NITS)
        result = Frame.blank(frame.width, frame.height)
        result.copy_time_from(frame)
        for plane, light in zip(result.planes, light_CHW, strict=True):
            plane[:] = _looked_up(self._codes, light)
        return result


def _looked_up(table: NDArray[ValueT], light: NDArray[np.float32]) -> NDArray[ValueT]:
    """What `table`, sampled at `_ROOT_LIGHT`, has for `light`, which is spoiled; outside [0, 1] as at the ends."""
    np.clip(light, 0, 1, out=light)
    np.sqrt(light, out=light)
    np.sqrt(light, out=light)
    light *= np.float32(len(table) - 1)
    np.rint(light, out=light)
    return table[light.astype(np.uint16)]


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


def hlg_signal(light: Floats) -> Floats:
    """The inverse of `hlg_scene`: ITU-R BT.2100-2, table 5, OETF."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    signal: Floats = np.where(light <= 1 / 12, np.sqrt(3 * light), a * np.log(np.maximum(12 * light - b, 1e-9)) + c)
    return signal


def tone_curve(nits: Floats) -> Floats:
    """Nits on a display of 203 nits for those of one of 1000: ITU-R BT.2390-11, 5.4.1 (EETF), black left alone."""
    peak = pq_signal(np.array(_PEAK_NITS))
    signal = np.minimum(pq_signal(nits) / peak, 1.0)
    target = float(pq_signal(np.array(_SDR_WHITE_NITS)) / peak)
    knee = 1.5 * target - 0.5
    t = np.maximum(signal - knee, 0) / (1 - knee)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * target
    return pq_nits(np.where(signal < knee, signal, spline) * peak)
