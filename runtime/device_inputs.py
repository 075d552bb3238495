"""What a network takes beside the frame, in the memory of its device: the mix of its styles, and noise."""

from itertools import cycle
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stylize.runtime.contract import Precision
from stylize.runtime.device import Device, DeviceBuffer, DeviceTensor, Event, HostBuffer, Stream
from stylize.runtime.extra_inputs import Extras

__all__ = ["DeviceInputs"]

_NUM_PLACES: Final = 4
"""Values on their way at a time: a style mix that changes with every picture changes for each of those queued."""
_PRECISIONS: Final[dict[np.dtype[np.floating], Precision]] = {
    np.dtype(np.float16): "fp16",
    np.dtype(np.float32): "fp32",
}


class DeviceInputs:
    """Copies extra inputs to the device when they change, for passes on one stream.

    Each input has one address, at which a CUDA graph may read it: a new value is queued on the passes' own stream,
    behind those that read the one before. Neither the host nor the device waits.
    """

    def __init__(self, device: Device, *, cuda_stream: Stream) -> None:
        """Take nothing yet; `device` and `cuda_stream` stay the caller's."""
        self._device, self._stream = device, cuda_stream
        self._inputs: dict[str, _Input] = {}

    def show(self, extras: Extras) -> dict[str, DeviceTensor]:
        """Where passes queued from now on find these values, by name; the arrays themselves are copied at once.

        Raises:
            BackendError: the device has too little memory.
        """
        shown = {}
        for name, array in extras.items():
            if name not in self._inputs:
                self._inputs[name] = _Input(self._device)
            shown[name] = self._inputs[name].show(array, cuda_stream=self._stream)
        return shown

    def close(self) -> None:
        """Free the memory; no pass may be queued any more."""
        for single in self._inputs.values():
            single.close()
        self._inputs = {}


class _Input:
    """One input: memory on the device, and places of page-locked memory from which it is filled in turn."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._shown: NDArray[np.float32] | NDArray[np.float16] | None = None
        self._buffer: DeviceBuffer | None = None
        self._places: list[_Place] = []
        self._turns = cycle(range(_NUM_PLACES))

    def show(self, array: NDArray[np.float32] | NDArray[np.float16], *, cuda_stream: Stream) -> DeviceTensor:
        shown = self._shown
        if self._buffer is None or shown is None or (shown.shape, shown.dtype) != (array.shape, array.dtype):
            cuda_stream.synchronize()  # sync point: pictures of another size; passes may still read the old memory
            self.close()
            self._buffer = self._device.allocate(array.nbytes)
            shown = None
        if shown is None or (array is not shown and not np.array_equal(array, shown)):
            place = self._place(array.nbytes)
            place.copied.synchronize()  # done long ago: no more passes than places are queued
            place.memory.data[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            self._device.upload(self._buffer.address, place.memory, array.nbytes, cuda_stream=cuda_stream)
            place.copied.record(cuda_stream=cuda_stream)
            self._shown = array
        return DeviceTensor(self._buffer.address, array.shape, _PRECISIONS[array.dtype])

    def close(self) -> None:
        for place in self._places:
            place.memory.close()
        if self._buffer is not None:
            self._buffer.close()
        self._places, self._buffer, self._shown = [], None, None
        self._turns = cycle(range(_NUM_PLACES))

    def _place(self, size_bytes: int) -> "_Place":
        """The place whose turn it is; noise changes with the size only, so it never has more than one."""
        turn = next(self._turns)
        if turn == len(self._places):
            self._places.append(_Place(self._device, size_bytes))
        return self._places[turn]


class _Place:
    def __init__(self, device: Device, size_bytes: int) -> None:
        self.memory: HostBuffer = device.allocate_host(size_bytes)
        self.copied: Event = device.open_event()
