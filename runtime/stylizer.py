"""The Python interface: pictures as arrays, and whole files."""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from stylize.runtime.artifact import Artifact, open_artifact
from stylize.runtime.decode import Decoder
from stylize.runtime.device_bridge import DeviceSession
from stylize.runtime.encode import EncodeOptions, Encoder
from stylize.runtime.errors import OptionError, OutputMismatchError
from stylize.runtime.extra_inputs import ExtraInputs, StyleMix
from stylize.runtime.finish import Finish, FinishOptions
from stylize.runtime.frame import Frame, TimedPicture
from stylize.runtime.network_pass import NetworkPass
from stylize.runtime.partial_file import PartialFile, StandardOutput
from stylize.runtime.picture_sequence import PictureSequence
from stylize.runtime.pipeline import StageSeconds, run_pipeline
from stylize.runtime.report import RunReport
from stylize.runtime.runner import Backend, ComputePrecision, open_active_runner
from stylize.runtime.selection import Item, Selection
from stylize.runtime.source import PIPE, number_pattern
from stylize.runtime.still import STILL_SUFFIXES, still_description, write_still
from stylize.runtime.surface_render import SurfaceRender, surface_session

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
        gpu: int = 0,
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
            gpu: number of the GPU, for backends that use one.
            strength: 0 shows the source, 1 the style, in between a blend.
            style_scale: size of the picture the network sees over that of the frame; below 1 strokes grow.
            style_mix: shares of the styles of a model of several, as numbers in its order; or text such as
                `0.3,0.7`, the name of one, or moments between which they change, `0:1,0;5:0,1`. None is the first.
            seed: of the noise that some models take beside the frame.

        Raises:
            ArtifactError: no such file or style, or not a model.
            BackendUnavailableError: the backend's package is missing, or the CPU lacks the precision.
            OptionError: strength outside [0, 1], a style scale or mix this model or a precision this backend
                cannot have.
        """
        self.artifact = model if isinstance(model, Artifact) else open_artifact(model)
        self.strength = strength
        self._finish = Finish(strength=strength)
        self._style_scale = style_scale
        extra_inputs = ExtraInputs(self.artifact.contract, style_mix=style_mix, seed=seed)
        self._runner, self._backend_reason = open_active_runner(
            self.artifact, backend=backend, num_threads=num_threads, precision=precision, gpu=gpu
        )
        try:
            self._pass = NetworkPass(self._runner, style_scale=style_scale, extra_inputs=extra_inputs)
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

    def run(self, frames_NHWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Stylize pictures.

        Args:
            frames_NHWC: (N, H, W, 3) RGB, uint8 in [0, 255], any H and W.

        Returns:
            The same shape and type, a new array.

        Raises:
            ValueError: another shape or type.
            BackendError: the network failed.
        """
        if frames_NHWC.ndim != 4:
            raise ValueError(f"expected (N, H, W, 3), got {frames_NHWC.shape}")
        stylized_NHWC = np.empty_like(frames_NHWC)
        for source, target in zip(frames_NHWC, stylized_NHWC, strict=True):
            frame = Frame.from_array(source)
            self.stylize(frame)
            target[:] = frame.to_array()
        return stylized_NHWC

    def stylize(self, frame: Frame, *, finish: Finish | None = None) -> None:
        """Replace the pixels of `frame` in place, as `finish` shows them; by default all at the own strength.

        Raises:
            BackendError: the network failed.
        """
        self._pass.stylize(frame, finish=finish or self._finish)

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
            BackendError: the network failed; completing raises it too.
        """
        assert isinstance(frame, Frame), "decoders make nothing else unless asked"
        return self._pass.begin(frame, finish=finish or self._finish)

    def close(self) -> None:
        """Free the model."""
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
    on_progress: Callable[[int, int | None], None] = lambda _done, _total: None,
) -> RunReport:
    """Stylize a video with its sound, or a picture, from file to file.

    The target appears when it is complete and was read back; until then, and after an interruption, what
    is done is beside it under `PartialFile`'s name. A source that breaks off is rendered as far as it goes
    and the damage stands in the report's `problems`.

    Args:
        model: an ONNX file, the name of a built-in style, or a `Stylizer` with its own options.
        source: a path or address FFmpeg reads, `-` for standard input, a folder of pictures, or numbered
            pictures (`frames/%04d.png`).
        target: a video or picture file, whose suffix names the format; numbered pictures (`out/%04d.png`); or
            `-` for standard output.
        selection: which part of the source, at what rate and size.
        encode: how to encode a video.
        finish: where, when and how the style shows.
        on_progress: called with frames done and frames expected, the latter None when unknown; from
            another thread.

    Raises:
        StylizeError: one of its kinds, see `stylize.runtime.errors`.
    """
    target = Path(target)
    if not isinstance(model, Stylizer):
        with Stylizer(model) as stylizer:
            return stylize_video(
                stylizer, source, target, selection=selection, encode=encode, finish=finish, on_progress=on_progress
            )
    _reject_same(source, target)
    started = time.perf_counter()
    with (
        Decoder(source, selection=selection, surface_gpu=_surface_gpu(model, target)) as decoder,
        Finish(
            finish,
            strength=model.strength,
            info=decoder.info,
            mask_offset_seconds=decoder.selection.start_seconds,
        ) as finisher,
        ExitStack() as surface_memory,  # left after the encoder, which holds pictures in it
        _open_output(target, decoder) as output,
    ):

        def render(sink: Callable[[Item], None], encoder: Encoder | None = None) -> StageSeconds:
            total = decoder.info.num_frames
            begin = partial(model.begin, finish=finisher)
            session, surfaces = model.surface_session, None
            if session is not None and encoder is not None:
                surfaces = SurfaceRender(
                    session, decoder, encoder, finish=finisher, owned=surface_memory, begin_frame=begin
                )
            return run_pipeline(
                surfaces or decoder,
                network=surfaces.begin if surfaces else begin,
                sink=sink,
                settle=finisher.settle if finisher.settles else None,
                num_in_flight=(surfaces and surfaces.num_in_flight) or model.num_in_flight,
                on_frame=lambda done: on_progress(done, total),
            )

        logger.info("%s: %s", source, decoder.info)
        logger.info("%s by %s", model.artifact.contract, model.backend)
        if isinstance(output, PictureSequence):
            result = _render_pictures(render, decoder, output)
        elif target.suffix.lower() in STILL_SUFFIXES and isinstance(output, PartialFile):
            result = _render_still(model, finisher, decoder, output)
        else:
            result = _render_video(render, decoder, output, encode or EncodeOptions())
        if not isinstance(output, PictureSequence):
            output.commit()
    for problem in decoder.problems:
        logger.warning("%s: %s", source, problem)
    return RunReport(
        model=model.artifact.name,
        source=str(source),
        target=str(target),
        num_frames=decoder.num_frames,
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
        steady=finish.steady if finish is not None else 0.0,
        scene_cut_seconds=tuple(finisher.cut_seconds),
        notes=(*decoder.notes, *finisher.notes, *result.notes),
        problems=tuple(decoder.problems),
    )


def _surface_gpu(model: Stylizer, target: Path) -> int | None:
    """The GPU for which the source is decoded; None where the result is no video or the network is not there."""
    session = model.surface_session
    if session is None or target.suffix.lower() in STILL_SUFFIXES:
        return None
    return session.device.dlpack_device[1]


def _reject_same(source: str | Path, target: Path) -> None:
    """Refuse to write over what is read."""
    read = Path(source)
    if target.exists() and read.exists() and target.samefile(read):
        raise OptionError(f"{target} is the input itself: choose another output")
    if number_pattern(target) and (read.is_dir() or number_pattern(read)) and target.parent.exists():
        folder = read if read.is_dir() else read.parent
        if folder.exists() and folder.samefile(target.parent):
            raise OptionError(f"{target} would be written among the pictures read: choose another folder")


def _open_output(target: Path, decoder: Decoder) -> PartialFile | StandardOutput | PictureSequence:
    if str(target) == PIPE:
        return StandardOutput()
    if target.suffix.lower() in STILL_SUFFIXES and number_pattern(target) and not decoder.is_picture:
        return PictureSequence(target, repeats_frames=decoder.info.is_resampled)
    return PartialFile(target)


@dataclass(frozen=True)
class _Result:
    """What the writing side knows about a finished file."""

    size: tuple[int, int]
    encoder: str
    seconds: StageSeconds
    notes: tuple[str, ...] = ()


class _Render(Protocol):
    """Passes all of the source, stylized, to a sink; where that is an encoder's, surfaces as they are."""

    def __call__(self, sink: Callable[[Item], None], encoder: Encoder | None = None) -> StageSeconds: ...


def _render_video(
    render: _Render, decoder: Decoder, output: PartialFile | StandardOutput, options: EncodeOptions
) -> _Result:
    with Encoder(output, info=decoder.info, options=options, source=decoder) as encoder:
        seconds = render(encoder.write, encoder)
    if encoder.num_frames != decoder.num_frames:
        raise OutputMismatchError(f"{output.target}: {encoder.num_frames} of {decoder.num_frames} frames encoded")
    encoder.check()
    return _Result(encoder.size, encoder.description, seconds, tuple(encoder.notes))


def _render_pictures(render: _Render, decoder: Decoder, output: PictureSequence) -> _Result:
    seconds = render(output.write)
    notes = tuple(
        f"{stream.type} track {stream.index} left out: pictures hold none" for stream in decoder.other_streams
    )
    size = decoder.info.width, decoder.info.height
    return _Result(size, still_description(output.pattern.suffix), seconds, notes)


def _render_still(model: Stylizer, finisher: Finish, decoder: Decoder, output: PartialFile) -> _Result:
    """Render the one frame of a picture in the calling thread."""
    frames = list(islice((item for item in decoder if isinstance(item, Frame)), 2))
    if len(frames) > 1:
        raise OptionError(f"{decoder.source} is a video, {output.target} can hold one frame: choose .mp4, or %04d.png")
    started = time.perf_counter()
    model.stylize(frames[0], finish=finisher)
    finisher.settle(frames[0])
    seconds = StageSeconds(network=time.perf_counter() - started)
    write_still(frames[0], output)
    return _Result((frames[0].width, frames[0].height), still_description(output.target.suffix), seconds)
