"""Builds an engine from an ONNX model, with TensorRT or TensorRT-RTX on one path.

The network is strongly typed: every tensor has the type the graph gives it, so the graph decides what
is computed in half precision (`export/precision.py`), and the same call is right from TensorRT 10.12 to
11, which knows nothing else. This is part of `runtime` because `stylize-run` builds too, from the ONNX
in a plan that was built for another GPU.
Source: docs.nvidia.com/deeplearning/tensorrt, "Strongly Typed Networks", "Working with Dynamic Shapes".
"""

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from stylize.runtime.errors import EngineBuildError, OptionError
from stylize.runtime.gpu import Gpu
from stylize.runtime.plan import Builder, EngineProfile, HardwareCompatibility, version_key
from stylize.runtime.tensorrt_module import TITLES, collecting_logger, import_tensorrt

__all__ = ["RTX_TARGETS", "BuildOptions", "BuiltEngine", "engine_from_onnx"]

logger = logging.getLogger(__name__)

_OLDEST: Final[dict[Builder, str]] = {"tensorrt": "10.12", "tensorrt_rtx": "1.0"}
_MAX_NAME_BYTES: Final = 4095  # INetworkDefinition.name takes 4096 with its end
RTX_TARGETS: Final = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
"""Compute capabilities TensorRT-RTX 1.7 builds for; data-centre GPUs from Hopper on are TensorRT's."""

OnProgress = Callable[[str, float], None]
"""Called with what the builder is doing and how far it is, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How to build, besides what the graph says."""

    profile: EngineProfile
    """Shapes of the input to build for."""
    compute_capabilities: tuple[str, ...] = ()
    """What TensorRT-RTX builds for; TensorRT builds for the GPU at hand and takes none."""
    hardware_compatibility: HardwareCompatibility = "none"
    is_version_compatible: bool = False
    workspace_bytes: int | None = None
    """Most scratch memory a layer may ask for; None allows all of the GPU's."""
    timing_cache: Path | None = None
    """Folder that keeps what was timed, by GPU and version; TensorRT only. None keeps nothing."""


@dataclass(frozen=True, kw_only=True)
class BuiltEngine:
    """A serialized engine and what it fits."""

    data: bytes
    builder: Builder
    builder_version: str
    gpu: str
    """Name of the GPU it was built on; empty for TensorRT-RTX, which builds without one."""
    compute_capabilities: tuple[str, ...]


def engine_from_onnx(
    onnx: bytes,
    *,
    builder: Builder,
    options: BuildOptions,
    gpu: Gpu | None,
    name: str = "",
    on_progress: OnProgress = lambda _phase, _fraction: None,
) -> BuiltEngine:
    """Build an engine whose types are those of the graph.

    Args:
        onnx: the serialized model, weights inside.
        builder: which of the two.
        options: shapes and compatibility.
        gpu: for `tensorrt` the one to build on, which must be CUDA's current device; None for `tensorrt_rtx`.
        name: kept in the engine as its name, which is all that a bare engine can say of itself.
        on_progress: told what is going on; Ctrl-C meanwhile ends the build.

    Raises:
        BackendUnavailableError: the builder is not installed.
        OptionError: options this builder does not have, or an installed version too old.
        EngineBuildError: the model cannot be read or built.
    """
    trt = import_tensorrt(builder)
    _check_options(trt, builder, options)
    trt_logger = collecting_logger(trt)
    trt_builder = trt.Builder(trt_logger)
    network = trt_builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(trt, trt_logger, network, onnx)
    if name and len(name.encode()) <= _MAX_NAME_BYTES:
        network.name = name
    config = trt_builder.create_builder_config()
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if options.is_version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    _set_profile(trt_builder, network, config, options.profile)
    if builder == "tensorrt_rtx":
        _set_targets(trt, config, options.compute_capabilities)
        cache = None
    else:
        config.hardware_compatibility_level = getattr(
            trt.HardwareCompatibilityLevel, options.hardware_compatibility.upper()
        )
        assert gpu is not None, "TensorRT builds on a GPU"
        cache = _attach_timing_cache(trt, config, options.timing_cache, gpu)
    monitor = _progress_monitor(trt, on_progress)
    config.progress_monitor = monitor
    engine = trt_builder.build_serialized_network(network, config)
    if monitor.stopped_by is not None:
        raise monitor.stopped_by
    if engine is None:
        reason = "; ".join(trt_logger.errors) or "no reason was given"
        raise EngineBuildError(f"{TITLES[builder]} {trt.__version__} cannot build the model: {reason}")
    if cache is not None:
        _save_timing_cache(config, cache)
    return BuiltEngine(
        data=bytes(engine),
        builder=builder,
        builder_version=trt.__version__,
        gpu=gpu.name if gpu else "",
        compute_capabilities=options.compute_capabilities or ((gpu.compute_capability,) if gpu else ()),
    )


def _check_options(trt: Any, builder: Builder, options: BuildOptions) -> None:  # noqa: ANN401 - no stubs
    if version_key(trt.__version__) < version_key(_OLDEST[builder]):
        raise OptionError(f"{TITLES[builder]} {trt.__version__} is too old: {_OLDEST[builder]} or later is needed")
    if builder == "tensorrt":
        if options.compute_capabilities:
            raise OptionError("TensorRT builds for the GPU it runs on: targets are for TensorRT-RTX")
        return
    if not options.compute_capabilities:
        raise OptionError("TensorRT-RTX needs at least one target compute capability")
    wrong = [target for target in options.compute_capabilities if target not in RTX_TARGETS]
    if wrong:
        raise OptionError(
            f"TensorRT-RTX does not build for compute capability {', '.join(wrong)}: "
            f"choose of {', '.join(RTX_TARGETS)}, or build with TensorRT on that GPU"
        )
    if options.hardware_compatibility != "none" or options.is_version_compatible:
        raise OptionError("TensorRT-RTX has no compatibility modes: name several targets, and build for each version")
    if options.timing_cache is not None:
        raise OptionError("TensorRT-RTX times nothing while it builds, so it has no timing cache")


def _parse(trt: Any, trt_logger: Any, network: Any, onnx: bytes) -> None:  # noqa: ANN401
    parser = trt.OnnxParser(network, trt_logger)
    if parser.parse(onnx):
        return
    nodes: dict[tuple[str, str], list[str]] = {}  # by operator and complaint, which recur
    for index in range(parser.num_errors):
        parser_error = parser.get_error(index)
        complaint = f"{_one_line(parser_error.desc())} ({parser_error.code().name.lower()})"
        nodes.setdefault((parser_error.node_operator(), complaint), []).append(parser_error.node_name())
    problems = [
        f"{operator} {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}: {complaint}" if operator else complaint
        for (operator, complaint), names in nodes.items()
    ]
    raise EngineBuildError(
        f"TensorRT's parser refuses the model in {parser.num_errors} places: {'; '.join(problems) or 'no reason given'}"
    )


def _set_profile(trt_builder: Any, network: Any, config: Any, profile: EngineProfile) -> None:  # noqa: ANN401
    """Give the open shapes of all pictures their range; a fixed shape must be the one asked for."""
    trt_profile = trt_builder.create_optimization_profile()
    is_open = False
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = tuple(tensor.shape)
        # Noise beside the frame has its size, and one picture for all frames.
        ranges = [
            tuple(asked if side == -1 else side for asked, side in zip(asked_shape, shape, strict=False))
            for asked_shape in (profile.min, profile.opt, profile.max)
        ]
        if index == 0 and ranges != [profile.min, profile.opt, profile.max]:
            raise OptionError(f"the model takes pictures of shape {shape}, not {profile.min} to {profile.max}")
        if -1 in shape:
            trt_profile.set_shape(tensor.name, *ranges)
            is_open = True
    if is_open and config.add_optimization_profile(trt_profile) < 0:
        raise OptionError(f"the model does not take pictures of {profile.min} to {profile.max}")


def _set_targets(trt: Any, config: Any, compute_capabilities: tuple[str, ...]) -> None:  # noqa: ANN401
    config.num_compute_capabilities = len(compute_capabilities)
    for index, target in enumerate(compute_capabilities):
        value = getattr(trt.ComputeCapability, f"SM{target.replace('.', '')}", None)
        if value is None or not config.set_compute_capability(value, index):
            raise OptionError(f"TensorRT-RTX {trt.__version__} does not build for compute capability {target}")


def _attach_timing_cache(trt: Any, config: Any, folder: Path | None, gpu: Gpu) -> Path | None:  # noqa: ANN401
    """Load what earlier builds timed on this GPU with this version; returns the file to save to."""
    if folder is None:
        return None
    gpu_name = "".join(letter if letter.isalnum() else "-" for letter in gpu.name)
    path = folder / f"{gpu_name}-{gpu.compute_capability}-tensorrt-{trt.__version__}.timing"
    known = b""
    with contextlib.suppress(FileNotFoundError):
        known = path.read_bytes()
    # Editable: entries can be looked up and replaced, so that a build can be made to repeat its choices.
    config.set_flag(trt.BuilderFlag.EDITABLE_TIMING_CACHE)
    if not config.set_timing_cache(config.create_timing_cache(known), ignore_mismatch=False):
        logger.warning("%s: not a timing cache of this GPU and version, begun anew", path)
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
    return path


def _save_timing_cache(config: Any, path: Path) -> None:  # noqa: ANN401
    """Renamed into place, since two builds may run at once; without it the next build only takes longer."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        timing_cache = config.get_timing_cache()
        partial.write_bytes(bytes(timing_cache.serialize()))
        partial.replace(path)
    except OSError as error:
        logger.warning("%s: the timing cache cannot be written: %s", path, error.strerror)


def _progress_monitor(trt: Any, on_progress: OnProgress) -> Any:  # noqa: ANN401
    """Turns the builder's nested phases into one fraction; an exception must not cross into the builder."""

    class ProgressMonitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.stopped_by: KeyboardInterrupt | SystemExit | None = None
            self._phases: dict[str, tuple[int, int]] = {}  # name: steps done and in all, outermost first
            self._fraction = 0.0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._phases[phase_name] = (0, max(num_steps, 1))

        def step_complete(self, phase_name: str, step: int) -> bool:
            try:
                if phase_name in self._phases:
                    self._phases[phase_name] = (step + 1, self._phases[phase_name][1])
                fraction = 0.0
                for done, total in reversed(self._phases.values()):
                    fraction = min((done + fraction) / total, 1.0)
                self._fraction = max(self._fraction, fraction)  # phases may announce themselves late
                on_progress(phase_name, self._fraction)
            except (KeyboardInterrupt, SystemExit) as stop:
                self.stopped_by = stop
            return self.stopped_by is None

        def phase_finish(self, phase_name: str) -> None:
            self._phases.pop(phase_name, None)

    return ProgressMonitor()


def _one_line(text: str) -> str:
    return " ".join(text.split())
