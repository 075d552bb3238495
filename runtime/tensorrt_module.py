"""Finds the installed TensorRT, and says what is missing; its two flavours have one interface under two names."""

import importlib
import logging
from typing import Any, Final

from stylize.runtime.artifact import Artifact
from stylize.runtime.errors import BackendUnavailableError
from stylize.runtime.gpu import Gpu, find_gpu
from stylize.runtime.plan import Builder

__all__ = ["TITLES", "collecting_logger", "gpu_for_engine", "import_tensorrt"]

logger = logging.getLogger(__name__)

TITLES: Final[dict[Builder, str]] = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}

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


def collecting_logger(trt: Any) -> Any:  # noqa: ANN401 - no stubs
    """TensorRT's logger that keeps errors in `errors`, for messages, and hands everything to `logging` as debug text.

    Errors are printed by nobody: builders report some that do no harm, such as a missing driver where none is needed.
    """

    class CollectingLogger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:  # noqa: ANN401
            text = " ".join(msg.split())
            logger.debug("TensorRT: %s", text)
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(text)

    return CollectingLogger()
