"""What a run of `stylize-bench` found, as typed rows and as JSON that a schema holds in shape."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import jsonschema

from stylize.benchmarks.environment import Environment
from stylize.benchmarks.jitter import JitterFigures
from stylize.benchmarks.measure import MachineRoof, Spread
from stylize.benchmarks.temporal import FORMULA_VERSION
from stylize.runtime.partial_file import PartialFile

__all__ = [
    "EAGER",
    "SCHEMA_VERSION",
    "ClipFacts",
    "FidelityRow",
    "Results",
    "SpeedRow",
    "Stage",
    "SteadinessRow",
    "read_results",
    "write_results",
]

SCHEMA_VERSION = 1

EAGER = "PyTorch eager"
"""How the backend of baseline rows begins."""

Stage = Literal["decode", "network", "encode", "pipeline"]


@dataclass(frozen=True, kw_only=True)
class ClipFacts:
    """The clip that was measured on.

    Attributes:
        name: file name, or what the generated clip shows.
        width_px: width of a frame.
        height_px: height of a frame.
        num_frames: frames used.
    """

    name: str
    width_px: int
    height_px: int
    num_frames: int


@dataclass(frozen=True, kw_only=True)
class SpeedRow:
    """How fast one stage ran for one model.

    Attributes:
        model: name of the model, `-` for stages without one.
        backend: what ran it, e.g. `onnxruntime`, `PyTorch eager 2.11`.
        precision: element type of the network.
        stage: `decode`, `network` and `encode` alone, or the whole `pipeline` with overlapping stages.
        width_px: width of a frame.
        height_px: height of a frame.
        fps: frames per second, one sample per round.
        latency_p50_ms: one frame through the stage; in the pipeline from the begin of its decoding to the encoder,
            queues included; None for decode and encode.
        latency_p95_ms: likewise.
        latency_p99_ms: likewise.
        peak_resident_bytes: of a process that did only this, pipeline only.
        peak_device_bytes: memory of the GPU likewise; None on the CPU.
        gflop_per_frame: counted from the graph, network only.
        roof_share: of the CPU's measured matrix product rate, network on the CPU only.
    """

    model: str
    backend: str
    precision: str
    stage: Stage
    width_px: int
    height_px: int
    fps: Spread
    latency_p50_ms: float | None = None
    latency_p95_ms: float | None = None
    latency_p99_ms: float | None = None
    peak_resident_bytes: int | None = None
    peak_device_bytes: int | None = None
    gflop_per_frame: float | None = None
    roof_share: float | None = None

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """What two rows must share to be compared."""
        return self.model, self.backend, self.precision, self.stage, f"{self.width_px}x{self.height_px}"


@dataclass(frozen=True, kw_only=True)
class SteadinessRow:
    """How steady one model is on one clip; formulas in `temporal`, `appearance` and `jitter`.

    Attributes:
        model: name of the model; `source` is the clip itself.
        clip: name of the clip.
        flow: where motion comes from: `exact`, `ground truth` or `DIS medium`.
        e_stab: warping error between neighbouring frames.
        e_stab_luminance: the same less the source's own luminance change.
        e_stab_relative: e_stab over the source's own; None when the source has none.
        e_stab_long: between frames nine apart; None for clips too short.
        t_of_px: difference of apparent motion.
        static_flicker: mean change of a noisy still; None for the source and for clips of flat colours.
        jitter: output change over input change; None likewise.
        content: correlation of edges with the source.
        style_error: Gram error to the style picture; None when the picture is not known.
        style_change: Gram distance from the source clip: 0 for a model that does nothing.
        sharpness: mean gradient of luminance, per pixel; None in results from before it was measured.
        steady: how strongly `stylize-run --steady` held the strokes in place, 0 for not.
        steady_ms: processor time that takes per frame, on one thread; None where nothing is steadied.
        width_px: width of the clip; None in results from before it was noted.
        height_px: height likewise.
        num_frames: frames it was measured on; None likewise.
    """

    model: str
    clip: str
    flow: str
    e_stab: float
    e_stab_luminance: float
    e_stab_relative: float | None
    e_stab_long: float | None
    t_of_px: float
    static_flicker: float | None
    jitter: JitterFigures | None
    content: float
    style_error: float | None
    style_change: float
    sharpness: float | None = None
    steady: float = 0.0
    steady_ms: float | None = None
    width_px: int | None = None
    height_px: int | None = None
    num_frames: int | None = None


@dataclass(frozen=True, kw_only=True)
class FidelityRow:
    """How close a backend or precision comes to the float32 ONNX model on the same frames.

    Attributes:
        model: name of the model.
        backend: what ran it.
        precision: element type of the network.
        psnr_db: peak signal to noise ratio, None for equal pictures.
        ssim: structural similarity, 1 for equal pictures.
        max_error: largest difference, on the [0, 1] scale.
        temporal_difference: e_stab of this clip less that of the reference.
    """

    model: str
    backend: str
    precision: str
    psnr_db: float | None
    ssim: float
    max_error: float
    temporal_difference: float


@dataclass(frozen=True, kw_only=True)
class Results:
    """One run, complete with where, when and how.

    Attributes:
        created_utc: ISO 8601 time of the run.
        command: the exact command line.
        environment: the machine and the software.
        roof: what the machine can do at best.
        clip: what was measured on.
        speed: one row per model and stage.
        steadiness: one row per model and clip.
        fidelity: one row per model, backend and precision.
        schema_version: of the JSON.
        formula_version: of the steadiness figures.
    """

    created_utc: str
    command: str
    environment: Environment
    roof: MachineRoof
    clip: ClipFacts
    speed: Sequence[SpeedRow]
    steadiness: Sequence[SteadinessRow] = ()
    fidelity: Sequence[FidelityRow] = ()
    schema_version: int = SCHEMA_VERSION
    formula_version: int = FORMULA_VERSION


def _schema() -> dict[str, Any]:
    text = resources.files("stylize.benchmarks").joinpath("results_schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def write_results(path: Path, results: Results) -> None:
    """Write a run as JSON, complete or not at all.

    Raises:
        jsonschema.ValidationError: the results do not fit the schema, which is our own fault.
        OSError: the file cannot be written.
    """
    document = json.loads(json.dumps(dataclasses.asdict(results)))
    jsonschema.validate(document, _schema())
    with PartialFile(path) as output:
        output.path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        output.commit()


def read_results(path: Path) -> Results:
    """Read what `write_results` wrote.

    Raises:
        ValueError: not JSON, or not results of this schema version.
        OSError: the file cannot be read.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        jsonschema.validate(document, _schema())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    except jsonschema.ValidationError as error:
        raise ValueError(
            f"{path}: not results of schema version {SCHEMA_VERSION}: at {error.json_path}: {error.message}"
        ) from error
    document["environment"] = Environment(**document["environment"])
    document["roof"] = MachineRoof(**document["roof"])
    document["clip"] = ClipFacts(**document["clip"])
    document["speed"] = [SpeedRow(**{**row, "fps": Spread(**row["fps"])}) for row in document["speed"]]
    document["steadiness"] = [_steadiness_from_json(row) for row in document["steadiness"]]
    document["fidelity"] = [FidelityRow(**row) for row in document["fidelity"]]
    return Results(**document)


def _steadiness_from_json(row: dict[str, Any]) -> SteadinessRow:
    jitter = row.pop("jitter")
    return SteadinessRow(**row, jitter=None if jitter is None else JitterFigures(**jitter))
