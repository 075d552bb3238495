"""ONNX Runtime on the CPU."""

import importlib
from typing import Any

from stylize.runtime.artifact import Artifact
from stylize.runtime.errors import ArtifactError, BackendError, BackendUnavailableError
from stylize.runtime.extra_inputs import NO_EXTRAS, Extras
from stylize.runtime.runner import HostArray, Runner

__all__ = ["OnnxRuntimeRunner", "one_line", "onnxruntime_errors"]

_ERRORS_ONLY = 3  # ORT_LOGGING_LEVEL_ERROR: warnings about foreign graphs mean nothing to users


class OnnxRuntimeRunner(Runner[HostArray]):
    """Runs a model with ONNX Runtime; source and target are bound, never copied."""

    def __init__(self, artifact: Artifact, *, num_threads: int = 0) -> None:
        """Import the backend.

        Args:
            artifact: the model.
            num_threads: threads inside one operator; 0 takes one per physical core.

        Raises:
            BackendUnavailableError: onnxruntime is not installed.
        """
        super().__init__(artifact)
        try:
            # No stubs: the module is dynamic to the type checker.
            self._onnxruntime: Any = importlib.import_module("onnxruntime")
        except ImportError as error:
            raise BackendUnavailableError(
                "onnxruntime is not installed: pip install 'stylize[cpu]' (or onnxruntime-gpu)"
            ) from error
        self._num_threads = num_threads
        self._session: Any = None
        self._binding: Any = None

    @property
    def description(self) -> str:
        """For example `ONNX Runtime 1.31.1, CPU, fp32`."""
        return f"ONNX Runtime {self._onnxruntime.__version__}, CPU, {self.precision}"

    def activate(self) -> None:
        """Load the model; see `Runner.activate`."""
        options = self._onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._num_threads
        options.log_severity_level = _ERRORS_ONLY
        # Threads that spin between operators take the cores from decoder and encoder: on 2 shared cores
        # 20.8 instead of 16.6 CPU seconds for 100 frames of 768x432, and a quarter of the frame rate.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        source = self.artifact.onnx_source()
        try:
            self._session = self._onnxruntime.InferenceSession(
                source if isinstance(source, bytes) else str(source), options, providers=["CPUExecutionProvider"]
            )
        except onnxruntime_errors(self._onnxruntime) as error:
            raise ArtifactError(self.artifact.path, f"ONNX Runtime refuses the model: {one_line(error)}") from error
        self._binding = self._session.io_binding()

    def enqueue(
        self, source: HostArray, *, target: HostArray, cuda_stream: int | None, extras: Extras = NO_EXTRAS
    ) -> None:
        """Run one pass, complete on return; see `Runner.enqueue`.

        Raises:
            BackendError: the graph fails, or its output has another shape than `target`.
        """
        contract, binding = self.contract, self._binding
        for name, array in {contract.input_name: source, **extras}.items():
            binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        binding.bind_output(contract.output_name, "cpu", 0, target.dtype.type, target.shape, target.ctypes.data)
        try:
            self._session.run_with_iobinding(binding)
        except onnxruntime_errors(self._onnxruntime) as error:
            raise BackendError(f"ONNX Runtime failed on {source.shape} {source.dtype}: {one_line(error)}") from error

    def close(self) -> None:
        """Free the session."""
        self._binding = self._session = None


def onnxruntime_errors(module: Any) -> tuple[type[Exception], ...]:  # noqa: ANN401 - the module is dynamic
    """What the backend raises; its own classes share no base but Exception."""
    state = module.capi.onnxruntime_pybind11_state
    names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile", "NotImplemented")
    return (*(getattr(state, name) for name in names), state.RuntimeException, RuntimeError, ValueError)


def one_line(error: Exception) -> str:
    """The message without line breaks."""
    return " ".join(str(error).split())
