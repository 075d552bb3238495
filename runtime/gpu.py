"""Which NVIDIA GPUs there are, asked of the driver itself: no CUDA toolkit and no package is needed."""

import ctypes
import sys
from dataclasses import dataclass
from functools import cache
from typing import Final

from stylize.runtime.errors import BackendError, BackendUnavailableError

__all__ = ["Gpu", "call_driver", "find_gpu"]

_LIBRARY: Final = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
# CUdevice_attribute and CUresult in cuda.h
_CAPABILITY_MAJOR: Final = 75
_CAPABILITY_MINOR: Final = 76
_NO_DEVICE: Final = 100


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU of this machine."""

    index: int
    """Ordinal of the CUDA driver, as CUDA_VISIBLE_DEVICES leaves it."""
    name: str
    compute_capability: str
    """For example `8.9`."""


def call_driver(name: str, *arguments: object) -> None:
    """Call a function of the CUDA driver that returns whether it succeeded.

    Raises:
        BackendUnavailableError: this machine has no driver.
        BackendError: the driver refused; the message has NVIDIA's name of the reason.
    """
    result = getattr(_library(_LIBRARY), name)(*arguments)
    if result != 0:
        raise BackendError(f"{name} failed: {_error_name(result)}")


def find_gpu(index: int = 0) -> Gpu:
    """The GPU with this number.

    Raises:
        BackendUnavailableError: no driver, no GPU, or none with this number.
    """
    result = _library(_LIBRARY).cuInit(0)
    if result == _NO_DEVICE:
        raise BackendUnavailableError("this machine has an NVIDIA driver, but no GPU that it can use")
    if result != 0:
        raise BackendUnavailableError(f"the NVIDIA driver does not start: {_error_name(result)}")
    count = ctypes.c_int()
    call_driver("cuDeviceGetCount", ctypes.byref(count))
    if not 0 <= index < count.value:
        raise BackendUnavailableError(f"there is no GPU {index}: this machine has {count.value}, numbered from 0")
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(256)
    call_driver("cuDeviceGet", ctypes.byref(device), index)
    call_driver("cuDeviceGetName", name, len(name), device)
    call_driver("cuDeviceGetAttribute", ctypes.byref(major), _CAPABILITY_MAJOR, device)
    call_driver("cuDeviceGetAttribute", ctypes.byref(minor), _CAPABILITY_MINOR, device)
    return Gpu(index=index, name=name.value.decode(), compute_capability=f"{major.value}.{minor.value}")


@cache
def _library(name: str) -> ctypes.CDLL:
    try:
        # For all to see: a PyCUDA that was linked without the driver finds its calls in it.
        return ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise BackendUnavailableError(f"this machine has no NVIDIA driver ({name} is missing)") from error


def _error_name(result: int) -> str:
    text = ctypes.c_char_p()
    _library(_LIBRARY).cuGetErrorName(result, ctypes.byref(text))
    return text.value.decode() if text.value else f"error {result}"
