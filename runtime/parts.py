"""One video on several GPUs: each renders a part of it in a process of its own, and the parts are joined.

A part is a render of its own in closed segments, as `resume.py` makes them, so nothing is encoded twice and whatever
was finished is kept when one is stopped. Parts meet between two frames of the source, which a decoder finds
beforehand; frames that must pass through the network first, such as those that steadying remembers, are rendered by
both neighbours.
"""

import dataclasses
import logging
import multiprocessing
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

from stylize.runtime.artifact import Artifact
from stylize.runtime.decode import Decoder
from stylize.runtime.encode import EncodeOptions
from stylize.runtime.errors import BackendError, InputMediaError, OptionError, StylizeError
from stylize.runtime.finish import FinishOptions
from stylize.runtime.gpu import find_gpu
from stylize.runtime.join import join
from stylize.runtime.render import stylize_video
from stylize.runtime.report import RunReport
from stylize.runtime.resume import Part, ResumeFolder, ResumeOptions, Segment, folder_of, segments_in
from stylize.runtime.run_facts import run_facts
from stylize.runtime.runner import GPU_BACKENDS, Backend, automatic_backend
from stylize.runtime.selection import Selection
from stylize.runtime.stylizer import Stylizer
from stylize.runtime.target import reject_names

__all__ = ["Worker", "gpu_workers", "stylize_in_parts"]

logger = logging.getLogger(__name__)

_STOP_SECONDS: Final = 10  # what a process gets to end before it is made to


@dataclass(frozen=True)
class Worker:
    """One process and what it renders with."""

    name: str
    """For messages, such as `GPU 1`."""
    options: Mapping[str, Any]
    """Arguments of `Stylizer`, without the model."""


def gpu_workers(artifact: Artifact, gpus: Sequence[int], options: Mapping[str, Any]) -> list[Worker]:
    """One worker for each of these GPUs.

    Args:
        artifact: the model.
        gpus: their numbers.
        options: arguments of `Stylizer` they share.

    Raises:
        OptionError: the backend does not run on GPUs.
        BackendUnavailableError: there is no such GPU, or a package for it is missing.
    """
    backend, reason = options.get("backend", Backend.AUTO), ""
    for gpu in gpus:
        find_gpu(gpu)
    if backend == Backend.AUTO:
        backend, reason = automatic_backend(artifact, gpu=gpus[0])
    if backend not in GPU_BACKENDS:
        choices = ", ".join(sorted(GPU_BACKENDS))
        raise OptionError(f"--gpus: {reason or f'{backend} runs on the CPU; choose one of {choices}'}")
    return [Worker(f"GPU {gpu}", {**options, "backend": backend, "gpu": gpu}) for gpu in gpus]


def stylize_in_parts(
    artifact: Artifact,
    source: str | Path,
    target: str | Path,
    *,
    workers: Sequence[Worker],
    selection: Selection | None = None,
    encode: EncodeOptions | None = None,
    finish: FinishOptions | None = None,
    resume: ResumeOptions | None = None,
    on_progress: Callable[[int, int | None], None] = lambda _done, _total: None,
) -> RunReport:
    """Stylize a video with its sound by several processes, one after the other in time, all at once.

    The same call goes on with what is finished after any stop.

    Args:
        artifact: the model.
        source: a file that can be read several times.
        target: a video file.
        workers: who renders; each gets an equal share of the time.
        selection: which part of the source, at what rate and size.
        encode: how to encode.
        finish: where, when and how the style shows.
        resume: how long segments are.
        on_progress: called with frames done and frames expected, the latter None when unknown.

    Raises:
        OptionError: the source or the target cannot be divided.
        InputMediaError: the source is damaged before its last part, so that parts cannot be told apart.
        StylizeError: a process failed; the message says which.
    """
    started = time.perf_counter()
    selection, encode, finish = selection or Selection(), encode or EncodeOptions(), finish or FinishOptions()
    resume = resume or ResumeOptions()
    reject_names(source, target, is_resumed=True)
    facts = run_facts(source, {"workers": "; ".join(map(str, workers))}, (selection, encode, finish, resume))
    with Decoder(source, selection=selection) as decoder:
        num_frames, notes = decoder.info.num_frames, tuple(decoder.notes)
        parts = _parts(decoder, len(workers))
    with ResumeFolder(Path(target), facts) as folder:
        num_resumed = folder.num_frames
        # What each takes for its target is never written.
        targets = [folder.path / f"{number:03d}{folder.target.suffix}" for number in range(len(parts))]
        shared = {"source": str(source), "selection": selection, "encode": encode, "finish": finish}
        tasks = [
            _Task(artifact, worker, shared | {"target": target, "resume": dataclasses.replace(resume, part=part)})
            for worker, target, part in zip(workers, targets, parts, strict=False)
        ]
        reports = _run(tasks, on_progress=lambda done: on_progress(done, num_frames))
        result = join(_gathered(targets, source), source, folder.target, selection=selection, encode=encode)
        folder.remove()
    for problem in result.problems:
        logger.warning("%s: %s", source, problem)
    seconds = {
        name: sum(getattr(report, name) for report in reports)
        for name in ("decode_seconds", "network_seconds", "settle_seconds", "encode_seconds")
    }
    return dataclasses.replace(
        reports[0],
        target=str(target),
        num_frames=result.num_frames,
        num_resumed_frames=num_resumed,
        wall_seconds=time.perf_counter() - started,
        **seconds,
        backend=", ".join(f"{task.worker.name}: {report.backend}" for task, report in zip(tasks, reports, strict=True)),
        encoder=result.encoder,
        scene_cut_seconds=tuple(sorted({cut for report in reports for cut in report.scene_cut_seconds})),
        notes=tuple(dict.fromkeys((*notes, *(note for report in reports for note in report.notes), *result.notes))),
        problems=result.problems,
    )


def _parts(decoder: Decoder, number: int) -> list[Part]:
    """As many parts of equal length as there are frames for."""
    seconds = decoder.info.duration_seconds
    if seconds is None:
        raise OptionError(f"{decoder.source}: its length is unknown, so it cannot be divided; render it on one GPU")
    first = decoder.first_seconds
    ends = []
    for index in range(1, number):
        with Decoder(decoder.source, selection=decoder.selection) as looking:
            times = looking.times_after(first + Fraction(seconds) * index / number)
            last, following = next(times, None), next(times, None)
        if last is not None and following is not None:
            ends.append(last)
    inner = sorted({*ends})
    return [Part(after, until) for after, until in zip([None, *inner], [*inner, None], strict=True)]


def _gathered(targets: Sequence[Path], source: str | Path) -> list[Segment]:
    """The segments of all parts, in order.

    Raises:
        InputMediaError: an earlier part is damaged, so that the next may not have begun where it ended.
    """
    parts = [segments_in(folder_of(target)) for target in targets]
    if not all(segment.record.is_clean for part in parts[:-1] for segment in part):
        raise InputMediaError(
            source, "is damaged or lacks times, so parts of it do not fit together; render it on one GPU"
        )
    return [segment for part in parts for segment in part]


@dataclass(frozen=True)
class _Task:
    """What a process is told; all of it can be pickled."""

    artifact: Artifact
    worker: Worker
    render: Mapping[str, Any]
    """Arguments of `stylize_video`."""


def _run(tasks: Sequence[_Task], *, on_progress: Callable[[int], None]) -> list[RunReport]:
    """Run each task in a process of its own; with an error of one, end all."""
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    processes: list[BaseProcess] = []
    pipes: list[Connection] = []
    done = [0] * len(tasks)
    reports: dict[int, RunReport] = {}
    try:
        for task in tasks:
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_render, args=(task, theirs), daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            pipes.append(ours)
        while len(reports) < len(tasks):
            for pipe in wait([pipe for number, pipe in enumerate(pipes) if number not in reports]):
                number = pipes.index(pipe)  # type: ignore[arg-type]
                answer = _answer(pipes[number], processes[number], tasks[number].worker)
                if isinstance(answer, RunReport):
                    reports[number], answer = answer, answer.num_frames
                done[number] = answer
                on_progress(sum(done))
    finally:
        for started in processes:
            started.terminate()
        for started in processes:
            started.join(_STOP_SECONDS)
            if started.is_alive():
                started.kill()
                started.join()
    return [reports[number] for number in range(len(tasks))]


def _answer(pipe: Connection, process: BaseProcess, worker: Worker) -> RunReport | int:
    """The next of what a process says: frames done, its report at the end, or why it failed."""
    try:
        answer: RunReport | int | str = pipe.recv()
    except EOFError:
        process.join(_STOP_SECONDS)
        raise BackendError(f"{worker.name}: its process ended with code {process.exitcode}") from None
    if isinstance(answer, str):
        raise StylizeError(f"{worker.name}: {answer}")
    return answer


def _render(task: _Task, pipe: Connection) -> None:
    """What a process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; who started this ends it
    logging.getLogger(ResumeFolder.__module__).setLevel(logging.ERROR)  # what is kept is said of the whole
    parent = multiprocessing.parent_process()

    def tell(done: int, _total: int | None) -> None:
        if parent is not None and not parent.is_alive():
            raise SystemExit
        pipe.send(done)

    try:
        with Stylizer(task.artifact, **task.worker.options) as stylizer:
            report = stylize_video(stylizer, **task.render, on_progress=tell)
    except (StylizeError, OSError) as error:
        pipe.send(str(error))
    else:
        pipe.send(report)
