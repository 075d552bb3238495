"""A source once opened: its video, and the packets of the selected part."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream

from stylize.runtime.choose_video import choose_video, is_cover, lacks_clock, shortfall
from stylize.runtime.clock import Arrivals, Continuity
from stylize.runtime.selection import Cut, Selection
from stylize.runtime.source import has_sought, open_source

__all__ = ["Demuxer"]

_DEFAULT_RATE: Final = Fraction(25)  # FFmpeg's own default for sources without a rate
_DISCARD_ALL: Final = 48  # AVDISCARD_ALL of libavcodec/defs.h
# Covers pictures that open groups leave undecodable and subtitles that began earlier.
_SEEK_MARGIN_SECONDS: Final = 10


class Demuxer:
    """Reads the packets of one source from front to back; passive."""

    def __init__(
        self,
        source: str | Path,
        selection: Selection,
        *,
        hwaccel: HWAccel | None,
        is_live: bool,
        notes: list[str],
        problems: list[str],
    ) -> None:
        """Open `source` at its start.

        Args:
            source: what to read; see `open_source`.
            selection: which part of it.
            hwaccel: decodes the video, None to do it on the CPU.
            is_live: whether packets come in real time: the part starts at 0, and jumps of its times are joined.
            notes: where to say how the source was read.
            problems: where to say that it broke off.

        Raises:
            InputMediaError: missing, not media, or without video.
        """
        self.arrivals = Arrivals()
        """When packets come."""
        self.covers: dict[int, Packet[Stream]] = {}
        """The cover pictures by stream, which come before everything else."""
        self._source, self._selection = source, selection
        self._problems = problems
        self._last_end_seconds = 0.0  # over all streams, from the start of the file
        opened = open_source(
            source,
            picture_rate=selection.picture_rate,
            options=dict(selection.input_options),
            hwaccel=hwaccel,
        )
        notes += opened.notes
        self.container: InputContainer = opened.container
        try:
            self.video_stream = choose_video(self.container, source, notes=notes)
        except BaseException:
            self.container.close()
            raise
        may_jump = lacks_clock(self.container)
        self._continuity = Continuity() if is_live or may_jump else None
        origin = Fraction(self.container.start_time or 0, av.time_base)
        audio = [stream.index for stream in self.container.streams if stream.type == "audio"]
        self.cut = Cut(
            selection,
            origin=origin,
            waits_for=(self.video_stream.index, *audio),
            # What is shown before 0 is shown by no player, and of a clock that began at will nobody wants the time.
            starts_at_zero=is_live or may_jump or origin < 0,
        )
        """The part, in the source's own times."""

    @property
    def time_base(self) -> Fraction:
        """Seconds per tick of the video's times."""
        return self.video_stream.time_base or Fraction(1, 90_000)

    @property
    def frame_rate(self) -> Fraction:
        """Frames per second of the video, on average."""
        return self.video_stream.average_rate or self.video_stream.guessed_rate or _DEFAULT_RATE

    @property
    def other_streams(self) -> tuple[Stream, ...]:
        """What is carried along: audio, subtitles, attachments and data, in the source's order."""
        return tuple(
            stream
            for stream in self.container.streams
            if stream.type != "video" and not (stream.type == "data" and _is_told_otherwise(stream))
        )

    @property
    def chapters(self) -> list[Any]:
        """The chapters of the part, in PyAV's form."""
        return self.cut.chapters_of(self.container.chapters())

    @property
    def is_picture(self) -> bool:
        """Whether the source is a single picture file."""
        name = self.container.format.name
        return name == "image2" or name.endswith("_pipe")

    @property
    def is_list(self) -> bool:
        """Whether the source is several picture files."""
        return self.container.format.name == "concat"

    @property
    def num_jumps(self) -> int:
        """How often the times of a source whose times may jump have done so far."""
        return self._continuity.num_jumps if self._continuity is not None else 0

    def seek_near(self, seconds: Fraction) -> bool:
        """Go to a key frame well before `seconds` of the source; False, and nothing done, where it has no exact index.

        Every decoder of the source must start anew then.
        """
        if not has_sought(self.container, seconds - _SEEK_MARGIN_SECONDS):
            return False
        self._last_end_seconds = 0.0
        return True

    def packets(self) -> Iterator["Packet[Stream]"]:
        """Those of the video, with some around the part, and those of other streams within it, moved to its times.

        A file that breaks off ends here with an entry in `problems`.
        """
        start_seconds = (self.container.start_time or 0) / av.time_base
        try:
            for packet in self.container.demux():
                if packet.size == 0:
                    continue  # a flush marker
                if packet.pts is None and is_cover(packet.stream):
                    self.covers[packet.stream.index] = packet
                    continue
                self.arrivals.note()
                if self._continuity is not None and not self._continuity.mend(packet):
                    continue
                if packet.pts is not None:
                    end = float((packet.pts + (packet.duration or 0)) * packet.time_base) - start_seconds
                    self._last_end_seconds = max(self._last_end_seconds, end)
                if self.cut.is_over(packet):
                    return
                if packet.stream.index == self.video_stream.index:
                    if not self.cut.is_behind(packet):
                        yield packet
                elif packet.stream.type != "video" and self.cut.move(packet):
                    yield packet
        except av.FFmpegError as error:
            why = "nothing came for too long" if isinstance(error, av.ExitError) else error.strerror
            self._problems.append(f"reading stopped after {self._last_end_seconds:.2f} s: {why}")

    def shortfall(self, span_seconds: float) -> str | None:
        """After the last packet: what to say where less came than the headers announce, None where all did.

        Args:
            span_seconds: how long the decoded frames last.
        """
        return shortfall(
            self.container,
            self.video_stream,
            span_seconds=span_seconds,
            last_end_seconds=self._last_end_seconds,
            until_seconds=(
                None if self._selection.end_seconds is None else self.cut.seconds_until_end(self.video_stream)
            ),
        )


def _is_told_otherwise(stream: Stream) -> bool:
    """Whether an MP4 holds in this track what FFmpeg tells as chapters, and discards it, or as the tag `timecode`."""
    return stream.discard == _DISCARD_ALL or "timecode" in stream.metadata
