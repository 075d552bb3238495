"""One run of the benchmark, from the options to the results and the pictures behind them."""

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from stylize.benchmarks.appearance import StyleStatistics, style_statistics
from stylize.benchmarks.cases import ModelUnderTest, PeerCases
from stylize.benchmarks.clip_file import WorkingClip, prepare_clip, read_frames
from stylize.benchmarks.clips import generated_scenes
from stylize.benchmarks.environment import capture_environment
from stylize.benchmarks.fidelity import fidelity_row
from stylize.benchmarks.flow import FlowCache
from stylize.benchmarks.jitter import SMALLEST_SIDE_PX
from stylize.benchmarks.results import FidelityRow, Results, SteadinessRow
from stylize.benchmarks.sintel import RECONET_SCENES, read_picture, read_sintel_scene, sintel_frames
from stylize.benchmarks.speed import ModelSpeed, SpeedOptions, choose_num_frames, measure_speed
from stylize.benchmarks.steadiness import (
    NUM_STEADINESS_FRAMES,
    ReferenceClip,
    estimated_reference,
    exact_reference,
    source_row,
    steadiness_row,
)
from stylize.benchmarks.steadying import steadied_row
from stylize.runtime.errors import OptionError
from stylize.runtime.runner import Backend
from stylize.runtime.stylizer import Stylizer

__all__ = ["BenchOptions", "Illustration", "Outcome", "run_benchmark"]

_NUM_PROBE_FRAMES = 2
# The encoder looks ahead, so the first frames depend on a few that follow: from 24 on they stay the same bit for bit.
_NUM_ENCODED_FRAMES = NUM_STEADINESS_FRAMES + 16


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """What to measure on.

    Attributes:
        clip: a video, None for the demo clip.
        size_px: (width, height) to measure at, None for the clip's own.
        speed: how long to measure.
        sintel: folder of MPI-Sintel, None to leave it out.
        style_pictures: style picture of each model, by name.
        has_baseline: whether to time PyTorch eager with the same weights beside each model.
        checkpoints: checkpoint of each model for the baseline, by name; else its ONNX file is read.
        steady: how strongly to steady each model for a second row, 0 for none.
        flow_cache: folder that keeps optical flow between runs, None to measure it anew.
        command: the exact command line, for the record.
    """

    clip: Path | None = None
    size_px: tuple[int, int] | None = None
    speed: SpeedOptions = field(default_factory=SpeedOptions)
    sintel: Path | None = None
    style_pictures: dict[str, Path] = field(default_factory=dict)
    has_baseline: bool = False
    checkpoints: dict[str, Path] = field(default_factory=dict)
    steady: float = 0.9
    flow_cache: Path | None = None
    command: str = "stylize-bench"


@dataclass(frozen=True, kw_only=True)
class Illustration:
    """What the page shows of one model, beyond figures.

    Attributes:
        stylized: (T, H, W, 3) uint8, what it made of the reference clip.
        steadied: the same after steadying, None where that was not asked for.
        speed: the samples behind its speed figures.
    """

    stylized: NDArray[np.uint8]
    steadied: NDArray[np.uint8] | None
    speed: ModelSpeed


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Results with the pictures behind them.

    Attributes:
        results: the figures.
        reference: the clip the steadiness was measured on.
        illustrations: one per model.
    """

    results: Results
    reference: ReferenceClip
    illustrations: Sequence[Illustration]


def run_benchmark(
    models: Sequence[ModelUnderTest], options: BenchOptions, *, folder: Path, advance: Callable[[str], None]
) -> Outcome:
    """Measure speed, steadiness and fidelity of loaded models.

    Args:
        models: loaded models, with different labels.
        options: what to measure on.
        folder: for temporary files.
        advance: told what was just finished.

    Raises:
        InputMediaError: the clip, a style picture or MPI-Sintel cannot be read.
        OptionError: a style picture or a checkpoint is given that nothing uses, or the clip is too short or too small.
    """
    styles = _read_styles(models, options)
    if options.sintel is not None:
        for scene in RECONET_SCENES:
            sintel_frames(options.sintel, scene)  # what is missing is said now, not after minutes of measuring
    clip = _clip_of_fitting_length(models, options, folder)
    advance("clip")
    peers = _baselines(models, clip, options)
    speeds = measure_speed(models, peers, clip, options=options.speed, advance=advance)
    references = _references(clip, options, folder)
    advance("motion")
    steadiness: list[SteadinessRow] = []
    stylized: list[NDArray[np.uint8]] = []
    steadied: list[NDArray[np.uint8] | None] = []
    for reference in references:
        steadiness.append(source_row(reference))
        for model in models:
            run, style = model.stylizer.run, styles.get(model.name)
            output, calm = run(reference.frames), None
            plain = steadiness_row(model.label, run, reference, output, style=style)
            steadiness.append(plain)
            if options.steady:
                row, calm = steadied_row(plain, run, reference, output, style=style, amount=options.steady)
                steadiness.append(row)
            if reference is references[0]:
                stylized.append(output)
                steadied.append(calm)
            advance(f"steadiness: {model.label}")
    results = Results(
        created_utc=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=options.command,
        environment=capture_environment(has_torch=options.has_baseline),
        roof=speeds.roof,
        clip=clip.facts,
        speed=speeds.rows,
        steadiness=steadiness,
        fidelity=_fidelity(models, stylized, references[0]),
    )
    illustrations = [
        Illustration(stylized=output, steadied=calm, speed=speed)
        for output, calm, speed in zip(stylized, steadied, speeds.by_model, strict=True)
    ]
    return Outcome(results=results, reference=references[0], illustrations=illustrations)


def _baselines(models: Sequence[ModelUnderTest], clip: WorkingClip, options: BenchOptions) -> list[PeerCases]:
    """One per model name: backends and precisions of it share the baseline."""
    if not options.has_baseline:
        return []
    from stylize.benchmarks.baseline import eager_cases

    by_name = {model.name: model for model in models}
    return [eager_cases(model, clip.path, checkpoint=options.checkpoints.get(name)) for name, model in by_name.items()]


def _prepared(options: BenchOptions, folder: Path, *, num_frames: int) -> WorkingClip:
    """The clip of the options at this length, if every figure can be measured on it."""
    clip = prepare_clip(options.clip, folder, size_px=options.size_px, num_frames=num_frames)
    facts = clip.facts
    if facts.num_frames < 2 or min(facts.width_px, facts.height_px) < SMALLEST_SIDE_PX:
        raise OptionError(
            f"{facts.name}: {facts.width_px}x{facts.height_px} with {facts.num_frames} frame(s), steadiness is "
            f"measured on at least 2 frames of {SMALLEST_SIDE_PX}x{SMALLEST_SIDE_PX}: choose another --clip or --size"
        )
    return clip


def _clip_of_fitting_length(models: Sequence[ModelUnderTest], options: BenchOptions, folder: Path) -> WorkingClip:
    num_frames = options.speed.num_frames
    if num_frames is None:
        probe = _prepared(options, folder, num_frames=_NUM_PROBE_FRAMES)
        num_frames = choose_num_frames(models, probe, options.speed, has_baseline=options.has_baseline)
    return _prepared(options, folder, num_frames=num_frames)


def _read_styles(models: Sequence[ModelUnderTest], options: BenchOptions) -> dict[str, StyleStatistics]:
    names = {model.name for model in models}
    if options.checkpoints and not options.has_baseline:
        raise OptionError("--checkpoint is for the baseline: add --baseline eager, or leave it out")
    for option, given in (("--style-picture", options.style_pictures), ("--checkpoint", options.checkpoints)):
        for name in given:
            if name not in names:
                raise OptionError(f"{option} {name}: not measured in this run, the models are {', '.join(names)}")
    return {name: style_statistics(_style_picture(path)) for name, path in options.style_pictures.items()}


def _style_picture(path: Path) -> NDArray[np.uint8]:
    """The picture shrunk to 512 px on its long side, the scale at which styles are trained: (1, H, W, 3)."""
    picture = read_picture(path, cv2.IMREAD_COLOR_RGB)
    scale = min(1.0, 512 / max(picture.shape[:2]))
    return np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))[None]


def _references(clip: WorkingClip, options: BenchOptions, folder: Path) -> list[ReferenceClip]:
    """The clip first, then what has true motion."""
    if options.speed.num_frames is None and clip.facts.num_frames < _NUM_ENCODED_FRAMES:
        # Cut short because a model is slow: how steady it is must not depend on that.
        whole = folder / "steadiness"
        whole.mkdir()
        clip = _prepared(options, whole, num_frames=_NUM_ENCODED_FRAMES)
    frames = read_frames(clip.path, num_frames=NUM_STEADINESS_FRAMES)
    cache = None if options.flow_cache is None else FlowCache(options.flow_cache)
    references = [estimated_reference(clip.facts.name, frames, cache=cache)]
    if options.sintel is None:
        return [*references, exact_reference(generated_scenes(num_frames=NUM_STEADINESS_FRAMES)[-1])]
    return references + [read_sintel_scene(options.sintel, scene) for scene in RECONET_SCENES]


def _fidelity(
    models: Sequence[ModelUnderTest], stylized: Sequence[NDArray[np.uint8]], reference: ReferenceClip
) -> list[FidelityRow]:
    """Every model against float32 ONNX Runtime with the same weights.

    Half-precision and int8 files have no float32 of their own; they are left out unless their twin is measured too.
    """
    artifacts = {
        _origin(model): model.stylizer.artifact
        for model in models
        if model.stylizer.artifact.contract.precision == "fp32"
        and not (model.stylizer.artifact.contract.is_int8 or model.stylizer.artifact.is_bare_engine)
    }
    exact: dict[tuple[str, ...], NDArray[np.uint8]] = {}
    rows = []
    for model, output in zip(models, stylized, strict=True):
        origin = _origin(model)
        if origin not in artifacts or (model.backend, model.precision) == (Backend.ONNXRUNTIME, "fp32"):
            continue
        if origin not in exact:
            with Stylizer(artifacts[origin], backend=Backend.ONNXRUNTIME) as stylizer:
                exact[origin] = stylizer.run(reference.frames)
        rows.append(fidelity_row(model.identity, output, exact[origin], reference.motions))
    return rows


def _origin(model: ModelUnderTest) -> tuple[str, ...]:
    """What models of one training share, whatever their backend, precision and file name."""
    contract = model.stylizer.artifact.contract
    return contract.network, contract.style, contract.hashes.get("weights", "")
