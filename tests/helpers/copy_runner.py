"""The identity on a GPU: a network that any test of what is around it can do without ONNX Runtime."""

import ctypes

from stylize.runtime.artifact import Artifact
from stylize.runtime.device import DeviceTensor
from stylize.runtime.extra_inputs import NO_EXTRAS, Extras
from stylize.runtime.gpu import call_driver
from stylize.runtime.runner import Runner


class CopyRunner(Runner[DeviceTensor]):
    """A copy within the device."""

    def __init__(self, artifact: Artifact) -> None:
        super().__init__(artifact)

    @property
    def description(self) -> str:
        return "copy"

    def activate(self) -> None:
        pass

    def enqueue(
        self, source: DeviceTensor, *, target: DeviceTensor, cuda_stream: int | None, extras: Extras = NO_EXTRAS
    ) -> None:
        numbers = (target.address, source.address, source.size_bytes, cuda_stream or 0)
        call_driver("cuMemcpyDtoDAsync_v2", *map(ctypes.c_ulonglong, numbers))

    def close(self) -> None:
        pass
