"""Passes that repeat at the same addresses, recorded as CUDA graphs: queued with one call in place of hundreds."""

import ctypes
import logging
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stylize.runtime.device import Device, DeviceTensor, Stream
from stylize.runtime.errors import BackendError
from stylize.runtime.gpu import call_driver

__all__ = ["CudaGraph", "RepeatedPass"]

logger = logging.getLogger(__name__)

_THREAD_LOCAL: Final = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads, such as FFmpeg's, may allocate meanwhile
_COMPARED_BYTES: Final = 1 << 24  # of a result: what a graph does wrong it does everywhere
# Convolutions may add in another order from pass to pass; what reads memory that is gone is off by the whole range.
_TOLERANCE: Final = 0.01


class CudaGraph:
    """Work recorded from a stream, to be queued again with one call; not while its addresses are freed."""

    def __init__(self, cuda_stream: Stream, work: Callable[[], None]) -> None:
        """Record what `work` queues on `cuda_stream`; nothing of it runs yet.

        Raises:
            BackendError: `work` does something that cannot be recorded, such as waiting for the device.
        """
        stream = ctypes.c_void_p(cuda_stream.handle)
        graph, self._executable = ctypes.c_void_p(), ctypes.c_void_p()
        call_driver("cuStreamBeginCapture_v2", stream, _THREAD_LOCAL)
        try:
            try:
                work()
            finally:
                call_driver("cuStreamEndCapture", stream, ctypes.byref(graph))
            call_driver("cuGraphInstantiateWithFlags", ctypes.byref(self._executable), graph, ctypes.c_ulonglong(0))
        finally:
            if graph:
                call_driver("cuGraphDestroy", graph)

    def launch(self, *, cuda_stream: int) -> None:
        """Queue everything on the stream with this handle.

        Raises:
            BackendError: the driver refused.
        """
        call_driver("cuGraphLaunch", self._executable, ctypes.c_void_p(cuda_stream))

    def close(self) -> None:
        """Free it; calling it again is harmless."""
        if self._executable:
            call_driver("cuGraphExecDestroy", self._executable)
            self._executable = ctypes.c_void_p()


class RepeatedPass:
    """Queues the passes of one network, by a graph from the second of the same addresses and shapes on.

    The second is run, recorded and run again from the recording; only where both results agree is the graph used.
    """

    def __init__(self, device: Device, *, cuda_stream: Stream, name: str) -> None:
        """Record nothing yet.

        Args:
            device: where the passes run; stays the caller's.
            cuda_stream: the stream of all of them.
            name: of the network, for the warning where it cannot be recorded.
        """
        self._device, self._stream, self._name = device, cuda_stream, name
        self.can_record = True
        """Whether passes are recorded; False runs every one as it is."""
        self._key: tuple[DeviceTensor, ...] = ()
        self._graph: CudaGraph | None = None

    @property
    def is_recorded(self) -> bool:
        """Whether the passes of today come from a graph."""
        return self._graph is not None

    def enqueue(self, key: tuple[DeviceTensor, ...], *, bind: Callable[[], None], work: Callable[[], None]) -> None:
        """Queue one pass.

        Args:
            key: every tensor that the pass reads or writes; the last one is its result.
            bind: tells the network these tensors; called where they are not those of the pass before.
            work: queues the pass. It may take memory the first time, and must not wait for the device.

        Raises:
            BackendError: `bind` or `work` failed, or the driver refused.
        """
        if key != self._key:
            self.forget()
            bind()
            work()
            self._key = key
            return
        if self._graph is None and self.can_record:
            self._record(key[-1], work)
        if self._graph is None:
            work()
        else:
            self._graph.launch(cuda_stream=self._stream.handle)

    def forget(self) -> None:
        """Free the graph, once the stream is empty; to be called before anything that its passes use is freed."""
        if self._graph is not None:
            self._stream.synchronize()
            self._graph.close()
        self._graph, self._key = None, ()

    def _record(self, result: DeviceTensor, work: Callable[[], None]) -> None:
        self.can_record = False  # unless it works
        try:
            work()  # whatever it still takes is there before it is recorded
            wanted = self._start_of(result)
            graph = CudaGraph(self._stream, work)
        except BackendError as error:
            logger.warning("%s: runs without a CUDA graph: %s", self._name, error)
            return
        try:
            self._overwrite(result)
            graph.launch(cuda_stream=self._stream.handle)
            found = self._start_of(result)
        except BaseException:
            graph.close()
            raise
        tolerance = _TOLERANCE * float(np.abs(np.nan_to_num(wanted)).max())
        if np.allclose(found, wanted, rtol=0.0, atol=tolerance, equal_nan=True):
            self._graph, self.can_record = graph, True
        else:
            graph.close()
            logger.warning("%s: runs without a CUDA graph: from one it gives another picture", self._name)

    def _start_of(self, result: DeviceTensor) -> NDArray[np.float32]:
        """The first values of `result`, when the stream has come so far."""
        num_bytes = min(result.size_bytes, _COMPARED_BYTES)
        with self._device.allocate_host(num_bytes) as staged:
            self._device.download(staged, result.address, num_bytes, cuda_stream=self._stream)
            self._stream.synchronize()
            return staged.data.view(np.float16 if result.precision == "fp16" else np.float32).astype(np.float32)

    def _overwrite(self, result: DeviceTensor) -> None:
        """Let nothing remain of what was compared."""
        num_bytes = min(result.size_bytes, _COMPARED_BYTES)
        with self._device.allocate_host(num_bytes) as staged:
            staged.data[:] = 0x66  # far from any picture: 1,638 in half precision, 3e23 in single
            self._device.upload(result.address, staged, num_bytes, cuda_stream=self._stream)
            self._stream.synchronize()
