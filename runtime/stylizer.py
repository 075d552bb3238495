"""The Python interface: pictures as arrays, and whole files."""

import dataclasses
import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from stylize.runtime.artifact import Artifact, open_artifact
from stylize.runtime.decode import Decoder
from stylize.runtime.device import Device
from stylize.runtime.device_bridge import DeviceBridge, DeviceSession
from stylize.runtime.encode import EncodeOptions
from stylize.runtime.errors import BackendError, OptionError
from stylize.runtime.extra_inputs import ExtraInputs, StyleMix
from stylize.runtime.finish import Finish, FinishOptions
from stylize.runtime.frame import Frame, TimedPicture
from stylize.runtime.live import LiveRun, paced
from stylize.runtime.memory import check_memory
from stylize.runtime.network_pass import NetworkPass
from stylize.runtime.partial_file import PartialFile
from stylize.runtime.picture_sequence import PictureSequence
from stylize.runtime.pipeline import StageSeconds, run_pipeline
from stylize.runtime.render import (
    open_output,
    reject_same,
    render_pictures,
    render_segments,
    render_still,
    render_video,
)
from stylize.runtime.report import RunReport
from stylize.runtime.resume import ResumeFolder, ResumeOptions, run_facts
from stylize.runtime.runner import Backend, ComputePrecision, open_active_runner
from stylize.runtime.selection import Item, Selection
from stylize.runtime.source import PIPE, is_live
from stylize.runtime.still import STILL_SUFFIXES
from stylize.runtime.stream_output import StreamOutput
from stylize.runtime.surface_render import SurfaceRender, SurfaceSink, surface_session
from stylize.runtime.unattended import made_in_thread
from stylize.runtime.video_info import VideoInfo

__all__ = ["Stylizer", "stylize_video"]

logger = logging.getLogger(__name__)


class Stylizer:
    """One loaded model; a context manager, used by one thread at a time."""

    def __init__(
        self,
        model: str | Path | Artifact,
        *,
        backend: Backend = Backend.AUTO,
        num_threads: int = 0,
        precision: ComputePrecision = ComputePrecision.AUTO,
        gpu: int | None = None,
        strength: float = 1.0,
        style_scale: float = 1.0,
        style_mix: str | Sequence[float] | StyleMix | None = None,
        seed: int = 0,
    ) -> None:
        """Load `model`.

        Args:
            model: an ONNX file, the name of a built-in style, or an opened artifact.
            backend: what executes the network.
            num_threads: threads for the network; 0 leaves the choice to the backend.
            precision: what the network is computed in.
            gpu: number of the GPU; None for the first, where the backend uses one.
            strength: 0 shows the source, 1 the style, in between a blend.
            style_scale: size of the picture the network sees over that of the frame; below 1 strokes grow.
            style_mix: shares of the styles of a model of several, as numbers in its order; or text such as
                `0.3,0.7`, the name of one, or moments between which they change, `0:1,0;5:0,1`. None is the first.
            seed: of the noise that some models take beside the frame.

        Raises:
            ArtifactError: no such file or style, or not a model.
            BackendUnavailableError: the backend's package or that GPU is missing, or the CPU lacks the precision.
            OptionError: strength outside [0, 1], a style scale or mix this model or a precision or GPU this backend
                cannot have.
        """
        self.artifact = model if isinstance(model, Artifact) else open_artifact(model)
        self.strength = strength
        self._in_use, self._is_closed = threading.Lock(), False
        self._settings = {"strength": strength, "style_scale": style_scale, "style_mix": style_mix, "seed": seed}
        self._finish = Finish(strength=strength)
        self._style_scale = style_scale
        if not self.artifact.is_bare_engine:  # before minutes of building
            ExtraInputs(self.artifact.contract, style_mix=style_mix, seed=seed)
        self._runner, self._backend_reason = open_active_runner(
            self.artifact, backend=backend, num_threads=num_threads, precision=precision, gpu=gpu
        )
        try:
            self.extra_inputs = ExtraInputs(self._runner.contract, style_mix=style_mix, seed=seed)
            self._pass = NetworkPass(self._runner, style_scale=style_scale, extra_inputs=self.extra_inputs)
        except BaseException:
            self._runner.close()
            raise

    @property
    def backend(self) -> str:
        """Backend, version, device and precision really in use, and why not the fastest one."""
        reason = f" ({self._backend_reason})" if self._backend_reason else ""
        return self._runner.description + reason

    @property
    def precision(self) -> str:
        """What the network is really computed in, for example `fp32`."""
        return self._runner.precision

    @property
    def facts(self) -> dict[str, str]:
        """All on which the picture depends, by name: the model, its settings and what computes it."""
        digest = hashlib.sha256(self.artifact.path.read_bytes()).hexdigest()
        return {
            "model": f"{self.artifact.name} ({digest[:12]})",
            "contract": self.artifact.contract.to_json(),
            "backend": self._runner.description,
            **{name: str(value) for name, value in self._settings.items()},
        }

    def run(self, frames_NHWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Stylize pictures.

        Args:
            frames_NHWC: (N, H, W, 3) RGB, uint8 in [0, 255], any H and W.

        Returns:
            The same shape and type, a new array.

        Raises:
            ValueError: another shape or type, or frames without pixels.
            BackendError: as `stylize`.
        """
        if frames_NHWC.ndim != 4:
            hint = ": for one picture give frames[None]" if frames_NHWC.ndim == 3 else ""
            raise ValueError(f"expected (N, H, W, 3), got {frames_NHWC.shape}{hint}")
        stylized_NHWC = np.empty_like(frames_NHWC)
        for source, target in zip(frames_NHWC, stylized_NHWC, strict=True):
            frame = Frame.from_array(source)
            self.stylize(frame)
            target[:] = frame.to_array()
        return stylized_NHWC

    def stylize(self, frame: Frame, *, finish: Finish | None = None) -> None:
        """Replace the pixels of `frame` in place, as `finish` shows them; by default all at the own strength.

        Raises:
            BackendError: the network failed, this is closed, or another thread is using it.
        """
        with self._held():
            self._pass.stylize(frame, finish=finish or self._finish)

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Keep other threads away for as long as the block lasts."""
        self._check_open()
        if not self._in_use.acquire(blocking=False):
            raise BackendError("one Stylizer serves one thread at a time, and another is using it: open one for each")
        try:
            yield
        finally:
            self._in_use.release()

    def _check_open(self) -> None:
        if self._is_closed:
            raise BackendError("this Stylizer is closed: open a new one")

    @property
    def device(self) -> Device | None:
        """The GPU that the network is on, None on the CPU."""
        return self._runner.session.device if isinstance(self._runner, DeviceBridge) else None

    @property
    def surface_session(self) -> DeviceSession | None:
        """The GPU where whole surfaces can be stylized, None where pictures pass through the CPU."""
        return surface_session(self._runner, style_scale=self._style_scale)

    @property
    def num_in_flight(self) -> int:
        """How many frames may be begun before the first is completed."""
        return self._runner.num_in_flight

    def begin(self, frame: TimedPicture, *, finish: Finish | None = None) -> Callable[[], None]:
        """Start on `frame` and return what completes it in place; for many frames faster than `stylize`.

        At most `num_in_flight` may be begun; complete them once each and in order.

        Raises:
            BackendError: the network failed, or this is closed; completing raises it too.
        """
        assert isinstance(frame, Frame), "decoders make nothing else unless asked"
        self._check_open()
        return self._pass.begin(frame, finish=finish or self._finish)

    def notes_on(self, info: VideoInfo) -> tuple[str, ...]:
        """What the model cannot do for such a video, one sentence each."""
        fixed = self._runner.contract.fixed_size
        if fixed is None or (info.width <= fixed[0] and info.height <= fixed[1]):
            return ()
        return (f"the model takes {fixed[0]}x{fixed[1]} only: it paints frames scaled down to that, enlarged again",)

    def close(self) -> None:
        """Free the model; calling it again is harmless."""
        self._is_closed = True
        self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


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
    if not isinstance(model, Stylizer):
        with Stylizer(model) as stylizer:
            return stylize_video(
                stylizer,
                source,
                target,
                selection=selection,
                encode=encode,
                finish=finish,
                resume=resume,
                live=live,
                on_progress=on_progress,
            )
    reject_same(source, target)
    is_stream, live = StreamOutput.is_meant_by(target), is_live(source) if live is None else live
    if resume and live:
        raise OptionError(f"--resume: {source} is live and cannot be read a second time")
    started = time.perf_counter()
    encode, finish = encode or EncodeOptions(), finish or FinishOptions()
    is_watched = is_stream and (live or str(target) != PIPE)
    encode = dataclasses.replace(encode, is_live=is_watched)
    facts = run_facts(source, model.facts, (selection or Selection(), encode, finish, resume)) if resume else {}
    with (
        model._held(),
        made_in_thread(
            partial(Decoder, source, selection=selection, surface_gpu=_surface_gpu(model, target), is_live=live),
            discard=Decoder.close,
        ) as decoder,
        Finish(
            finish,
            strength=model.strength,
            info=decoder.info,
            first_seconds=decoder.first_seconds,
            mask_offset_seconds=decoder.selection.start_seconds,
        ) as finisher,
        ExitStack() as surface_memory,  # left after the encoder, which holds pictures in it
        open_output(target, decoder, resume=resume, facts=facts) as output,
    ):
        check_memory(decoder.info.width, decoder.info.height)
        num_done = output.num_frames if isinstance(output, ResumeFolder) else 0
        live_run = LiveRun(decoder) if live else None

        def run(sink: Callable[[Item], None], encoder: SurfaceSink | None = None) -> StageSeconds:
            total = decoder.info.num_frames
            begin = partial(model.begin, finish=finisher)
            session, surfaces = model.surface_session, None
            if session is not None and encoder is not None:
                surfaces = SurfaceRender(
                    session,
                    decoder,
                    encoder,
                    finish=finisher,
                    owned=surface_memory,
                    begin_frame=begin,
                    extra_inputs=model.extra_inputs,
                )
            if live_run is None and is_watched:
                sink = paced(sink)
            num_in_flight = (surfaces and surfaces.num_in_flight) or model.num_in_flight
            items: Iterable[Item] = surfaces or decoder
            if resume is not None and resume.part is not None:
                items = resume.part.of(items)
            return run_pipeline(
                live_run.stamped(items) if live_run else items,
                network=surfaces.begin if surfaces else begin,
                sink=live_run.timed(sink) if live_run else sink,
                settle=finisher.settle if finisher.settles else None,
                num_in_flight=1 if live_run else num_in_flight,
                on_frame=lambda done: on_progress(num_done + done, total),
                handover=live_run.handover if live_run else None,
            )

        def show(frame: Frame) -> None:
            model._pass.stylize(frame, finish=finisher)
            finisher.settle(frame)

        logger.info("%s: %s", source, decoder.info)
        logger.info("%s by %s", model.artifact.contract, model.backend)
        decoder.notes.extend(model.notes_on(decoder.info))
        if isinstance(output, PictureSequence):
            result = render_pictures(run, decoder, output)
        elif isinstance(output, ResumeFolder):
            result = render_segments(run, decoder, output, encode, num_again=finisher.num_warmup_frames)
        elif isinstance(output, PartialFile) and output.target.suffix.lower() in STILL_SUFFIXES:
            result = render_still(show, decoder, output)
        else:
            result = render_video(run, decoder, output, encode)
        if live_run is not None:
            # A stream is joined in the middle and ends when it ends: neither is damage.
            notes = (*result.notes, *live_run.notes, *result.problems)
            result = dataclasses.replace(result, notes=notes, problems=())
    for problem in result.problems:
        logger.warning("%s: %s", source, problem)
    return RunReport(
        model=model.artifact.name,
        source=str(source),
        target=str(target),
        num_frames=result.num_frames,
        num_resumed_frames=num_done,
        width=result.size[0],
        height=result.size[1],
        wall_seconds=time.perf_counter() - started,
        decode_seconds=result.seconds.decode,
        network_seconds=result.seconds.network,
        settle_seconds=result.seconds.settle,
        encode_seconds=result.seconds.encode,
        decoder=f"{decoder.info.decoder}, {decoder.info.pix_fmt}",
        backend=model.backend,
        encoder=result.encoder,
        color=decoder.info.color.description,
        strength=model.strength,
        steady=finish.steady,
        scene_cut_seconds=tuple(finisher.cut_seconds),
        num_dropped_frames=live_run.num_dropped if live_run else 0,
        latency_p50_ms=live_run.latency_ms(50) if live_run else None,
        latency_p95_ms=live_run.latency_ms(95) if live_run else None,
        notes=(*result.notes, *finisher.notes),
        problems=result.problems,
    )


def _surface_gpu(model: Stylizer, target: str | Path) -> int | None:
    """The GPU for which the source is decoded; None where the result is no video or the network is not there."""
    session = model.surface_session
    if session is None or Path(target).suffix.lower() in STILL_SUFFIXES:
        return None
    return session.device.dlpack_device[1]
