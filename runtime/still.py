"""Picture files out."""

from fractions import Fraction
from typing import Final

import av

from stylize.runtime.color import Color, ColorConverter
from stylize.runtime.container import reported
from stylize.runtime.errors import OptionError
from stylize.runtime.frame import Frame
from stylize.runtime.partial_file import PartialFile

__all__ = ["STILL_SUFFIXES", "still_description", "write_still"]

# Suffix -> encoder, pixel formats without and with alpha, options. Quantizer 1 is JPEG's finest here;
# chroma is not subsampled there because strokes are coloured edges. WebP's default of 75 shows in strokes.
_STILL_CODECS: Final[dict[str, tuple[str, str, str | None, dict[str, str]]]] = {
    ".png": ("png", "rgb24", "rgba", {}),
    ".jpg": ("mjpeg", "yuvj444p", None, {"qmin": "1", "qmax": "1"}),
    ".jpeg": ("mjpeg", "yuvj444p", None, {"qmin": "1", "qmax": "1"}),
    ".webp": ("libwebp", "yuv420p", "yuva420p", {"quality": "95"}),
    ".bmp": ("bmp", "bgr24", None, {}),
    ".tif": ("tiff", "rgb24", "rgba", {}),
    ".tiff": ("tiff", "rgb24", "rgba", {}),
}
STILL_SUFFIXES: Final = frozenset(_STILL_CODECS)

# JFIF (ITU-T T.871, 6) is full-range BT.601, WebP (RFC 6386, 9.2) limited-range BT.601.
_JPEG_COLOR: Final = Color(matrix=6, is_full_range=True)
_WEBP_COLOR: Final = Color(matrix=6, is_full_range=False)


def still_description(suffix: str, source_pix_fmt: str, *, is_transparent: bool) -> tuple[str, list[str]]:
    """Encoder and pixel format of pictures with that suffix, and what they lose of the source, in sentences."""
    codec, opaque_pix_fmt, alpha_pix_fmt, _ = _STILL_CODECS[suffix.lower()]
    source = av.VideoFormat(source_pix_fmt)
    has_alpha = any(part.is_alpha for part in source.components)
    bits = max(part.bits for part in source.components)
    pix_fmt = alpha_pix_fmt if (has_alpha or source.has_palette) and alpha_pix_fmt is not None else opaque_pix_fmt
    notes = [f"transparency is lost: {suffix} is written without"] if is_transparent and alpha_pix_fmt is None else []
    if bits > 8:
        notes.append(f"{bits}-bit source ({source_pix_fmt}) written with 8 bits ({pix_fmt})")
    return f"{codec}, {pix_fmt}", notes


def write_still(frame: Frame, output: PartialFile) -> None:
    """Encode `frame` as the picture its suffix names, keeping transparency where the format has it.

    Raises:
        OptionError: the suffix is no picture's.
        OutputMediaError: the encoder failed or the disk is full.
    """
    suffix = output.target.suffix.lower()
    if suffix not in _STILL_CODECS:
        raise OptionError(f"{output.target}: not a picture's suffix; use {', '.join(sorted(STILL_SUFFIXES))}")
    codec, opaque_pix_fmt, alpha_pix_fmt, options = _STILL_CODECS[suffix]
    pix_fmt = alpha_pix_fmt if alpha_pix_fmt is not None and frame.alpha is not None else opaque_pix_fmt
    color = _JPEG_COLOR if codec == "mjpeg" else _WEBP_COLOR
    picture = ColorConverter().picture_from_frame(frame, color=color, pix_fmt=pix_fmt)
    picture.pict_type = 0
    with reported(output.target):
        output.path.write_bytes(_encoded(picture, codec=codec, pix_fmt=pix_fmt, options=options))


def _encoded(picture: av.VideoFrame, *, codec: str, pix_fmt: str, options: dict[str, str]) -> bytes:
    context = av.VideoCodecContext.create(codec, "w")
    if not isinstance(context, av.VideoCodecContext):
        raise OptionError(f"{codec} is not a picture encoder")
    context.width, context.height, context.pix_fmt = picture.width, picture.height, pix_fmt
    context.time_base = picture.time_base or Fraction(1, 25)  # a picture has no rate; encoders want one
    context.options = options
    if not av.VideoFormat(pix_fmt).is_rgb:
        context.color_range, context.colorspace = picture.color_range, picture.colorspace
    return b"".join(bytes(packet) for packet in [*context.encode(picture), *context.encode(None)])
