"""Finds the installed TensorRT, and says what is missing; its two flavours have one interface under two names."""

import importlib
from typing import Any, Final

from stylize.runtime.artifact import Artifact
from stylize.runtime.errors import BackendUnavailableError
from stylize.runtime.gpu import Gpu, find_gpu
from stylize.runtime.plan import Builder

__all__ = ["gpu_for_engine", "import_tensorrt"]

_EXTRAS: Final[dict[Builder, str]] = {"tensorrt": "trt", "tensorrt_rtx": "rtx"}


def import_tensorrt(builder: Builder) -> Any:  # noqa: ANN401 - no stubs for either
    """The module `tensorrt` or `tensorrt_rtx`.

    Raises:
        BackendUnavailableError: it is not installed, or lacks a library.
    """
    try:
        return importlib.import_module(builder)
    except (ImportError, OSError) as error:
        is_missing = isinstance(error, ModuleNotFoundError) and error.name == builder
        reason = "is not installed" if is_missing else f"cannot be loaded ({' '.join(str(error).split())})"
        raise BackendUnavailableError(f"{builder} {reason}: pip install 'stylize[{_EXTRAS[builder]}]'") from error


def gpu_for_engine(artifact: Artifact, *, index: int = 0) -> Gpu:
    """The GPU on which the engine in `artifact` can be run, TensorRT being there too.

    Raises:
        BackendUnavailableError: naming what is missing, and what runs the model without it.
    """
    builder: Builder = "tensorrt" if artifact.plan is None else artifact.plan.header.builder
    try:
        gpu = find_gpu(index)
        import_tensorrt(builder)
    except BackendUnavailableError as error:
        way_out = (
            ""
            if artifact.is_bare_engine
            else ("; the ONNX inside runs here with --backend openvino or --backend onnxruntime")
        )
        raise BackendUnavailableError(f"{artifact.path}: its engine cannot run: {error}{way_out}") from error
    return gpu
