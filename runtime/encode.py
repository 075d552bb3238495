"""Frames out: encoded, muxed with what travels along, at their own times."""

import difflib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from types import TracebackType
from typing import Final, Self

import av
import numpy as np
from av.codec.codec import UnknownCodecError
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from stylize.runtime.carry import kept_tags, open_carriers
from stylize.runtime.check import Track, check_tracks, tracks_of_file
from stylize.runtime.color import ColorConverter
from stylize.runtime.decode import Decoder, VideoInfo
from stylize.runtime.errors import OptionError, OutputMediaError
from stylize.runtime.frame import Frame
from stylize.runtime.palette import PaletteFilter
from stylize.runtime.partial_file import PartialFile, StandardOutput
from stylize.runtime.selection import Item

__all__ = ["EncodeOptions", "Encoder"]

logger = logging.getLogger(__name__)

_DEFAULT_PIX_FMT: Final = "yuv420p"  # the one every player has
_LOSSLESS_CODECS: Final = {"ffv1"}  # keep the source's pixel format, there is no other reason to choose them
# "17 or 18 to be visually lossless or nearly so" (trac.ffmpeg.org/wiki/Encode/H.264); brush strokes are
# detail everywhere, on which x264's default of 23 shows. The preset was chosen by measurement on two stylized
# clips: veryfast at 17 takes a third of the time of x264's own medium at 18, loses 0.2 dB PSNR in luma
# and makes files 6 to 8 % larger.
_DEFAULT_OPTIONS: Final = {
    "libx264": {"crf": "17", "preset": "veryfast"},
    "libx265": {"x265-params": "log-level=error"},  # it prints past every log
}
_MAX_GIF_RATE_HZ: Final = 50  # its clock ticks every 1/100 s, and browsers show 1 tick as 10
_MAX_TIMESCALE: Final = 2**31 - 1  # movie timescale is 32 bits (ISO/IEC 14496-12, 8.2.2)
_STALE_TAGS: Final = {"major_brand", "minor_version", "compatible_brands", "encoder"}  # of the old file's muxer


@dataclass(frozen=True, kw_only=True)
class EncodeOptions:
    """How the video is encoded; None leaves the choice to us or the encoder."""

    codec: str | None = None
    """FFmpeg's encoder name; by default libx264, or what the container needs."""
    crf: float | None = None
    """Constant quality, lower is better; by default 17 for libx264, else the encoder's own."""
    preset: str | None = None
    """Speed against size, in the encoder's own words; by default veryfast for libx264, else its own."""
    pix_fmt: str | None = None
    """Pixel format; by default 8-bit 4:2:0, which plays everywhere."""
    container: str | None = None
    """FFmpeg's name of the container; by default the suffix decides, and Matroska goes down a pipe."""
    encoder_options: tuple[tuple[str, str], ...] = ()
    """More options of the encoder, by FFmpeg's names; they go before ours."""


class Encoder:
    """Writes one video file.

    A context manager for one thread. Leaving it completes the file, after an error too, so that what was
    written plays. Giving it its name is the caller's, after `check`: see `PartialFile`.
    """

    def __init__(
        self,
        output: PartialFile | StandardOutput,
        *,
        info: VideoInfo,
        options: EncodeOptions | None = None,
        source: Decoder | None = None,
    ) -> None:
        """Open the file and the encoder.

        Args:
            output: where to write; its suffix names the container.
            info: size, rate and colour of the frames to come.
            options: how to encode.
            source: carry its other streams, chapters and tags along; None for a video alone.

        Raises:
            OptionError: an unknown codec or pixel format, or an option this codec does not have.
            OutputMediaError: an unknown container, or a codec it cannot hold.
        """
        self.notes: list[str] = []
        """What had to be changed on the way out, one sentence each."""
        self.num_frames = 0
        self._output = output
        self._info = info
        self._options = options or EncodeOptions()
        self._converter = ColorConverter()
        self._palette: PaletteFilter | None = None
        self._is_finished = False
        with self._reported():
            self._container = self._open_container(source)
        try:
            with self._reported():
                self._video = self._add_video()
                if source is not None:
                    self._video.metadata.update(kept_tags(source.video_stream))
                others = source.other_streams if source is not None else ()
                self._carriers = open_carriers(self._container, others, notes=self.notes)
            width, height = self.size
            with self._reported(f"{self.description} refuses {width}x{height}, {info.time_base} s per tick: "):
                self._container.start_encoding()
                self._tracks = {stream.index: Track(stream.type) for stream in self._container.streams}
        except BaseException:
            self._container.close()
            raise

    @property
    def description(self) -> str:
        """Encoder and pixel format really in use, for example `libx264, yuv420p`."""
        return f"{self._video.codec_context.codec.name}, {self._pix_fmt}"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the file's pictures in pixels."""
        return self._video.codec_context.width, self._video.codec_context.height

    def write(self, item: Item) -> None:
        """Encode a frame, or copy a packet.

        Raises:
            OutputMediaError: the encoder failed or the disk is full.
        """
        with self._reported():
            if not isinstance(item, Frame):
                carrier = self._carriers.get(item.stream.index)
                if carrier is not None:
                    self._mux(carrier.packets_from(item))
                return
            frame = _grown(item, *self.size)
            picture = self._converter.picture_from_frame(frame, color=self._info.color, pix_fmt=self._pix_fmt)
            picture.pict_type = 0  # the source's choice of key frames is not ours
            for pts in range(frame.pts, frame.pts + (frame.duration if self._info.is_resampled else 1)):
                picture.pts = pts
                self._encode(picture)
                self._tracks[self._video.index].add(pts, frame.time_base)
                self.num_frames += 1
            self._output.is_worth_keeping = True

    def finish(self) -> None:
        """Write what the encoder still holds and close the file.

        Raises:
            OutputMediaError: the encoder failed or the disk is full.
        """
        if self._is_finished:
            return
        self._is_finished = True
        with self._reported():
            try:
                for picture in self._palette.flush() if self._palette is not None else ():
                    self._container.mux(self._video.encode(picture))
                if self.num_frames:
                    self._container.mux(self._video.encode(None))
                for carrier in self._carriers.values():
                    self._mux(carrier.flush())
            finally:
                self._container.close()

    def check(self) -> None:
        """Read the finished file back and compare its tracks with what was written; not what went down a pipe.

        Raises:
            OutputMismatchError: frames, times or tracks differ.
        """
        if isinstance(self._output, StandardOutput):
            return
        check_tracks(self._output.target, list(self._tracks.values()), tracks_of_file(self._output.path))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.finish()
        except OutputMediaError as second:
            if error is None:
                raise
            logger.debug("closing after an error: %s", second)

    def _encode(self, picture: av.VideoFrame) -> None:
        for ready in self._palette.push(picture) if self._palette is not None else (picture,):
            for packet in self._video.encode(ready):
                self._container.mux_one(packet)

    def _mux(self, packets: "list[Packet[Stream]]") -> None:
        """Write packets of a carried stream and remember their times."""
        for packet in packets:
            if packet.pts is not None:
                self._tracks[packet.stream.index].add(packet.pts, packet.time_base)
            self._container.mux_one(packet)

    @contextmanager
    def _reported(self, what: str = "") -> Iterator[None]:
        """Turn what FFmpeg raises into our error, naming the file as asked for."""
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            if isinstance(error, OutputMediaError):
                raise
            raise OutputMediaError(self._output.target, what + (error.strerror or str(error))) from error

    def _open_container(self, source: Decoder | None) -> OutputContainer:
        target, name = self._output.target, self._options.container
        if isinstance(self._output, StandardOutput):
            name = name or "matroska"
        try:
            container = av.open(self._output.address, "w", format=name)
        except ValueError as error:
            if name is not None:
                raise OptionError(
                    f"--format {name}: no such container; use mp4, matroska, mov, webm or mpegts"
                ) from error
            raise OutputMediaError(
                target, f"no container has the suffix {target.suffix or '(none)'}; use .mp4, .mkv, .mov or .webm"
            ) from error
        if container.format.name in {"mp4", "mov"}:
            # Start offsets are stored in movie ticks: make both video and sound times multiples of one.
            container.options["movie_timescale"] = str(_movie_timescale(self._info.time_base, source))
            if isinstance(self._output, StandardOutput):
                container.options["movflags"] = "frag_keyframe+empty_moov"  # no way back to the head of a pipe
        if source is not None:
            tags = source.container.metadata
            container.metadata.update({key: text for key, text in tags.items() if key not in _STALE_TAGS})
            container.set_chapters(source.chapters)
        return container

    def _add_video(self) -> VideoStream:
        name = self._options.codec or self._default_codec()
        try:
            codec = av.Codec(name, "w")
        except UnknownCodecError as error:
            close = difflib.get_close_matches(name, av.codecs_available, n=3)
            hint = f"; did you mean {', '.join(close)}?" if close else ""
            raise OptionError(f"--codec {name}: no such encoder{hint}") from error
        if codec.type != "video":
            raise OptionError(f"--codec {name}: encodes {codec.type}, not video")
        info = self._info
        try:
            stream = self._container.add_stream(codec.name, rate=info.frame_rate)
        except ValueError as error:
            raise OutputMediaError(
                self._output.target, f"{self._container.format.name} cannot hold {name}: choose --codec or the suffix"
            ) from error
        if not isinstance(stream, VideoStream):
            raise OptionError(f"--codec {name}: not a video encoder")
        self._pix_fmt = self._choose_gif_pix_fmt() if codec.name == "gif" else self._choose_pix_fmt(codec)
        context = stream.codec_context
        context.width, context.height = self._encoded_size(self._pix_fmt)
        context.pix_fmt = self._pix_fmt if self._palette is None else "pal8"
        context.time_base = info.time_base
        context.sample_aspect_ratio = info.sample_aspect_ratio
        if not av.VideoFormat(self._pix_fmt).is_rgb:
            context.colorspace, context.color_range = info.color.matrix, info.color.range
        context.color_primaries, context.color_trc = info.color.primaries, info.color.transfer
        known = {option.name for option in (*context.supported_options.private, *context.supported_options.generic)}
        stream.options.update(self._codec_options(codec, known))
        return stream

    def _choose_gif_pix_fmt(self) -> str:
        """Colours are reduced picture by picture, after conversion to the format returned here."""
        if self._info.frame_rate > _MAX_GIF_RATE_HZ:
            raise OptionError(
                f"players slow down a GIF of {float(self._info.frame_rate):g} frames per second: "
                f"add --fps {_MAX_GIF_RATE_HZ} or less"
            )
        if self._options.pix_fmt not in {None, "pal8"}:
            raise OptionError(f"--pix-fmt {self._options.pix_fmt}: a GIF has pal8")
        if _has_alpha(self._info.pix_fmt):
            self.notes.append("transparency is lost: GIF is written without")
        self._palette = PaletteFilter()
        return "rgb24"

    def _default_codec(self) -> str:
        container = self._container
        if container.default_video_codec == "none":
            raise OutputMediaError(self._output.target, f"{container.format.name} holds no video")
        # Transport streams do not tell what they hold; theirs is H.264 as well.
        if container.format.name == "mpegts":
            return "libx264"
        preferred = ("libx264", "libsvtav1", "libvpx-vp9")
        supported = container.supported_codecs
        return next((name for name in preferred if name in supported), container.default_video_codec)

    def _choose_pix_fmt(self, codec: av.Codec) -> str:
        offered = [video_format.name for video_format in codec.video_formats or ()]
        wanted = self._options.pix_fmt
        if wanted is not None:
            if offered and wanted not in offered:
                raise OptionError(f"--pix-fmt {wanted}: {codec.name} has {', '.join(offered)}")
            return wanted
        source = self._info.pix_fmt
        if codec.name in _LOSSLESS_CODECS and source in offered:
            return source
        chosen = _DEFAULT_PIX_FMT if _DEFAULT_PIX_FMT in offered or not offered else offered[0]
        if _has_alpha(source) and not _has_alpha(chosen):
            self.notes.append(f"transparency is lost: {chosen} has none")
        if _bits(source) > _bits(chosen):
            self.notes.append(f"{_bits(source)}-bit source ({source}) encoded with {_bits(chosen)} bits ({chosen})")
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
        return _DEFAULT_OPTIONS.get(codec.name, {}) | options | dict(self._options.encoder_options)


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


def _has_alpha(pix_fmt: str) -> bool:
    return any(component.is_alpha for component in av.VideoFormat(pix_fmt).components)


def _bits(pix_fmt: str) -> int:
    return max(component.bits for component in av.VideoFormat(pix_fmt).components)


def _movie_timescale(time_base: Fraction, source: Decoder | None) -> int:
    """Ticks per second of which all stream times are multiples, if 32 bits can hold it."""
    others = source.other_streams if source is not None else ()
    timescale = time_base.denominator
    for stream in others:
        denominator = stream.time_base.denominator if stream.time_base is not None else 1
        if lcm(timescale, denominator) <= _MAX_TIMESCALE:
            timescale = lcm(timescale, denominator)
    return timescale
