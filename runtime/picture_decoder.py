"""Packets into pictures, with an eye on those that got lost on the way."""

from collections import deque
from typing import Final, cast

import av
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

__all__ = ["PictureDecoder"]

# More than any decoder holds: 16 pictures wait for their turn in H.264 and HEVC, and one in each thread.
_NUM_REMEMBERED: Final = 64
# FFmpeg's AVFMT_NOTIMESTAMPS: a format without times, such as bare H.264.
_NO_TIMES: Final = 0x80


class PictureDecoder:
    """Decodes the packets of one stream in order; passive.

    Several threads are faster, but when one of them meets damage after the last packet, FFmpeg hands out nothing
    more, not even the good pictures of the others: `has_lost_the_end` says so.
    """

    def __init__(self, stream: VideoStream, *, num_threads: int, is_live: bool) -> None:
        """Prepare the decoder of `stream`, which opens with the first packet.

        Args:
            stream: the video.
            num_threads: how many work on it.
            is_live: whether they share each picture, instead of having one each, which are shown that much later.
        """
        self.num_damaged = 0
        """Packets so far that could not be decoded."""
        self._context = _context_of(stream)
        self._context.thread_type = "SLICE" if is_live else "AUTO"
        self._context.thread_count = num_threads
        self._packet_times: deque[int] = deque(maxlen=_NUM_REMEMBERED)
        self._picture_times: deque[int] = deque(maxlen=_NUM_REMEMBERED)
        self.is_cut_off = False
        """Whether the last packet so far is not whole."""
        self._has_failed_at_end = False
        # Who joins an RTSP stream gets pictures without times before the sender's first report: not to be placed.
        has_times = not stream.container.format.flags & _NO_TIMES
        self._num_untimed_left = _NUM_REMEMBERED if is_live and has_times else 0

    def decode(self, packet: "Packet[Stream] | None") -> list[av.VideoFrame]:
        """The pictures that `packet` completes, or with None the last ones."""
        if packet is not None:
            self.is_cut_off = packet.is_corrupt
            if packet.pts is not None:
                self._packet_times.append(packet.pts)
        try:
            pictures = self._context.decode(packet)
        except av.FFmpegError:
            self.num_damaged += 1
            self._has_failed_at_end |= packet is None
            return []
        self._picture_times.extend(picture.pts for picture in pictures if picture.pts is not None)
        while pictures and self._num_untimed_left:
            if pictures[0].pts is not None or pictures[0].dts is not None:
                self._num_untimed_left = 0
            else:
                pictures, self._num_untimed_left = pictures[1:], self._num_untimed_left - 1
        return pictures

    @property
    def name(self) -> str:
        """FFmpeg's decoder in use."""
        return self._context.codec.name

    def restart(self) -> None:
        """Forget earlier packets, as those to come are from elsewhere."""
        if self._context.is_open:
            self._context.flush_buffers()

    @property
    def has_lost_the_end(self) -> bool:
        """After the last packet: whether pictures near the end are missing that one thread might have decoded."""
        if self._context.thread_count == 1:
            return False
        lost = set(self._packet_times) - set(self._picture_times)
        # Where each field has a packet of its own, half of the packets never become a picture.
        return self.is_cut_off or self._has_failed_at_end or 0 < len(lost) < len(self._packet_times) // 3


def _context_of(stream: VideoStream) -> av.VideoCodecContext:
    """The decoder of `stream`; for VP8 and VP9 with transparency, which FFmpeg's own leave out, that of libvpx."""
    name = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(stream.codec_context.name, "")
    has_alpha = any(key.lower() == "alpha_mode" and text == "1" for key, text in stream.metadata.items())
    if not has_alpha or name not in av.codecs_available:
        return stream.codec_context
    return cast(av.VideoCodecContext, av.CodecContext.create(name, "r"))
