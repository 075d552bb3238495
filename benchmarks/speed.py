"""How fast every stage of every model runs, with latency, memory and share of the machine's roof."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stylize.benchmarks.cases import (
    DecodeCase,
    EncodeCase,
    ModelUnderTest,
    PeerCases,
    PipelineCase,
    TimelineSpan,
    decoded_frames,
    network_case,
)
from stylize.benchmarks.clip_file import WorkingClip
from stylize.benchmarks.graph_cost import gflop_per_frame
from stylize.benchmarks.measure import (
    Case,
    MachineRoof,
    fps_of,
    machine_roof,
    measure_in_turn,
    percentiles_ms,
    roof_cases,
)
from stylize.benchmarks.memory import peak_memory
from stylize.benchmarks.results import ClipFacts, SpeedRow, Stage
from stylize.runtime.frame import Frame
from stylize.runtime.network_pass import padded_size

__all__ = ["ModelSpeed", "SpeedOptions", "Speeds", "choose_num_frames", "measure_speed"]

Samples = Sequence[Sequence[float]]
"""Seconds of every frame, by round."""

_NUM_WARMUP = 1
_MIN_FRAMES, _MAX_FRAMES = 8, 48
# Network and pipeline both run the network; encoding and decoding add about a fifth.
_NETWORK_PASSES_PER_ROUND = 2.2
# PyTorch eager took three times as long as ONNX Runtime on two Zen 4 cores.
_BASELINE_SLOWDOWN = 3
# Frames kept in memory at once, over all models.
_MAX_FRAME_BYTES = 10**9
_BYTES_PER_PIXEL = 6  # planar 16-bit RGB


@dataclass(frozen=True, kw_only=True)
class SpeedOptions:
    """How long to measure.

    Attributes:
        num_rounds: rounds to keep of every case.
        budget_seconds: no round begins that would end later.
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
        roof: of this machine.
        rows: decoding once, three rows per model.
        by_model: in the order of the models.
    """

    roof: MachineRoof
    rows: Sequence[SpeedRow]
    by_model: Sequence[ModelSpeed]


def choose_num_frames(
    models: Sequence[ModelUnderTest], probe: WorkingClip, options: SpeedOptions, *, has_baseline: bool
) -> int:
    """As many frames as fit the time and a gigabyte of memory, 8 to 48.

    Args:
        models: loaded models.
        probe: a clip of a few frames of the size to measure.
        options: rounds and time; a given number of frames is returned as it is.
        has_baseline: whether every model is timed in PyTorch as well.
    """
    if options.num_frames is not None:
        return options.num_frames
    frames = decoded_frames(probe.path)[:2]
    seconds_per_frame = sum(network_case(model, frames)()[-1] for model in models)
    if has_baseline:
        seconds_per_frame *= 1 + _BASELINE_SLOWDOWN
    round_seconds = options.budget_seconds / (options.num_rounds + _NUM_WARMUP)
    fitting_time = int(round_seconds / (_NETWORK_PASSES_PER_ROUND * seconds_per_frame))
    frame_bytes = probe.facts.width_px * probe.facts.height_px * _BYTES_PER_PIXEL
    fitting_memory = _MAX_FRAME_BYTES // (frame_bytes * (len(models) + 1))
    return max(_MIN_FRAMES, min(_MAX_FRAMES, fitting_time, fitting_memory))


def measure_speed(
    models: Sequence[ModelUnderTest],
    peers: Sequence[PeerCases],
    clip: WorkingClip,
    *,
    options: SpeedOptions,
    advance: Callable[[str], None],
) -> Speeds:
    """Time decoding, and for every model network, encoding and the whole pipeline, all in turn.

    Args:
        models: loaded models, with different labels.
        peers: other ways to run them, for comparison.
        clip: the video to render.
        options: how long to measure.
        advance: told what was just finished.
    """
    target = clip.path.with_name("rendered.mp4")
    frames: list[Frame] = decoded_frames(clip.path)
    pipelines = [PipelineCase(model, clip.path, target) for model in models]
    cases: dict[str, Case] = {**roof_cases(), "decode": DecodeCase(clip.path)}
    for model, pipeline in zip(models, pipelines, strict=True):
        cases[f"network: {model.label}"] = network_case(model, frames)
        cases[f"encode: {model.label}"] = EncodeCase(model, clip.path, target)
        cases[f"pipeline: {model.label}"] = pipeline
    for peer in peers:
        cases.update({f"{stage}: {peer.model}, {peer.backend}": case for stage, case in peer.by_stage.items()})
    samples = measure_in_turn(
        cases,
        num_warmup=_NUM_WARMUP,
        num_rounds=options.num_rounds,
        budget_seconds=options.budget_seconds,
        advance=advance,
    )
    roof = machine_roof(samples)
    rows = [_row("decode", samples["decode"], None, ("-", "-", "-"), clip.facts)]
    by_model = []
    for model, pipeline in zip(models, pipelines, strict=True):
        advance(f"memory: {model.label}")
        own = {stage: samples[f"{stage}: {model.label}"] for stage in ("network", "encode", "pipeline")}
        rows += [
            _network_row(own["network"], model, clip.facts, roof),
            _row("encode", own["encode"], None, model.identity, clip.facts),
            _pipeline_row(own["pipeline"], pipeline.latencies_seconds(num_warmup=_NUM_WARMUP), model, clip),
        ]
        latencies_ms = [seconds * 1000 for seconds in itertools.chain(*own["network"])]
        by_model.append(ModelSpeed(label=model.label, timeline=pipeline.timelines[-1], latencies_ms=latencies_ms))
    for peer in peers:
        identity = (peer.model, peer.backend, peer.precision)
        for stage in peer.by_stage:
            seconds = samples[f"{stage}: {peer.model}, {peer.backend}"]
            latencies = list(itertools.chain(*seconds)) if stage == "network" else None
            rows.append(_row(stage, seconds, latencies, identity, clip.facts))
    return Speeds(roof=roof, rows=rows, by_model=by_model)


def _row(
    stage: Stage,
    samples: Samples,
    latencies_seconds: Sequence[float] | None,
    identity: tuple[str, str, str],
    facts: ClipFacts,
) -> SpeedRow:
    """A row without work and memory; `identity` is model, backend and precision."""
    model, backend, precision = identity
    p50_ms, p95_ms, p99_ms = (None, None, None) if latencies_seconds is None else percentiles_ms(latencies_seconds)
    return SpeedRow(
        model=model,
        backend=backend,
        precision=precision,
        stage=stage,
        width_px=facts.width_px,
        height_px=facts.height_px,
        fps=fps_of(samples),
        latency_p50_ms=p50_ms,
        latency_p95_ms=p95_ms,
        latency_p99_ms=p99_ms,
    )


def _network_row(samples: Samples, model: ModelUnderTest, facts: ClipFacts, roof: MachineRoof) -> SpeedRow:
    row = _row("network", samples, list(itertools.chain(*samples)), model.identity, facts)
    if model.stylizer.artifact.is_bare_engine:
        return row  # no graph to count
    width_px, height_px = _network_size_px(model, facts)
    gflop = gflop_per_frame(model.stylizer.artifact.onnx_source(), width_px=width_px, height_px=height_px)
    # The roof is the CPU's: of a GPU's rate it says nothing.
    is_on_cpu = model.stylizer.device is None
    roof_share = gflop * row.fps.median / roof.gemm_gflop_per_second if is_on_cpu else None
    return dataclasses.replace(row, gflop_per_frame=gflop, roof_share=roof_share)


def _pipeline_row(
    samples: Samples, latencies_seconds: Sequence[float], model: ModelUnderTest, clip: WorkingClip
) -> SpeedRow:
    row = _row("pipeline", samples, latencies_seconds, model.identity, clip.facts)
    peak = peak_memory(
        model.stylizer.artifact.path,
        backend=model.backend,
        precision=model.asked_precision,
        clip=clip.path,
        output=clip.path.with_name("memory.mp4"),
        device=model.stylizer.device,
    )
    return dataclasses.replace(row, peak_resident_bytes=peak.resident_bytes, peak_device_bytes=peak.device_bytes)


def _network_size_px(model: ModelUnderTest, facts: ClipFacts) -> tuple[int, int]:
    """(width, height) the network runs at for frames of this size."""
    contract = model.stylizer.artifact.contract
    return contract.fixed_size or padded_size(contract, facts.width_px, facts.height_px)
