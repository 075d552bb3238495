"""ONNX Runtime on an NVIDIA GPU: the way where no TensorRT is installed, and for every ONNX file as it is."""

import contextlib
import importlib.util
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from stylize.runtime.artifact import Artifact
from stylize.runtime.cuda import CudaDevice
from stylize.runtime.cuda_graph import RepeatedPass
from stylize.runtime.device import DeviceTensor, Stream
from stylize.runtime.device_inputs import DeviceInputs
from stylize.runtime.errors import ArtifactError, BackendError, BackendUnavailableError
from stylize.runtime.extra_inputs import NO_EXTRAS, Extras
from stylize.runtime.runner import Runner
from stylize.runtime.runner_onnxruntime import one_line, onnxruntime_errors

__all__ = ["PROVIDER", "PROVIDER_OPTIONS", "OnnxRuntimeCudaRunner", "import_onnxruntime_cuda"]

PROVIDER: Final = "CUDAExecutionProvider"
PROVIDER_OPTIONS: Final = {
    # Take what is needed and no power of two above it; one size of picture never needs more.
    "arena_extend_strategy": "kSameAsRequested",
    "cudnn_conv_algo_search": "EXHAUSTIVE",
    "cudnn_conv_use_max_workspace": "1",
}
_TYPES: Final = {"fp16": np.float16, "fp32": np.float32}
_FAILURES: Final = ("CUDA failure", "CUDNN failure", "CUBLAS failure")  # a driver too old, or no memory left
_ERRORS_ONLY: Final = 3  # ORT_LOGGING_LEVEL_ERROR


def import_onnxruntime_cuda() -> Any:  # noqa: ANN401 - the module is dynamic to the type checker
    """The module, which knows the GPU.

    Raises:
        BackendUnavailableError: it is not installed, or is the one for CPUs.
    """
    try:
        module: Any = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise BackendUnavailableError("onnxruntime-gpu is not installed: pip install 'stylize[gpu]'") from error
    if PROVIDER not in module.get_available_providers():
        raise BackendUnavailableError(
            f"the installed onnxruntime {module.__version__} is the one for CPUs: "
            "pip uninstall onnxruntime, then pip install 'stylize[gpu]'"
        )
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find, which need not be missing
        module.preload_dlls()  # CUDA and cuDNN as pip installs them beside it, which no loader looks for
        for folder in _library_folders(beside=Path(module.__file__).parents[1]):
            module.preload_dlls(directory=str(folder))
    return module


def _library_folders(*, beside: Path) -> list[Path]:
    """Where pip has put NVIDIA's libraries in other places than `beside`: PyTorch's, say, under an overlay of ours."""
    found = importlib.util.find_spec("nvidia")
    places = (Path(place) for place in (found and found.submodule_search_locations) or ())
    return [folder for place in places if place.parent != beside for folder in sorted(place.glob("*/lib"))]


class OnnxRuntimeCudaRunner(Runner[DeviceTensor]):
    """Runs a model on our stream and our addresses; nothing is copied and nobody waits.

    ONNX Runtime queues kernel by kernel, which takes the CPU longer than the GPU needs for a small network. It can
    record CUDA graphs itself, but then no thread may call CUDA meanwhile, and FFmpeg's decoder does.
    """

    def __init__(self, artifact: Artifact, *, device: CudaDevice, cuda_stream: Stream) -> None:
        """Import the backend.

        Args:
            artifact: a model or a plan, of which the ONNX inside is run.
            device: where to run; stays the caller's.
            cuda_stream: the one that `enqueue` will name.

        Raises:
            BackendUnavailableError: onnxruntime is not installed, or not for GPUs.
        """
        super().__init__(artifact)
        self._onnxruntime = import_onnxruntime_cuda()
        self._device, self._stream = device, cuda_stream
        self._extras = DeviceInputs(device, cuda_stream=cuda_stream)
        self._session: Any = None
        self._binding: Any = None
        self._run_options: Any = None
        self.repeated = RepeatedPass(device, cuda_stream=cuda_stream, name=artifact.name)
        """Records the passes."""

    @property
    def description(self) -> str:
        """For example `ONNX Runtime 1.31.1, CUDA, NVIDIA H200, fp16, CUDA graph`."""
        # From compute capability 8.0 on, cuDNN rounds the factors of float32 convolutions to 10 bits (TF32).
        has_tf32 = self.precision == "fp32" and float(self._device.gpu.compute_capability) >= 8.0
        computed = "fp32 (TF32)" if has_tf32 else self.precision
        graph = ", CUDA graph" if self.repeated.is_recorded else ""
        return f"ONNX Runtime {self._onnxruntime.__version__}, CUDA, {self._device.gpu.name}, {computed}{graph}"

    def activate(self) -> None:
        """Load the model; see `Runner.activate`."""
        options = self._onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        provider = (
            PROVIDER,
            {
                "device_id": str(self._device.gpu.index),
                "user_compute_stream": str(self._stream.handle),
                **PROVIDER_OPTIONS,
            },
        )
        source = self.artifact.onnx_source()
        with self._device.current():
            try:
                # Without this it prints what is wrong and computes on the CPU.
                self._session = self._onnxruntime.InferenceSession(
                    source if isinstance(source, bytes) else str(source),
                    options,
                    providers=[provider],
                    enable_fallback=0,
                )
            except onnxruntime_errors(self._onnxruntime) as error:
                if any(library in str(error) for library in _FAILURES):
                    raise BackendUnavailableError(f"ONNX Runtime cannot start on the GPU: {one_line(error)}") from error
                raise ArtifactError(
                    self.artifact.path, f"ONNX Runtime refuses the model on the GPU: {one_line(error)}"
                ) from error
            if self._session.get_providers()[0] != PROVIDER:
                raise BackendUnavailableError(
                    "ONNX Runtime cannot start on the GPU: its CUDA or cuDNN libraries are missing; "
                    "pip install 'stylize[gpu]', or choose --backend onnxruntime for the CPU"
                )
            self._binding = self._session.io_binding()
        # What runs on the CPU would be left out of a graph, and what is copied to and from it read from old places.
        parts = self._session.get_provider_graph_assignment_info()
        self.repeated.can_record = all(part.ep_name == PROVIDER for part in parts)
        self._run_options = self._onnxruntime.RunOptions()
        # The caller's events say when a pass is over; without this every run waits for the GPU.
        self._run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def enqueue(
        self, source: DeviceTensor, *, target: DeviceTensor, cuda_stream: int | None, extras: Extras = NO_EXTRAS
    ) -> None:
        """Queue one pass; see `Runner.enqueue`.

        Raises:
            BackendError: the graph fails, for example out of memory.
        """
        assert cuda_stream == self._stream.handle, "the stream is chosen when the session is made"
        inputs = {self.contract.input_name: source, **self._extras.show(extras)}
        self.repeated.enqueue(
            (*inputs.values(), target), bind=lambda: self._bind(inputs, target), work=lambda: self._run(source)
        )

    def _bind(self, inputs: Mapping[str, DeviceTensor], target: DeviceTensor) -> None:
        """Set shapes and addresses of everything."""
        binding, outputs = self._binding, {self.contract.output_name: target}
        for bind, tensors in ((binding.bind_input, inputs), (binding.bind_output, outputs)):
            for name, tensor in tensors.items():
                bind(name, "cuda", self._device.gpu.index, _TYPES[tensor.precision], tensor.shape, tensor.address)

    def _run(self, source: DeviceTensor) -> None:
        try:
            self._session.run_with_iobinding(self._binding, self._run_options)
        except onnxruntime_errors(self._onnxruntime) as error:
            raise BackendError(
                f"ONNX Runtime failed on {source.shape} {source.precision}: {one_line(error)}"
            ) from error

    def close(self) -> None:
        """Free the session."""
        with self._device.current():
            self.repeated.forget()
            self._binding = self._session = None
            self._extras.close()
