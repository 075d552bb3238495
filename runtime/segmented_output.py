"""A video in closed segments: those a `ResumeFolder` lacks are encoded, and all are joined."""

import io
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TypeGuard

from av.packet import Packet
from av.video.stream import VideoStream

from stylize.runtime.container import open_container, reported
from stylize.runtime.decode import Decoder
from stylize.runtime.errors import InputMediaError, OptionError, OutputMismatchError
from stylize.runtime.frame import TimedPicture
from stylize.runtime.join import join
from stylize.runtime.output import Output, Result
from stylize.runtime.resume import Part, ResumeFolder, ResumeOptions, Segment
from stylize.runtime.run_facts import fingerprint
from stylize.runtime.scheduling import ordinary_threads
from stylize.runtime.segment_file import SegmentFile, SegmentRecord
from stylize.runtime.selection import Item
from stylize.runtime.video_encoder import EncodeOptions, VideoEncoder

__all__ = ["SegmentedOutput"]


class SegmentedOutput(Output):
    """Encodes frame by frame, each segment by an encoder of its own.

    All of them are encoded before the sound is read, so packets are left out here.
    """

    _encoder: VideoEncoder
    _file: SegmentFile

    def __init__(
        self, folder: ResumeFolder, decoder: Decoder, *, encode: EncodeOptions, resume: ResumeOptions, num_again: int
    ) -> None:
        """Open the encoder of the first missing segment.

        Args:
            folder: what is finished; closed with this.
            decoder: the source.
            encode: how to encode.
            resume: how to divide.
            num_again: how many earlier frames pass through the network before the first missing one.

        Raises:
            OptionError: see `VideoEncoder`; or the encoder here writes another header than the one before.
            OutputMediaError: the container or the encoder refuse, or the disk.
        """
        super().__init__(decoder)
        self._folder, self._encode, self._resume, self._num_again = folder, encode, resume, num_again
        self._part = resume.part or Part(None, None)
        self._after = self._part.after
        if folder.last_pts is not None:
            self._after = folder.last_pts * decoder.info.time_base
        self._last_pts = folder.last_pts
        self.num_frames = self._num_missing = self.num_resumed_frames = folder.num_frames
        with ExitStack() as owned:
            owned.enter_context(folder)
            if not folder.is_complete:
                self._open()
                owned.push(lambda *error: self._file.__exit__(*error))
            self._owned = owned.pop_all()

    def missing(self) -> Iterator[Item]:
        """The frames to encode and those that lead to them.

        Raises:
            InputMediaError: the source does not show the last finished frame any more.
        """
        if self._folder.is_complete:
            return
        if self._after is not None:
            is_clean = all(segment.record.is_clean for segment in self._folder.segments)
            self._decoder.continue_after(self._after, num_again=self._num_again, may_seek=is_clean)
        for item in self._part.of(self._decoder):
            if self._is_missing(item):
                self._num_missing += len(self._encoder.times_of(item))
            yield item

    def write(self, item: Item) -> None:
        """Encode a frame; those finished earlier, yielded again for the network's sake, and packets are left out."""
        if not self._is_missing(item):
            return
        with reported(self._folder.target):
            if self._num_in_segment == self._resume.segment_frames:
                self._close(is_last=False)
                self._open()
            for packet in self._encoder.encode(item):
                self._add(packet)
        self._last_pts = item.pts
        self._num_in_segment += 1
        self.num_frames += len(self._encoder.times_of(item))

    def finish(self) -> Result:
        """Close the last segment, and join all unless they are of a part.

        Raises:
            InputMediaError: the source was changed meanwhile.
            OutputMediaError: as `write`, and see `join`.
            OutputMismatchError: frames were lost on the way to the encoder or in it.
        """
        folder, decoder = self._folder, self._decoder
        if not folder.is_complete:
            if fingerprint(decoder.source) != folder.facts["input"]:
                raise InputMediaError(decoder.source, "was changed while it was read")
            if self.num_frames != self._num_missing:
                raise OutputMismatchError(f"{folder.target}: {self.num_frames} of {self._num_missing} frames encoded")
            with reported(self._folder.target):
                self._close(is_last=True)
        if self._resume.part is None:
            result = join(
                folder.segments, decoder.source, folder.target, selection=decoder.selection, encode=self._encode
            )
            folder.remove()
            return result
        return Result(
            num_frames=self.num_frames,
            size=(decoder.info.width, decoder.info.height),
            encoder="",
            notes=(),
            problems=(),
        )

    def _is_missing(self, item: Item) -> TypeGuard[TimedPicture]:
        if not isinstance(item, TimedPicture):
            return False
        return self._after is None or item.pts * item.time_base > self._after

    def _open(self) -> None:
        # The encoder is set up for the container of the target, which will hold its packets. No packet gets there now.
        folder, nowhere = self._folder, io.BytesIO()
        nowhere.name = folder.target.name
        container = open_container(nowhere, name=self._encode.container, target=folder.target)
        self._encoder = self.video_encoder = VideoEncoder(
            container,
            info=self._decoder.info,
            options=self._encode,
            target=folder.target,
            surface_gpu=self._decoder.surface_gpu,
            stays_on_gpu=False,  # what is joined has the header of an encoder that is open before its first picture
        )
        with ordinary_threads():
            container.start_encoding()
        last = folder.segments[-1].record if folder.segments else None
        if last is not None and last.header != self._encoder.header:
            raise OptionError(
                f"{folder.path}: begun by {last.encoder} under another header than {self._encoder.description} "
                "writes here; go on where it was begun, or remove that folder to start afresh"
            )
        self._times: list[int] = []
        self._num_in_segment = 0
        self._first_number = self.num_frames
        self._file = SegmentFile(folder.next_path)

    def _add(self, packet: "Packet[VideoStream]") -> None:
        self._file.add(packet)
        assert packet.pts is not None and packet.time_base == self._decoder.info.time_base, "as the encoder was told"
        self._times.append(packet.pts)

    def _close(self, *, is_last: bool) -> None:
        decoder, encoder, path = self._decoder, self._encoder, self._folder.next_path
        for packet in encoder.flush():
            self._add(packet)
        num_frames = self.num_frames - self._first_number
        if len(self._times) != num_frames:
            raise OutputMismatchError(f"{self._folder.target}: {len(self._times)} of {num_frames} frames encoded")
        record = SegmentRecord(
            times=tuple(sorted(self._times)),
            num_reordered=_num_reordered(self._times),
            last_pts=self._last_pts,
            is_clean=decoder.is_clean,
            is_last=is_last,
            encoder=encoder.codec,
            pix_fmt=encoder.pix_fmt,
            header=encoder.header,
            notes=(*(decoder.notes if is_last else ()), *encoder.notes),
            problems=tuple(decoder.problems) if is_last else (),
        )
        self._file.commit(record)
        self._folder.segments.append(Segment(path, record))


def _num_reordered(times: Sequence[int]) -> int:
    """The fewest packets by which sorted times must lag so that none is later than the packet's own."""
    ranks = {time: rank for rank, time in enumerate(sorted(times))}
    return max((index - ranks[time] for index, time in enumerate(times)), default=0)
