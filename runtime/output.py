"""Where a result goes: what all ways of writing one have in common, and a video as a file or stream."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from stylize.runtime.decode import Decoder
from stylize.runtime.encode import EncodeOptions, Encoder
from stylize.runtime.errors import OutputMismatchError
from stylize.runtime.partial_file import PartialFile
from stylize.runtime.selection import Item
from stylize.runtime.stream_output import StreamOutput
from stylize.runtime.video_encoder import VideoEncoder

__all__ = ["Output", "Result", "VideoOutput"]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What is known about a finished output."""

    num_frames: int
    size: tuple[int, int]
    """Width and height of the pictures in pixels."""
    encoder: str
    """Encoder and pixel format really in use."""
    notes: tuple[str, ...]
    """What was guessed, changed or left out, one sentence each."""
    problems: tuple[str, ...]
    """Damage in the source."""


class Output(ABC):
    """Takes finished frames and what travels along, in order; a context manager, for one thread at a time.

    Nothing has the name asked for before `finish`, and nothing gets it where this is left without.
    """

    num_frames = 0
    """Frames written so far, those of an earlier run included; resampled ones count for all their ticks."""
    num_resumed_frames = 0
    """Of these, what an earlier run had finished."""
    video_encoder: VideoEncoder | None = None
    """What frames or surfaces are encoded by; None for pictures, or where nothing is missing."""
    is_alone = False
    """Whether it holds a single picture."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._owned = ExitStack()

    def missing(self) -> Iterable[Item]:
        """What is to be rendered of the decoder, which is at its first frame."""
        return self._decoder

    @abstractmethod
    def write(self, item: Item) -> None:
        """Write a frame, or a packet where there is a place for it.

        Raises:
            OutputMediaError: the encoder failed or the disk is full.
        """

    @abstractmethod
    def finish(self) -> Result:
        """Complete what was asked for, check it and give it its name.

        Raises:
            OutputMediaError: as `write`, or it cannot get its name.
            OutputMismatchError: what is there is not what was written.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._owned.__exit__(kind, error, traceback)


class VideoOutput(Output):
    """Encodes frames as they come, and copies packets in between."""

    def __init__(self, place: PartialFile | StreamOutput, decoder: Decoder, options: EncodeOptions) -> None:
        """Open the encoder.

        Args:
            place: where to write.
            decoder: of the frames to come; its other streams, chapters and tags are carried along.
            options: how to encode.

        Raises:
            OptionError: see `Encoder`; OutputMediaError likewise.
        """
        super().__init__(decoder)
        self._place = place
        with ExitStack() as owned:
            owned.enter_context(place)
            self._encoder = owned.enter_context(Encoder(place, info=decoder.info, options=options, source=decoder))
            self._owned = owned.pop_all()
        self.video_encoder = self._encoder.video

    def write(self, item: Item) -> None:
        """See `Output`."""
        self._encoder.write(item)
        self.num_frames = self._encoder.num_frames

    def finish(self) -> Result:
        """See `Output`; a stream has no name to get, and is not read back."""
        encoder, decoder = self._encoder, self._decoder
        encoder.finish()
        if encoder.num_frames != decoder.num_frames and not decoder.is_live:
            raise OutputMismatchError(
                f"{self._place.target}: {encoder.num_frames} of {decoder.num_frames} frames encoded"
            )
        encoder.check()
        self._place.commit()
        return Result(
            num_frames=encoder.num_frames,
            size=encoder.size,
            encoder=encoder.description,
            notes=(*decoder.notes, *encoder.notes),
            problems=tuple(decoder.problems),
        )
