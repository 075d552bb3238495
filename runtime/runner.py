"""One contract for every backend that can run a model."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import StrEnum
from importlib.util import find_spec
from types import TracebackType
from typing import Final, Generic, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from stylize.runtime.artifact import Artifact
from stylize.runtime.contract import ModelContract
from stylize.runtime.errors import BackendUnavailableError, OptionError
from stylize.runtime.extra_inputs import NO_EXTRAS, Extras
from stylize.runtime.gpu import find_gpu

__all__ = [
    "GPU_BACKENDS",
    "Backend",
    "ComputePrecision",
    "HostArray",
    "HostRunner",
    "Runner",
    "automatic_backend",
    "open_active_runner",
    "open_runner",
]

HostArray: TypeAlias = NDArray[np.float32] | NDArray[np.float16]
"""A C-contiguous array in host memory, of the type the contract's `precision` names."""

BufferT = TypeVar("BufferT")


class Backend(StrEnum):
    """What executes the network."""

    AUTO = "auto"
    """The fastest one installed; see `automatic_backend`."""
    OPENVINO = "openvino"
    ONNXRUNTIME = "onnxruntime"
    TENSORRT = "tensorrt"
    """An engine on an NVIDIA GPU, TensorRT's or TensorRT-RTX's."""
    ONNXRUNTIME_CUDA = "onnxruntime-cuda"


class ComputePrecision(StrEnum):
    """What a backend on the CPU computes convolutions in, whatever type the model file stores."""

    AUTO = "auto"
    """The fastest that keeps the picture: bf16 where backend and CPU have it, else the model's own.

    Against float32 a trained `fast` style keeps 64.8 dB PSNR in bf16 (largest error 3.4 of 255), in half
    the time.
    """
    FP32 = "fp32"
    BF16 = "bf16"


class Runner(ABC, Generic[BufferT]):
    """A loaded model that maps one batch of pictures to another.

    `BufferT` is where the backend works: `HostArray` for those on the CPU, device memory for those on
    a GPU. A runner holds memory and threads, so it is a context manager; it is used by one thread at a time.
    """

    def __init__(self, artifact: Artifact) -> None:
        """Remember what to load; `activate` loads it."""
        self.artifact = artifact

    @property
    def contract(self) -> ModelContract:
        """What the model promises: names, size multiple, range, layout, precision."""
        return self.artifact.contract

    @property
    @abstractmethod
    def description(self) -> str:
        """Backend, version, device and precision really in use, for the report."""

    @property
    def precision(self) -> str:
        """What the network is really computed in, for example `fp32` or `int8+bf16`."""
        return f"int8+{self._float_precision}" if self.contract.is_int8 else self._float_precision

    @property
    def _float_precision(self) -> str:
        """What everything is computed in that is not int8."""
        return self.contract.precision

    @abstractmethod
    def activate(self) -> None:
        """Load the model and take the memory it needs.

        Raises:
            BackendUnavailableError: the backend's package or device is missing.
            ArtifactError: the backend refuses the model.
        """

    @abstractmethod
    def enqueue(self, source: BufferT, *, target: BufferT, cuda_stream: int | None, extras: Extras = NO_EXTRAS) -> None:
        """Run one pass from `source` into `target`.

        Both hold (N, 3, H, W) pictures as the contract says (own models: RGB in [0, 1]), with H and W
        multiples of `contract.size_multiple`. They stay the caller's and must not overlap. `extras` are the
        model's further inputs, see `ExtraInputs`: arrays in host memory on every backend.

        On the CPU `cuda_stream` is None and the pass is over on return. On a GPU it is the handle of the
        stream on which `source` is read and `target` written; the call returns before that has
        happened, and both must live until the stream passes this point.

        Raises:
            BackendError: the backend failed, for example out of memory.
        """

    @property
    def num_in_flight(self) -> int:
        """How many passes begun with `start` can run side by side."""
        return 1

    def start(self, source: BufferT, *, target: BufferT, extras: Extras = NO_EXTRAS) -> Callable[[], None]:
        """Begin one pass on the CPU and return what waits for its end.

        At most `num_in_flight` passes may be under way, each with arrays of its own, and each must be waited
        for: that frees its place. Several are faster in sum than one after the other, a single one slower.

        Raises:
            BackendError: as `enqueue`; waiting raises it too.
        """
        self.enqueue(source, target=target, cuda_stream=None, extras=extras)
        return lambda: None

    @abstractmethod
    def close(self) -> None:
        """Free everything; calling it again is harmless."""

    def __enter__(self) -> Self:
        self.activate()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


HostRunner: TypeAlias = Runner[HostArray]
"""A runner that takes NumPy arrays and `cuda_stream=None`."""


GPU_BACKENDS: Final = frozenset({Backend.TENSORRT, Backend.ONNXRUNTIME_CUDA})
"""Those whose networks run on an NVIDIA GPU."""


def open_active_runner(
    artifact: Artifact,
    *,
    backend: Backend = Backend.AUTO,
    num_threads: int = 0,
    precision: ComputePrecision = ComputePrecision.AUTO,
    gpu: int | None = None,
) -> tuple[HostRunner, str]:
    """An active runner, and why it is not the fastest one; see `open_runner` for the rest.

    Where the choice is ours and the GPU does not start, for example without cuDNN, a CPU backend takes over.
    A `gpu` that is named must be there, and no backend be asked for that uses none.
    """
    if gpu is not None:
        _check_gpu(gpu, backend)
    gpu = gpu or 0
    chosen, reason = automatic_backend(artifact, gpu=gpu) if backend == Backend.AUTO else (backend, "")
    runner = open_runner(artifact, backend=chosen, num_threads=num_threads, precision=precision, gpu=gpu)
    try:
        runner.activate()
    except BackendUnavailableError as error:
        if backend != Backend.AUTO or chosen != Backend.ONNXRUNTIME_CUDA:
            raise
        reason = f"the GPU is not used: {error}"
        chosen = Backend.ONNXRUNTIME if find_spec("openvino") is None else Backend.OPENVINO
        runner = open_runner(artifact, backend=chosen, num_threads=num_threads, precision=precision)
        runner.activate()
    return runner, reason


def _check_gpu(gpu: int, backend: Backend) -> None:
    """See that the GPU somebody named can be used.

    Raises:
        OptionError: the backend runs on the CPU.
        BackendUnavailableError: there is no such GPU.
    """
    if backend not in GPU_BACKENDS | {Backend.AUTO}:
        choices = ", ".join(sorted(GPU_BACKENDS))
        raise OptionError(f"--gpu {gpu}: {backend} runs on the CPU; choose one of {choices}, or drop --gpu")
    try:
        find_gpu(gpu)
    except BackendUnavailableError as error:
        raise BackendUnavailableError(f"--gpu {gpu}: {error}; without --gpu the network runs on the CPU") from error


def automatic_backend(artifact: Artifact | None = None, *, gpu: int = 0) -> tuple[Backend, str]:
    """What `Backend.AUTO` stands for on this machine, and why it is not the faster one; else an empty text.

    An engine needs its GPU. A model runs on the GPU where driver, PyCUDA and onnxruntime-gpu are there.

    Raises:
        BackendUnavailableError: an engine has no GPU to run on, or TensorRT is missing.
    """
    if artifact is not None and (artifact.plan is not None or artifact.is_bare_engine):
        from stylize.runtime.tensorrt_module import gpu_for_engine

        gpu_for_engine(artifact, index=gpu)
        return Backend.TENSORRT, ""
    reasons = []
    try:
        find_gpu(gpu)
    except BackendUnavailableError:
        pass  # nothing to say on a machine without a GPU
    else:
        missing = _missing_for_gpu()
        if not missing:
            return Backend.ONNXRUNTIME_CUDA, ""
        reasons.append(f"the GPU is not used: {missing}")
    if find_spec("openvino") is not None:
        return Backend.OPENVINO, "; ".join(reasons)
    return Backend.ONNXRUNTIME, "; ".join((*reasons, "OpenVINO is not installed"))


def _missing_for_gpu() -> str:
    """What keeps ONNX Runtime from the GPU that is there; empty when nothing does."""
    from stylize.runtime.cuda import import_pycuda
    from stylize.runtime.runner_onnxruntime_cuda import import_onnxruntime_cuda

    try:
        import_pycuda()
        import_onnxruntime_cuda()
    except BackendUnavailableError as error:
        return str(error)
    return ""


def open_runner(
    artifact: Artifact,
    *,
    backend: Backend = Backend.AUTO,
    num_threads: int = 0,
    precision: ComputePrecision = ComputePrecision.AUTO,
    gpu: int = 0,
) -> HostRunner:
    """A runner for `artifact`, not yet active; imports only the chosen backend.

    Args:
        artifact: the model.
        backend: what executes it.
        num_threads: threads for one pass on the CPU; 0 leaves the choice to the backend.
        precision: what it is computed in.
        gpu: number of the GPU, for backends that use one.

    Raises:
        BackendUnavailableError: the backend's package is not installed, or there is no such GPU.
        OptionError: the backend does not compute in `precision`.
    """
    if backend == Backend.AUTO:
        backend, _ = automatic_backend(artifact, gpu=gpu)
    if backend in GPU_BACKENDS:
        return _open_on_gpu(artifact, backend, precision, gpu)
    if backend == Backend.OPENVINO:
        from stylize.runtime.runner_openvino import OpenVinoRunner

        return OpenVinoRunner(artifact, num_threads=num_threads, precision=precision)
    if precision == ComputePrecision.BF16:
        raise OptionError(
            "ONNX Runtime does not compute in bf16 on a CPU: choose --backend openvino or --precision fp32"
        )
    from stylize.runtime.runner_onnxruntime import OnnxRuntimeRunner

    return OnnxRuntimeRunner(artifact, num_threads=num_threads)


def _open_on_gpu(artifact: Artifact, backend: Backend, precision: ComputePrecision, gpu: int) -> HostRunner:
    """A runner that opens the GPU when it is activated."""
    if precision not in (ComputePrecision.AUTO, artifact.contract.precision):
        raise OptionError(
            f"--precision {precision}: on a GPU a model is computed in the type it has, here "
            f"{artifact.contract.precision}; export it with `stylize-export --trt` in another"
        )
    from stylize.runtime.device_bridge import DeviceBridge, open_cuda_session

    find_gpu(gpu)
    return DeviceBridge(artifact, lambda: open_cuda_session(artifact, backend=backend, gpu=gpu))
