"""Which NVIDIA GPUs there are, asked of the driver itself: no CUDA toolkit and no package is needed."""

import ctypes
import sys
from dataclasses import dataclass
from typing import Final

from stylize.runtime.errors import BackendUnavailableError

__all__ = ["Gpu", "driver_library", "find_gpu"]

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


def driver_library() -> ctypes.CDLL:
    """The CUDA driver.

    Raises:
        BackendUnavailableError: this machine has none.
    """
    try:
        return ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise BackendUnavailableError(f"this machine has no NVIDIA driver ({_LIBRARY} is missing)") from error


def find_gpu(index: int = 0) -> Gpu:
    """The GPU with this number.

    Raises:
        BackendUnavailableError: no driver, no GPU, or none with this number.
    """
    driver = driver_library()
    result = driver.cuInit(0)
    if result == _NO_DEVICE:
        raise BackendUnavailableError("this machine has an NVIDIA driver, but no GPU that it can use")
    if result != 0:
        raise BackendUnavailableError(f"the NVIDIA driver does not start: cuInit returned {result}")
    count = ctypes.c_int()
    driver.cuDeviceGetCount(ctypes.byref(count))
    if not 0 <= index < count.value:
        raise BackendUnavailableError(f"there is no GPU {index}: this machine has {count.value}, numbered from 0")
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
    return Gpu(index=index, name=name.value.decode(), compute_capability=f"{major.value}.{minor.value}")
