"""What YUV code values mean, and the way to RGB and back.

Numbers for matrix, primaries and transfer are those of ITU-T H.273 (tables 2 to 4), which FFmpeg uses
unchanged. swscale does the arithmetic; `tests/test_runtime_color.py` holds it against a NumPy reference.
"""

from dataclasses import dataclass
from typing import Final

import av
import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from stylize.runtime.frame import ALPHA_PIX_FMT, PIX_FMT, WHITE, Frame, Plane

__all__ = ["LUMA_WEIGHTS_BT709", "Color", "ColorConverter", "color_from_picture"]

_UNSPECIFIED: Final = 2  # H.273 code, the same in all three tables
_BT709: Final = 1
_BT601_625: Final = 5
_BT601_525: Final = 6

# H.273 MatrixCoefficients -> swscale's table number (libswscale/swscale.h, SWS_CS_*).
_SWSCALE_MATRIX: Final = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
_MATRIX_NAMES: Final = {1: "BT.709", 4: "FCC", 5: "BT.601", 6: "BT.601", 7: "SMPTE 240M", 9: "BT.2020"}

# H.273 MatrixCoefficients -> Kr and Kb (table 4).
_KR_KB: Final = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
LUMA_WEIGHTS_BT709: Final = (0.2126, 0.7152, 0.0722)
"""Shares of red, green and blue in luma."""

_MAX: Final = 2**16 - 1
_HDR_TRANSFERS: Final = {16: "PQ", 18: "HLG"}

# Full chroma interpolation and accurate rounding keep an identity network within 2 code values; the
# default flags are off by up to 3 everywhere and replicate chroma instead of interpolating it.
_SCALER: Final = (
    Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)


@dataclass(frozen=True, kw_only=True)
class Color:
    """How the code values of a stream stand for colours."""

    matrix: int
    """H.273 MatrixCoefficients, always one swscale knows."""
    is_full_range: bool
    """Whether black and white are 0 and 255 (of 8 bits) instead of 16 and 235."""
    primaries: int = _UNSPECIFIED
    """H.273 ColourPrimaries, kept as tagged."""
    transfer: int = _UNSPECIFIED
    """H.273 TransferCharacteristics, kept as tagged."""
    guess: str | None = None
    """What the source left unsaid and how it was read, in words; None when everything was tagged."""

    @property
    def range(self) -> ColorRange:
        """The range as FFmpeg's enum."""
        return ColorRange.JPEG if self.is_full_range else ColorRange.MPEG

    @property
    def luma_weights(self) -> tuple[float, float, float]:
        """Shares of red, green and blue in luma, by the matrix."""
        kr, kb = _KR_KB[self.matrix]
        return kr, 1 - kr - kb, kb

    @property
    def hdr(self) -> str | None:
        """Name of the high-dynamic-range curve, None for ordinary video."""
        return _HDR_TRANSFERS.get(self.transfer)

    @property
    def description(self) -> str:
        """For example `BT.709 limited`."""
        return f"{_MATRIX_NAMES[self.matrix]} {'full' if self.is_full_range else 'limited'}"


def color_from_picture(picture: av.VideoFrame) -> Color:
    """Read the tags of a decoded picture and fill what is missing by the usual rule of players.

    Untagged YUV is BT.709 from 1280 x 720 upward, BT.601 below, and limited range unless its pixel
    format says otherwise. RGB pictures have no matrix; theirs is the one their video should get.
    """
    name = picture.format.name
    if _is_rgb(picture.format):
        return Color(matrix=_BT709, is_full_range=False, primaries=_BT709, transfer=_BT709)
    # Grey is defined as full range by FFmpeg (libswscale, `handle_jpeg`), as are the old yuvj formats.
    is_full_range = picture.color_range == ColorRange.JPEG or (
        picture.color_range != ColorRange.MPEG and name.startswith(("yuvj", "gray", "ya", "mono"))
    )
    matrix, guess = picture.colorspace, None
    if matrix not in _SWSCALE_MATRIX:
        is_large = picture.width >= 1280 or picture.height >= 720
        was = "no colour matrix is tagged" if matrix == _UNSPECIFIED else f"colour matrix {matrix} is not supported"
        matrix = _BT709 if is_large else _BT601_625 if picture.height == 576 else _BT601_525
        guess = f"{was}: read as {_MATRIX_NAMES[matrix]}, as usual for {picture.width}x{picture.height}"
    return Color(
        matrix=matrix,
        is_full_range=is_full_range,
        primaries=picture.color_primaries,
        transfer=picture.color_trc,
        guess=guess,
    )


def _is_rgb(pix_fmt: av.VideoFormat) -> bool:
    return pix_fmt.is_rgb or pix_fmt.has_palette


def _full_range_excess(pix_fmt: av.VideoFormat) -> float:
    """How much too bright swscale reads full range of more than 8 bits: it takes 1023 for 255.75, not 255."""
    bits = max(component.bits for component in pix_fmt.components)
    return (2**bits - 1) / (255 * 2 ** (bits - 8)) if bits > 8 else 1.0


def _opaque(pix_fmt: av.VideoFormat) -> int:
    """What swscale makes of opaque pixels: it spreads alpha of packed RGB over 16 bits, and shifts that of others."""
    planes = {component.plane for component in pix_fmt.components}
    bits: int = max(component.bits for component in pix_fmt.components)
    if pix_fmt.has_palette or (pix_fmt.is_rgb and len(planes) == 1):
        return _MAX
    return ((1 << bits) - 1) << (16 - bits)


def _spread(frame: Frame, *, with_colors: bool) -> Frame:
    """A copy of which opaque, and white, are the highest value, as swscale takes them for more than 8 bits."""
    copy = Frame.blank(frame.width, frame.height, has_alpha=frame.alpha is not None)
    for target, source in zip(copy.planes, frame.planes, strict=True):
        target[:] = source
        _scale(target, _MAX / WHITE if with_colors else 1.0)
    if copy.alpha is not None and frame.alpha is not None:
        copy.alpha[:] = frame.alpha
        _scale(copy.alpha, _MAX / WHITE)
    return copy


def _scale(plane: Plane, factor: float) -> None:
    """Multiply, rounded to nearest."""
    if factor != 1.0:
        plane[:] = np.minimum(np.rint(plane * np.float32(factor)), _MAX)


class ColorConverter:
    """Turns decoded pictures into frames and frames into pictures to encode.

    Passive and not thread-safe: it keeps the scaler's tables for the last size and format.
    """

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def frame_from_picture(self, picture: av.VideoFrame, *, color: Color, width: int, height: int) -> Frame:
        """Convert any picture FFmpeg decodes; it is scaled when it is not `width` x `height` pixels."""
        has_alpha = any(component.is_alpha for component in picture.format.components) or picture.format.has_palette
        converted = self._reformatter.reformat(
            picture,
            width,
            height,
            format=ALPHA_PIX_FMT if has_alpha else PIX_FMT,
            src_colorspace=_SWSCALE_MATRIX[color.matrix],
            src_color_range=ColorRange.JPEG if _is_rgb(picture.format) else color.range,
            dst_color_range=ColorRange.JPEG,
            interpolation=_SCALER,
            threads=1,
        )
        if converted is picture:
            picture.make_writable()
        frame = Frame(converted)
        is_rgb = _is_rgb(picture.format)
        excess = _full_range_excess(picture.format) if is_rgb or color.is_full_range else 1.0
        if excess != 1.0:
            for plane in frame.planes:
                np.multiply(plane, np.float32(1 / excess), out=plane, casting="unsafe")
        if frame.alpha is not None:
            _scale(frame.alpha, WHITE / _opaque(picture.format))
        return frame

    def picture_from_frame(self, frame: Frame, *, color: Color, pix_fmt: str) -> av.VideoFrame:
        """Convert a frame to `pix_fmt`; time and colour tags are set on the result."""
        target = av.VideoFormat(pix_fmt)
        is_rgb = _is_rgb(target)
        is_deep = any(component.bits > 8 for component in target.components)
        source = _spread(frame, with_colors=is_rgb) if is_deep and (is_rgb or frame.alpha is not None) else frame
        picture = self._reformatter.reformat(
            source.picture,
            format=pix_fmt,
            dst_colorspace=_SWSCALE_MATRIX[color.matrix],
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.JPEG if is_rgb else color.range,
            interpolation=_SCALER,
            threads=1,
        )
        if not is_rgb:
            picture.colorspace = color.matrix
            picture.color_range = color.range
        picture.color_primaries = color.primaries
        picture.color_trc = color.transfer
        picture.pts, picture.duration, picture.time_base = frame.picture.pts, frame.duration, frame.time_base
        return picture

    def resized_frame(self, frame: Frame, *, width: int, height: int) -> Frame:
        """A copy of `frame` scaled to `width` x `height` pixels."""
        resized = self._reformatter.reformat(frame.picture, width, height, interpolation=_SCALER, threads=1)
        if resized is frame.picture:
            raise ValueError(f"the frame already is {width}x{height}")
        return Frame(resized)
