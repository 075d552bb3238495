"""An engine that fits this machine: the one in the file, or one built here from the ONNX beside it and kept."""

import hashlib
import logging
import os
import sys
from pathlib import Path

from stylize.runtime.artifact import Artifact
from stylize.runtime.engine_from_onnx import BuildOptions, engine_from_onnx
from stylize.runtime.errors import ArtifactError, StylizeError
from stylize.runtime.gpu import Gpu
from stylize.runtime.plan import Builder, Plan, PlanHeader, read_plan, write_plan
from stylize.runtime.tensorrt_module import import_tensorrt

__all__ = ["cache_folder", "fitting_engine"]

logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Where engines built on this machine are kept: `STYLIZE_CACHE`, or the system's place for such files."""
    chosen = os.environ.get("STYLIZE_CACHE")
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "stylize" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stylize"


def fitting_engine(artifact: Artifact, gpu: Gpu) -> tuple[bytes, Builder]:
    """The engine of a plan or of a bare engine's file, with the name of the module that runs it.

    A plan built for another GPU or version is built again from the ONNX inside, which takes minutes; the result
    is kept in `cache_folder`. A line of warning says why. `gpu` must be CUDA's current device.

    Raises:
        ArtifactError: the file is damaged.
        BackendUnavailableError: the module is not installed.
        EngineBuildError: it cannot be built here.
    """
    plan = artifact.plan
    if plan is None:
        try:
            return artifact.path.read_bytes(), "tensorrt"
        except OSError as error:
            raise ArtifactError(artifact.path, f"cannot be read: {error.strerror}") from error
    header = plan.header
    version = import_tensorrt(header.builder).__version__
    misfit = header.misfit(version=version, gpu=gpu.name, compute_capability=gpu.compute_capability)
    if not misfit:
        return plan.read_engine(), header.builder
    kept = cache_folder() / f"{_cache_key(header, version, gpu)}.plan"
    try:
        cached = read_plan(kept) if kept.is_file() else None
        engine = cached.read_engine() if cached is not None else None
    except StylizeError as error:
        logger.warning("%s; it is built again", error)
        engine = None
    if engine is not None:
        logger.warning("%s: %s; the engine built here before is used", artifact.path, misfit)
        return engine, header.builder
    logger.warning("%s: %s; building an engine for this GPU, which takes minutes once", artifact.path, misfit)
    return _built(plan, gpu, kept), header.builder


def _built(plan: Plan, gpu: Gpu, kept: Path) -> bytes:
    """Build from the ONNX in `plan` with its options, and keep the result."""
    header = plan.header
    is_rtx = header.builder == "tensorrt_rtx"
    onnx = plan.read_onnx()
    options = BuildOptions(
        profile=header.profile,
        compute_capabilities=(gpu.compute_capability,) if is_rtx else (),
        timing_cache=None if is_rtx else kept.parent / "timing",
    )
    built = engine_from_onnx(
        onnx, builder=header.builder, options=options, gpu=None if is_rtx else gpu, name=header.contract.to_json()
    )
    fitting = PlanHeader(
        contract=header.contract,
        builder=built.builder,
        builder_version=built.builder_version,
        gpu=built.gpu,
        compute_capabilities=built.compute_capabilities,
        profile=header.profile,
        precision=header.precision,
        verification={name: figures for name, figures in header.verification.items() if name != "engine"},
    )
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_plan(kept, fitting, onnx=onnx, engine=built.data)
    except OSError as error:
        logger.warning("%s: the engine cannot be kept, so the next run builds it again: %s", kept, error)
    return built.data


def _cache_key(header: PlanHeader, version: str, gpu: Gpu) -> str:
    """A file name for everything that decides what is built."""
    shapes = header.profile
    text = repr(
        (header.onnx_sha256, header.builder, version, gpu.name, gpu.compute_capability, shapes, header.precision)
    )
    name = "".join(letter if letter.isalnum() else "-" for letter in f"{header.contract.style}-{gpu.name}".lower())
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
