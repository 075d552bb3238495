"""A device made of threads: each stream is one, runs what is queued in order, and dawdles at random before each step.

It does for real what a GPU does, with the kernels compiled for the host and ONNX Runtime as the network, and as late
as it likes. Memory is filled with garbage when it is taken and when it is freed, and using it after that is an error.
"""

import ctypes
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from helpers.host_kernels import host_kernels
from stylize.runtime.artifact import Artifact
from stylize.runtime.device import Device, DeviceBuffer, DeviceTensor, Event, HostBuffer, Stream
from stylize.runtime.device_inputs import DeviceInputs
from stylize.runtime.dlpack import CPU
from stylize.runtime.errors import BackendError
from stylize.runtime.extra_inputs import NO_EXTRAS, Extras
from stylize.runtime.runner import Runner
from stylize.runtime.runner_onnxruntime import OnnxRuntimeRunner

GARBAGE: Final = 0xA5
_DTYPES: Final = {"fp16": np.float16, "fp32": np.float32}


class HostDevice(Device):
    """Counts what it holds, so that a test can see what was not given back."""

    dlpack_device = CPU

    def __init__(self, *, seed: int, max_delay_seconds: float = 0.002, capacity_bytes: int = 1 << 30) -> None:
        self.capacity_bytes = capacity_bytes
        self.allocated_bytes = 0
        self.num_allocations = 0
        self.errors: list[BaseException] = []
        self._random = random.Random(seed)
        self._max_delay_seconds = max_delay_seconds
        self._streams: list[HostStream] = []
        self._active = threading.local()
        self._decoder_stream = self.open_stream()

    @contextmanager
    def current(self) -> Iterator[None]:
        self._active.depth = getattr(self._active, "depth", 0) + 1
        try:
            yield
        finally:
            self._active.depth -= 1

    def open_stream(self) -> Stream:
        stream = HostStream(self, len(self._streams) + 1)
        self._streams.append(stream)
        return stream

    def open_event(self, *, has_time: bool = False) -> Event:
        return HostEvent(self, has_time=has_time)

    def memory_bytes(self) -> tuple[int, int]:
        return self.capacity_bytes - self.allocated_bytes, self.capacity_bytes

    @property
    def decoder_stream(self) -> Stream:
        return self._decoder_stream

    def allocate(self, size_bytes: int) -> DeviceBuffer:
        return HostMemory(self, size_bytes)

    def allocate_host(self, size_bytes: int) -> HostBuffer:
        return HostStaging(self, size_bytes)

    def upload(self, target: int, source: HostBuffer, size_bytes: int, *, cuda_stream: Stream) -> None:
        self._push(cuda_stream, lambda: _copy(target, source.address, size_bytes))

    def download(self, target: HostBuffer, source: int, size_bytes: int, *, cuda_stream: Stream) -> None:
        self._push(cuda_stream, lambda: _copy(target.address, source, size_bytes))

    def launch(
        self, kernel: str, argument: NDArray[np.void], num_columns: int, num_rows: int, *, cuda_stream: Stream
    ) -> None:
        kernels, copied = host_kernels(), argument.copy()
        self._push(cuda_stream, lambda: kernels.run(kernel, copied, num_columns, num_rows))

    def stream(self, handle: int | None) -> "HostStream":
        return next(stream for stream in self._streams if stream.handle == handle)

    def delay(self) -> None:
        time.sleep(self._random.uniform(0, self._max_delay_seconds))

    def close(self) -> None:
        for stream in self._streams:
            stream.stop()
        self._streams.clear()

    def check_current(self) -> None:
        assert getattr(self._active, "depth", 0) > 0, "used outside `current`"

    def _push(self, stream: Stream, work: Callable[[], None]) -> None:
        self.check_current()
        assert isinstance(stream, HostStream)
        stream.push(work)


class HostStream(Stream):
    """A thread with a queue."""

    def __init__(self, device: HostDevice, handle: int) -> None:
        self._device, self._handle = device, handle
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"stream {handle}", daemon=True)
        self._thread.start()

    @property
    def handle(self) -> int:
        return self._handle

    def push(self, work: Callable[[], None]) -> None:
        self._queue.put(work)

    def wait_for(self, event: Event) -> None:
        self._device.check_current()
        assert isinstance(event, HostEvent)
        self.push(event.reached.wait)  # the mark as it is now, as `cuStreamWaitEvent` takes it

    def synchronize(self) -> None:
        self._device.check_current()
        reached = threading.Event()
        self.push(reached.set)
        reached.wait()
        self._device_failed()

    def stop(self) -> None:
        self._queue.put(None)
        self._thread.join()

    def _device_failed(self) -> None:
        if self._device.errors:
            raise BackendError(f"the device failed: {self._device.errors[0]}")

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            self._device.delay()
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - what a GPU does: the next wait reports it
                self._device.errors.append(error)


class HostEvent(Event):
    """The latest mark."""

    def __init__(self, device: HostDevice, *, has_time: bool) -> None:
        self._device, self._has_time = device, has_time
        self.reached = threading.Event()
        self.reached.set()
        self.reached_seconds: float | None = None

    def record(self, *, cuda_stream: Stream) -> None:
        self._device.check_current()
        assert isinstance(cuda_stream, HostStream)
        reached = self.reached = threading.Event()
        self.reached_seconds = None

        def reach() -> None:
            if self._has_time:
                self.reached_seconds = time.perf_counter()
            reached.set()

        cuda_stream.push(reach)

    def synchronize(self) -> None:
        self._device.check_current()
        self.reached.wait()
        if self._device.errors:
            raise BackendError(f"the device failed: {self._device.errors[0]}")

    def seconds_since(self, earlier: Event) -> float:
        self._device.check_current()
        assert isinstance(earlier, HostEvent)
        if self.reached_seconds is None or earlier.reached_seconds is None:
            raise BackendError("an event without time, or not reached")
        return self.reached_seconds - earlier.reached_seconds


class HostMemory(DeviceBuffer):
    """Memory that is garbage before and after its time."""

    def __init__(self, device: HostDevice, size_bytes: int) -> None:
        device.check_current()
        if device.allocated_bytes + size_bytes > device.capacity_bytes:
            raise BackendError(f"out of device memory: {size_bytes} bytes wanted")
        device.allocated_bytes += size_bytes
        device.num_allocations += 1
        self._device, self.size_bytes = device, size_bytes
        self._memory = np.full(size_bytes + 256, GARBAGE, np.uint8)
        start = -self._memory.ctypes.data % 256
        self.data = self._memory[start : start + size_bytes]
        self.address = self.data.ctypes.data

    def close(self) -> None:
        if self.size_bytes:
            self.data[:] = GARBAGE
            self._device.allocated_bytes -= self.size_bytes
            self.size_bytes = 0


class HostStaging(HostMemory, HostBuffer):
    """The same for copies."""


class HostRunner(Runner[DeviceTensor]):
    """ONNX Runtime on the CPU behind a stream."""

    def __init__(self, artifact: Artifact, device: HostDevice) -> None:
        super().__init__(artifact)
        self._runner = OnnxRuntimeRunner(artifact, num_threads=1)
        self._device = device
        self._extras: DeviceInputs | None = None

    @property
    def description(self) -> str:
        return "threads"

    def activate(self) -> None:
        self._runner.activate()

    def enqueue(
        self, source: DeviceTensor, *, target: DeviceTensor, cuda_stream: int | None, extras: Extras = NO_EXTRAS
    ) -> None:
        stream = self._device.stream(cuda_stream)
        if self._extras is None:
            self._extras = DeviceInputs(self._device, cuda_stream=stream)
        arrays = [array_at(tensor) for tensor in (source, target)]
        shown = {name: array_at(tensor) for name, tensor in self._extras.show(extras).items()}
        stream.push(lambda: self._runner.enqueue(arrays[0], target=arrays[1], cuda_stream=None, extras=shown))

    def close(self) -> None:
        if self._extras is not None:
            with self._device.current():
                self._extras.close()
        self._runner.close()


def array_at(tensor: DeviceTensor) -> NDArray[Any]:
    """What lies at the address of `tensor`."""
    dtype = np.dtype(_DTYPES[tensor.precision])
    return _bytes_at(tensor.address, tensor.size_bytes).view(dtype).reshape(tensor.shape)


def _copy(target: int, source: int, size_bytes: int) -> None:
    _bytes_at(target, size_bytes)[:] = _bytes_at(source, size_bytes)


def _bytes_at(address: int, size_bytes: int) -> NDArray[np.uint8]:
    return np.ctypeslib.as_array((ctypes.c_uint8 * size_bytes).from_address(address))
