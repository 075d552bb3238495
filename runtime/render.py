"""The ways of writing a result: a video, segments of one, numbered pictures, a single picture."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

from stylize.runtime.decode import Decoder
from stylize.runtime.encode import EncodeOptions, Encoder
from stylize.runtime.errors import InputMediaError, OptionError, OutputMismatchError
from stylize.runtime.frame import Frame
from stylize.runtime.join import join_segments
from stylize.runtime.partial_file import PartialFile
from stylize.runtime.picture_sequence import PictureSequence
from stylize.runtime.pipeline import StageSeconds
from stylize.runtime.resume import ResumeFolder, ResumeOptions, SegmentWriter, fingerprint
from stylize.runtime.selection import Item, Selection
from stylize.runtime.source import number_pattern
from stylize.runtime.still import STILL_SUFFIXES, still_description, write_still
from stylize.runtime.stream_output import StreamOutput
from stylize.runtime.surface_render import SurfaceSink

__all__ = [
    "Result",
    "join_folder",
    "open_output",
    "reject_same",
    "render_pictures",
    "render_segments",
    "render_still",
    "render_video",
]


class Run(Protocol):
    """Passes all of the source, stylized, to a sink; where that is an encoder's, surfaces as they are."""

    def __call__(self, sink: Callable[[Item], None], encoder: SurfaceSink | None = None) -> StageSeconds: ...


@dataclass(frozen=True, kw_only=True)
class Result:
    """What is known about a finished output."""

    num_frames: int
    size: tuple[int, int]
    encoder: str
    seconds: StageSeconds
    notes: tuple[str, ...]
    """What was guessed, changed or left out."""
    problems: tuple[str, ...]
    """Damage in the source."""


def reject_same(source: str | Path, target: str | Path) -> None:
    """Refuse to write over what is read.

    Raises:
        OptionError: the target is the source, or one of its pictures would be.
    """
    read, target = Path(source), Path(target)
    if target.exists() and read.exists() and target.samefile(read):
        raise OptionError(f"{target} is the input itself: choose another output")
    reads_pictures = read.is_dir() or (number_pattern(read) is not None and not read.exists())
    if reads_pictures and _is_sequence(target) and target.parent.exists():
        folder = read if read.is_dir() else read.parent
        if folder.exists() and folder.samefile(target.parent):
            raise OptionError(f"{target} would be written among the pictures read: choose another folder")


def _is_sequence(target: Path) -> bool:
    """Whether a video becomes numbered pictures under this name."""
    return target.suffix.lower() in STILL_SUFFIXES and number_pattern(target) is not None


def open_output(
    target: str | Path, decoder: Decoder, *, resume: ResumeOptions | None, facts: Mapping[str, str]
) -> PartialFile | StreamOutput | PictureSequence | ResumeFolder:
    """What to write to, by the name of the target.

    Args:
        target: the file, pattern, pipe or address asked for.
        decoder: the source.
        resume: how to divide a render that can be continued, None for another.
        facts: what such a render depends on.

    Raises:
        OptionError: pictures, GIF and streams cannot be continued.
        OutputMediaError: the target cannot be written.
    """
    if StreamOutput.is_meant_by(target):
        if resume is not None:
            raise OptionError(f"--resume: {target} is no video file; choose .mp4, .mkv, .mov or .webm")
        return StreamOutput(str(target))
    target = Path(target)
    is_still = target.suffix.lower() in STILL_SUFFIXES
    if is_still and decoder.info.color.hdr is not None:
        raise OptionError(f"--hdr keep: {target} has no place for it; choose .mp4, .mkv, .mov or .webm")
    if resume is not None:
        if is_still or target.suffix.lower() == ".gif":
            raise OptionError(f"--resume: {target} is no video file of segments; choose .mp4, .mkv, .mov or .webm")
        return ResumeFolder(target, facts, resume)
    if _is_sequence(target) and not decoder.is_picture:
        return PictureSequence(target, repeats_frames=decoder.info.is_resampled)
    return PartialFile(target)


def render_video(run: Run, decoder: Decoder, output: PartialFile | StreamOutput, options: EncodeOptions) -> Result:
    """Render a video with its sound."""
    with Encoder(output, info=decoder.info, options=options, source=decoder) as encoder:
        seconds = run(encoder.write, encoder)
    if encoder.num_frames != decoder.num_frames and not decoder.is_live:
        raise OutputMismatchError(f"{output.target}: {encoder.num_frames} of {decoder.num_frames} frames encoded")
    encoder.check()
    output.commit()
    return Result(
        num_frames=encoder.num_frames,
        size=encoder.size,
        encoder=encoder.description,
        seconds=seconds,
        notes=(*decoder.notes, *encoder.notes),
        problems=tuple(decoder.problems),
    )


def render_segments(
    run: Run, decoder: Decoder, folder: ResumeFolder, options: EncodeOptions, *, num_again: int
) -> Result:
    """Render the segments that are missing, and join all with the sound unless they are a part.

    Args:
        run: passes what `decoder` yields to a sink.
        decoder: at its first frame.
        folder: what is finished.
        options: how to encode.
        num_again: how many earlier frames pass through the network before the first missing one.
    """
    seconds = StageSeconds()
    if not folder.is_complete:
        seconds = _render_missing(run, decoder, folder, options, num_again=num_again)
    if folder.options.part is None:
        return join_folder(folder, decoder.source, decoder.selection, options, seconds=seconds)
    last = folder.records[-1]
    return Result(
        num_frames=folder.num_frames,
        size=(decoder.info.width, decoder.info.height),
        encoder="",
        seconds=seconds,
        notes=folder.notes,
        problems=last.problems,
    )


def _render_missing(
    run: Run, decoder: Decoder, folder: ResumeFolder, options: EncodeOptions, *, num_again: int
) -> StageSeconds:
    part = folder.options.part
    after = part.after if part is not None else None
    if folder.records and folder.last_pts is not None:
        after = folder.last_pts * decoder.info.time_base
    if after is not None:
        decoder.continue_after(
            after,
            num_done=folder.num_frames,
            num_again=num_again,
            may_seek=all(record.is_clean for record in folder.records),
        )
    with SegmentWriter(folder, decoder=decoder, encode=options) as writer:
        seconds = run(writer.write, writer)
        if fingerprint(decoder.source) != folder.facts["input"]:
            raise InputMediaError(decoder.source, "was changed while it was read")
        writer.finish()
    num_lost = decoder.num_frames - folder.num_frames
    if part is not None and part.until is not None:
        num_lost -= 1  # the frame behind a part is read to see its end; a resampled one counts for all its ticks
    if num_lost < 0 or (num_lost and (part is None or not decoder.info.is_resampled)):
        raise OutputMismatchError(f"{folder.target}: {num_lost} frames were lost on the way to the encoder")
    return seconds


def join_folder(
    folder: ResumeFolder,
    source: str | Path,
    selection: Selection,
    options: EncodeOptions,
    *,
    seconds: StageSeconds,
) -> Result:
    """Write the target from a complete folder and the sound of the source, and remove the folder.

    Args:
        folder: with all its segments.
        source: the input.
        selection: of which part of it the segments are.
        options: how they were to be encoded.
        seconds: what the stages took, for the result.

    Raises:
        OutputMediaError: they do not fit together, or one is damaged.
    """
    first = folder.records[0]
    options = dataclasses.replace(options, codec=first.encoder, pix_fmt=first.pix_fmt)  # as chosen where it was made
    with (
        Decoder(source, selection=selection) as decoder,
        PartialFile(folder.target) as output,
        Encoder(output, info=decoder.info, options=options, source=decoder) as encoder,
    ):
        join_segments(folder, source=decoder, encoder=encoder)
        encoder.finish()
        encoder.check()
        output.commit(is_durable=True)
    folder.remove()
    last = folder.records[-1]
    return Result(
        num_frames=encoder.num_frames,
        size=encoder.size,
        encoder=encoder.description,
        seconds=seconds,
        notes=tuple(dict.fromkeys((*folder.notes, *encoder.notes))),
        problems=last.problems,
    )


def render_pictures(run: Run, decoder: Decoder, output: PictureSequence) -> Result:
    """Render each frame to a picture of its own."""
    seconds = run(output.write)
    description, notes = still_description(
        output.pattern.suffix, decoder.info.pix_fmt, is_transparent=output.has_transparency
    )
    return Result(
        num_frames=output.num_frames,
        size=(decoder.info.width, decoder.info.height),
        encoder=description,
        seconds=seconds,
        notes=(
            *decoder.notes,
            *notes,
            *(f"{stream.type} track {stream.index} left out: pictures hold none" for stream in decoder.other_streams),
        ),
        problems=tuple(decoder.problems),
    )


def render_still(network: Callable[[Frame], None], decoder: Decoder, output: PartialFile) -> Result:
    """Render the one frame of a picture in the calling thread."""
    frames = list(islice((item for item in decoder if isinstance(item, Frame)), 2))
    if len(frames) > 1:
        raise OptionError(f"{decoder.source} is a video, {output.target} can hold one frame: choose .mp4, or %04d.png")
    started = time.perf_counter()
    network(frames[0])
    seconds = StageSeconds(network=time.perf_counter() - started)
    write_still(frames[0], output)
    output.commit()
    description, notes = still_description(
        output.target.suffix, decoder.info.pix_fmt, is_transparent=frames[0].is_transparent
    )
    return Result(
        num_frames=1,
        size=(frames[0].width, frames[0].height),
        encoder=description,
        seconds=seconds,
        notes=(*decoder.notes, *notes),
        problems=tuple(decoder.problems),
    )
