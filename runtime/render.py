"""A whole run, from file to file: the way of every frame, and what is reported of it."""

import dataclasses
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from stylize.runtime.artifact import Artifact
from stylize.runtime.decode import Decoder
from stylize.runtime.encode import EncodeOptions
from stylize.runtime.errors import OptionError
from stylize.runtime.finish import Finish, FinishOptions
from stylize.runtime.live import LiveRun, paced
from stylize.runtime.pipeline import run_pipeline
from stylize.runtime.report import RunReport
from stylize.runtime.resume import ResumeOptions
from stylize.runtime.route import Route
from stylize.runtime.run_facts import run_facts
from stylize.runtime.selection import Item, Selection
from stylize.runtime.source import is_live, is_pipe
from stylize.runtime.stream_output import RECEIVER_SECONDS, StreamOutput
from stylize.runtime.stylizer import Stylizer
from stylize.runtime.target import is_picture, open_output, reject_names
from stylize.runtime.unattended import made_in_thread

__all__ = ["stylize_video"]

logger = logging.getLogger(__name__)


def stylize_video(
    model: str | Path | Artifact | Stylizer,
    source: str | Path,
    target: str | Path,
    *,
    selection: Selection | None = None,
    encode: EncodeOptions | None = None,
    finish: FinishOptions | None = None,
    resume: ResumeOptions | None = None,
    live: bool | None = None,
    on_progress: Callable[[int, int | None], None] = lambda _done, _total: None,
) -> RunReport:
    """Stylize a video with its sound, or a picture, from file to file.

    The target appears when it is complete and was read back; until then, and after an interruption, what
    is done is beside it under `PartialFile`'s name. A source that breaks off is rendered as far as it goes
    and the damage stands in the report's `problems`.

    With `resume` what is done is kept in segments beside the target, and the same call goes on with them.

    A live source is rendered in real time: the newest frame wins, what came while the network was busy is
    counted and left out, and the end of the source, Ctrl-C or SIGTERM complete the output.

    Args:
        model: an ONNX file, the name of a built-in style, or a `Stylizer` with its own options.
        source: a path or address FFmpeg reads, `-` for standard input, a folder of pictures, or numbered
            pictures (`frames/%04d.png`), or `camera:0`.
        target: a video or picture file, whose suffix names the format; numbered pictures (`out/%04d.png`);
            `-` for standard output; or an address that takes a stream, such as `rtmp://host/app/key`.
        selection: which part of the source, at what rate and size.
        encode: how to encode a video.
        finish: where, when and how the style shows.
        resume: how to divide a render that a later call can continue; None for one that starts anew.
        live: whether the source is rendered in real time; None for cameras and the addresses of live streams.
        on_progress: called with frames done and frames expected, the latter None when unknown; from
            another thread.

    Raises:
        StylizeError: one of its kinds, see `stylize.runtime.errors`.
    """
    selection, encode, finish = selection or Selection(), encode or EncodeOptions(), finish or FinishOptions()
    live = is_live(source) if live is None else live
    reject_names(source, target, is_resumed=resume is not None)
    if resume and live:
        raise OptionError(f"--resume: {source} is live and cannot be read a second time")
    # Somebody waits for each frame: at an address always, behind a pipe when the source is live.
    is_stream = StreamOutput.is_meant_by(target)
    is_watched = is_stream and (live or not is_pipe(target))
    encode = dataclasses.replace(encode, is_live=is_watched or encode.is_live)
    stylizing: AbstractContextManager[Stylizer] = model.held() if isinstance(model, Stylizer) else Stylizer(model)
    with stylizing as stylizer:
        started = time.perf_counter()
        facts = run_facts(source, stylizer.facts, (selection, encode, finish, resume)) if resume else {}
        surface_gpu = None if is_picture(target) else stylizer.surface_gpu
        open_decoder = partial(Decoder, source, selection=selection, surface_gpu=surface_gpu, is_live=live)
        with (
            made_in_thread(open_decoder, discard=Decoder.close) as decoder,
            Finish(
                finish,
                strength=stylizer.strength,
                info=decoder.info,
                first_seconds=decoder.first_seconds,
                mask_offset_seconds=selection.start_seconds,
            ) as finisher,
            Route(stylizer, decoder, finish=finisher) as route,
            open_output(
                target, decoder, encode=encode, resume=resume, facts=facts, num_again=finisher.num_warmup_frames
            ) as output,
        ):
            info = decoder.info
            logger.info("%s: %s", source, info)
            logger.info("%s by %s", stylizer.artifact.contract, stylizer.backend)
            decoder.notes.extend(stylizer.notes_on(info))
            route.lead_to(output.video_encoder, is_alone=output.is_alone)
            items: Iterable[Item] = route.passable(output.missing())
            sink: Callable[[Item], None] = output.write
            num_in_flight = route.num_in_flight
            live_run = LiveRun(decoder) if live else None
            if live_run is not None:
                items, sink, num_in_flight = live_run.stamped(items), live_run.timed(sink), 1
            elif is_watched:
                sink = paced(sink)
            seconds = run_pipeline(
                items,
                network=route.begin,
                settle=finisher.settle if finish.steady else None,
                sink=sink,
                num_in_flight=num_in_flight,
                on_frame=lambda: on_progress(output.num_frames, info.num_frames),
                handover=live_run.handover if live_run else None,
                sink_seconds=RECEIVER_SECONDS if is_stream else None,
            )
            result = output.finish()
    notes, problems = result.notes, result.problems
    if live_run is not None:
        # A stream is joined in the middle and ends when it ends: neither is damage.
        notes, problems = (*notes, *live_run.notes, *problems), ()
    for problem in problems:
        logger.warning("%s: %s", source, problem)
    return RunReport(
        model=stylizer.artifact.name,
        source=str(source),
        target=str(target),
        num_frames=result.num_frames,
        num_resumed_frames=output.num_resumed_frames,
        width=result.size[0],
        height=result.size[1],
        wall_seconds=time.perf_counter() - started,
        decode_seconds=seconds.decode,
        network_seconds=seconds.network,
        settle_seconds=seconds.settle,
        encode_seconds=seconds.encode,
        decoder=f"{info.decoder}, {info.pix_fmt}",
        backend=stylizer.backend,
        encoder=result.encoder,
        color=info.color.description,
        strength=stylizer.strength,
        steady=finish.steady,
        scene_cut_seconds=tuple(finisher.cut_seconds),
        num_dropped_frames=live_run.num_dropped if live_run else 0,
        latency_p50_ms=live_run.latency_ms(50) if live_run else None,
        latency_p95_ms=live_run.latency_ms(95) if live_run else None,
        notes=(*notes, *finisher.notes),
        problems=problems,
    )
