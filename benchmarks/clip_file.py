"""The clip a run measures on: the demo clip or the user's file, cut and sized as asked for."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from stylize.benchmarks.results import ClipFacts
from stylize.runtime.color import Color
from stylize.runtime.decode import Decoder, VideoInfo
from stylize.runtime.demo import draw_demo_frames
from stylize.runtime.encode import EncodeOptions, Encoder
from stylize.runtime.errors import InputMediaError
from stylize.runtime.frame import Frame
from stylize.runtime.partial_file import PartialFile

__all__ = ["CLIP_RATE_HZ", "WorkingClip", "cut_clip", "prepare_clip", "read_frames", "write_clip"]

CLIP_RATE_HZ = 25
_TIME_BASE = Fraction(1, CLIP_RATE_HZ)
_BT709 = 1
# The demo clip's pan starts slowly; from here on it moves.
_DEMO_START = 30
# How far ahead of its turn a packet may stand: H.264 and HEVC hold back 16 frames at most.
_MAX_REORDERED = 32


@dataclass(frozen=True, kw_only=True)
class WorkingClip:
    """The file a run measures on.

    Attributes:
        path: in the run's temporary folder.
        facts: name, size and length for the results.
    """

    path: Path
    facts: ClipFacts


def prepare_clip(source: Path | None, folder: Path, *, size_px: tuple[int, int] | None, num_frames: int) -> WorkingClip:
    """Make the clip to measure on.

    A file is cut without decoding it, so that its own codec is what gets measured; only at another
    size is it encoded again, as H.264 in MP4, as the demo clip is.

    Args:
        source: the user's video, None for the demo clip.
        folder: where to put the clip.
        size_px: (width, height), None for the source's own.
        num_frames: how many frames; a file that is cut may keep a few more, see `cut_clip`, or have fewer.

    Raises:
        InputMediaError: the source cannot be read.
        OutputMediaError: the folder cannot be written.
    """
    path = folder / "clip.mp4"
    if source is None:
        frames = itertools.islice(draw_demo_frames(), _DEMO_START, _DEMO_START + num_frames)
        write_clip(path, _resized(frames, size_px))
    elif size_px is not None:
        write_clip(path, read_frames(source, num_frames=num_frames, size_px=size_px))
    else:
        path = folder / "clip.mkv"
        cut_clip(source, path, num_frames=num_frames)
    with Decoder(path) as decoder:
        num_decoded = sum(isinstance(item, Frame) for item in decoder)
        info = decoder.info
    facts = ClipFacts(
        name="demo clip" if source is None else source.name,
        width_px=info.width,
        height_px=info.height,
        num_frames=num_decoded,
    )
    return WorkingClip(path=path, facts=facts)


def _resized(frames: Iterable[NDArray[np.uint8]], size_px: tuple[int, int] | None) -> Iterator[NDArray[np.uint8]]:
    for frame in frames:
        # Area averaging does not alias when shrinking; aliasing alone would raise the warping error.
        yield frame if size_px is None else np.asarray(cv2.resize(frame, size_px, interpolation=cv2.INTER_AREA))


def write_clip(path: Path, frames: Iterable[NDArray[np.uint8]], *, options: EncodeOptions | None = None) -> None:
    """Encode frames as a video of 25 frames per second, H.264 unless the options say otherwise.

    Args:
        path: where to; the suffix names the container.
        frames: each (H, W, 3) uint8 RGB, all of one size.
        options: how to encode.

    Raises:
        ValueError: there are no frames.
        OutputMediaError: the file cannot be written.
    """
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise ValueError(f"{path}: no frames to write")
    info = VideoInfo(
        width=first.shape[1],
        height=first.shape[0],
        time_base=_TIME_BASE,
        frame_rate=1 / _TIME_BASE,
        color=Color(matrix=_BT709, is_full_range=False, primaries=_BT709, transfer=_BT709),
    )
    with PartialFile(path) as output:
        with Encoder(output, info=info, options=options) as encoder:
            for number, array in enumerate(itertools.chain([first], iterator)):
                frame = Frame.from_array(np.ascontiguousarray(array))
                frame.set_time(number, duration=1, time_base=_TIME_BASE)
                encoder.write(frame)
        output.commit()


def cut_clip(source: Path, target: Path, *, num_frames: int) -> None:
    """Copy the beginning of a video, without decoding it and without its sound.

    Args:
        source: any video.
        target: a Matroska file to write.
        num_frames: at least so many; a few more where frames between those copied would be missing else, since
            packets stand in the order of decoding.

    Raises:
        InputMediaError: the source has no video, or cannot be read.
    """
    try:
        with av.open(str(source.absolute())) as reader, av.open(str(target.absolute()), "w") as writer:
            if not reader.streams.video:
                raise InputMediaError(source, "has no video")
            video = reader.streams.video[0]
            copy = writer.add_stream_from_template(video)
            packets = (packet for packet in reader.demux(video) if packet.size)
            ahead = list(itertools.islice(packets, num_frames + _MAX_REORDERED))
            for packet in ahead[: _length_without_gap([packet.pts for packet in ahead], num_frames)]:
                packet.stream = copy
                writer.mux(packet)
    except av.FFmpegError as error:
        raise InputMediaError(source, f"cannot be cut: {error.strerror}") from error


def _length_without_gap(times: Sequence[int | None], num_frames: int) -> int:
    """The least length from `num_frames` on of which nothing that follows is shown in between."""
    known = [time for time in times if time is not None]
    if len(known) < len(times):
        return num_frames
    lengths = range(num_frames, len(known))
    return next((length for length in lengths if max(known[:length]) < min(known[length:])), len(known))


def read_frames(
    path: Path, *, num_frames: int | None = None, size_px: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """The first frames of a video, (T, H, W, 3) uint8 RGB.

    Args:
        path: any video or picture.
        num_frames: how many at most, None for all.
        size_px: (width, height) to shrink or enlarge to, None for the file's own.

    Raises:
        InputMediaError: it cannot be read.
    """
    with Decoder(path) as decoder:
        frames = (item.to_array() for item in decoder if isinstance(item, Frame))
        return np.stack(list(_resized(itertools.islice(frames, num_frames), size_px)))
