"""What the pipeline needs of a machine that computes beside the CPU: queues, marks in them, and memory.

`cuda.py` has it of a GPU. The tests have it of threads that wait at random, so that order and ownership are proven
where there is no GPU. Everything queued on one stream runs in order; streams run side by side except where one
waits for an event of another. Whatever a queued call reads or writes must live until the stream passes it.
"""

import math
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stylize.runtime.contract import Precision
from stylize.runtime.runner import Runner

__all__ = ["VALUE_BYTES", "Device", "DeviceBuffer", "DeviceRunner", "DeviceTensor", "Event", "HostBuffer", "Stream"]

VALUE_BYTES: Final[dict[Precision, int]] = {"fp16": 2, "fp32": 4}


@dataclass(frozen=True)
class DeviceTensor:
    """A contiguous tensor in device memory that somebody else owns."""

    address: int
    shape: tuple[int, ...]
    precision: Precision

    @property
    def size_bytes(self) -> int:
        """Memory of all values."""
        return math.prod(self.shape) * VALUE_BYTES[self.precision]


DeviceRunner: TypeAlias = Runner[DeviceTensor]
"""A runner whose `enqueue` takes a stream's handle and returns before the pass has run."""


class _Owned(ABC):
    """Something that is given back by `close`, at the latest on leaving its `with`."""

    @abstractmethod
    def close(self) -> None:
        """Give it back; calling it again is harmless. Nothing that is queued may still use it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class DeviceBuffer(_Owned):
    """Memory of the device."""

    address: int
    """Aligned to 256 bytes."""
    size_bytes: int


class HostBuffer(_Owned):
    """Memory of the host that the device copies from and to while the host does something else (page-locked)."""

    address: int
    size_bytes: int
    data: NDArray[np.uint8]
    """All of it, (size_bytes,)."""


class Event(ABC):
    """A mark in a stream; marking again forgets the mark before."""

    @abstractmethod
    def record(self, *, cuda_stream: "Stream") -> None:
        """Mark everything queued on `cuda_stream` so far."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until what was marked has run; at once when nothing was.

        Raises:
            BackendError: something that was queued has failed.
        """

    @abstractmethod
    def seconds_since(self, earlier: "Event") -> float:
        """Time on the device from the mark of `earlier` to this one; both with time, both synchronized.

        Raises:
            BackendError: one of them was never reached.
        """


class Stream(ABC):
    """A queue of the device."""

    @property
    @abstractmethod
    def handle(self) -> int:
        """What other libraries know it by; a `CUstream`."""

    @abstractmethod
    def wait_for(self, event: Event) -> None:
        """Let what is queued from now on wait for what `event` marks now."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until the stream is empty.

        Raises:
            BackendError: something that was queued has failed.
        """


class Device(_Owned):
    """One device; its methods may be called from any thread inside `current`."""

    dlpack_device: tuple[int, int]
    """DLPack's kind and ordinal of it."""

    @abstractmethod
    def current(self) -> AbstractContextManager[None]:
        """Make the device usable by this thread; every thread needs it around what it does."""

    @abstractmethod
    def open_stream(self) -> Stream:
        """A new stream; it lives as long as the device."""

    @abstractmethod
    def open_event(self, *, has_time: bool = False) -> Event:
        """A new event; it lives as long as the device. Those with time cost more and are for measuring."""

    @property
    @abstractmethod
    def decoder_stream(self) -> Stream:
        """The stream on which decoded pictures of this device are filled."""

    @abstractmethod
    def memory_bytes(self) -> tuple[int, int]:
        """Free and total memory of the device, all programs together."""

    @abstractmethod
    def allocate(self, size_bytes: int) -> DeviceBuffer:
        """Memory of the device, content undefined.

        Raises:
            BackendError: there is not as much left.
        """

    @abstractmethod
    def allocate_host(self, size_bytes: int) -> HostBuffer:
        """Memory of the host for copies, content undefined.

        Raises:
            BackendError: there is not as much left.
        """

    @abstractmethod
    def upload(self, target: int, source: HostBuffer, size_bytes: int, *, cuda_stream: Stream) -> None:
        """Queue a copy of the first `size_bytes` of `source` to the device address `target`."""

    @abstractmethod
    def download(self, target: HostBuffer, source: int, size_bytes: int, *, cuda_stream: Stream) -> None:
        """Queue a copy from the device address `source` to the beginning of `target`."""

    @abstractmethod
    def launch(
        self, kernel: str, argument: NDArray[np.void], num_columns: int, num_rows: int, *, cuda_stream: Stream
    ) -> None:
        """Queue a kernel of `kernels.cu` on that many columns and rows of threads; `argument` is copied."""
