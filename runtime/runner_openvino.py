"""OpenVINO on the CPU."""

import importlib
import io
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from stylize.runtime.artifact import Artifact
from stylize.runtime.errors import ArtifactError, BackendError, BackendUnavailableError
from stylize.runtime.extra_inputs import NO_EXTRAS, Extras
from stylize.runtime.openvino_module import import_openvino, openvino_core
from stylize.runtime.runner import ComputePrecision, HostArray, Runner

__all__ = ["OpenVinoRunner"]

_DEVICE: Final = "CPU"
_HINTS: Final = {ComputePrecision.FP32: "f32", ComputePrecision.BF16: "bf16"}
# What reading a model raises besides RuntimeError; each derives from Exception alone.
_FRONTEND_ERRORS: Final = (
    "GeneralFailure",
    "InitializationFailure",
    "NotImplementedFailure",
    "OpConversionFailure",
    "OpValidationFailure",
)
# Two passes at once, each on half the threads, wait for no thread of their own that decoder or encoder
# holds up: the whole pipeline takes 13 % less processor time on 2 cores. Three were no better.
_MAX_IN_FLIGHT: Final = 2


class OpenVinoRunner(Runner[HostArray]):
    """Runs a model with OpenVINO; source and target are bound, never copied.

    The model is compiled for all sizes its graph accepts. Compiling it anew for the size at hand was
    measured and left out: within 2 % of the same speed, the same result bit for bit. It is compiled once
    for single passes on all threads and, when `start` is first used, once for several at a time; the two
    round differently, each always in the same way.
    """

    def __init__(
        self, artifact: Artifact, *, num_threads: int = 0, precision: ComputePrecision = ComputePrecision.AUTO
    ) -> None:
        """Import the backend.

        Args:
            artifact: the model.
            num_threads: threads inside one operator; 0 takes one per physical core.
            precision: what convolutions are computed in; AUTO takes bf16 where the CPU has instructions
                for it, else fp32. Source and target keep the contract's type.

        Raises:
            BackendUnavailableError: openvino is not installed.
        """
        super().__init__(artifact)
        self._openvino = import_openvino()
        self._num_threads = num_threads
        self._asked_precision = precision
        self._precision = precision
        self._core: Any = None
        self._model: Any = None
        self._request: Any = None
        self._num_in_flight = 1
        self._free_requests: deque[Any] | None = None  # for `start`

    @property
    def description(self) -> str:
        """For example `OpenVINO 2026.4.1, CPU, bf16`."""
        version = self._openvino.__version__.partition("-")[0]  # the rest is the build's number
        return f"OpenVINO {version}, CPU, {self.precision}"

    @property
    def _float_precision(self) -> str:
        """`bf16` or `fp32`, known once active."""
        return self._precision.value

    def activate(self) -> None:
        """Load and compile the model; see `Runner.activate`."""
        self._core = openvino_core()
        self._precision = self._choose_precision()
        self._model = self._read()
        compiled = self._compile(num_streams=1)
        self._request = compiled.create_infer_request()
        self._num_in_flight = min(_MAX_IN_FLIGHT, compiled.get_property("INFERENCE_NUM_THREADS"))

    def enqueue(
        self, source: HostArray, *, target: HostArray, cuda_stream: int | None, extras: Extras = NO_EXTRAS
    ) -> None:
        """Run one pass, complete on return; see `Runner.enqueue`.

        Raises:
            BackendError: the graph fails, or its output has another shape than `target`.
        """
        self._begin(self._request, source, target, extras)
        self._wait(self._request, source, target)

    @property
    def num_in_flight(self) -> int:
        """Two, or one on a single thread."""
        return self._num_in_flight

    def start(self, source: HostArray, *, target: HostArray, extras: Extras = NO_EXTRAS) -> Callable[[], None]:
        """Begin one pass and return what waits for its end; see `Runner.start`."""
        if self._num_in_flight == 1:
            return super().start(source, target=target, extras=extras)
        if self._free_requests is None:
            compiled = self._compile(num_streams=self._num_in_flight)
            self._free_requests = deque(compiled.create_infer_request() for _ in range(self._num_in_flight))
        free_requests = self._free_requests
        assert free_requests, f"more than {self._num_in_flight} passes begun"
        self._begin(free_requests[0], source, target, extras)
        request = free_requests.popleft()

        def wait() -> None:
            try:
                self._wait(request, source, target)
            finally:
                free_requests.append(request)

        return wait

    def close(self) -> None:
        """Free the compiled model."""
        self._core = self._model = self._request = self._free_requests = None

    def _read(self) -> Any:  # noqa: ANN401 - openvino has no usable stubs
        frontend = importlib.import_module("openvino.frontend")
        # UnicodeDecodeError: OpenVINO's own message quotes a damaged name that is no text.
        failures = (RuntimeError, UnicodeDecodeError, *(getattr(frontend, name) for name in _FRONTEND_ERRORS))
        source = self.artifact.onnx_source()
        try:
            # By its name: the search for a reader that fits prints the complaints of all others to stderr.
            onnx = frontend.FrontEndManager().load_by_framework("onnx")
            return onnx.convert(onnx.load(io.BytesIO(source) if isinstance(source, bytes) else str(source)))
        except failures as error:
            raise self._refusal(error) from error

    def _compile(self, *, num_streams: int) -> Any:  # noqa: ANN401
        """The model for `num_streams` passes at a time, which share the threads.

        Raises:
            ArtifactError: OpenVINO refuses the model.
        """
        config = {
            "INFERENCE_PRECISION_HINT": _HINTS[self._precision],  # even if it is the default: on Arm that is fp16
            "NUM_STREAMS": num_streams,
            "ENABLE_CPU_PINNING": False,  # a pinned thread waits for its core while another one is free
        }
        if self._num_threads:
            config["INFERENCE_NUM_THREADS"] = self._num_threads
        try:
            return self._core.compile_model(self._model, _DEVICE, config)
        except RuntimeError as error:
            raise self._refusal(error) from error

    def _refusal(self, error: Exception) -> ArtifactError:
        return ArtifactError(self.artifact.path, f"OpenVINO refuses the model: {_reason(error)}")

    def _begin(self, request: Any, source: HostArray, target: HostArray, extras: Extras) -> None:  # noqa: ANN401
        try:
            for name, array in {self.contract.input_name: source, **extras}.items():
                request.set_tensor(name, self._openvino.Tensor(array, shared_memory=True))
            request.set_output_tensor(self._openvino.Tensor(target, shared_memory=True))
            request.start_async()
        except RuntimeError as error:
            raise _failure(source, error) from error

    def _wait(self, request: Any, source: HostArray, target: HostArray) -> None:  # noqa: ANN401
        try:
            request.wait()
        except RuntimeError as error:
            raise _failure(source, error) from error
        shape = tuple(request.get_output_tensor().shape)
        if shape != target.shape:
            raise BackendError(f"the network returned {shape} for {source.shape}, expected {target.shape}")

    def _choose_precision(self) -> ComputePrecision:
        """What was asked for, or the fastest this CPU computes in.

        Raises:
            BackendUnavailableError: bf16 was asked for and the CPU has no instructions for it.
        """
        has_bf16 = "BF16" in self._core.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")
        match self._asked_precision:
            case ComputePrecision.AUTO:
                return ComputePrecision.BF16 if has_bf16 else ComputePrecision.FP32
            case ComputePrecision.BF16 if not has_bf16:
                name = self._core.get_property(_DEVICE, "FULL_DEVICE_NAME")
                raise BackendUnavailableError(f"{name} has no bf16 instructions: choose --precision fp32")
        return self._asked_precision


def _failure(source: HostArray, error: RuntimeError) -> BackendError:
    return BackendError(f"OpenVINO failed on {source.shape} {source.dtype}: {_reason(error)}")


def _reason(error: Exception) -> str:
    """What OpenVINO says in one line, without the places in its sources."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return " ".join(told or lines)
