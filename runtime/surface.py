"""A 4:2:0 picture on its way through a device, and the memory in which finished ones leave it."""

import threading
from collections.abc import Callable
from typing import Final

import av
import numpy as np
from numpy.typing import NDArray

from stylize.runtime.color import Color
from stylize.runtime.device import Device, DeviceBuffer, HostBuffer
from stylize.runtime.device_color import SurfaceLayout, SurfacePlanes, surface_layout
from stylize.runtime.dlpack import CPU, LentPlane
from stylize.runtime.frame import TimedPicture

__all__ = ["OutputPool", "OutputSlot", "Surface", "host_planes", "is_on_device", "samples_pix_fmt", "surface_pix_fmt"]

_HARDWARE_PIX_FMT: Final = "cuda"


class Surface(TimedPicture):
    """A picture with a presentation time, as decoded until `finish` and as it is to be encoded from then on.

    What the decoder made belongs to the surface until then, so whoever queues work on it keeps the surface.
    """

    def __init__(self, picture: av.VideoFrame, color: Color) -> None:
        """Take ownership of `picture`.

        Raises:
            ValueError: the kernels have no such format.
        """
        super().__init__(picture)
        self.pix_fmt = surface_pix_fmt(picture)
        """FFmpeg's name of the format of the samples, wherever they lie."""
        self.color = color
        self._size_bytes = surface_layout(self.pix_fmt, self.width, self.height).size_bytes

    @property
    def size_bytes(self) -> int:
        """Memory of the picture as decoded, which is about that of the finished one."""
        return self._size_bytes

    def finish(self, picture: av.VideoFrame) -> None:
        """Replace what was decoded, which goes back to the decoder: the device must have read it."""
        picture.pts, picture.duration, picture.time_base = self.pts, self.duration, self.time_base
        self.picture = picture


def is_on_device(picture: av.VideoFrame) -> bool:
    """Whether the planes are addresses of a GPU."""
    return picture.format.name == _HARDWARE_PIX_FMT


def samples_pix_fmt(picture: av.VideoFrame) -> str:
    """FFmpeg's name of the samples' format, wherever they lie."""
    if not is_on_device(picture):
        return picture.format.name
    return picture.sw_format.name if picture.sw_format is not None else "unknown"


def surface_pix_fmt(picture: av.VideoFrame) -> str:
    """FFmpeg's name of the samples' format, wherever they lie.

    Raises:
        ValueError: the kernels have no such format.
    """
    name = samples_pix_fmt(picture)
    if name not in SurfaceLayout.PIX_FMTS:
        raise ValueError(f"pictures of {name} are not 4:2:0 of 8 or 10 bits")
    return name


def host_planes(picture: av.VideoFrame) -> list[NDArray[np.uint8]]:
    """The bytes of each plane of a picture in host memory, (rows, bytes of a row) as views; padding is left out."""
    layout = SurfaceLayout(picture.format.name, picture.width, picture.height)
    planes = []
    for plane, (rows, columns) in zip(picture.planes, layout.plane_shapes, strict=True):
        lines = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        planes.append(lines[:rows, : columns * layout.sample_bytes])
    return planes


class OutputSlot:
    """Memory of one finished picture: on the device, and where it is encoded by the host a copy there."""

    def __init__(self, device: Device, layout: SurfaceLayout, *, is_for_host: bool) -> None:
        self.layout = layout
        self.buffer: DeviceBuffer = device.allocate(layout.size_bytes)
        self.host: HostBuffer | None = device.allocate_host(layout.size_bytes) if is_for_host else None
        self.event = device.open_event()
        self._dlpack_device = CPU if is_for_host else device.dlpack_device

    @property
    def planes(self) -> SurfacePlanes:
        """Where the kernel writes."""
        return self.layout.planes_at(self.buffer.address)

    def lend(self, on_return: Callable[[], None]) -> list[LentPlane]:
        """The planes as an encoder takes them; `on_return` is called once all of them are given back."""
        layout, base = self.layout, self.buffer.address if self.host is None else self.host.address
        count = _Countdown(len(layout.plane_shapes), on_return)
        planes = []
        for index, (rows, columns) in enumerate(layout.plane_shapes):
            pitch = layout.pitches_bytes[index] // layout.sample_bytes
            is_paired = index > 0 and layout.chroma_step == 2
            planes.append(
                LentPlane(
                    base + layout.offsets_bytes[index],
                    shape=(rows, columns // 2, 2) if is_paired else (rows, columns),
                    strides=(pitch, 2, 1) if is_paired else (pitch, 1),
                    sample_bytes=layout.sample_bytes,
                    device=self._dlpack_device,
                    on_return=count.down,
                )
            )
        return planes

    def close(self) -> None:
        """Free the memory."""
        self.buffer.close()
        if self.host is not None:
            self.host.close()


class OutputPool:
    """Slots that go to the encoder and come back.

    An encoder keeps as many pictures as it looks ahead, which nobody says beforehand. So there are as many slots as
    were ever needed at a time: the first pictures make them, after that they only change hands.
    """

    def __init__(self, open_slot: Callable[[], OutputSlot], num_slots: int) -> None:
        """Make `num_slots` to begin with."""
        self._open_slot = open_slot
        self._slots = [open_slot() for _ in range(num_slots)]
        self._free = list(self._slots)
        self._lock = threading.RLock()  # the garbage collector may give a slot back in the thread that takes one

    @property
    def num_slots(self) -> int:
        """How many there are, wherever they are."""
        return len(self._slots)

    def take(self) -> OutputSlot:
        """A slot that nobody uses; it is the caller's until `give_back`."""
        with self._lock:
            if self._free:
                return self._free.pop()
        slot = self._open_slot()
        with self._lock:
            self._slots.append(slot)
        return slot

    def give_back(self, slot: OutputSlot) -> None:
        """Let the slot be taken again; from any thread."""
        with self._lock:
            self._free.append(slot)

    def close(self) -> None:
        """Free all slots, also those that did not come back; nobody may use them any more."""
        with self._lock:
            for slot in self._slots:
                slot.close()
            self._slots, self._free = [], []


class _Countdown:
    """Calls a function once it has been told to as often as there are planes."""

    def __init__(self, number: int, then: Callable[[], None]) -> None:
        self._number, self._then = number, then
        self._lock = threading.RLock()

    def down(self) -> None:
        with self._lock:
            self._number -= 1
            is_last = self._number == 0
        if is_last:
            self._then()
