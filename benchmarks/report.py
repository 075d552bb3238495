"""The page: one self-contained HTML file with figures, clips, heat maps, charts and the way to repeat it."""

import base64
import itertools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import jinja2
import numpy as np
from numpy.typing import NDArray

from stylize.benchmarks.cases import TimelineSpan
from stylize.benchmarks.clip_file import CLIP_RATE_HZ, write_clip
from stylize.benchmarks.measure import percentiles_ms
from stylize.benchmarks.results import Results, SpeedRow, Stage, SteadinessRow
from stylize.benchmarks.run import Illustration, Outcome
from stylize.benchmarks.tables import by_stage
from stylize.benchmarks.temporal import FloatArray, flicker_map, pair_errors
from stylize.runtime.encode import EncodeOptions
from stylize.runtime.partial_file import PartialFile

__all__ = ["write_report"]

# Two of these side by side fill a wide screen; larger clips are shrunk to keep the file small.
_LARGEST_PICTURE_PX = 640
_NUM_BINS = 24
_NUM_TIMELINE_FRAMES = 16
_NUM_COLOUR_STOPS = 9
_COLOUR_MAP = cv2.COLORMAP_INFERNO
# A tenth of a code value: what a scale shows at least, for clips in which nothing changes.
_FAINTEST = 0.1 / 255
_STAGES = ("decode", "network", "encode")


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A rectangle of a chart, in per cent of its width, and what to say about it.

    Attributes:
        left: of the chart's width, in [0, 100].
        width: likewise.
        height: of the chart's height, in [0, 100].
        text: for the tooltip.
        index: number of the frame or bin.
    """

    left: float
    width: float
    height: float
    text: str
    index: int


@dataclass(frozen=True, kw_only=True)
class Marker:
    """A vertical line in a chart: per cent of its width, and its name."""

    left: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Flicker:
    """Where and when a clip changes although the picture does not.

    Attributes:
        name: of the clip: `as painted` or `steadied`.
        heat: PNG, base64.
        errors: e_stab of every pair of frames.
    """

    name: str
    heat: str
    errors: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class ModelSection:
    """Everything the template draws for one model.

    Attributes:
        label: of the model.
        steadiness: its figures on the clip.
        video: H.264 in MP4, base64: source, stylized and, where measured, steadied, from left to right.
        picture_size_px: (width, height) of each of them.
        steadied: figures of the steadied clip, None where it was not measured.
        num_frames: of the clip.
        flickers: of the stylized clip and, where measured, the steadied one.
        lanes: the pipeline's stages with a bar for every frame.
        timeline_ms: length of the timeline.
        bins: of the latency histogram.
        latency_range_ms: first and last edge of the bins.
        percentiles: p50, p95 and p99 of the latency.
    """

    label: str
    steadiness: SteadinessRow
    video: str
    picture_size_px: tuple[int, int]
    steadied: SteadinessRow | None
    num_frames: int
    flickers: Sequence[Flicker]
    lanes: Sequence[tuple[str, Sequence[Bar]]]
    timeline_ms: float
    bins: Sequence[Bar]
    latency_range_ms: tuple[float, float]
    percentiles: Sequence[Marker]


def write_report(path: Path, outcome: Outcome) -> None:
    """Write the page, complete or not at all; it loads nothing from anywhere.

    Args:
        path: an HTML file.
        outcome: of a run.

    Raises:
        OSError: it cannot be written.
    """
    reference = outcome.reference
    # The brightest hundredth may clip, so that a few pixels do not darken all the rest.
    heat_limit = max(
        _FAINTEST,
        *(float(np.percentile(flicker_map(each.stylized, reference.motions), 99)) for each in outcome.illustrations),
    )
    sections = [_section(illustration, heat_limit, outcome) for illustration in outcome.illustrations]
    flickers = itertools.chain(*(section.flickers for section in sections))
    source_errors = np.sqrt(pair_errors(reference.frames, reference.motions)).tolist()
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("stylize.benchmarks", "."), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    page = environment.get_template("report.html.j2").render(
        results=outcome.results,
        summary=_summary(outcome),
        has_gpu=any(row.peak_device_bytes is not None for row in outcome.results.speed),
        clips=list(dict.fromkeys(row.clip for row in outcome.results.steadiness)),
        sections=sections,
        source_errors=source_errors,
        # The sixth above the highest error holds the limit's own label.
        error_limit=1.2 * max(_FAINTEST, *source_errors, *itertools.chain(*(each.errors for each in flickers))),
        heat_limit=heat_limit,
        heat_colours=_colour_stops(),
        clip_rate_hz=CLIP_RATE_HZ,
        facts=_facts(outcome.results),
    )
    with PartialFile(path) as output:
        output.path.write_text(page, encoding="utf-8")
        output.commit()


def _facts(results: Results) -> list[tuple[str, str]]:
    """Machine and software, line by line; what is not known is left out."""
    environment, roof = results.environment, results.roof
    memory_bytes = environment.memory_bytes
    facts = {
        "system": environment.system,
        "processor": f"{environment.cpu}, {environment.num_cores} cores",
        "memory": None if memory_bytes is None else f"{memory_bytes / 1e9:.1f} GB",
        "GPU": None if environment.gpu is None else f"{environment.gpu}, driver {environment.gpu_driver}",
        "matrix product": f"{roof.gemm_gflop_per_second:.0f} GFLOP/s float32, the roof of the table",
        "memory copy": f"{roof.copy_gb_per_second:.1f} GB/s",
        "stylize": f"{environment.stylize}, {environment.commit or 'installed'}",
        "Python": environment.python,
        "libraries": ", ".join(f"{name} {version}" for name, version in environment.libraries.items()),
        "formulas": f"version {results.formula_version}",
    }
    return [(name, value) for name, value in facts.items() if value is not None]


def _summary(outcome: Outcome) -> list[tuple[dict[Stage, SpeedRow], SteadinessRow | None]]:
    """Speed by stage and steadiness on the first clip, for every model and baseline."""
    steadiness = {row.model: row for row in outcome.results.steadiness if row.clip == outcome.reference.name}
    return [
        (stages, steadiness.get("{}, {} {}".format(*identity)))
        for identity, stages in by_stage(outcome.results).items()
    ]


def _section(illustration: Illustration, heat_limit: float, outcome: Outcome) -> ModelSection:
    reference, label = outcome.reference, illustration.speed.label
    painted = {"as painted": illustration.stylized}
    if illustration.steadied is not None:
        painted["steadied"] = illustration.steadied
    video, picture_size_px = _side_by_side([reference.frames, *painted.values()])
    rows = [row for row in outcome.results.steadiness if row.clip == reference.name]
    plain = next(row for row in rows if row.model == label)
    latencies_ms = illustration.speed.latencies_ms
    bins, latency_range_ms = _histogram(latencies_ms)
    low, high = latency_range_ms
    values = percentiles_ms([milliseconds / 1000 for milliseconds in latencies_ms])
    lanes, timeline_ms = _timeline(illustration.speed.timeline)
    return ModelSection(
        label=label,
        steadiness=plain,
        # The row after the plain one is the same model's, steadied, if it is steadied at all.
        steadied=next((row for row in rows[rows.index(plain) + 1 :][:1] if row.steady), None),
        video=video,
        picture_size_px=picture_size_px,
        num_frames=len(reference.frames),
        flickers=[
            Flicker(
                name=name,
                heat=_heat_picture(flicker_map(clip, reference.motions), heat_limit),
                errors=np.sqrt(pair_errors(clip, reference.motions)).tolist(),
            )
            for name, clip in painted.items()
        ],
        lanes=lanes,
        timeline_ms=timeline_ms,
        bins=bins,
        latency_range_ms=latency_range_ms,
        percentiles=[
            Marker(left=100 * (value - low) / (high - low), text=f"{name} {value:.1f} ms")
            for name, value in zip(("p50", "p95", "p99"), values, strict=True)
        ],
    )


def _side_by_side(clips: Sequence[NDArray[np.uint8]]) -> tuple[str, tuple[int, int]]:
    """One video of all clips, so that they cannot get out of step, and the size of each part."""
    height, width = clips[0].shape[1:3]
    scale = min(1.0, _LARGEST_PICTURE_PX / width)
    # Even sides: 4:2:0 has no others.
    size_px = (max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2))
    rows = (
        np.concatenate([cv2.resize(part, size_px, interpolation=cv2.INTER_AREA) for part in parts], axis=1)
        for parts in zip(*clips, strict=True)
    )
    with tempfile.TemporaryDirectory(prefix="stylize-report-") as folder:
        path = Path(folder) / "parts.mp4"
        write_clip(path, rows, options=EncodeOptions(crf=20))
        return base64.b64encode(path.read_bytes()).decode(), size_px


def _heat_picture(heat: FloatArray, limit: float) -> str:
    levels = np.clip(heat / limit * 255, 0, 255).astype(np.uint8)
    scale = min(1.0, _LARGEST_PICTURE_PX / heat.shape[1])
    coloured = cv2.resize(
        cv2.applyColorMap(levels, _COLOUR_MAP), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA
    )
    is_encoded, png = cv2.imencode(".png", coloured)
    assert is_encoded, "an 8-bit picture always fits PNG"
    return base64.b64encode(png.tobytes()).decode()


def _colour_stops() -> list[str]:
    levels = np.linspace(0, 255, _NUM_COLOUR_STOPS).astype(np.uint8)[None]
    return [f"rgb({red},{green},{blue})" for blue, green, red in cv2.applyColorMap(levels, _COLOUR_MAP)[0].tolist()]


def _histogram(latencies_ms: Sequence[float]) -> tuple[list[Bar], tuple[float, float]]:
    """Bars of equal width from the fastest frame to the slowest."""
    counts, edges = np.histogram(latencies_ms, bins=_NUM_BINS)
    width = 100 / _NUM_BINS
    bars = [
        Bar(
            left=index * width,
            width=width,
            height=100 * int(count) / int(counts.max()),
            text=f"{edges[index]:.1f} to {edges[index + 1]:.1f} ms: {count} frames",
            index=index,
        )
        for index, count in enumerate(counts)
    ]
    return bars, (float(edges[0]), float(edges[-1]))


def _timeline(spans: Sequence[TimelineSpan]) -> tuple[list[tuple[str, list[Bar]]], float]:
    """A lane for each stage over the first frames, and the length of it all in milliseconds."""
    shown = [span for span in spans if span.frame_index < _NUM_TIMELINE_FRAMES]
    end_seconds = max(span.end_seconds for span in shown)
    lanes = []
    for stage in _STAGES:
        bars = [
            Bar(
                left=100 * span.begin_seconds / end_seconds,
                width=100 * (span.end_seconds - span.begin_seconds) / end_seconds,
                height=100,
                text=f"frame {span.frame_index}, {stage}: {1000 * (span.end_seconds - span.begin_seconds):.1f} ms",
                index=span.frame_index,
            )
            for span in shown
            if span.stage == stage
        ]
        lanes.append((stage, bars))
    return lanes, 1000 * end_seconds
