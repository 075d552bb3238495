"""What `stylize-export` does, apart from how it is asked and told: every way from a model to a file."""

import dataclasses
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from numpy import uint8
from numpy.typing import NDArray

from stylize.export.onnx_from_checkpoint import export_checkpoint, frames_of_file
from stylize.export.onnx_from_onnx import ProvenOnnx, onnx_from_onnx
from stylize.export.plan_from_onnx import PlanExport, PlanOptions, plan_from_onnx
from stylize.export.quantize import Int8Model, quantize_file
from stylize.export.verify import FrameFidelity
from stylize.runtime.artifact import Artifact, open_artifact
from stylize.runtime.contract import Precision
from stylize.runtime.errors import OptionError, OutputMediaError
from stylize.runtime.partial_file import PartialFile
from stylize.train.checkpoint import load_checkpoint, network_from_checkpoint

__all__ = ["NEEDS_CALIBRATION", "Exported", "Request", "default_target", "run_export"]

NEEDS_CALIBRATION = "int8 and --calibration DIR need each other: int8 scales come from real frames"
_CHECKPOINTS = {".pth", ".pt", ".ckpt"}


@dataclass(frozen=True, kw_only=True)
class Request:
    """One export as asked for."""

    model: Path
    """A checkpoint, an ONNX file, a plan, or the name of a built-in style."""
    target: Path
    precision: Precision = "fp32"
    """Of an ONNX file; that of an engine is in `plan`."""
    calibration: Path | None = None
    """Frames that set the scales of int8; given means int8. An engine of a model that is int8 already needs none."""
    size: tuple[int, int] | None = None
    style: str | None = None
    frames: tuple[Path, ...] = ()
    input_range: tuple[float, float] | None = None
    has_rewrites: bool = True
    plan: PlanOptions | None = None
    """None for an ONNX file."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What came of it; parts that do not apply are empty."""

    results: list[FrameFidelity]
    """The ONNX against what it was made of."""
    onnx: ProvenOnnx | None = None
    int8: Int8Model | None = None
    plan: PlanExport | None = None


def default_target(model: Path, *, is_engine: bool) -> Path:
    """Beside a file, or in the working folder for a style's name; never the model itself."""
    suffix = ".plan" if is_engine else ".onnx"
    return model.with_suffix(suffix) if model.suffix else Path(f"{model.name}{suffix}")


def run_export(request: Request, *, on_progress: Callable[[str, float], None]) -> Exported:
    """Carry out one export; the file appears when it is complete and proven.

    Args:
        request: what is asked for.
        on_progress: told what an engine's builder is doing and how far it is, 0 to 1.

    Raises:
        ValueError: not a checkpoint, or a result that differs too much from its original.
        StylizeError: anything else that cannot be had.
        OSError: a file that cannot be read or written.
    """
    if request.model.exists() and request.target.exists() and request.model.samefile(request.target):
        raise OptionError(f"{request.model} is the model itself: name another file with --output")
    is_checkpoint = request.model.suffix.lower() in _CHECKPOINTS
    if is_checkpoint and request.input_range is not None:
        raise OptionError(f"--input-range is for foreign ONNX files, {request.model} is a checkpoint: drop the option")
    if request.plan is None and request.target.suffix != ".onnx":
        raise OptionError(
            f"{request.target}: a model is written here; give a name ending in .onnx, or .plan with --trt"
        )
    if is_checkpoint and request.calibration is not None:
        _check_quantizable(request.model)
    with tempfile.TemporaryDirectory(prefix="stylize-") as folder:
        if request.plan is not None:
            return _export_plan(
                request, request.plan, is_checkpoint=is_checkpoint, folder=Path(folder), on_progress=on_progress
            )
        if is_checkpoint:
            return _export_checkpoint(request, folder=Path(folder))
        artifact = open_artifact(request.model, input_range=request.input_range)
        if request.calibration is not None:
            artifact, results = _adopted(request, artifact, folder=Path(folder))
            return Exported(
                results=results, int8=quantize_file(artifact.path, request.target, calibration=request.calibration)
            )
        proven = _onnx(request, artifact)
    return Exported(results=proven.results, onnx=proven)


def _check_quantizable(checkpoint: Path) -> None:
    """Raises OptionError before the export that `quantize_file` would refuse."""
    network = network_from_checkpoint(load_checkpoint(checkpoint))
    if network.num_styles > 1 or network.takes_noise or network.makes_textures:
        raise OptionError(f"{checkpoint}: int8 is for networks of one style that paint frames: drop int8")


def _export_checkpoint(request: Request, *, folder: Path) -> Exported:
    exported = request.target if request.calibration is None else folder / "float.onnx"
    results = export_checkpoint(
        request.model,
        exported,
        precision=request.precision,
        size=request.size,
        style=request.style,
        given_frames=request.frames,
    )
    if request.calibration is None:
        return Exported(results=results)
    return Exported(results=results, int8=quantize_file(exported, request.target, calibration=request.calibration))


def _adopted(request: Request, artifact: Artifact, *, folder: Path) -> tuple[Artifact, list[FrameFidelity]]:
    """The model itself, or one with a contract in place of a foreign one, proven against it."""
    if artifact.origin != "foreign":
        return artifact, []
    target = folder / request.model.name
    proven = _onnx(dataclasses.replace(request, target=target, calibration=None), artifact)
    return open_artifact(target), proven.results


def _onnx(request: Request, artifact: Artifact) -> ProvenOnnx:
    with PartialFile(request.target) as partial:
        proven = onnx_from_onnx(
            artifact,
            precision=request.precision,
            size=request.size,
            style=request.style,
            has_rewrites=request.has_rewrites,
            given_frames=_given_frames(request, artifact),
        )
        try:
            partial.path.write_bytes(proven.data)
        except OSError as error:
            raise OutputMediaError(request.target, f"cannot be written: {error.strerror}") from error
        partial.commit()
    return proven


def _export_plan(
    request: Request,
    options: PlanOptions,
    *,
    is_checkpoint: bool,
    folder: Path,
    on_progress: Callable[[str, float], None],
) -> Exported:
    """By way of a float32 ONNX for a checkpoint, and of its integers for int8."""
    results: list[FrameFidelity] = []
    int8 = None
    if is_checkpoint:
        model = folder / f"{request.model.stem}.onnx"
        size = None if request.calibration is not None else options.static
        results = export_checkpoint(request.model, model, size=size, style=request.style, given_frames=request.frames)
        artifact = open_artifact(model)
    else:
        artifact = open_artifact(request.model, input_range=request.input_range)
    if options.precision != "int8" and artifact.contract.is_int8:
        raise OptionError(f"{artifact.path}: is int8: choose --trt int8, or export the model it was made of")
    if options.precision == "int8" and not artifact.contract.is_int8 and request.calibration is None:
        raise OptionError(NEEDS_CALIBRATION)
    if request.calibration is not None:
        artifact, adopted = _adopted(request, artifact, folder=folder)
        results = [*results, *adopted]
        quantized = folder / "int8.onnx"
        int8 = quantize_file(artifact.path, quantized, calibration=request.calibration)
        artifact = open_artifact(quantized)
    plan = plan_from_onnx(
        artifact,
        request.target,
        options=options,
        style=request.style,
        given_frames=_given_frames(request, artifact),
        on_progress=on_progress,
    )
    return Exported(results=[*results, *plan.onnx.results], onnx=plan.onnx, int8=int8, plan=plan)


def _given_frames(request: Request, artifact: Artifact) -> dict[str, NDArray[uint8]]:
    size = request.plan.static if request.plan is not None else request.size
    frames: dict[str, NDArray[uint8]] = {}
    for path in request.frames:
        frames |= frames_of_file(path, size or artifact.contract.fixed_size)
    return frames
