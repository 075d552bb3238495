"""Which of a container's streams is the video, and how long it claims to be."""

from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from stylize.runtime.errors import InputMediaError
from stylize.runtime.selection import seconds_from_text

__all__ = ["announced_seconds", "choose_video"]


def choose_video(container: InputContainer, source: str | Path, *, notes: list[str]) -> VideoStream:
    """The main video: never a cover picture.

    Raises:
        InputMediaError: there is none that can be decoded.
    """
    streams = container.streams
    videos = [stream for stream in streams.video if not stream.disposition & Disposition.attached_pic]
    best = streams.best("video")
    video = next((stream for stream in videos if best is not None and stream.index == best.index), None)
    if video is None:
        kinds = ", ".join(sorted({stream.type for stream in streams})) or "nothing"
        raise InputMediaError(source, f"has no video that can be decoded (it holds: {kinds})")
    if video.codec_context is None:
        raise InputMediaError(source, "its video is of a codec that is not known here")
    if len(streams.video) > 1:
        notes.append(f"{len(streams.video)} video tracks: only track {video.index} is rendered")
    return video


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
