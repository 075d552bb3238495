"""Frames out: encoded, muxed with what travels along, at their own times."""

import logging
import threading
from collections.abc import Callable
from fractions import Fraction
from math import lcm
from types import TracebackType
from typing import Final, Self

from av.container import OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from stylize.runtime.carry import Carrier, kept_tags, open_carriers
from stylize.runtime.check import Track, check_tracks, is_shown, tracks_of_file
from stylize.runtime.container import open_container, reported
from stylize.runtime.decode import Decoder, VideoInfo
from stylize.runtime.errors import OutputMediaError
from stylize.runtime.frame import TimedPicture
from stylize.runtime.partial_file import PartialFile
from stylize.runtime.scheduling import ordinary_threads
from stylize.runtime.selection import Item
from stylize.runtime.stream_output import RECEIVER_SECONDS, StreamOutput
from stylize.runtime.timecode import moved_timecode
from stylize.runtime.unattended import made_in_thread
from stylize.runtime.video_encoder import EncodeOptions, VideoEncoder

__all__ = ["EncodeOptions", "Encoder"]

logger = logging.getLogger(__name__)

_HARDWARE: Final = ("_amf", "_nvenc", "_qsv", "_vaapi", "_videotoolbox")
_MAX_TIMESCALE: Final = 2**31 - 1  # movie timescale is 32 bits (ISO/IEC 14496-12, 8.2.2)
# For receivers that are watching: packets leave at once, no track waits more than a second for another, and nothing
# is written that could only be known at the end.
_LIVE_OPTIONS: Final = {"flush_packets": "1", "max_interleave_delta": "1000000"}
_LIVE_OPTIONS_OF: Final = {
    "flv": {"flvflags": "no_duration_filesize"},
    "matroska": {"live": "1", "cluster_time_limit": "100"},
}
_STALE_TAGS: Final = {"major_brand", "minor_version", "compatible_brands", "encoder"}  # of the old file's muxer


class Encoder:
    """Writes one video file.

    A context manager for one thread. Leaving it completes the file, after an error too, so that what was
    written plays. Giving it its name is the caller's, after `check`: see `PartialFile`.
    """

    def __init__(
        self,
        output: PartialFile | StreamOutput,
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
        self.num_frames = 0
        self._output = output
        self._info = info
        self._options = options or EncodeOptions()
        self._is_started = self._is_finished = False
        self._in_ffmpeg = threading.Lock()
        """Held by the thread that is, which a receiver that stops reading may keep there for good."""
        with reported(self._output.target):
            self._container = self._open_container(source)
        try:
            with reported(self._output.target):
                self.video = VideoEncoder(
                    self._container,
                    info=info,
                    options=self._options,
                    target=output.target,
                    surface_gpu=source.surface_gpu if source is not None else None,
                )
                self.notes = self.video.notes
                """What had to be changed on the way out, one sentence each; complete with the last frame."""
                if source is not None:
                    tags = kept_tags(source.video_stream)
                    self.video.stream.metadata.update(_with_timecode(tags, source, rate=info.frame_rate))
                self._early: list[Packet[Stream]] = [*source.covers] if source is not None else []
                """Carried packets that came before the encoder was opened."""
                self._carriers: dict[int, Carrier] = {}
                if source is not None:
                    self._carriers = open_carriers(
                        self._container,
                        source.other_streams,
                        covers=source.covers,
                        first_packets=source.first_packets if isinstance(output, StreamOutput) else None,
                        notes=self.notes,
                    )
            self._tracks = {stream.index: Track(stream.type) for stream in self._container.streams}
            if not self.video.is_opened_by_frame:
                self._without_waiting(self._start_alone)
        except BaseException:
            if not self._in_ffmpeg.locked():
                self._container.close()
            raise

    @property
    def description(self) -> str:
        """Encoder and pixel format really in use, for example `libx264, yuv420p`."""
        return self.video.description

    @property
    def header(self) -> str:
        """See `VideoEncoder.header`."""
        return self.video.header

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the file's pictures in pixels."""
        return self.video.size

    def write(self, item: Item) -> None:
        """Encode a frame, or copy a packet.

        Raises:
            OutputMediaError: the encoder failed or the disk is full.
        """
        with self._in_ffmpeg, reported(self._output.target):
            if not isinstance(item, TimedPicture):
                if self._is_started:
                    self._carry(item)
                else:
                    self._early.append(item)
                return
            packets = self.video.encode(item)
            if not self._is_started:
                packets = iter([*packets])  # the first picture opens the encoder, and that must precede the header
                self._start()
            for packet in packets:
                self._container.mux_one(packet)
            for pts in self.video.times_of(item):
                self._tracks[self.video.stream.index].add(pts, item.time_base)
                self.num_frames += 1
            self._output.is_worth_keeping = True

    def _start(self) -> None:
        """Open the encoder where no picture did, write the header, and what had to wait for it."""
        width, height = self.size
        refuses = f"{self.description} refuses {width}x{height}, {self._info.time_base} s per tick: "
        if self.description.partition(",")[0].endswith(_HARDWARE):
            refuses = f"{self.description} does not start, are its hardware and driver there? "
        refuses = "" if isinstance(self._output, StreamOutput) else refuses
        with ordinary_threads(), reported(self._output.target, refuses):
            self._container.start_encoding()  # which connects to where a stream goes
        self._is_started = True
        early, self._early = self._early, []
        for packet in early:
            self._carry(packet)

    def _start_alone(self) -> None:
        with self._in_ffmpeg, reported(self._output.target):
            self._start()

    def copy(self, packet: "Packet[VideoStream]") -> None:
        """Write a picture that another encoder with the same options made, instead of a frame.

        Args:
            packet: with both its times, in ticks of the video's time base.

        Raises:
            OutputMediaError: the disk is full.
        """
        assert packet.pts is not None, "stored packets have times"
        if not self._is_started:
            self._start_alone()
        packet.stream, packet.time_base = self.video.stream, self._info.time_base
        with reported(self._output.target):
            self._tracks[self.video.stream.index].add(packet.pts, packet.time_base)
            self.num_frames += 1
            self._container.mux_one(packet)

    def finish(self) -> None:
        """Write what the encoder still holds and close the file.

        Raises:
            OutputMediaError: the encoder failed or the disk is full.
        """
        self._finish_within(None)

    def _finish_within(self, seconds: float | None) -> None:
        if not self._is_finished:
            self._is_finished = True
            self._without_waiting(self._finish, seconds=seconds)

    def _finish(self) -> None:
        with self._in_ffmpeg, reported(self._output.target):
            try:
                if not self._is_started:
                    return  # no picture came, so nothing was begun
                for packet in self.video.flush():
                    self._container.mux_one(packet)
                for carrier in self._carriers.values():
                    self._mux(carrier.flush())
            finally:
                self._container.close()

    def check(self) -> None:
        """Read the finished file back and compare its tracks with what was written; not what was streamed.

        Raises:
            OutputMismatchError: frames, times or tracks differ.
        """
        if isinstance(self._output, StreamOutput):
            return
        check_tracks(self._output.target, list(self._tracks.values()), tracks_of_file(self._output.path))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None and self._in_ffmpeg.locked():
            return  # by a thread that was left behind there
        try:
            self._finish_within(None if error is None else RECEIVER_SECONDS)
        except (OutputMediaError, TimeoutError) as second:
            if error is None:
                raise
            logger.debug("closing after an error: %s", second)

    def _without_waiting(self, work: Callable[[], None], *, seconds: float | None = None) -> None:
        """Do `work` so that Ctrl-C need not wait for a receiver that reads nothing; for at most `seconds`.

        Raises:
            TimeoutError: it takes longer.
        """
        if isinstance(self._output, StreamOutput):
            made_in_thread(work, discard=lambda _: None, seconds=seconds)
        else:
            work()

    def _carry(self, packet: "Packet[Stream]") -> None:
        """Write a packet of another stream than the video, where it has a place."""
        carrier = self._carriers.get(packet.stream.index)
        if carrier is not None:
            self._mux(carrier.packets_from(packet))

    def _mux(self, packets: "list[Packet[Stream]]") -> None:
        """Write packets of a carried stream and remember their times."""
        for packet in packets:
            if is_shown(packet):
                self._tracks[packet.stream.index].add(packet.pts or 0, packet.time_base)
            self._container.mux_one(packet)

    def _open_container(self, source: Decoder | None) -> OutputContainer:
        output, name = self._output, self._options.container
        if isinstance(output, StreamOutput):
            name = name or output.container
        container = open_container(output.address, name=name, target=output.target)
        if container.format.name in {"mp4", "mov"}:
            # Start offsets are stored in movie ticks: make both video and sound times multiples of one.
            container.options["movie_timescale"] = str(_movie_timescale(self._info.time_base, source))
            if isinstance(output, StreamOutput):
                # There is no way back to the head of a pipe, and AAC of transport streams tells its kind with packets.
                container.options["movflags"] = "frag_keyframe+empty_moov+delay_moov"
        if container.format.name == "apng":
            container.options["plays"] = "0"  # for ever, as a GIF
        if self._options.is_live:
            container.options.update(_LIVE_OPTIONS | _LIVE_OPTIONS_OF.get(container.format.name, {}))
        if source is not None:
            tags = {key: text for key, text in source.container.metadata.items() if key not in _STALE_TAGS}
            container.metadata.update(_with_timecode(tags, source, rate=self._info.frame_rate))
            container.set_chapters(source.chapters)
        return container


def _with_timecode(tags: dict[str, str], source: Decoder, *, rate: Fraction) -> dict[str, str]:
    """`tags`, of which a timecode is that of the first frame to be written, `rate` of them per second."""
    start = source.selection.start_seconds
    if not start and source.selection.frame_rate is None:
        return tags
    moved = {
        key: moved_timecode(text, by_seconds=start + source.first_seconds, rate=source.frame_rate, new_rate=rate)
        for key, text in tags.items()
        if key.lower() == "timecode"
    }
    return {key: text for key, text in (tags | moved).items() if text is not None}


def _movie_timescale(time_base: Fraction, source: Decoder | None) -> int:
    """Ticks per second of which all stream times are multiples, if 32 bits can hold it."""
    others = source.other_streams if source is not None else ()
    timescale = time_base.denominator
    for stream in others:
        denominator = stream.time_base.denominator if stream.time_base is not None else 1
        if lcm(timescale, denominator) <= _MAX_TIMESCALE:
            timescale = lcm(timescale, denominator)
    return timescale
