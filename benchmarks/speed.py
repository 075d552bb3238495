"""How fast every stage of every model runs, with latency, memory and share of the machine's roof."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from stylize.benchmarks.cases import (
    DecodeCase,
    EncodeCase,
    ModelUnderTest,
    NetworkCase,
    PipelineCase,
    TimelineSpan,
    decoded_frames,
)
from stylize.benchmarks.clip_file import WorkingClip
from stylize.benchmarks.graph_cost import gflop_per_frame
from stylize.benchmarks.measure import (
    Case,
    MachineRoof,
    fps_of,
    measure_in_turn,
    peak_resident_bytes,
    percentiles_ms,
)
from stylize.benchmarks.results import ClipFacts, SpeedRow
from stylize.runtime.frame import Frame
from stylize.runtime.network_pass import MIN_SIDE_PX

__all__ = ["ModelSpeed", "SpeedOptions", "Speeds", "choose_num_frames", "measure_speed"]

Samples = Sequence[Sequence[float]]
"""Seconds of every frame, by round."""

_NUM_WARMUP = 1
_MIN_FRAMES, _MAX_FRAMES = 8, 48
# Network and pipeline both run the network; encoding and decoding add about a fifth.
_NETWORK_PASSES_PER_ROUND = 2.2
# Frames kept in memory at once, over all models.
_MAX_FRAME_BYTES = 10**9
_BYTES_PER_PIXEL = 12  # planar float32 RGB


@dataclass(frozen=True, kw_only=True)
class SpeedOptions:
    """How long to measure.

    Attributes:
        num_rounds: rounds to keep of every case.
        budget_seconds: no round starts after this long.
        num_frames: frames of the clip, None to choose by the models' speed.
    """

    num_rounds: int = 5
    budget_seconds: float = 90.0
    num_frames: int | None = None


@dataclass(frozen=True, kw_only=True)
class ModelSpeed:
    """What the page draws of one model.

    Attributes:
        label: of the model.
        timeline: the last pipeline run.
        latencies_ms: of every timed frame, network alone.
    """

    label: str
    timeline: Sequence[TimelineSpan]
    latencies_ms: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """All rows, and the samples behind them.

    Attributes:
        rows: decoding once, three rows per model.
        by_model: in the order of the models.
    """

    rows: Sequence[SpeedRow]
    by_model: Sequence[ModelSpeed]


def choose_num_frames(models: Sequence[ModelUnderTest], probe: WorkingClip, options: SpeedOptions) -> int:
    """As many frames as fit the time and a gigabyte of memory, 8 to 48.

    Args:
        models: loaded models.
        probe: a clip of a few frames of the size to measure.
        options: rounds and time; a given number of frames is returned as it is.
    """
    if options.num_frames is not None:
        return options.num_frames
    frames = decoded_frames(probe.path)[:2]
    seconds_per_frame = sum(NetworkCase(model, frames)()[-1] for model in models)
    round_seconds = options.budget_seconds / (options.num_rounds + _NUM_WARMUP)
    fitting_time = int(round_seconds / (_NETWORK_PASSES_PER_ROUND * seconds_per_frame))
    frame_bytes = probe.facts.width_px * probe.facts.height_px * _BYTES_PER_PIXEL
    fitting_memory = _MAX_FRAME_BYTES // (frame_bytes * (len(models) + 1))
    return max(_MIN_FRAMES, min(_MAX_FRAMES, fitting_time, fitting_memory))


def measure_speed(
    models: Sequence[ModelUnderTest],
    clip: WorkingClip,
    roof: MachineRoof,
    *,
    options: SpeedOptions,
    advance: Callable[[str], None],
) -> Speeds:
    """Time decoding, and for every model network, encoding and the whole pipeline, all in turn.

    Args:
        models: loaded models, with different labels.
        clip: the video to render.
        roof: of this machine.
        options: how long to measure.
        advance: told what was just finished.
    """
    target = clip.path.with_name("rendered.mp4")
    frames: list[Frame] = decoded_frames(clip.path)
    pipelines = [PipelineCase(model, clip.path, target) for model in models]
    cases: dict[str, Case] = {"decode": DecodeCase(clip.path)}
    for model, pipeline in zip(models, pipelines, strict=True):
        cases[f"network: {model.label}"] = NetworkCase(model, frames)
        cases[f"encode: {model.label}"] = EncodeCase(model, clip.path, target)
        cases[f"pipeline: {model.label}"] = pipeline
    samples = measure_in_turn(
        cases,
        num_warmup=_NUM_WARMUP,
        num_rounds=options.num_rounds,
        budget_seconds=options.budget_seconds,
        advance=advance,
    )
    rows = [_decode_row(samples["decode"], clip.facts)]
    by_model = []
    for model, pipeline in zip(models, pipelines, strict=True):
        advance(f"memory: {model.label}")
        network_samples = samples[f"network: {model.label}"]
        latencies_seconds = pipeline.latencies_seconds(num_warmup=_NUM_WARMUP)
        rows += [
            _network_row(network_samples, model, clip.facts, roof),
            _model_row("encode", samples[f"encode: {model.label}"], None, model, clip.facts),
            _pipeline_row(samples[f"pipeline: {model.label}"], latencies_seconds, model, clip),
        ]
        by_model.append(
            ModelSpeed(label=model.label, timeline=pipeline.timelines[-1], latencies_ms=_milliseconds(network_samples))
        )
    return Speeds(rows=rows, by_model=by_model)


def _milliseconds(samples: Samples) -> list[float]:
    return [float(seconds) * 1000 for round_seconds in samples for seconds in round_seconds]


def _decode_row(samples: Samples, facts: ClipFacts) -> SpeedRow:
    return SpeedRow(
        model="-",
        backend="-",
        precision="-",
        stage="decode",
        width_px=facts.width_px,
        height_px=facts.height_px,
        fps=fps_of(samples),
    )


def _model_row(
    stage: Literal["network", "encode", "pipeline"],
    samples: Samples,
    latencies_seconds: Sequence[float] | None,
    model: ModelUnderTest,
    facts: ClipFacts,
) -> SpeedRow:
    p50_ms, p95_ms, p99_ms = (None, None, None) if latencies_seconds is None else percentiles_ms(latencies_seconds)
    return SpeedRow(
        model=model.name,
        backend=str(model.backend),
        precision=model.precision,
        stage=stage,
        width_px=facts.width_px,
        height_px=facts.height_px,
        fps=fps_of(samples),
        latency_p50_ms=p50_ms,
        latency_p95_ms=p95_ms,
        latency_p99_ms=p99_ms,
    )


def _network_row(samples: Samples, model: ModelUnderTest, facts: ClipFacts, roof: MachineRoof) -> SpeedRow:
    row = _model_row("network", samples, list(itertools.chain(*samples)), model, facts)
    width_px, height_px = _network_size_px(model, facts)
    gflop = gflop_per_frame(model.stylizer.artifact.path, width_px=width_px, height_px=height_px)
    roof_share = gflop * row.fps.median / roof.gemm_gflop_per_second
    return dataclasses.replace(row, gflop_per_frame=gflop, roof_share=roof_share)


def _pipeline_row(
    samples: Samples, latencies_seconds: Sequence[float], model: ModelUnderTest, clip: WorkingClip
) -> SpeedRow:
    row = _model_row("pipeline", samples, latencies_seconds, model, clip.facts)
    arguments = [
        "stylize.benchmarks.memory_case",
        str(model.stylizer.artifact.path),
        str(model.backend),
        str(clip.path),
        str(clip.path.with_name("memory.mp4")),
    ]
    return dataclasses.replace(row, peak_resident_bytes=peak_resident_bytes(arguments))


def _network_size_px(model: ModelUnderTest, facts: ClipFacts) -> tuple[int, int]:
    """(width, height) the network runs at for frames of this size."""
    contract = model.stylizer.artifact.contract
    if contract.fixed_size is not None:
        return contract.fixed_size
    multiple = contract.size_multiple
    width_px, height_px = (
        -(-max(side, MIN_SIDE_PX) // multiple) * multiple for side in (facts.width_px, facts.height_px)
    )
    return width_px, height_px
