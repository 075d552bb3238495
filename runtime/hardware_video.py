"""The video engines of NVIDIA GPUs through FFmpeg: whether they take a format, and if not, why."""

import ctypes
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import cache
from typing import Final, cast

import av
import av.logging
from av.codec.codec import UnknownCodecError
from av.codec.hwaccel import HWAccel
from av.video.codeccontext import VideoCodecContext

__all__ = ["NVENC_OF", "ffmpeg_reasons", "gpu_refusal", "nvdec", "nvdec_refusal", "nvenc_refusal"]

NVENC_OF: Final = {"libx264": "h264_nvenc", "libx265": "hevc_nvenc", "libsvtav1": "av1_nvenc"}
"""The encoder of the GPU that writes what an encoder of the CPU does."""
_NVDEC_LIBRARY: Final = "nvcuvid.dll" if sys.platform == "win32" else "libnvcuvid.so.1"
_PROBE_SIDE_PX: Final = 256  # above the least any of them takes (145 x 49 for H.264, NVENC programming guide)


def nvdec(gpu: int) -> HWAccel:
    """Decoding on GPU number `gpu`, in its primary context, whose pictures stay on the device.

    A stream that the GPU does not take is decoded on the CPU instead; the pictures say which it was.
    """
    return HWAccel("cuda", device=str(gpu), allow_software_fallback=True, is_hw_owned=True)


@cache
def gpu_refusal(gpu: int) -> str:
    """Why FFmpeg cannot use GPU number `gpu`, in its own words; empty when it can. Asked once."""
    with ffmpeg_reasons() as reasons:
        try:
            nvdec(gpu).create(av.Codec("h264", "r"))
        except (av.FFmpegError, OSError) as error:
            return reasons[0] if reasons else error.strerror or str(error)
        except NotImplementedError:
            return "FFmpeg was built without NVDEC"
    return ""


@cache
def nvdec_refusal(gpu: int) -> str:
    """Why nothing can be decoded on GPU number `gpu`; empty when it can. Asked once."""
    if refusal := gpu_refusal(gpu):
        return refusal
    try:
        ctypes.CDLL(_NVDEC_LIBRARY)
    except OSError:
        return f"{_NVDEC_LIBRARY} is missing; in a container, NVIDIA_DRIVER_CAPABILITIES must name `video`"
    return ""


@cache
def nvenc_refusal(codec: str, pix_fmt: str, gpu: int) -> str:
    """Why GPU number `gpu` cannot encode `pix_fmt` by `codec`, in FFmpeg's words; empty when it can. Asked once."""
    try:
        context = cast(VideoCodecContext, av.CodecContext.create(codec, "w"))
    except UnknownCodecError:
        return f"FFmpeg was built without {codec}"
    context.width = context.height = _PROBE_SIDE_PX
    context.pix_fmt = pix_fmt
    context.time_base, context.framerate = Fraction(1, 25), Fraction(25)
    context.options = {"gpu": str(gpu)}
    with ffmpeg_reasons() as reasons:
        try:
            context.open()
        except (av.FFmpegError, OSError) as error:
            return reasons[0] if reasons else error.strerror or str(error)
    return ""


@contextmanager
def ffmpeg_reasons() -> Iterator[list[str]]:
    """The errors FFmpeg logs meanwhile, one line each, kept from the console; first is what began it."""
    reasons: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            reasons.append(" ".join(record.getMessage().split()))

    package, handler, level = logging.getLogger("libav"), Handler(), av.logging.get_level()
    propagates = package.propagate
    package.addHandler(handler)
    package.propagate = False
    av.logging.set_level(av.logging.ERROR)
    try:
        yield reasons
    finally:
        av.logging.set_level(level)
        package.removeHandler(handler)
        package.propagate = propagates
