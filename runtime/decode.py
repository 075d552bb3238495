"""Containers in: frames with their time, and the packets that travel along unchanged."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeAlias

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from stylize.runtime.color import Color, ColorConverter, color_from_picture
from stylize.runtime.errors import InputMediaError
from stylize.runtime.frame import Frame
from stylize.runtime.picture_filter import PictureFilter
from stylize.runtime.selection import seconds_from_text

__all__ = ["Decoder", "Item", "VideoInfo"]

Item: TypeAlias = "Frame | Packet[Stream]"
"""What a decoder yields: a frame to stylize, or a packet of another stream to copy."""

# Frame threads hold one picture each; four decode 1080p H.264 at several hundred frames per second.
_MAX_THREADS: Final = 4
_TIMEOUT_SECONDS: Final = (10.0, 30.0)  # open, read: a dead network source must not hang
_DEFAULT_RATE: Final = Fraction(25)  # FFmpeg's own default for sources without a rate
# Headers round durations and the last frame's may be missing; a cut shorter than this goes unnoticed.
_SHORTFALL_SECONDS: Final = 0.5


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a video looks like once decoded: upright, progressive, gaps in its tags filled."""

    width: int
    """Pixels, after rotation."""
    height: int
    """Pixels, after rotation."""
    time_base: Fraction
    """Seconds per tick of the frames' times."""
    frame_rate: Fraction
    """Average frames per second; paces the encoder's rate control, never a frame's time."""
    color: Color
    sample_aspect_ratio: Fraction = Fraction(1)
    """Width of a pixel divided by its height, after rotation."""
    pix_fmt: str = "yuv420p"
    """Pixel format of the source."""
    num_frames: int | None = None
    """As the container declares, None when it does not."""
    duration_seconds: float | None = None
    """From the first frame's start to the last one's end as the container declares, None when it does not."""
    decoder: str = ""
    """FFmpeg's decoder in use."""


class Decoder:
    """Reads one video or picture from front to back.

    A context manager for one thread; iterate it once. Opening decodes the first frame, so a file of
    which nothing can be decoded fails there. What breaks later ends the iteration early and is in
    `problems` afterwards.
    """

    def __init__(self, source: str | Path) -> None:
        """Open `source`: a path, or an address FFmpeg can read (`https://...`, `rtsp://...`).

        Raises:
            InputMediaError: missing, not media, without video, or nothing of it can be decoded.
        """
        self.source = source
        self.problems: list[str] = []
        """Damage met so far, one sentence each; complete once the iteration has ended."""
        self.num_frames = 0
        """Frames yielded so far."""
        self.notes: list[str] = []
        """What was guessed or changed about the picture, one sentence each."""
        self.container: InputContainer = _open(source)
        try:
            self.video_stream = self._choose_video()
            self.video_stream.codec_context.thread_type = "AUTO"
            self.video_stream.codec_context.thread_count = _MAX_THREADS
            self._converter = ColorConverter()
            self._filter = PictureFilter()
            self._clock = _Clock(self._time_base, self._frame_rate)
            self._num_corrupt_packets = 0
            self._has_changed_size = False
            self._last_end_seconds = 0.0  # over all streams, from the start of the file
            self._info: VideoInfo | None = None
            items = self._decode()
            self._items = chain(self._until_first_frame(items), items)
        except BaseException:
            self.container.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def close(self) -> None:
        """Close the file; calling it again is harmless."""
        self.container.close()

    @property
    def info(self) -> VideoInfo:
        """Size, time and colour of the frames."""
        assert self._info is not None, "set by the first frame, which __init__ waits for"
        return self._info

    @property
    def other_streams(self) -> tuple[Stream, ...]:
        """What is carried along: audio, subtitles, attachments and data, in the source's order."""
        return tuple(stream for stream in self.container.streams if stream.type != "video")

    @property
    def _time_base(self) -> Fraction:
        return self.video_stream.time_base or Fraction(1, 90_000)

    @property
    def _frame_rate(self) -> Fraction:
        return self.video_stream.average_rate or self.video_stream.guessed_rate or _DEFAULT_RATE

    @property
    def _announced_seconds(self) -> float | None:
        stream = self.video_stream
        if stream.duration is not None:
            return float(stream.duration * self._time_base)
        try:
            # Matroska states the length of a track in a tag, and in its header that of the longest.
            return float(seconds_from_text(stream.metadata["DURATION"]))
        except (KeyError, ValueError):
            return self.container.duration / av.time_base if self.container.duration is not None else None

    def _choose_video(self) -> VideoStream:
        """The main video: never a cover picture."""
        streams = self.container.streams
        videos = [stream for stream in streams.video if not stream.disposition & Disposition.attached_pic]
        best = streams.best("video")
        video = next((stream for stream in videos if best is not None and stream.index == best.index), None)
        if video is None:
            kinds = ", ".join(sorted({stream.type for stream in streams})) or "nothing"
            raise InputMediaError(self.source, f"has no video that can be decoded (it holds: {kinds})")
        if video.codec_context is None:
            raise InputMediaError(self.source, "its video is of a codec that is not known here")
        if len(streams.video) > 1:
            self.notes.append(f"{len(streams.video)} video tracks: only track {video.index} is rendered")
        return video

    def _until_first_frame(self, items: Iterator[Item]) -> list[Item]:
        head: list[Item] = []
        for item in items:
            head.append(item)
            if isinstance(item, Frame):
                return head
        reason = f": {'; '.join(self.problems)}" if self.problems else ""
        raise InputMediaError(self.source, f"no frame of its video can be decoded{reason}")

    def _decode(self) -> Iterator[Item]:
        for packet in self._demux():
            if packet.stream.index == self.video_stream.index:
                yield from self._frames(packet)
            elif packet.stream.type != "video":
                yield packet
        yield from self._frames(None)
        yield from (self._frame(picture) for picture in self._filter.flush())
        self._check_end()

    def _demux(self) -> Iterator["Packet[Stream]"]:
        """Every packet with data; a file that breaks off ends here with an entry in `problems`."""
        start_seconds = (self.container.start_time or 0) / av.time_base
        try:
            for packet in self.container.demux():
                if packet.size == 0:
                    continue  # a flush marker
                if packet.pts is not None:
                    end = float((packet.pts + (packet.duration or 0)) * packet.time_base) - start_seconds
                    self._last_end_seconds = max(self._last_end_seconds, end)
                yield packet
        except av.FFmpegError as error:
            self.problems.append(f"reading stopped after {self._last_end_seconds:.2f} s: {error.strerror}")

    def _frames(self, packet: "Packet[Stream] | None") -> Iterator[Frame]:
        """Frames of one packet, or with None the last ones still inside the decoder."""
        try:
            pictures = self.video_stream.codec_context.decode(packet)
        except av.FFmpegError:
            self._num_corrupt_packets += 1
            return
        for picture in pictures:
            picture.time_base = self._time_base  # PyAV leaves it unset on the last ones
            yield from (self._frame(upright) for upright in self._filter.push(picture))

    def _frame(self, picture: av.VideoFrame) -> Frame:
        color = color_from_picture(picture)
        if self._info is None:
            self._info = self._describe(picture, color)
        info = self._info
        if (picture.width, picture.height) != (info.width, info.height) and not self._has_changed_size:
            self._has_changed_size = True
            self.notes.append(
                f"the video changes its size to {picture.width}x{picture.height}: scaled to {info.width}x{info.height}"
            )
        frame = self._converter.frame_from_picture(picture, color=color, width=info.width, height=info.height)
        self._clock.stamp(frame, picture)
        self.num_frames += 1
        return frame

    def _describe(self, picture: av.VideoFrame, color: Color) -> VideoInfo:
        """Collect what the first picture and the container say, and note what was done about it."""
        stream = self.video_stream
        aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or Fraction(1)
        if self._filter.is_turning:
            self.notes.append("the display rotation was applied to the pixels")
            aspect = 1 / aspect if self._filter.is_transposing else aspect
        if self._filter.is_deinterlacing:
            self.notes.append("the source is interlaced: deinterlaced, one frame per picture")
        if color.guess is not None:
            self.notes.append(color.guess)
        if color.hdr is not None:
            self.notes.append(f"{color.hdr} high dynamic range is stylized as it is, without tone mapping")
        return VideoInfo(
            width=picture.width,
            height=picture.height,
            time_base=self._time_base,
            frame_rate=self._frame_rate,
            color=color,
            sample_aspect_ratio=aspect,
            pix_fmt=picture.format.name,
            num_frames=stream.frames or None,
            duration_seconds=self._announced_seconds,
            decoder=stream.codec_context.codec.name,
        )

    def _check_end(self) -> None:
        """Compare what came with what the header announced."""
        if self._num_corrupt_packets:
            self.problems.append(f"{self._num_corrupt_packets} packets are damaged and could not be decoded")
        if self._clock.num_repaired:
            self.notes.append(f"{self._clock.num_repaired} missing or backward timestamps were repaired")
        stream = self.video_stream
        if stream.duration is not None:
            announced_seconds = float(stream.duration * self._time_base)
            came_seconds = self._clock.span_seconds
        elif self.container.duration is not None and "matroska" in self.container.format.name:
            announced_seconds = self.container.duration / av.time_base
            came_seconds = self._last_end_seconds
        else:
            return
        if came_seconds + _SHORTFALL_SECONDS < announced_seconds:
            self.problems.append(
                f"ends after {came_seconds:.2f} s of the {announced_seconds:.2f} s its header announces: cut off"
            )


class _Clock:
    """Gives each frame its source time; where that is missing or runs backward, the nearest possible one."""

    def __init__(self, time_base: Fraction, frame_rate: Fraction) -> None:
        self.num_repaired = 0
        self._time_base = time_base
        self._usual_duration = max(1, round(1 / (frame_rate * time_base)))
        self._first_pts = self._last_pts = self._end = 0
        self._has_started = False

    @property
    def span_seconds(self) -> float:
        """From the start of the first frame to the end of the last."""
        return float((self._end - self._first_pts) * self._time_base)

    def stamp(self, frame: Frame, picture: av.VideoFrame) -> None:
        """Set the time of `frame`, made from `picture`, whose own time base a filter may have changed."""
        scale = (picture.time_base or self._time_base) / self._time_base
        # A container that stores no presentation times (AVI) still has decoding times.
        ticks = picture.pts if picture.pts is not None else picture.dts
        pts = self._end if ticks is None else round(ticks * scale)
        earliest = self._last_pts + 1 if self._has_started else pts
        self.num_repaired += picture.pts is None or pts < earliest
        pts = max(pts, earliest)
        duration = round(picture.duration * scale) or self._usual_duration
        if not self._has_started:
            self._first_pts, self._has_started = pts, True
        self._last_pts, self._end = pts, pts + duration
        frame.set_time(pts, duration=duration, time_base=self._time_base)


def _open(source: str | Path) -> InputContainer:
    address = str(source)
    is_local = isinstance(source, Path) or "://" not in address
    # An absolute path cannot be mistaken for a protocol, however many colons its name has.
    name = str(Path(address).absolute()) if is_local else address
    # A picture called `scan%03d.png` is a file, not a pattern.
    options = {"pattern_type": "none"} if is_local and "%" in name else {}
    try:
        if is_local and Path(name).is_dir():
            raise InputMediaError(source, "is a folder, expected a video or a picture")
        return av.open(name, options=options, metadata_errors="replace", timeout=None if is_local else _TIMEOUT_SECONDS)
    except av.FileNotFoundError as error:
        raise InputMediaError(source, "no such file") from error
    except av.InvalidDataError as error:
        raise InputMediaError(source, "is not a video or picture, or its header is damaged") from error
    except (av.FFmpegError, OSError) as error:
        raise InputMediaError(source, f"cannot be opened: {error.strerror}") from error
