"""The steadier of a device, on the kernels compiled for the host, behind the interface of the one of the CPU."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from helpers.host_device import HostDevice, array_at
from stylize.runtime.device import DeviceTensor
from stylize.runtime.device_color import RgbTensors
from stylize.runtime.device_steady import DeviceSteadier
from stylize.runtime.frame import WHITE

__all__ = ["HostSteadier"]


class HostSteadier:
    """`Steadier` as a device has it: on tensors that are padded, in [0, 1] and of the network's type."""

    def __init__(
        self,
        amount: float,
        *,
        precision: Literal["fp32", "fp16"] = "fp32",
        value_range: tuple[float, float] = (0.0, 1.0),
        padding_px: int = 5,
    ) -> None:
        self._amount, self._precision, self._padding_px = amount, precision, padding_px
        self._value_range = value_range
        self.device = HostDevice(seed=0, max_delay_seconds=0)
        self._stream = self.device.open_stream()
        self._size = (0, 0)
        self.steadier: DeviceSteadier | None = None

    def reset(self) -> None:
        if self.steadier is not None:
            self.steadier.reset()

    def push(self, source: Sequence[NDArray[np.uint16]], stylized_CHW: NDArray[np.float32]) -> bool:
        """See `Steadier.push`."""
        _, height, width = stylized_CHW.shape
        with self.device.current():
            if self._size != (width, height):
                self._open(width, height)
            assert self.steadier is not None
            black, white = map(np.float32, self._value_range)
            self._source[:, :height, :width] = np.stack(source) / np.float32(WHITE) * (white - black) + black
            self._styled[:, :height, :width] = stylized_CHW / np.float32(WHITE) * (white - black) + black
            self._flags[:] = 0
            self.steadier.enqueue(cuda_stream=self._stream)
            self._stream.synchronize()
        if self._flags[0]:
            raise ValueError("values that are no numbers")
        result = self.array("history", (3, *self._source.shape[1:]), self._source.dtype)
        stylized_CHW[:] = (result[:, :height, :width].astype(np.float32) - black) / (white - black) * np.float32(WHITE)
        return bool(self._flags[1])

    def array(self, name: str, shape: tuple[int, ...], dtype: Any = np.float32) -> NDArray[Any]:  # noqa: ANN401
        """What lies in one of the steadier's buffers."""
        assert self.steadier is not None
        num_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory = array_at(DeviceTensor(self.steadier.addresses[name], (num_bytes // 2,), "fp16"))
        return memory.view(np.uint8).view(dtype).reshape(shape)

    def close(self) -> None:
        self._free()
        self.device.close()

    def _free(self) -> None:
        if self.steadier is not None:
            self.steadier.close()
            for buffer in self._buffers:
                buffer.close()
        self.steadier = None

    def _open(self, width: int, height: int) -> None:
        shape = (1, 3, height + self._padding_px, width + self._padding_px)
        tensor = DeviceTensor(0, shape, self._precision)
        self._free()
        self._buffers = [self.device.allocate(size) for size in (tensor.size_bytes, tensor.size_bytes, 8)]
        source, styled, flags = (buffer.address for buffer in self._buffers)
        self._source, self._styled = (array_at(DeviceTensor(at, shape, self._precision))[0] for at in (source, styled))
        self._source[:], self._styled[:] = np.nan, np.nan  # nothing may be read outside the picture
        self._flags = array_at(DeviceTensor(flags, (2,), "fp32")).view(np.int32)
        tensors = RgbTensors(source, styled, shape[3], shape[2], self._source.itemsize, self._value_range)
        self.steadier = DeviceSteadier(self.device, tensors, size=(width, height), amount=self._amount, flags=flags)
        self._size = (width, height)
