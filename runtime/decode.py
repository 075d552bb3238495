"""Containers in: frames with their time, and the packets that travel along unchanged."""

import dataclasses
from collections import deque
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

from stylize.runtime.choose_video import announced_seconds, choose_video, nothing_selected, shortfall
from stylize.runtime.clock import Arrivals, Clock, Continuity
from stylize.runtime.errors import InputMediaError, StylizeError
from stylize.runtime.frame import TimedPicture
from stylize.runtime.frame_maker import FrameMaker
from stylize.runtime.hdr_metadata import hdr_metadata
from stylize.runtime.picture_decoder import PictureDecoder
from stylize.runtime.picture_filter import PictureFilter
from stylize.runtime.selection import Cut, Hdr, Item, Selection, resampled
from stylize.runtime.source import has_sought, local_files, open_source, pipe_hint
from stylize.runtime.surface import is_on_device, samples_pix_fmt
from stylize.runtime.surface_source import SurfaceSource, filterable
from stylize.runtime.unattended import OneReader
from stylize.runtime.video_info import VideoInfo

__all__ = ["Decoder", "Item", "VideoInfo"]

# Frame threads hold one picture each; four decode 1080p H.264 at several hundred frames per second.
_MAX_THREADS: Final = 4
_DEFAULT_RATE: Final = Fraction(25)  # FFmpeg's own default for sources without a rate
# Covers pictures that open groups leave undecodable and subtitles that began earlier.
_SEEK_MARGIN_SECONDS: Final = 10


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
        self.problems: list[str] = []
        """Damage met so far, one sentence each; complete once the iteration has ended."""
        self.num_frames = 0
        """Frames yielded so far; resampled ones count once for every tick they are shown."""
        self.notes: list[str] = []
        """What was guessed or changed about the picture, one sentence each."""
        self._num_threads, self.is_live = num_threads, is_live
        self.arrivals = Arrivals()
        """When packets come."""
        self._continuity = Continuity()
        self._reader = OneReader(lambda: self.container.close())
        self._last_seconds: Fraction | None = None  # time of the last frame
        self._surfaces = SurfaceSource(surface_gpu) if surface_gpu is not None else None
        self._info: VideoInfo | None = None
        self._frame_maker = FrameMaker(self._surfaces, keeps_hdr=self.selection.hdr == Hdr.KEEP, notes=self.notes)
        self._open()
        try:
            items = self._counted(self._decode())
            *self._first_packets, first = self._until_first_frame(items)
            assert isinstance(first, TimedPicture), "the head ends with the first frame"
            self.first_seconds = first.pts * first.time_base
            """Time of the first frame."""
            self._items: Iterator[Item] = chain([*self._first_packets, first], items)
        except BaseException:
            self.container.close()
            raise

    def _open(self) -> None:
        """Open the source near the selected start with a fresh decoder."""
        opened = open_source(
            self.source,
            picture_rate=self.selection.picture_rate,
            options=dict(self.selection.input_options),
            hwaccel=self._surfaces.hwaccel if self._surfaces is not None else None,
        )
        self.notes += opened.notes
        self.container: InputContainer = opened.container
        try:
            self.video_stream = choose_video(self.container, self.source, notes=self.notes)
            # A list of pictures must not lose those that other threads hold when a damaged one ends decoding.
            is_list = self.container.format.name == "concat"
            self._pictures = PictureDecoder(
                self.video_stream, num_threads=1 if is_list else self._num_threads, is_live=self.is_live
            )
            if self._surfaces is not None:
                self.notes += self._surfaces.configure(self.video_stream.codec_context)
            streams = [stream for stream in self.container.streams if stream.type == "audio"]
            self._cut = Cut(
                self.selection,
                origin=Fraction(self.container.start_time or 0, av.time_base),
                waits_for=(self.video_stream.index, *(stream.index for stream in streams)),
                starts_at_zero=self.is_live,
            )
            self._reset()
            self._seek_near(self._cut.first)
        except BaseException:
            self.container.close()
            raise

    def _reset(self) -> None:
        """Forget what was read."""
        self._filter = PictureFilter()
        self._clock = Clock(self._time_base, self._frame_rate)
        self._last_end_seconds = 0.0  # over all streams, from the start of the file

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

    def continue_after(self, last: Fraction, *, num_done: int, num_again: int = 0, may_seek: bool = True) -> None:
        """Go on behind the frame shown at `last`, in place of starting with the first one.

        Args:
            last: seconds; the time of a frame as an earlier pass over the same source gave it.
            num_done: frames up to and with that one, to count on from.
            num_again: how many of these are yielded again first, as far as there are.
            may_seek: whether the earlier pass met neither damage nor missing times, so that what is decoded
                from the middle is what was decoded from the front.

        Raises:
            InputMediaError: no frame is shown at that time.
        """
        is_near = may_seek and self._seek_near(self._cut.source_seconds(last))
        items = self._counted(self._decode()) if is_near else self._items
        if not (is_found := self._skip_past(last, items, num_again)) and is_near:
            num_notes = len(self.notes)
            self.container.close()
            self._open()
            del self.notes[num_notes:]
            self.problems.clear()
            is_found = self._skip_past(last, self._counted(self._decode()), num_again)
        if not is_found:
            raise InputMediaError(self.source, f"shows no frame at {float(last):.3f} s any more")
        self.num_frames = num_done

    def times_after(self, seconds: Fraction) -> Iterator[Fraction]:
        """When the frames after this moment are shown; in place of iterating."""
        items = self._counted(self._decode()) if self._seek_near(self._cut.source_seconds(seconds)) else self._items
        times = (item.pts * item.time_base for item in items if isinstance(item, TimedPicture))
        return (time for time in times if time > seconds)

    def _skip_past(self, last: Fraction, items: Iterator[Item], num_again: int) -> bool:
        """Read up to the frame at `last`; False when there is none."""
        again: deque[Item] = deque(maxlen=num_again)
        for frame in items:
            if not isinstance(frame, TimedPicture):
                continue
            again.append(frame)
            seconds = frame.pts * frame.time_base
            if seconds >= last:
                self._items = chain(again, items)
                return seconds == last
        return False

    def carried_packets(self) -> "Iterator[Packet[Stream]]":
        """Only what is carried along, without decoding further frames; in place of iterating."""
        yield from (packet for packet in self._first_packets if not isinstance(packet, TimedPicture))
        for packet in self._demux():
            if self._cut.is_over(packet):
                break
            if packet.stream.type != "video" and self._cut.move(packet):
                yield packet

    @property
    def is_clean(self) -> bool:
        """Whether everything so far was decoded without damage and had a time."""
        return not (self._pictures.num_damaged or self._clock.num_repaired or self.problems)

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
    def surface_gpu(self) -> int | None:
        """The GPU for which surfaces are yielded, None where frames are."""
        return self._surfaces.gpu if self._surfaces is not None and self._surfaces.pix_fmt else None

    @property
    def is_picture(self) -> bool:
        """Whether the source is a single picture file."""
        name = self.container.format.name
        return name == "image2" or name.endswith("_pipe")

    @property
    def chapters(self) -> list[Any]:
        """The chapters of the selected part, in PyAV's form."""
        return self._cut.chapters_of(self.container.chapters())

    @property
    def _time_base(self) -> Fraction:
        return self.video_stream.time_base or Fraction(1, 90_000)

    @property
    def _frame_rate(self) -> Fraction:
        return self.video_stream.average_rate or self.video_stream.guessed_rate or _DEFAULT_RATE

    def _until_first_frame(self, items: Iterator[Item]) -> list[Item]:
        head: list[Item] = []
        for item in items:
            head.append(item)
            if isinstance(item, TimedPicture):
                return head
        if self.selection.is_cut and not self.problems:
            raise nothing_selected(self.source, self.container, self.video_stream)
        reason = f": {'; '.join(self.problems)}" if self.problems else ""
        raise InputMediaError(self.source, f"no frame of its video can be decoded{reason}{pipe_hint(self.source)}")

    def _seek_near(self, seconds: Fraction) -> bool:
        """Go to a key frame well before `seconds` where the container has an index to do so exactly."""
        if not has_sought(self.container, seconds - _SEEK_MARGIN_SECONDS):
            return False
        self._reset()
        self._clock.set_first(self.video_stream.start_time or 0)
        return True

    def _counted(self, items: Iterator[Item]) -> Iterator[Item]:
        """Resample where asked for, and count what is yielded."""
        rate = self.selection.frame_rate
        for item in items if rate is None else resampled(items, rate):
            if isinstance(item, TimedPicture):
                self.num_frames += 1 if rate is None else item.duration
            yield item

    def _decode(self) -> Iterator[Item]:
        for packet in self._demux():
            if self._cut.is_over(packet):
                break
            if packet.stream.index == self.video_stream.index:
                if not self._cut.is_behind(packet):
                    yield from self._frames(packet)
            elif packet.stream.type != "video" and self._cut.move(packet):
                yield packet
        yield from self._frames(None)
        yield from self._frames_of(self._filter.flush())
        if self._pictures.has_lost_the_end and local_files(self.source):
            yield from self._lost_frames()
        self._check_end()

    def _lost_frames(self) -> Iterator[TimedPicture]:
        """Those behind the last frame that a decoder of one thread finds in the file, opened once more."""
        selection, last = dataclasses.replace(self.selection, frame_rate=None), self._last_seconds
        with suppress(StylizeError), Decoder(self.source, selection=selection, num_threads=1) as alone:
            if last is not None:
                alone.continue_after(last, num_done=0, may_seek=not self._clock.num_repaired)
            yield from (item for item in alone if isinstance(item, TimedPicture))
            self._clock = alone._clock
            self._pictures.num_damaged = max(self._pictures.num_damaged, alone._pictures.num_damaged)
            if alone.num_frames:
                self.notes.append(f"the damaged end was decoded again by one thread: {alone.num_frames} frames more")

    def _demux(self) -> Iterator["Packet[Stream]"]:
        """Every packet with data; a file that breaks off ends here with an entry in `problems`."""
        start_seconds = (self.container.start_time or 0) / av.time_base
        try:
            for packet in self.container.demux():
                if packet.size == 0:
                    continue  # a flush marker
                self.arrivals.note()
                if self.is_live:
                    self._continuity.mend(packet)
                if packet.pts is not None:
                    end = float((packet.pts + (packet.duration or 0)) * packet.time_base) - start_seconds
                    self._last_end_seconds = max(self._last_end_seconds, end)
                yield packet
        except av.FFmpegError as error:
            why = "nothing came for too long" if isinstance(error, av.ExitError) else error.strerror
            self.problems.append(f"reading stopped after {self._last_end_seconds:.2f} s: {why}")

    def _frames(self, packet: "Packet[Stream] | None") -> Iterator[TimedPicture]:
        """Frames of one packet, or with None the last ones still inside the decoder."""
        for picture in self._pictures.decode(packet):
            if self.is_live and picture.pts is None and picture.dts is None:
                picture.pts = self.arrivals.ticks(self._time_base)
            picture.time_base = self._time_base  # PyAV leaves it unset on the last ones
            yield from self._frames_of(self._filter.push(filterable(picture, self._filter)))

    def _frames_of(self, pictures: list[av.VideoFrame]) -> Iterator[TimedPicture]:
        """Frames of those pictures that lie within the selection."""
        shift = self._cut.shift_ticks(self._time_base)
        for picture in pictures:
            pts, duration = self._clock.time_of(picture)
            if self._cut.has(pts * self._time_base):
                self._info = self._info or self._describe(picture)
                frame = self._frame_maker.frame_of(picture)
                self._last_seconds = (pts - shift) * self._time_base
                frame.set_time(pts - shift, duration=duration, time_base=self._time_base)
                yield frame

    def _describe(self, picture: av.VideoFrame) -> VideoInfo:
        """Collect what the first picture and the container say, and note what was done about it."""
        stream = self.video_stream
        aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or Fraction(1)
        aspect = 1 / aspect if self._filter.is_transposing else aspect
        selection, rate = self.selection, self._frame_rate
        width, height = selection.size_of(picture.width, picture.height)
        self.notes += [
            *self._filter.notes,
            *self._frame_maker.begin(picture, size=(width, height)),
            *selection.notes_on(picture.width, picture.height, rate=rate),
        ]
        if self._surfaces is not None:
            reasons = {
                "a single picture": self.is_picture,
                "tone-mapped": self._frame_maker.is_tone_mapping,
                "turned upright": self._filter.is_turning,
                "deinterlaced": self._filter.is_deinterlacing,
                "scaled": (width, height) != (picture.width, picture.height),
            }
            self.notes += self._surfaces.begin(picture, [reason for reason, is_so in reasons.items() if is_so])
        seconds = selection.seconds_of(announced_seconds(self.container, self.video_stream))
        num_frames = stream.frames or None
        if selection.is_cut or selection.frame_rate is not None:
            num_frames = round(seconds * min(rate, selection.frame_rate or rate)) if seconds is not None else None
        return VideoInfo(
            width=width,
            height=height,
            time_base=self._time_base if selection.frame_rate is None else 1 / selection.frame_rate,
            frame_rate=selection.frame_rate or rate,
            color=self._frame_maker.color,
            sample_aspect_ratio=selection.sample_aspect_ratio_of(aspect, width=picture.width, height=picture.height),
            pix_fmt=samples_pix_fmt(picture),
            num_frames=num_frames,
            duration_seconds=seconds,
            decoder=stream.codec_context.codec.name + (" by NVDEC" if is_on_device(picture) else ""),
            is_resampled=selection.frame_rate is not None,
            hdr_metadata=hdr_metadata(picture) if self._frame_maker.color.hdr else "",
        )

    def _check_end(self) -> None:
        """Compare what came with what the header announced."""
        if self._pictures.num_damaged:
            self.problems.append(f"{self._pictures.num_damaged} packets are damaged and could not be decoded")
        if self._clock.num_repaired:
            self.notes.append(f"{self._clock.num_repaired} missing or backward timestamps were repaired")
        if self._continuity.num_jumps:
            self.notes.append(f"the times of the stream jumped {self._continuity.num_jumps} times: joined")
        until = None if self.selection.end_seconds is None else self._cut.seconds_until_end(self.video_stream)
        missing = shortfall(
            self.container,
            self.video_stream,
            span_seconds=self._clock.span_seconds,
            last_end_seconds=self._last_end_seconds,
            until_seconds=until,
        )
        if missing is not None or self._pictures.is_cut_off:
            self.problems.append(missing or "ends within its last packet: cut off")
