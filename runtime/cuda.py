"""The device of `device.py` on an NVIDIA GPU, through PyCUDA; the only place that knows PyCUDA.

PyAV, TensorRT and ONNX Runtime work in the GPU's primary context, so this does too: an address of one is an address
of all. It is retained once per process and never let go, as the CUDA runtime does. PyCUDA keeps a stack of contexts
per thread and aborts the process when a thread ends with something on it, hence `current`. It has no call for the
flags of that context, which go to the driver directly, as do graphs (`cuda_graph.py`).
"""

import atexit
import ctypes
import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import resources
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stylize import runtime
from stylize.runtime.device import Device, DeviceBuffer, Event, HostBuffer, Stream
from stylize.runtime.device_color import kernel_grid
from stylize.runtime.dlpack import CUDA
from stylize.runtime.errors import BackendError, BackendUnavailableError
from stylize.runtime.gpu import Gpu, call_driver, find_gpu

__all__ = ["CudaDevice"]

_NON_BLOCKING: Final = 1  # CU_STREAM_NON_BLOCKING: does not wait for the stream of FFmpeg's decoder by itself
# CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING: who waits sleeps and leaves the processor to decoder and encoder
_WAITED_FOR: Final = 1 | 2
_KEPT: Final[list[Any]] = []  # what a GPU that failed cannot free
_SCHED_BLOCKING_SYNC: Final = 4  # CU_CTX_SCHED_BLOCKING_SYNC


def import_pycuda() -> Any:  # noqa: ANN401 - no stubs
    """PyCUDA's driver module, initialised.

    Raises:
        BackendUnavailableError: it is not installed, or was built for another driver.
    """
    try:
        driver: Any = importlib.import_module("pycuda.driver")
    except (ImportError, OSError) as error:
        is_missing = isinstance(error, ModuleNotFoundError) and str(error.name).startswith("pycuda")
        reason = "is not installed" if is_missing else f"cannot be loaded ({' '.join(str(error).split())})"
        raise BackendUnavailableError(f"PyCUDA {reason}: pip install pycuda, which needs the CUDA toolkit") from error
    try:
        driver.init()
    except driver.Error as error:
        raise BackendUnavailableError(f"the NVIDIA driver does not start: {_one_line(error)}") from error
    return driver


class CudaDevice(Device):
    """One GPU; opening it twice gives two devices in the same context."""

    def __init__(self, index: int = 0) -> None:
        """Open the GPU with this number.

        Raises:
            BackendUnavailableError: no driver, no such GPU, or no PyCUDA.
            BackendError: the driver refuses the kernels.
        """
        self.gpu: Gpu = find_gpu(index)
        self._driver = import_pycuda()
        self.dlpack_device = (CUDA, index)
        self._context = _primary_context(index)
        self._nested = threading.local()
        self.is_lost = False
        """Whether something queued has failed in a way that ended the context."""
        with self.current(), self._reported(f"{self.gpu.name} does not take the kernels"):
            # The driver compiles them for this GPU once and keeps the result in its own cache.
            source = resources.files(runtime).joinpath("kernels.ptx").read_bytes()
            self._module = self._driver.module_from_buffer(source + b"\0")
        self._kernels: dict[str, Any] = {}
        self._decoder_stream = CudaStream(self, None)

    @contextmanager
    def current(self) -> Iterator[None]:
        """See `Device.current`; may be nested."""
        depth = getattr(self._nested, "depth", 0)
        if depth == 0:
            self._context.push()
        self._nested.depth = depth + 1
        try:
            yield
        finally:
            self._nested.depth = depth
            if depth == 0:
                self._context.pop()

    def open_stream(self) -> "CudaStream":
        """See `Device.open_stream`."""
        with self.current():
            return CudaStream(self, self._driver.Stream(_NON_BLOCKING))

    def open_event(self, *, has_time: bool = False) -> "CudaEvent":
        """See `Device.open_event`."""
        with self.current():
            return CudaEvent(self, self._driver.Event(0 if has_time else _WAITED_FOR))

    @property
    def decoder_stream(self) -> "CudaStream":
        """The legacy default stream, on which FFmpeg's decoder copies its pictures."""
        return self._decoder_stream

    def allocate(self, size_bytes: int) -> "CudaBuffer":
        """See `Device.allocate`."""
        with self._reported_memory(size_bytes, "device"):
            return CudaBuffer(self, self._driver.mem_alloc(size_bytes), size_bytes)

    def allocate_host(self, size_bytes: int) -> "CudaHostBuffer":
        """See `Device.allocate_host`."""
        with self._reported_memory(size_bytes, "page-locked host"):
            return CudaHostBuffer(self, self._driver.pagelocked_empty((size_bytes,), np.uint8))

    def upload(self, target: int, source: HostBuffer, size_bytes: int, *, cuda_stream: Stream) -> None:
        """See `Device.upload`."""
        with self._reported("copying to the device failed"):
            self._driver.memcpy_htod_async(target, source.data[:size_bytes], _raw(cuda_stream))

    def download(self, target: HostBuffer, source: int, size_bytes: int, *, cuda_stream: Stream) -> None:
        """See `Device.download`."""
        with self._reported("copying from the device failed"):
            self._driver.memcpy_dtoh_async(target.data[:size_bytes], source, _raw(cuda_stream))

    def launch(
        self, kernel: str, argument: NDArray[np.void], num_columns: int, num_rows: int, *, cuda_stream: Stream
    ) -> None:
        """See `Device.launch`."""
        with self._reported(f"the kernel {kernel} failed"):
            function = self._kernels.get(kernel)
            if function is None:
                # A structure by value: `prepare` packs as many bytes as its type has.
                function = self._module.get_function(kernel).prepare([argument.dtype])
                self._kernels[kernel] = function
            grid, block = kernel_grid(num_columns, num_rows)
            function.prepared_async_call(grid, block, _raw(cuda_stream), argument.tobytes())

    def synchronize(self) -> None:
        """Wait until everything queued on the GPU has run; for measurements and tests."""
        with self.current(), self._reported("the GPU failed"):
            self._driver.Context.synchronize()

    def memory_bytes(self) -> tuple[int, int]:
        """See `Device.memory_bytes`."""
        with self.current():
            free, total = self._driver.mem_get_info()
        return int(free), int(total)

    def close(self) -> None:
        """Let go of the kernels; streams and buffers are their owners'."""
        self.keep_if_lost((self._kernels, self._module))
        with self.current():
            self._kernels, self._module = {}, None

    def _reported(self, what: str) -> "_Reported":
        return _Reported(self, self._driver.Error, what)

    def find_out_if_lost(self) -> None:
        """After an error: see whether it is one that nothing on this GPU recovers from before the process ends."""
        try:
            with self.current():
                call_driver("cuCtxSynchronize")
        except BackendError:
            self.is_lost = True

    def drop(self, owner: "CudaStream | CudaEvent") -> None:
        """Let PyCUDA free what is `owner`'s, which it does in the context's own thread, or where it is current."""
        if owner.raw is not None and not self.keep_if_lost(owner.raw):
            with suppress(self._driver.Error), self.current():  # at the end of the process there is no context any more
                owner.raw = None

    def keep_if_lost(self, raw: Any) -> bool:  # noqa: ANN401 - no stubs
        """Whether `raw` is kept until the process ends, since PyCUDA would fail to free it and print so every time."""
        if self.is_lost:
            _KEPT.append(raw)
        return self.is_lost

    @contextmanager
    def _reported_memory(self, size_bytes: int, kind: str) -> Iterator[None]:
        try:
            with self.current():
                yield
        except self._driver.MemoryError as error:
            free, total = self.memory_bytes()
            raise BackendError(
                f"out of {kind} memory: {size_bytes / 1e6:.0f} MB wanted, {free / 1e6:.0f} of {total / 1e6:.0f} MB are "
                f"free on {self.gpu.name}; render smaller with --scale, or free memory that other programs hold"
            ) from error
        except self._driver.Error as error:  # of work queued before, which every later call reports
            self.find_out_if_lost()
            raise BackendError(f"the GPU failed: {_one_line(error)}") from error


class _Reported:
    """Turns errors of PyCUDA into ours; no generator, which would take longer than what it is put around."""

    __slots__ = ("_device", "_kind", "_what")

    def __init__(self, device: CudaDevice, kind: type[Exception], what: str) -> None:
        self._device, self._kind, self._what = device, kind, what

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        if isinstance(error, self._kind):
            self._device.find_out_if_lost()
            raise BackendError(f"{self._what}: {_one_line(error)}") from error


class CudaStream(Stream):
    """A `CUstream`; None stands for the legacy default stream."""

    def __init__(self, device: CudaDevice, stream: Any) -> None:  # noqa: ANN401 - no stubs
        self._device, self.raw = device, stream

    @property
    def handle(self) -> int:
        """See `Stream.handle`."""
        return 0 if self.raw is None else int(self.raw.handle)

    def __del__(self) -> None:
        self._device.drop(self)

    def wait_for(self, event: Event) -> None:
        """See `Stream.wait_for`."""
        assert isinstance(event, CudaEvent)
        assert self.raw is not None, "FFmpeg's stream is its own: others wait for it"
        with self._device._reported("waiting for an event failed"):
            self.raw.wait_for_event(event.raw)

    def synchronize(self) -> None:
        """See `Stream.synchronize`."""
        assert self.raw is not None, "FFmpeg's stream is its own: others wait for it"
        with self._device._reported("the GPU failed"):
            self.raw.synchronize()


class CudaEvent(Event):
    """A `CUevent`."""

    def __init__(self, device: CudaDevice, event: Any) -> None:  # noqa: ANN401 - no stubs
        self._device, self.raw = device, event

    def __del__(self) -> None:
        self._device.drop(self)

    def record(self, *, cuda_stream: Stream) -> None:
        """See `Event.record`."""
        with self._device._reported("recording an event failed"):
            self.raw.record(_raw(cuda_stream))

    def synchronize(self) -> None:
        """See `Event.synchronize`."""
        with self._device._reported("the GPU failed"):
            self.raw.synchronize()

    def seconds_since(self, earlier: Event) -> float:
        """See `Event.seconds_since`; the clock has a resolution of about half a microsecond."""
        assert isinstance(earlier, CudaEvent)
        with self._device._reported("the time between two events is not known"):
            return float(self.raw.time_since(earlier.raw)) / 1000


class CudaBuffer(DeviceBuffer):
    """Memory of the GPU."""

    def __init__(self, device: CudaDevice, allocation: Any, size_bytes: int) -> None:  # noqa: ANN401 - no stubs
        self._device, self._allocation = device, allocation
        self.address, self.size_bytes = int(allocation), size_bytes

    def close(self) -> None:
        """Free it."""
        allocation, self._allocation = self._allocation, None
        if allocation is not None and not self._device.keep_if_lost(allocation):
            with self._device.current():
                allocation.free()


class CudaHostBuffer(HostBuffer):
    """Page-locked memory of the host."""

    def __init__(self, device: CudaDevice, data: NDArray[np.uint8]) -> None:
        self._device, self.data = device, data
        self._allocation: Any = data.base
        self.address, self.size_bytes = data.ctypes.data, data.nbytes

    def close(self) -> None:
        """Free it."""
        allocation, self._allocation = self._allocation, None
        if allocation is not None and not self._device.keep_if_lost(allocation):
            with self._device.current():
                allocation.free()


@cache
def _primary_context(index: int) -> Any:  # noqa: ANN401 - no stubs
    device = ctypes.c_int()
    call_driver("cuDeviceGet", ctypes.byref(device), index)
    # FFmpeg shares no context whose threads wait otherwise. Should another library in this process hold one already
    # and the driver be too old to change it, FFmpeg's refusal is what the report of a run says.
    with suppress(BackendError):
        call_driver("cuDevicePrimaryCtxSetFlags_v2", device, _SCHED_BLOCKING_SYNC)
    context = import_pycuda().Device(index).retain_primary_context()
    # Let go in time: PyCUDA's destructor takes a primary context for one of its own and complains at exit.
    atexit.register(context.detach)
    return context


def _raw(stream: Stream) -> Any:  # noqa: ANN401 - no stubs
    assert isinstance(stream, CudaStream)
    return stream.raw


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
