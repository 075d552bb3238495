"""Lends memory to FFmpeg as the planes of a picture, and learns when it is given back.

PyAV takes planes by DLPack (dmlc.github.io/dlpack, version 0): a capsule around a struct with an address, a shape and
a function to be called once nobody needs the memory any more. Encoders hold pictures for as long as they look
ahead, so that call, from whatever thread it comes, is what says that a buffer may be filled again.
"""

import ctypes
import threading
from collections.abc import Callable
from typing import Any, Final

__all__ = ["CPU", "CUDA", "LentPlane"]

CPU: Final = (1, 0)
"""Kind and ordinal of the host."""
CUDA: Final = 2
"""Kind of NVIDIA GPUs."""

_UNSIGNED: Final = 1  # DLDataTypeCode
_NAME: Final = b"dltensor"  # must outlive every capsule


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _ManagedTensor(ctypes.Structure):
    pass


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_ManagedTensor._fields_ = (("tensor", _Tensor), ("manager", ctypes.c_void_p), ("deleter", _Deleter))

_python: Final[Any] = ctypes.pythonapi
_python.PyCapsule_New.restype = ctypes.py_object
_python.PyCapsule_New.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
_python.PyCapsule_IsValid.restype = ctypes.c_int
_python.PyCapsule_IsValid.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
_python.PyCapsule_GetPointer.restype = ctypes.c_void_p
_python.PyCapsule_GetPointer.argtypes = (ctypes.c_void_p, ctypes.c_char_p)

# What is lent at the moment, by the address of its struct: keeps struct, shape and function alive.
_lent: Final[dict[int, tuple[_ManagedTensor, Any, Callable[[], None]]]] = {}
_lock: Final = threading.RLock()  # a collection of garbage inside may give something back in the same thread


def _give_back(address: int) -> None:
    with _lock:
        _, _, on_return = _lent.pop(address)
    on_return()


def _drop_unused(capsule: int) -> None:
    """Called with a capsule that dies; one that was taken has another name by then."""
    if _python.PyCapsule_IsValid(capsule, _NAME):
        _give_back(_python.PyCapsule_GetPointer(capsule, _NAME))


_deleter: Final = _Deleter(_give_back)
_destructor: Final = _Deleter(_drop_unused)


class LentPlane:
    """One plane of unsigned samples; `__dlpack__` lends it once."""

    def __init__(
        self,
        address: int,
        *,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        sample_bytes: int,
        device: tuple[int, int],
        on_return: Callable[[], None],
    ) -> None:
        """Describe the plane.

        Args:
            address: of the first sample, on `device`.
            shape: rows, columns and, where samples alternate, channels.
            strides: samples from one to the next along each axis.
            sample_bytes: 1 or 2.
            device: DLPack's kind and ordinal.
            on_return: called once when the memory is no longer needed, from any thread; must not raise or wait.
        """
        self._address, self._shape, self._strides = address, shape, strides
        self._sample_bytes, self._device, self._on_return = sample_bytes, device, on_return

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device

    def __dlpack__(self, *, stream: int | None = None) -> object:
        """A capsule; `stream` is not waited for: the memory must be ready."""
        axes = len(self._shape)
        numbers = (ctypes.c_int64 * (2 * axes))(*self._shape, *self._strides)
        first = ctypes.addressof(numbers)
        managed = _ManagedTensor(
            tensor=_Tensor(
                data=self._address,
                device_type=self._device[0],
                device_id=self._device[1],
                ndim=axes,
                code=_UNSIGNED,
                bits=8 * self._sample_bytes,
                lanes=1,
                shape=ctypes.cast(first, ctypes.POINTER(ctypes.c_int64)),
                strides=ctypes.cast(first + 8 * axes, ctypes.POINTER(ctypes.c_int64)),
                byte_offset=0,
            ),
            manager=None,
            deleter=_deleter,
        )
        address = ctypes.addressof(managed)
        with _lock:
            _lent[address] = managed, numbers, self._on_return
        return _python.PyCapsule_New(address, _NAME, ctypes.cast(_destructor, ctypes.c_void_p))
