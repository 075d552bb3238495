"""Frames into packets of one video stream."""

import difflib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Final

import av
import numpy as np
from av.codec.codec import UnknownCodecError
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from stylize.runtime.color import ColorConverter
from stylize.runtime.decode import VideoInfo
from stylize.runtime.device_color import SurfaceLayout
from stylize.runtime.errors import OptionError, OutputMediaError
from stylize.runtime.frame import Frame, TimedPicture
from stylize.runtime.hardware_video import NVENC_OF, gpu_refusal, nvenc_refusal
from stylize.runtime.palette import PaletteFilter
from stylize.runtime.pixel_format import has_alpha, losses, num_bits, suitable_pix_fmt
from stylize.runtime.surface import Surface, is_on_device
from stylize.runtime.tone_map import HdrRestorer

__all__ = ["EncodeOptions", "VideoEncoder"]

_DEFAULT_PIX_FMT: Final = "yuv420p"  # the one every player has
_HDR_PIX_FMT: Final = "yuv420p10le"  # of HDR10 and HLG broadcasts
_ALPHA_CODECS: Final = {"mov": "prores_ks", "matroska": "ffv1", "webm": "libvpx-vp9"}  # by container
_PALETTE_PIX_FMT: Final = "pal8"
_ENCODERS_OF: Final = {"264": ("libx264",), "265": ("libx265",)}
_HDR_BITS: Final = 10  # with 8 the steps of either curve show
# "17 or 18 to be visually lossless or nearly so" (trac.ffmpeg.org/wiki/Encode/H.264); brush strokes are
# detail everywhere, on which x264's default of 23 shows. The preset was chosen by measurement on two stylized
# clips: veryfast at 17 takes a third of the time of x264's own medium at 18, loses 0.2 dB PSNR in luma
# and makes files 6 to 8 % larger.
_DEFAULT_OPTIONS: Final = {
    "libx264": {"crf": "17", "preset": "veryfast"},
    # Of x265 28 looks like x264's 23 (trac.ffmpeg.org/wiki/Encode/H.265), so 22 as 17. It prints past every log.
    "libx265": {"crf": "22", "x265-params": "log-level=error"},
    # As near as x264 at 17 to two stylized clips in luma, by PSNR and SSIM (docs/performance.md). The encoders' own
    # choices lose 3 to 5 dB more.
    "libsvtav1": {"crf": "20"},
    "libvpx-vp9": {"crf": "23"},
    # Constant quality on scales that resemble those of x264, x265 and SVT-AV1; not measured on a GPU yet. Without it
    # all three keep to 2 Mbit/s.
    "h264_nvenc": {"rc": "vbr", "cq": "19"},
    "hevc_nvenc": {"rc": "vbr", "cq": "23"},
    "av1_nvenc": {"rc": "vbr", "cq": "30"},
}
# Over them for who is watching: no frame waits for later ones. A connection holds less than a disk: crf of their own.
_LIVE_OPTIONS: Final = {
    "libx264": {"crf": "23", "tune": "zerolatency"},
    "libx265": {"crf": "28", "tune": "zerolatency"},
    "libsvtav1": {"crf": "35", "svtav1-params": "pred-struct=1"},  # low delay
    "libvpx-vp9": {"crf": "31", "deadline": "realtime", "lag-in-frames": "0"},
    # Key pictures at which one can join: what NVENC makes of one asked for is only a picture without references.
    **{name: {"zerolatency": "1", "delay": "0", "forced-idr": "1"} for name in NVENC_OF.values()},
}
_RATE_OPTIONS: Final = frozenset({"b", "qp"})
_KEY_PICTURE: Final = 1  # AV_PICTURE_TYPE_I
_KEY_DISTANCE_SECONDS: Final = 2  # what streaming services ask for
# What its engine reads of pictures in the GPU's memory, beside the names under which files hold the same.
_NVENC_PIX_FMTS: Final = {"yuv420p": "nv12", "yuv420p10le": "p010le"}
_MAX_GIF_RATE_HZ: Final = 50  # its clock ticks every 1/100 s, and browsers show 1 tick as 10


@dataclass(frozen=True, kw_only=True)
class EncodeOptions:
    """How the video is encoded; None leaves the choice to us or the encoder."""

    codec: str | None = None
    """FFmpeg's encoder name; by default libx264, or what the container needs."""
    crf: float | None = None
    """Constant quality, lower is better; by default 17 for libx264 and the like for x265, SVT-AV1 and VP9, else the
    encoder's own; none where the encoder options have a bit rate (`b`) or a quantizer (`qp`)."""
    preset: str | None = None
    """Speed against size, in the encoder's own words; by default veryfast for libx264, else its own."""
    pix_fmt: str | None = None
    """Pixel format; by default 8-bit 4:2:0, which plays everywhere."""
    container: str | None = None
    """FFmpeg's name of the container; by default the suffix decides, and Matroska goes down a pipe."""
    encoder_options: tuple[tuple[str, str], ...] = ()
    """More options of the encoder, by FFmpeg's names; they go before ours."""
    is_live: bool = False
    """Whether somebody is watching: each frame leaves the encoder at once, and one can join within 2 seconds."""


class VideoEncoder:
    """The encoder behind one video stream of a container, which somebody else muxes; passive."""

    def __init__(
        self,
        container: OutputContainer,
        *,
        info: VideoInfo,
        options: EncodeOptions,
        target: str | Path,
        surface_gpu: int | None = None,
        stays_on_gpu: bool = True,
    ) -> None:
        """Add the stream; starting the container opens the encoder, or the first frame where `is_opened_by_frame`.

        Args:
            container: what will hold the stream; the encoder is set up as it needs.
            info: size, rate and colour of the frames to come.
            options: how to encode.
            target: the file or address as asked for, for messages.
            surface_gpu: the GPU on which surfaces will be finished, None where frames come.
            stays_on_gpu: whether they may come in its memory; False for an encoder that is open before they come.

        Raises:
            OptionError: an unknown codec or pixel format, or an option this codec does not have.
            OutputMediaError: the container cannot hold the codec.
        """
        self.notes: list[str] = []
        """What had to be changed about the picture, one sentence each; complete with the last frame."""
        self._container = container
        self._target = target
        self._info = info
        self._options = options
        self._converter = ColorConverter()
        self._palette: PaletteFilter | None = None
        self._color = info.color
        self._restorer = HdrRestorer(info.color.hdr) if info.color.hdr is not None else None
        self._has_frames = False
        self.lost_alpha = ""
        """That transparency was lost, in a sentence; empty while no frame had any, or where it is kept."""
        self._next_key_seconds = Fraction(0)
        self._surface_gpu, self._stays_on_gpu = surface_gpu, stays_on_gpu
        self.is_opened_by_frame = False
        """Whether pictures may come from a GPU: the first one tells the encoder where they lie."""
        self.stream = self._add_stream()

    @property
    def description(self) -> str:
        """Encoder and pixel format really in use, for example `libx264, yuv420p`."""
        return f"{self.codec}, {self.pix_fmt}"

    @property
    def codec(self) -> str:
        """FFmpeg's name of the encoder in use."""
        return self.stream.codec_context.codec.name

    @property
    def pix_fmt(self) -> str:
        """Pixel format in use."""
        return self._pix_fmt if self._palette is None else _PALETTE_PIX_FMT

    @property
    def header(self) -> str:
        """A hash of what decoders must know before the first picture, which the container holds once; when open."""
        return hashlib.sha256(self.stream.codec_context.extradata or b"").hexdigest()

    @property
    def surface_layout(self) -> SurfaceLayout | None:
        """How surfaces must be finished to be encoded as they are; None where only frames can be."""
        is_known = self._pix_fmt in SurfaceLayout.PIX_FMTS and self._palette is None
        return SurfaceLayout(self._pix_fmt, *self.size) if is_known else None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the encoded pictures in pixels."""
        return self.stream.codec_context.width, self.stream.codec_context.height

    def times_of(self, frame: TimedPicture) -> range:
        """The times at which `encode` shows `frame`: its own, or every tick of it where frames are resampled."""
        return range(frame.pts, frame.pts + (frame.duration if self._info.is_resampled else 1))

    def encode(self, frame: TimedPicture) -> "Iterator[Packet[VideoStream]]":
        """Encode `frame`, a surface as it is, at all its times and pass on what is ready."""
        if isinstance(frame, Surface):
            picture = frame.picture
        else:
            assert isinstance(frame, Frame), "decoders make nothing else"
            if not (self._keeps_alpha or self.lost_alpha) and frame.is_transparent:
                codec = _ALPHA_CODECS.get(self._container.format.name)
                way_out = f"; --codec {codec} keeps it" if codec is not None and codec != self.codec else ""
                self.lost_alpha = f"transparency is lost: {self._pix_fmt} is written without{way_out}"
                self.notes.append(self.lost_alpha)
            frame = frame if self._restorer is None else self._restorer.restored(frame)
            picture = self._converter.picture_from_frame(
                _grown(frame, *self.size), color=self._color, pix_fmt=self._pix_fmt
            )
        if self.is_opened_by_frame and not self._has_frames and not is_on_device(picture):
            self.stream.codec_context.pix_fmt = self._pix_fmt  # it had to pass through the CPU, as all others will
        picture.pict_type = 0  # the source's choice of key frames is not ours
        if self._options.is_live and frame.pts * frame.time_base >= self._next_key_seconds:
            picture.pict_type = _KEY_PICTURE
            self._next_key_seconds = frame.pts * frame.time_base + _KEY_DISTANCE_SECONDS
        self._has_frames = True
        for pts in self.times_of(frame):
            picture.pts = pts
            for ready in self._palette.push(picture) if self._palette is not None else (picture,):
                yield from self.stream.encode(ready)

    def flush(self) -> "Iterator[Packet[VideoStream]]":
        """What the encoder still holds after the last frame."""
        for picture in self._palette.flush() if self._palette is not None else ():
            yield from self.stream.encode(picture)
        if self._has_frames:
            yield from self.stream.encode(None)

    def _add_stream(self) -> VideoStream:
        name = self._options.codec or self._hardware_codec(self._default_codec())
        try:
            codec = av.Codec(name, "w")
        except UnknownCodecError as error:
            # `x265` and `h265` are what people say; as text, h263 is as near to the latter as hevc is far.
            close = [encoder for encoder in _ENCODERS_OF.get(name[1:], ()) if encoder in av.codecs_available]
            close = close or difflib.get_close_matches(name, av.codecs_available, n=3)
            hint = f"; did you mean {', '.join(close)}?" if close else ""
            raise OptionError(f"--codec {name}: no such encoder{hint}") from error
        if codec.type != "video":
            raise OptionError(f"--codec {name}: encodes {codec.type}, not video")
        info = self._info
        try:
            stream = self._container.add_stream(codec.name, rate=info.frame_rate)
        except ValueError as error:
            raise OutputMediaError(
                self._target, f"{self._container.format.name} cannot hold {name}: choose --codec or the suffix"
            ) from error
        if not isinstance(stream, VideoStream):
            raise OptionError(f"--codec {name}: not a video encoder")
        self._pix_fmt = self._choose_gif_pix_fmt() if codec.name == "gif" else self._choose_pix_fmt(codec)
        self._keeps_alpha = has_alpha(self._pix_fmt)
        context = stream.codec_context
        context.width, context.height = self._encoded_size(self._pix_fmt)
        context.pix_fmt = self._pix_fmt if self._palette is None else _PALETTE_PIX_FMT
        gpu = self._surface_gpu if codec.name in NVENC_OF.values() else None
        if (
            gpu is not None
            and self._stays_on_gpu
            and self._pix_fmt in _NVENC_PIX_FMTS.values()
            and not gpu_refusal(gpu)
        ):
            context.pix_fmt = "cuda"
            self.is_opened_by_frame = True
        context.time_base = info.time_base
        context.sample_aspect_ratio = info.sample_aspect_ratio
        if codec.name == "mjpeg":
            self._color = replace(info.color, is_full_range=True)  # as JPEG has it
        if not av.VideoFormat(self._pix_fmt).is_rgb:
            context.colorspace, context.color_range = self._color.matrix, self._color.range
        context.color_primaries, context.color_trc = self._color.primaries, self._color.transfer
        known = {option.name for option in (*context.supported_options.private, *context.supported_options.generic)}
        stream.options.update(self._codec_options(codec, known))
        if codec.name == "libx265" and self._container.format.name in {"mp4", "mov"}:
            context.codec_tag = "hvc1"  # the one of two that Apple's players know
        return stream

    def _choose_gif_pix_fmt(self) -> str:
        """Colours are reduced picture by picture, after conversion to the format returned here."""
        if self._info.frame_rate > _MAX_GIF_RATE_HZ:
            raise OptionError(
                f"players slow down a GIF of {float(self._info.frame_rate):g} frames per second: "
                f"add --fps {_MAX_GIF_RATE_HZ} or less"
            )
        if self._info.color.hdr is not None:
            raise OptionError("--hdr keep: a GIF has no place for it; choose .mp4, .mkv, .mov or .webm")
        if self._options.pix_fmt not in {None, _PALETTE_PIX_FMT}:
            raise OptionError(f"--pix-fmt {self._options.pix_fmt}: a GIF has {_PALETTE_PIX_FMT}")
        self._palette = PaletteFilter(has_alpha=has_alpha(self._info.pix_fmt))
        return "bgra" if self._palette.has_alpha else "rgb24"

    def _default_codec(self) -> str:
        container = self._container
        if container.default_video_codec == "none":
            raise OutputMediaError(self._target, f"{container.format.name} holds no video")
        # Transport streams and RTSP do not tell what they hold; theirs is H.264 as well.
        if container.format.name in {"mpegts", "rtp_mpegts", "rtsp"}:
            return "libx264" if self._info.color.hdr is None else "libx265"
        preferred = ("libx264", "libsvtav1", "libvpx-vp9")
        if self._info.color.hdr is not None:
            preferred = ("libx265", "libsvtav1", "libvpx-vp9")  # few players show H.264 of 10 bits
        supported = container.supported_codecs
        return next((name for name in preferred if name in supported), container.default_video_codec)

    def _hardware_codec(self, name: str) -> str:
        """The GPU's encoder in place of `name` where it can be, for surfaces that nobody asked to treat otherwise."""
        options = self._options
        is_free = options.crf is None and options.preset is None and not options.encoder_options
        if self._surface_gpu is None or name not in NVENC_OF or not is_free:
            return name
        pix_fmt = _nvenc_pix_fmt(options.pix_fmt)
        refusal = nvenc_refusal(NVENC_OF[name], pix_fmt, self._surface_gpu)
        if not refusal:
            return NVENC_OF[name]
        self.notes.append(f"encoded on the CPU: no NVENC for {pix_fmt} ({refusal})")
        return name

    def _choose_pix_fmt(self, codec: av.Codec) -> str:
        offered = [video_format.name for video_format in codec.video_formats or ()]
        wanted = self._options.pix_fmt
        if self._surface_gpu is not None and codec.name in NVENC_OF.values():
            wanted = _nvenc_pix_fmt(wanted)
        if wanted is not None:
            if offered and wanted not in offered:
                raise OptionError(f"--pix-fmt {wanted}: {codec.name} has {', '.join(offered)}")
            if self._info.color.hdr is not None and num_bits(wanted) < _HDR_BITS:
                raise OptionError(f"--pix-fmt {wanted}: HDR needs {_HDR_BITS} bits; drop it, or --hdr keep")
            return wanted
        source = self._info.pix_fmt
        default = _DEFAULT_PIX_FMT if self._info.color.hdr is None else _HDR_PIX_FMT
        chosen = suitable_pix_fmt(codec, source, usual=default)
        if self._info.color.hdr is not None and num_bits(chosen) < _HDR_BITS:
            raise OptionError(f"--hdr keep: {codec.name} has no {_HDR_PIX_FMT}; choose libx265, libsvtav1 or ffv1")
        self.notes += losses(source, chosen)
        return chosen

    def _encoded_size(self, pix_fmt: str) -> tuple[int, int]:
        """The frame size, grown by a pixel where the chroma planes of `pix_fmt` need it."""
        info, video_format = self._info, av.VideoFormat(pix_fmt)
        step_x, step_y = 8 // (video_format.chroma_width(8) or 8), 8 // (video_format.chroma_height(8) or 8)
        width, height = -(-info.width // step_x) * step_x, -(-info.height // step_y) * step_y
        if (width, height) != (info.width, info.height):
            self.notes.append(
                f"{info.width}x{info.height} encoded as {width}x{height} with the last column or row repeated: "
                f"{pix_fmt} has even sizes only (--pix-fmt yuv444p keeps odd ones, but few players show it)"
            )
        return width, height

    def _codec_options(self, codec: av.Codec, known: set[str]) -> dict[str, str]:
        asked = {"crf": self._options.crf, "preset": self._options.preset}
        options = {key: str(value) for key, value in asked.items() if value is not None}
        for key in options:
            if key not in known:
                raise OptionError(f"--{key}: the encoder {codec.name} has no such option")
        for key, _ in self._options.encoder_options:
            if key not in known:
                close = difflib.get_close_matches(key, known, n=3)
                hint = f"; did you mean {', '.join(close)}?" if close else ""
                raise OptionError(f"--encoder-option {key}: the encoder {codec.name} has no such option{hint}")
        live = _LIVE_OPTIONS.get(codec.name, {}) if self._options.is_live else {}
        defaults, others = _DEFAULT_OPTIONS.get(codec.name, {}) | live, dict(self._options.encoder_options)
        if not _RATE_OPTIONS.isdisjoint(others):
            defaults.pop("crf", None)  # it would win over them
        options = defaults | options | others
        if self._surface_gpu is not None and codec.name in NVENC_OF.values():
            options.setdefault("gpu", str(self._surface_gpu))
        if self._info.hdr_metadata and codec.name == "libx265":
            options["x265-params"] = ":".join((options["x265-params"], self._info.hdr_metadata))
        elif self._info.hdr_metadata:
            self.notes.append(f"mastering display and light levels are left out: {codec.name} is not told them")
        if codec.name == "libx264" and _has_avx512():
            # With AVX-512 x264 165 reads memory nobody wrote (its mb-tree) and encodes the same pictures
            # differently now and then; with AVX2 always the same, as fast (2.3 s of CPU for 100 frames of 720p).
            options["x264-params"] = ":".join(filter(None, ("asm=avx2", options.get("x264-params"))))
        return options


def _grown(frame: Frame, width: int, height: int) -> Frame:
    """`frame` itself, or a copy whose last column and row are repeated up to `width` x `height` pixels."""
    if (frame.width, frame.height) == (width, height):
        return frame
    grown = Frame.blank(width, height, has_alpha=frame.alpha is not None)
    grown.copy_time_from(frame)
    sides = ((0, height - frame.height), (0, width - frame.width))
    for target, source in zip(grown.planes, frame.planes, strict=True):
        target[:] = np.pad(source, sides, mode="edge")
    if grown.alpha is not None and frame.alpha is not None:
        grown.alpha[:] = np.pad(frame.alpha, sides, mode="edge")
    return grown


def _nvenc_pix_fmt(pix_fmt: str | None) -> str:
    return _NVENC_PIX_FMTS.get(pix_fmt or _DEFAULT_PIX_FMT, pix_fmt or _DEFAULT_PIX_FMT)


@cache
def _has_avx512() -> bool:
    """Whether the CPU has AVX-512, as far as the system says."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.is_file() and " avx512f " in cpuinfo.read_text()
