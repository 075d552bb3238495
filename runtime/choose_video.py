"""Which of a container's streams is the video, and how long it claims to be."""

from fractions import Fraction
from pathlib import Path
from typing import Final

import av
from av.container import InputContainer
from av.format import Flags
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from stylize.runtime.errors import InputMediaError, OptionError
from stylize.runtime.selection import seconds_from_text

__all__ = ["announced_seconds", "choose_video", "is_cover", "lacks_clock", "nothing_selected", "shortfall"]

# Headers round durations and the last frame's may be missing; a cut shorter than this goes unnoticed.
_SHORTFALL_SECONDS: Final = 0.5


def choose_video(container: InputContainer, source: str | Path, *, notes: list[str]) -> VideoStream:
    """The main video: never a cover picture.

    Raises:
        InputMediaError: there is none that can be decoded.
    """
    streams = container.streams
    videos = [stream for stream in streams.video if not is_cover(stream)]
    best = streams.best("video")
    video = next((stream for stream in videos if best is not None and stream.index == best.index), None)
    if video is None:
        found = {"cover picture" if is_cover(stream) else stream.type for stream in streams}
        kinds = ", ".join(sorted(found)) or "nothing"
        raise InputMediaError(source, f"has no video that can be decoded (it holds: {kinds})")
    if video.codec_context is None:
        raise InputMediaError(source, "its video is of a codec that the FFmpeg inside PyAV has no decoder for")
    if len(videos) > 1:
        notes.append(f"{len(videos)} video tracks: only track {video.index} is rendered")
    return video


def is_cover(stream: Stream) -> bool:
    """Whether `stream` is a picture that stands for the whole file."""
    return bool(stream.disposition & Disposition.attached_pic)


def lacks_clock(container: InputContainer) -> bool:
    """Whether the times of this kind of file begin and jump at will, as in transport streams, and no header has any."""
    return Flags.ts_discont in Flags(container.format.flags)


def announced_seconds(container: InputContainer, stream: VideoStream) -> float | None:
    """Length of `stream` as the headers have it; None when they do not say."""
    time_base = stream.time_base or Fraction(1, 90_000)
    if stream.duration is not None:
        return float(stream.duration * time_base)
    try:
        # Matroska states the length of a track in a tag, and in its header that of the longest.
        return float(seconds_from_text(stream.metadata["DURATION"]))
    except (KeyError, ValueError):
        return container.duration / av.time_base if container.duration is not None else None


def nothing_selected(source: str | Path, container: InputContainer, stream: VideoStream) -> OptionError:
    """That no frame lies in the part asked for, with the length of the video where it is known."""
    seconds = announced_seconds(container, stream)
    length = "" if seconds is None else f"; the video is {seconds:.1f} s long"
    return OptionError(f"{source}: no frame lies within --start and --end{length}")


def shortfall(
    container: InputContainer,
    stream: VideoStream,
    *,
    span_seconds: float,
    last_end_seconds: float,
    until_seconds: float | None,
) -> str | None:
    """What to say when less of `stream` came than its headers announce; None when all did, or they do not say.

    Args:
        container: of the stream, read to its end.
        stream: the video.
        span_seconds: how long the decoded frames last.
        last_end_seconds: where the last packet of all streams ends, from the start of the file.
        until_seconds: where reading was to stop, from the start of the stream; None at the end of the file.
    """
    if lacks_clock(container):
        return None
    own = None if stream.duration is None else float(stream.duration * (stream.time_base or 0))
    whole = None if container.duration is None else container.duration / av.time_base
    # Of a stream that begins late FFmpeg has seen nothing on opening, and says the length of the whole file.
    if own is not None and own != whole:
        announced, came = own, span_seconds
    elif whole is not None and (own is not None or "matroska" in container.format.name):
        announced, came = whole, last_end_seconds
    else:
        return None
    if until_seconds is not None:
        announced = min(announced, until_seconds)
    if came + _SHORTFALL_SECONDS >= announced:
        return None
    return f"ends after {came:.2f} s of the {announced:.2f} s its header announces: cut off"
