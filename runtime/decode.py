"""Containers in: frames with their time, and the packets that travel along unchanged."""

import dataclasses
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from stylize.runtime.choose_video import nothing_selected
from stylize.runtime.clock import Arrivals
from stylize.runtime.demux import Demuxer
from stylize.runtime.describe import describe
from stylize.runtime.errors import InputMediaError, StylizeError
from stylize.runtime.frame import TimedPicture
from stylize.runtime.frame_maker import FrameMaker
from stylize.runtime.picture_reader import PictureReader
from stylize.runtime.selection import Item, Selection, behind, resampled
from stylize.runtime.source import local_files, pipe_hint
from stylize.runtime.surface import is_on_device
from stylize.runtime.surface_source import SurfaceSource
from stylize.runtime.unattended import OneReader
from stylize.runtime.video_info import VideoInfo

__all__ = ["Decoder", "Item", "VideoInfo"]

# Frame threads hold one picture each; four decode 1080p H.264 at several hundred frames per second.
_MAX_THREADS: Final = 4


class _BetterOnCpu(Exception):  # noqa: N818 - not an error
    """The video is to be opened again without the GPU; the text says why."""


class Decoder:
    """Reads one video or picture from front to back.

    A context manager for one thread; iterate it once. Opening decodes the first frame, so a file of
    which nothing can be decoded fails there. What breaks later ends the iteration early and is in
    `problems` afterwards.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        selection: Selection | None = None,
        surface_gpu: int | None = None,
        num_threads: int = _MAX_THREADS,
        is_live: bool = False,
    ) -> None:
        """Open `source`.

        Args:
            source: what to read; see `open_source`.
            selection: which part of it, at what rate and size; None for all as it is.
            surface_gpu: yield surfaces for this GPU where the source allows it, decoded by it where it can.
            num_threads: how many decode, where it is not the GPU.
            is_live: whether frames come in real time: each is yielded as soon as it can be, and times start at 0.

        Raises:
            InputMediaError: missing, not media, without video, or nothing of it can be decoded.
            OptionError: the selection holds no frame.
        """
        self.source = source
        self.selection = selection or Selection()
        self.is_live = is_live
        self.problems: list[str] = []
        """Damage met so far, one sentence each; complete once the iteration has ended."""
        self.num_frames = 0
        """Frames yielded so far; resampled ones count once for every tick they are shown."""
        self.notes: list[str] = []
        """What was guessed or changed about the picture, one sentence each."""
        self._num_threads = num_threads
        self._last_seconds: Fraction | None = None  # time of the last frame
        self._info: VideoInfo | None = None
        self._surfaces = SurfaceSource(surface_gpu) if surface_gpu is not None else None
        self._frame_maker = FrameMaker(self.selection, self._surfaces, notes=self.notes)
        self._reader = OneReader(lambda: self.container.close())
        self._open()
        try:
            items = self._decode()
            try:
                self._first_packets, first = self._until_first_frame(items)
            except _BetterOnCpu as reason:
                self.notes.append(f"decoded on the CPU: {reason}")
                self._reopen()
                items = self._decode()
                self._first_packets, first = self._until_first_frame(items)
            self.first_seconds = first.pts * first.time_base
            """Time of the first frame."""
            self._items: Iterator[Item] = chain(self._first_packets, [first], items)
        except BaseException:
            self.container.close()
            raise

    def _open(self) -> None:
        """Open the source near the selected start with a fresh decoder."""
        self._demuxer = Demuxer(
            self.source,
            self.selection,
            hwaccel=self._surfaces.hwaccel if self._surfaces is not None else None,
            is_live=self.is_live,
            notes=self.notes,
            problems=self.problems,
        )
        try:
            self.pictures = PictureReader(
                self._demuxer, num_threads=self._num_threads, is_live=self.is_live, on_first=self._check_first
            )
            """What is known about damage and missing times."""
            if self._surfaces is not None:
                self.notes += self._surfaces.configure(self.video_stream.codec_context)
            self._seek_near(self._demuxer.cut.first)
        except BaseException:
            self.container.close()
            raise

    def _check_first(self, picture: av.VideoFrame) -> None:
        """See that the GPU decodes as it should; where the source can be opened again, the CPU does otherwise."""
        if self._surfaces is None or self._info is not None:
            return
        reason = self._surfaces.refuse(picture, self.video_stream.codec_context)
        if reason and (files := local_files(self.source)) and all(path.is_file() for path in files):
            raise _BetterOnCpu(reason)
        if reason:
            self.notes.append(reason if is_on_device(picture) else f"decoded on the CPU: {reason}")

    def _until_first_frame(self, items: Iterator[Item]) -> "tuple[list[Packet[Stream]], TimedPicture]":
        """The first frame, and the packets before it."""
        packets: list[Packet[Stream]] = []
        for item in items:
            if isinstance(item, TimedPicture):
                return packets, item
            packets.append(item)
        if self.selection.is_cut and not self.problems:
            raise nothing_selected(self.source, self.container, self.video_stream)
        reason = f": {'; '.join(self.problems)}" if self.problems else ""
        if self.container.format.name == "webp_pipe":
            reason = "; of WebP FFmpeg reads stills alone, a moving one is to be a GIF or MP4 first"
        raise InputMediaError(self.source, f"no frame of its video can be decoded{reason}{pipe_hint(self.source)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Item]:
        return self._reader.items(self._items)

    def close(self) -> None:
        """Close the file, as soon as no other thread waits for it; calling it again is harmless."""
        self._reader.close()

    @property
    def info(self) -> VideoInfo:
        """Size, time and colour of the frames."""
        assert self._info is not None, "set by the first frame, which __init__ waits for"
        return self._info

    @property
    def is_clean(self) -> bool:
        """Whether everything so far was decoded without damage and had a time."""
        return not (self.pictures.num_damaged or self.pictures.clock.num_repaired or self.problems)

    @property
    def surface_gpu(self) -> int | None:
        """The GPU for which surfaces are yielded, None where frames are."""
        return self._surfaces.gpu if self._surfaces is not None and self._surfaces.pix_fmt else None

    @property
    def container(self) -> InputContainer:
        """The source as PyAV has it."""
        return self._demuxer.container

    @property
    def video_stream(self) -> VideoStream:
        """The video of which the frames are."""
        return self._demuxer.video_stream

    @property
    def frame_rate(self) -> Fraction:
        """Frames per second of the source, on average."""
        return self._demuxer.frame_rate

    @property
    def other_streams(self) -> tuple[Stream, ...]:
        """What is carried along: audio, subtitles, attachments and data, in the source's order."""
        return self._demuxer.other_streams

    @property
    def first_packets(self) -> "tuple[Packet[Stream], ...]":
        """Those carried along that come before the first frame."""
        return tuple(self._first_packets)

    @property
    def covers(self) -> "tuple[Packet[Stream], ...]":
        """The cover pictures, which are no frames."""
        return tuple(self._demuxer.covers.values())

    @property
    def chapters(self) -> list[Any]:
        """The chapters of the selected part, in PyAV's form."""
        return self._demuxer.chapters

    @property
    def is_picture(self) -> bool:
        """Whether the source is a single picture file."""
        return self._demuxer.is_picture

    @property
    def arrivals(self) -> Arrivals:
        """When packets come."""
        return self._demuxer.arrivals

    def continue_after(self, last: Fraction, *, num_again: int = 0, may_seek: bool = True) -> None:
        """Go on behind the frame shown at `last`, in place of starting with the first one, and count from there.

        Args:
            last: seconds; the time of a frame as an earlier pass over the same source gave it.
            num_again: how many frames up to and with that one are yielded again first, as far as there are.
            may_seek: whether the earlier pass met neither damage nor missing times, so that what is decoded
                from the middle is what was decoded from the front.

        Raises:
            InputMediaError: no frame is shown at that time.
        """
        is_near = may_seek and self._seek_near(self._demuxer.cut.source_seconds(last))
        rest = behind(last, self._decode() if is_near else self._items, num_again=num_again)
        if rest is None and is_near:
            self._reopen()
            rest = behind(last, self._decode(), num_again=num_again)
        if rest is None:
            raise InputMediaError(self.source, f"shows no frame at {float(last):.3f} s any more")
        self._items = rest
        self.num_frames = 0

    def times_after(self, seconds: Fraction) -> Iterator[Fraction]:
        """When the frames after this moment are shown; in place of iterating."""
        is_near = self._seek_near(self._demuxer.cut.source_seconds(seconds))
        items = self._decode() if is_near else self._items
        times = (item.pts * item.time_base for item in items if isinstance(item, TimedPicture))
        return (time for time in times if time > seconds)

    def carried_packets(self) -> "Iterator[Packet[Stream]]":
        """Only what is carried along, without decoding further frames; in place of iterating."""
        yield from self._first_packets
        yield from (packet for packet in self._demuxer.packets() if packet.stream.type != "video")

    def _seek_near(self, seconds: Fraction) -> bool:
        """Go to a key frame well before `seconds` of the source; False, and nothing done, where it has no index."""
        if not self._demuxer.seek_near(seconds):
            return False
        self.pictures.restart()
        return True

    def _reopen(self) -> None:
        """Start from the front again, knowing nothing of what was met on the way here."""
        num_notes = len(self.notes)
        self.container.close()
        self._open()
        del self.notes[num_notes:]
        self.problems.clear()

    def _decode(self) -> Iterator[Item]:
        """Frames and packets from here to the end, resampled where asked for; what is yielded is counted."""
        rate = self.selection.frame_rate
        items = self._decode_all()
        for item in items if rate is None else resampled(items, rate):
            if isinstance(item, TimedPicture):
                self.num_frames += 1 if rate is None else item.duration
            yield item

    def _decode_all(self) -> Iterator[Item]:
        video_index = self.video_stream.index
        for packet in self._demuxer.packets():
            if packet.stream.index == video_index:
                yield from self._frames(packet)
            else:
                yield packet
        yield from self._frames(None)
        if self.pictures.has_lost_the_end and local_files(self.source):
            yield from self._lost_frames()
        self._check_end()

    def _frames(self, packet: "Packet[Stream] | None") -> Iterator[TimedPicture]:
        """Frames of one packet, or with None the last ones, as far as they lie within the selection."""
        cut, time_base = self._demuxer.cut, self._demuxer.time_base
        shift = cut.shift_ticks(time_base)
        for picture, pts, duration in self.pictures.read(packet):
            if not cut.has(pts * time_base):
                continue
            if self._info is None:
                self._info = self._begin(picture)
            frame = self._frame_maker.frame_of(picture)
            self._last_seconds = (pts - shift) * time_base
            frame.set_time(pts - shift, duration=duration, time_base=time_base)
            yield frame

    def _begin(self, picture: av.VideoFrame) -> VideoInfo:
        """Decide by the first picture what frames will be, and note what was done about it."""
        picture_filter = self.pictures.filter
        self.notes += picture_filter.notes
        self._frame_maker.begin(
            picture,
            frame_rate=self._demuxer.frame_rate,
            picture_filter=picture_filter,
            is_alone=self.is_picture,
        )
        return describe(picture, self._demuxer, self.selection, frame_maker=self._frame_maker, pictures=self.pictures)

    def _lost_frames(self) -> Iterator[TimedPicture]:
        """Those behind the last frame that a decoder of one thread finds in the file, opened once more."""
        selection = dataclasses.replace(self.selection, frame_rate=None)
        with suppress(StylizeError), Decoder(self.source, selection=selection, num_threads=1) as alone:
            if self._last_seconds is not None:
                alone.continue_after(self._last_seconds, may_seek=not self.pictures.clock.num_repaired)
            yield from (item for item in alone if isinstance(item, TimedPicture))
            self.pictures.take_account_of(alone.pictures)
            if alone.num_frames:
                self.notes.append(f"the damaged end was decoded again by one thread: {alone.num_frames} frames more")

    def _check_end(self) -> None:
        """Say what was damaged or repaired, and whether as much came as the header announced."""
        pictures, num_jumps = self.pictures, self._demuxer.num_jumps
        if pictures.num_damaged:
            self.problems.append(f"{pictures.num_damaged} packets are damaged and could not be decoded")
        if pictures.clock.num_repaired:
            self.notes.append(f"{pictures.clock.num_repaired} missing or backward timestamps were repaired")
        if num_jumps:
            times = "once" if num_jumps == 1 else f"{num_jumps} times"
            self.notes.append(f"the times of the stream jumped {times}: joined")
        missing = self._demuxer.shortfall(pictures.clock.span_seconds)
        if missing is not None or pictures.is_cut_off:
            self.problems.append(missing or "ends within its last packet: cut off")
