"""The packets of a video into its pictures: decoded, upright, progressive, each with a time."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import av
from av.packet import Packet
from av.stream import Stream

from stylize.runtime.clock import Clock
from stylize.runtime.demux import Demuxer
from stylize.runtime.picture_decoder import PictureDecoder
from stylize.runtime.picture_filter import PictureFilter
from stylize.runtime.surface_source import filterable

__all__ = ["PictureReader", "ReadPicture"]


class ReadPicture(NamedTuple):
    """A picture and when it is shown, in ticks of the video's time base."""

    picture: av.VideoFrame
    pts: int
    duration: int


class PictureReader:
    """Reads the pictures of one video in order, and keeps account of damage and of missing times; passive."""

    def __init__(
        self,
        demuxer: Demuxer,
        *,
        num_threads: int,
        is_live: bool,
        on_first: Callable[[av.VideoFrame], None] = lambda _: None,
    ) -> None:
        """Prepare for the video of `demuxer`, from its start.

        Args:
            demuxer: gives the packets.
            num_threads: how many decode.
            is_live: whether pictures come in real time; those without a time get that of their arrival.
            on_first: called with the first picture as it was decoded; may raise.
        """
        self._demuxer, self._is_live = demuxer, is_live
        self._on_first: Callable[[av.VideoFrame], None] | None = on_first
        self._time_base = demuxer.time_base
        # A list of pictures must not lose those that other threads hold when a damaged one ends decoding.
        self._decoder = PictureDecoder(
            demuxer.video_stream, num_threads=1 if demuxer.is_list else num_threads, is_live=is_live
        )
        self.clock = Clock(self._time_base, demuxer.frame_rate)
        """When the pictures are shown, and how many had no such time."""
        self.filter = PictureFilter()
        """What is done to the pictures."""

    def restart(self) -> None:
        """Go on with packets from the middle of the file; the span counts from its start all the same."""
        self._decoder.restart()
        self.filter = PictureFilter()
        self.clock = Clock(self._time_base, self._demuxer.frame_rate)
        self.clock.set_first(self._demuxer.video_stream.start_time or 0)

    def read(self, packet: "Packet[Stream] | None") -> Iterator[ReadPicture]:
        """The pictures that `packet` completes, or with None the last ones."""
        for picture in self._decoder.decode(packet):
            if self._on_first is not None:
                self._on_first(picture)
                self._on_first = None
            if self._is_live and picture.pts is None and picture.dts is None:
                picture.pts = self._demuxer.arrivals.ticks(self._time_base)
            picture.time_base = self._time_base  # PyAV leaves it unset on the last ones
            yield from self._timed(self.filter.push(filterable(picture, self.filter)))
        if packet is None:
            yield from self._timed(self.filter.flush())

    def _timed(self, pictures: list[av.VideoFrame]) -> Iterator[ReadPicture]:
        for picture in pictures:
            yield ReadPicture(picture, *self.clock.time_of(picture))

    @property
    def decoder_name(self) -> str:
        """FFmpeg's decoder in use."""
        return self._decoder.name

    @property
    def num_damaged(self) -> int:
        """Packets so far that could not be decoded."""
        return self._decoder.num_damaged

    @property
    def is_cut_off(self) -> bool:
        """Whether the last packet so far is not whole."""
        return self._decoder.is_cut_off

    @property
    def has_lost_the_end(self) -> bool:
        """After the last packet: whether pictures near the end are missing that one thread might have decoded."""
        return self._decoder.has_lost_the_end

    def take_account_of(self, other: "PictureReader") -> None:
        """Go by what `other` met, which has read the same video and more of its end."""
        self.clock = other.clock
        self._decoder.num_damaged = max(self.num_damaged, other.num_damaged)
