"""From an ONNX file to a plan: typed, built by TensorRT or TensorRT-RTX, and proven as far as this machine can."""

import dataclasses
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from numpy import uint8
from numpy.typing import NDArray

from stylize.export.onnx_from_onnx import ProvenOnnx, onnx_from_onnx
from stylize.export.verify import FrameFidelity, check_floor, figures_of, verification_frames
from stylize.export.verify_onnx import compare_engine
from stylize.runtime.artifact import Artifact, open_artifact
from stylize.runtime.contract import ModelContract
from stylize.runtime.engine_from_onnx import BuildOptions, engine_from_onnx
from stylize.runtime.errors import BackendUnavailableError, OptionError, OutputMediaError
from stylize.runtime.gpu import Gpu, find_gpu
from stylize.runtime.network_pass import padded_size
from stylize.runtime.partial_file import PartialFile
from stylize.runtime.plan import (
    Builder,
    EnginePrecision,
    EngineProfile,
    HardwareCompatibility,
    PlanHeader,
    pack_plan,
)
from stylize.runtime.tensorrt_module import import_tensorrt

__all__ = ["DEFAULT_SIZES", "DEFAULT_TARGETS", "PlanExport", "PlanOptions", "plan_from_onnx"]

Size = tuple[int, int]
"""(width, height) in pixels."""

DEFAULT_SIZES: tuple[Size, Size, Size] = ((64, 64), (1280, 720), (1920, 1080))
"""Smallest, fastest and largest frame where none is named."""
DEFAULT_TARGETS = ("8.0", "8.6", "8.9", "12.0")
"""What TensorRT-RTX builds for where nothing is named: what it takes for its own default."""


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """How to build a plan."""

    builder: Builder
    precision: EnginePrecision = "fp16"
    static: Size | None = None
    """The only frame size, or None for a range."""
    sizes: tuple[Size, Size, Size] = DEFAULT_SIZES
    """Smallest, fastest and largest frame, where there is a range."""
    targets: tuple[str, ...] = ()
    """Compute capabilities, for TensorRT-RTX only; none stands for `DEFAULT_TARGETS`."""
    is_portable: bool = False
    """Build for later versions and other GPUs too, slower; for TensorRT only."""
    is_raw: bool = False
    """Write the bare engine, for trtexec and others."""
    has_rewrites: bool = True
    workspace_bytes: int | None = None
    timing_cache: Path | None = None

    def __post_init__(self) -> None:
        if self.builder == "tensorrt_rtx" and self.is_portable:
            raise OptionError("--portable is TensorRT's: an engine of TensorRT-RTX runs on every --target it names")
        if self.builder == "tensorrt" and self.targets:
            raise OptionError("--target is TensorRT-RTX's: TensorRT builds for the GPU it runs on")


@dataclass(frozen=True, kw_only=True)
class PlanExport:
    """What was built and what was proven."""

    header: PlanHeader
    onnx: ProvenOnnx
    engine_results: list[FrameFidelity]
    """Empty where the engine was not run."""
    not_proven: str
    """Why the engine was not run; empty when it was."""


def plan_from_onnx(
    artifact: Artifact,
    target: Path,
    *,
    options: PlanOptions,
    style: str | None = None,
    given_frames: dict[str, NDArray[uint8]] | None = None,
    on_progress: Callable[[str, float], None] = lambda _phase, _fraction: None,
) -> PlanExport:
    """Type, build, prove and write one engine with its ONNX; the file appears when all is done.

    The typed ONNX is proven on the CPU against the given model. The engine is run against that ONNX where this
    machine has a GPU it fits; where not, the header holds no figure for it and `not_proven` says why.

    Args:
        artifact: the model to build from.
        target: the plan, or the bare engine.
        options: how.
        style: name in the contract; None keeps its own.
        given_frames: (H, W, 3) uint8 RGB by name to verify on, besides drawn ones.
        on_progress: told what the builder is doing.

    Raises:
        ValueError: the typed model or the engine paints something else.
        StylizeError: no builder, no GPU for it, options it does not have, or a model it cannot build.
    """
    import_tensorrt(options.builder)  # before minutes of work
    gpu = _gpu_to_build_on(options.builder)
    with PartialFile(target) as partial:  # so too that the target cannot be written
        onnx = onnx_from_onnx(
            artifact,
            precision="fp32" if options.precision == "fp32" else "fp16",  # what int8 leaves is in half precision
            size=options.static,
            style=style,
            has_rewrites=options.has_rewrites,
            given_frames=given_frames,
        )
        compatibility = _compatibility(gpu) if options.is_portable else "none"
        built = engine_from_onnx(
            onnx.data,
            builder=options.builder,
            options=BuildOptions(
                profile=engine_profile(onnx.contract, options),
                compute_capabilities=(options.targets or DEFAULT_TARGETS) if gpu is None else (),
                hardware_compatibility=compatibility,
                is_version_compatible=options.is_portable,
                workspace_bytes=options.workspace_bytes,
                timing_cache=options.timing_cache,
            ),
            gpu=gpu,
            name=onnx.contract.to_json(),
            on_progress=on_progress,
        )
        header = PlanHeader(
            contract=onnx.contract,
            builder=built.builder,
            builder_version=built.builder_version,
            gpu=built.gpu,
            compute_capabilities=built.compute_capabilities,
            profile=engine_profile(onnx.contract, options),
            precision=options.precision,
            hardware_compatibility=compatibility,
            is_version_compatible=options.is_portable,
            verification={"onnx": figures_of(onnx.results)},
        )
        frames = _frames_for(header, given_frames or {})
        results, not_proven = _run_engine(header, artifact, onnx, built.data, frames)
        if results:
            check_floor(results, options.precision)
            header = dataclasses.replace(header, verification=header.verification | {"engine": figures_of(results)})
        header, packed = pack_plan(header, onnx=onnx.data, engine=built.data)
        try:
            partial.path.write_bytes(built.data if options.is_raw else packed)
        except OSError as error:
            raise OutputMediaError(target, f"cannot be written: {error.strerror}") from error
        partial.commit()
    return PlanExport(header=header, onnx=onnx, engine_results=results, not_proven=not_proven)


def engine_profile(contract: ModelContract, options: PlanOptions) -> EngineProfile:
    """Shapes to build for: the sizes of frames as the runtime pads them for this model.

    Raises:
        OptionError: smallest, fastest and largest are not in order.
    """
    if contract.fixed_size is not None:
        width, height = contract.fixed_size
        shape = (1, 3, height, width)
        return EngineProfile(min=shape, opt=shape, max=shape)
    padded = [padded_size(contract, width, height) for width, height in options.sizes]
    shapes = [(1, 3, rows, columns) for columns, rows in padded]
    try:
        return EngineProfile(min=shapes[0], opt=shapes[1], max=shapes[2])
    except ValueError as error:
        low, middle, high = (f"{width}x{height}" for width, height in options.sizes)
        raise OptionError(f"--min {low} --opt {middle} --max {high}: no side may exceed that of the next") from error


def _gpu_to_build_on(builder: Builder) -> Gpu | None:
    """Raises BackendUnavailableError where TensorRT has none."""
    if builder == "tensorrt_rtx":
        return None
    try:
        return find_gpu()
    except BackendUnavailableError as error:
        raise BackendUnavailableError(
            f"TensorRT builds on the GPU the engine is for: {error}; --rtx builds for RTX cards on any machine"
        ) from error


def _compatibility(gpu: Gpu | None) -> HardwareCompatibility:
    """The widest that TensorRT has for this GPU."""
    assert gpu is not None, "PlanOptions refuses --portable without TensorRT"
    return "ampere_plus" if float(gpu.compute_capability) >= 8.0 else "same_compute_capability"


def _run_engine(
    header: PlanHeader, exact: Artifact, onnx: ProvenOnnx, engine: bytes, frames: dict[str, NDArray[uint8]]
) -> tuple[list[FrameFidelity], str]:
    """Results of the engine on this machine's GPU, or none and the reason."""
    try:
        gpu = find_gpu()
        version = str(import_tensorrt(header.builder).__version__)
    except BackendUnavailableError as error:
        return [], str(error)
    misfit = header.misfit(version=version, gpu=gpu.name, compute_capability=gpu.compute_capability)
    if misfit:
        return [], misfit
    with tempfile.TemporaryDirectory(prefix="stylize-") as folder:
        model, plan = Path(folder) / "candidate.onnx", Path(folder) / "candidate.plan"
        model.write_bytes(onnx.data)
        plan.write_bytes(pack_plan(header, onnx=onnx.data, engine=engine)[1])
        try:
            return list(compare_engine(exact, open_artifact(model), open_artifact(plan), frames)), ""
        except BackendUnavailableError as error:
            return [], str(error)


def _frames_for(header: PlanHeader, given: dict[str, NDArray[uint8]]) -> dict[str, NDArray[uint8]]:
    """Frames within the engine's range: drawn ones, and what fits of the given ones."""
    low, high = header.profile.min, header.profile.max
    drawn = verification_frames(header.contract.fixed_size)
    return {
        name: frame
        for name, frame in (drawn | given).items()
        if frame.shape[0] <= high[2]
        and frame.shape[1] <= high[3]
        and (header.contract.fixed_size is not None or (frame.shape[0] >= low[2] and frame.shape[1] >= low[3]))
    }
