"""Planes lent to FFmpeg: the same samples, held as long as needed, given back once."""

import gc

import av
import numpy as np
import pytest

from helpers.host_device import HostDevice
from stylize.runtime.color import Color
from stylize.runtime.device_color import SurfaceLayout
from stylize.runtime.device_pass import picture_of
from stylize.runtime.dlpack import CPU, LentPlane
from stylize.runtime.surface import OutputSlot, Surface, host_planes


def lent(numbers: np.ndarray, returned: list[int]) -> LentPlane:  # type: ignore[type-arg]
    return LentPlane(
        numbers.ctypes.data,
        shape=numbers.shape,
        strides=tuple(stride // numbers.itemsize for stride in numbers.strides),
        sample_bytes=numbers.itemsize,
        device=CPU,
        on_return=lambda: returned.append(1),
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_numpy_sees_the_samples_and_gives_them_back(dtype: type) -> None:
    numbers, returned = np.arange(24, dtype=dtype).reshape(4, 6)[:, :4], []
    view = np.from_dlpack(lent(numbers, returned))
    assert np.array_equal(view, numbers)
    assert np.shares_memory(view, numbers)
    assert returned == []
    del view
    assert returned == [1]


def test_what_nobody_took_is_given_back_too() -> None:
    returned: list[int] = []
    capsule = lent(np.zeros((2, 2), np.uint8), returned).__dlpack__()
    assert returned == []
    del capsule
    assert returned == [1]


@pytest.mark.parametrize("pix_fmt", SurfaceLayout.PIX_FMTS)
def test_a_slot_is_free_when_the_last_reference_to_its_picture_goes(pix_fmt: str) -> None:
    device, returned = HostDevice(seed=0), []
    with device.current():
        slot = OutputSlot(device, SurfaceLayout(pix_fmt, 64, 36), is_for_host=True)
    assert slot.host is not None
    slot.host.data[:] = np.arange(slot.host.data.size, dtype=np.uint8)
    picture = picture_of(slot, lambda: returned.append(1))
    copied = picture.reformat(format="rgb24")
    planes = host_planes(picture)
    for plane, offset, pitch in zip(planes, slot.layout.offsets_bytes, slot.layout.pitches_bytes, strict=True):
        rows, row_bytes = plane.shape
        wanted = slot.host.data[offset : offset + rows * pitch].reshape(rows, pitch)[:, :row_bytes]
        assert np.array_equal(plane, wanted)
    del planes, plane, picture
    gc.collect()
    assert returned == [1]
    assert copied.width == 64
    slot.close()
    device.close()


@pytest.mark.parametrize(("pix_fmt", "width"), [("nv12", 1920), ("p010le", 1920), ("nv12", 642)])
def test_chroma_follows_luma_as_nvenc_takes_it(pix_fmt: str, width: int) -> None:
    """NVENC gets one address and one pitch: chroma begins where luma's rows end (NVENC programming guide, 4.1)."""
    layout = SurfaceLayout(pix_fmt, width, 360)
    luma, chroma = layout.pitches_bytes
    assert luma == chroma
    assert layout.offsets_bytes == (0, 360 * luma)


def test_rejects_a_picture_the_kernels_do_not_know() -> None:
    with pytest.raises(ValueError, match=r"pictures of yuv422p are not 4:2:0 of 8 or 10 bits"):
        Surface(av.VideoFrame(64, 48, "yuv422p"), Color(matrix=1, is_full_range=False))
