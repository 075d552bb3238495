"""What a run writes to, by the name of its target."""

from collections.abc import Mapping
from pathlib import Path

from stylize.runtime.decode import Decoder
from stylize.runtime.encode import EncodeOptions
from stylize.runtime.errors import OptionError
from stylize.runtime.memory import check_memory
from stylize.runtime.output import Output, VideoOutput
from stylize.runtime.partial_file import PartialFile
from stylize.runtime.picture_output import PictureSequence, SinglePicture
from stylize.runtime.resume import ResumeFolder, ResumeOptions
from stylize.runtime.segmented_output import SegmentedOutput
from stylize.runtime.source import is_pipe, number_pattern
from stylize.runtime.still import STILL_SUFFIXES
from stylize.runtime.stream_output import StreamOutput

__all__ = ["is_picture", "open_output", "reject_names"]


def is_picture(target: str | Path) -> bool:
    """Whether the result is a picture or several."""
    return not StreamOutput.is_meant_by(target) and Path(target).suffix.lower() in STILL_SUFFIXES


def reject_names(source: str | Path, target: str | Path, *, is_resumed: bool) -> None:
    """Refuse what can be refused by the names alone, before anything is opened.

    Raises:
        OptionError: the target is the source, or one of its pictures would be; or it holds no segments of a run that
            can be continued.
    """
    read, written = Path(source), Path(target)
    if written.exists() and read.exists() and written.samefile(read):
        raise OptionError(f"{target} is the input itself: choose another output")
    if is_resumed and (StreamOutput.is_meant_by(target) or is_picture(target) or written.suffix.lower() == ".gif"):
        raise OptionError(f"--resume: {target} is no video file of segments; choose .mp4, .mkv, .mov or .webm")
    reads_pictures = read.is_dir() or (number_pattern(read) is not None and not read.exists())
    if reads_pictures and _is_sequence(written) and written.parent.exists():
        folder = read if read.is_dir() else read.parent
        if folder.exists() and folder.samefile(written.parent):
            raise OptionError(f"{target} would be written among the pictures read: choose another folder")


def open_output(
    target: str | Path,
    decoder: Decoder,
    *,
    encode: EncodeOptions,
    resume: ResumeOptions | None,
    facts: Mapping[str, str],
    num_again: int,
) -> Output:
    """Open what is meant by the name of the target.

    Args:
        target: the file, pattern, pipe or address asked for.
        decoder: the source.
        encode: how to encode a video.
        resume: how to divide a render that can be continued, None for another.
        facts: what such a render depends on.
        num_again: how many frames must pass through the network again before the first missing one of such a render.

    Raises:
        OptionError: what is asked for contradicts itself, or there is too little memory for frames of that size.
        OutputMediaError: the target cannot be written.
    """
    check_memory(decoder.info.width, decoder.info.height)
    if StreamOutput.is_meant_by(target):
        return VideoOutput(StreamOutput(str(target)), decoder, encode)
    target = Path(target)
    if resume is not None:
        folder = ResumeFolder(target, facts)
        return SegmentedOutput(folder, decoder, encode=encode, resume=resume, num_again=num_again)
    if not is_picture(target):
        return VideoOutput(PartialFile(target), decoder, encode)
    if decoder.info.color.hdr is not None:
        raise OptionError(f"--hdr keep: {target} has no place for it; choose .mp4, .mkv, .mov or .webm")
    # A pipe may hold one picture after the other.
    if _is_sequence(target) and not (decoder.is_picture and not is_pipe(decoder.source)):
        return PictureSequence(target, decoder)
    return SinglePicture(PartialFile(target), decoder)


def _is_sequence(target: Path) -> bool:
    """Whether a video becomes numbered pictures under this name."""
    return is_picture(target) and number_pattern(target) is not None
