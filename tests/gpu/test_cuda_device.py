"""The device of `cuda.py` itself: memory, order, kernels, graphs, and what it says when there is not enough."""

from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import CudaContext

from helpers.copy_runner import CopyRunner
from helpers.host_device import HostDevice
from helpers.host_kernels import host_kernels
from stylize.runtime.artifact import Artifact
from stylize.runtime.color import Color
from stylize.runtime.contract import ModelContract
from stylize.runtime.cuda import CudaDevice
from stylize.runtime.cuda_graph import CudaGraph, RepeatedPass
from stylize.runtime.device import Device, DeviceTensor
from stylize.runtime.device_color import RgbTensors, SurfaceLayout, kernel_name, kernel_pass
from stylize.runtime.device_pass import NUM_IN_FLIGHT, DevicePass, picture_of
from stylize.runtime.device_steady import DeviceSteadier
from stylize.runtime.errors import BackendError, BackendUnavailableError
from stylize.runtime.finish import Finish
from stylize.runtime.hardware_video import gpu_refusal
from stylize.runtime.surface import OutputSlot, Surface, host_planes, is_on_device, samples_pix_fmt
from stylize.runtime.surface_source import downloaded

pytestmark = pytest.mark.needs_gpu
COLOR = Color(matrix=1, is_full_range=False)


@pytest.fixture(scope="module")
def device() -> Iterator[CudaDevice]:
    with CudaDevice() as device:
        yield device


def identity(precision: str) -> Artifact:
    contract = ModelContract(network="copy", style="none", size_multiple=8, precision=precision)  # type: ignore[arg-type]
    return Artifact(name="copy", path=Path("copy"), contract=contract, origin="file")


def test_what_is_copied_in_comes_out(device: CudaDevice) -> None:
    numbers = np.random.default_rng(0).integers(0, 256, 100_001, np.uint8)
    with device.current(), device.allocate(numbers.size) as memory, device.allocate_host(numbers.size) as host:
        stream, other, event = device.open_stream(), device.open_stream(), device.open_event()
        assert memory.address % 256 == 0
        host.data[:] = numbers
        device.upload(memory.address, host, numbers.size, cuda_stream=stream)
        event.record(cuda_stream=stream)
        event.synchronize()
        host.data[:] = 0
        other.wait_for(event)
        device.download(host, memory.address, numbers.size, cuda_stream=other)
        other.synchronize()
        assert np.array_equal(host.data, numbers)


def test_events_with_time_tell_how_long_a_copy_took(device: CudaDevice) -> None:
    num_bytes = 64 << 20
    with device.current(), device.allocate(num_bytes) as memory, device.allocate_host(num_bytes) as host:
        stream, begin, end = device.open_stream(), device.open_event(has_time=True), device.open_event(has_time=True)
        begin.record(cuda_stream=stream)
        device.upload(memory.address, host, num_bytes, cuda_stream=stream)
        end.record(cuda_stream=stream)
        end.synchronize()
        # Between 1 TB/s, which no bus has, and 64 MB/s.
        assert 6e-5 < end.seconds_since(begin) < 1.0
        with pytest.raises(BackendError, match="the time between two events is not known"):
            device.open_event().seconds_since(begin)


@pytest.mark.parametrize("size", [(640, 360), (53, 35), (1, 1)])
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
@pytest.mark.parametrize("pix_fmt", ["nv12", "p010le", "yuv420p", "yuv420p10le"])
def test_kernels_give_the_values_of_the_host(
    device: CudaDevice, pix_fmt: str, precision: str, size: tuple[int, int]
) -> None:
    """Both directions; the host's values are held against the definition elsewhere."""
    width, height = size
    layout = SurfaceLayout(pix_fmt, width + width % 2, height + height % 2)
    padded = -(-width // 8) * 8, -(-height // 8) * 8
    value_bytes = 2 if precision == "fp16" else 4
    num_rgb = 3 * padded[0] * padded[1] * value_bytes
    codes = np.random.default_rng(1).integers(0, 256, layout.size_bytes, np.uint8)
    if layout.bits == 10:
        deep = codes.view(np.uint16)
        deep[:] = deep << 6 if pix_fmt == "p010le" else deep & 1023

    with (
        device.current(),
        device.allocate(layout.size_bytes) as surface,
        device.allocate(layout.size_bytes) as back,
        device.allocate(num_rgb) as rgb,
        device.allocate_host(layout.size_bytes) as host,
        device.allocate_host(num_rgb) as host_rgb,
    ):
        stream = device.open_stream()
        host.data[:] = codes
        for memory in (surface, back):  # where nothing is written, it stays
            device.upload(memory.address, host, layout.size_bytes, cuda_stream=stream)
        tensors = RgbTensors(rgb.address, rgb.address, *padded, value_bytes)
        for direction, memory, columns, rows in (
            ("rgb_from_yuv", surface, padded[0], padded[1]),
            ("yuv_from_rgb", back, layout.width, layout.height),
        ):
            argument = kernel_pass(layout.planes_at(memory.address), tensors, size=size, color=COLOR)
            name = kernel_name(direction, layout, value_bytes)  # type: ignore[arg-type]
            device.launch(name, argument, columns, rows, cuda_stream=stream)
        device.download(host_rgb, rgb.address, num_rgb, cuda_stream=stream)
        device.download(host, back.address, layout.size_bytes, cuda_stream=stream)
        stream.synchronize()
        found_rgb, found = host_rgb.data.copy(), host.data.copy()

    wanted_rgb = _aligned(num_rgb)
    wanted = _aligned(layout.size_bytes)
    read = _aligned(layout.size_bytes)
    read[:] = codes
    tensors = RgbTensors(wanted_rgb.ctypes.data, wanted_rgb.ctypes.data, *padded, value_bytes)
    for direction, array in (("rgb_from_yuv", read), ("yuv_from_rgb", wanted)):
        argument = kernel_pass(layout.planes_at(array.ctypes.data), tensors, size=size, color=COLOR)
        host_kernels().run(kernel_name(direction, layout, value_bytes), argument, 2000, 2000)  # type: ignore[arg-type]
    dtype = np.float16 if precision == "fp16" else np.float32
    # A GPU fuses multiply and add, so the last bit differs; that may move a code to its neighbour.
    difference = np.abs(found_rgb.view(dtype).astype(np.float64) - wanted_rgb.view(dtype))
    assert difference.max() <= (1e-3 if precision == "fp16" else 1e-6)
    sample = np.uint8 if layout.sample_bytes == 1 else np.uint16
    for offset, (plane_rows, columns), pitch in zip(
        layout.offsets_bytes, layout.plane_shapes, layout.pitches_bytes, strict=True
    ):
        planes = [
            memory[offset : offset + plane_rows * pitch].view(sample).reshape(plane_rows, -1)[:, :columns].astype(int)
            for memory in (found, wanted)
        ]
        assert np.abs(planes[0] - planes[1]).max() <= (64 if pix_fmt == "p010le" else 1)
        ends = [
            memory[offset : offset + plane_rows * pitch].reshape(plane_rows, pitch)[:, columns * layout.sample_bytes :]
            for memory in (found, codes)
        ]
        assert np.array_equal(*ends)


@pytest.mark.parametrize("size", [(640, 360), (53, 35)])
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_steadying_gives_the_values_of_the_host(device: CudaDevice, precision: str, size: tuple[int, int]) -> None:
    """A pan and a cut; what the host's values are worth is tested elsewhere."""
    sources = panned_frames(*size)
    found = steadied(device, sources, precision)
    with HostDevice(seed=0, max_delay_seconds=0) as host:
        wanted = steadied(host, sources, precision)
    assert [is_cut for _, is_cut in found] == [is_cut for _, is_cut in wanted] == [False] * 4 + [True, False]
    for (picture, _), (reference, _) in zip(found, wanted, strict=True):
        difference = np.abs(picture - reference)
        # A GPU fuses multiply and add: the last bit of a flow differs, and with it what just counts as moving.
        assert difference.mean() < 2e-4
        assert np.percentile(difference, 99) < 2e-3


def panned_frames(width: int, height: int) -> list[np.ndarray]:  # type: ignore[type-arg]
    """Six pictures (3, height, width) in [0, 1], moving by (2, 1) pixels each; the last two are another scene."""
    random = np.random.default_rng(0)
    scenes = []
    for _ in range(2):
        coarse = random.random((3, height // 6 + 6, width // 6 + 6), np.float32)
        scenes.append(coarse.repeat(6, axis=1).repeat(6, axis=2))
    return [
        scenes[number // 4][:, number : number + height, 2 * number : 2 * number + width].copy() for number in range(6)
    ]


def steadied(
    device: Device,
    sources: list[np.ndarray],
    precision: str,  # type: ignore[type-arg]
) -> list[tuple[np.ndarray, bool]]:  # type: ignore[type-arg]
    """The sources, painted in other colours under flicker and steadied on `device`; and whether a scene begins."""
    dtype = np.dtype(np.float16 if precision == "fp16" else np.float32)
    random, results = np.random.default_rng(1), []
    _, height, width = sources[0].shape
    num_bytes = 3 * height * width * dtype.itemsize
    with (
        device.current(),
        device.allocate(num_bytes) as source,
        device.allocate(num_bytes) as styled,
        device.allocate(8) as flags,
        device.allocate_host(num_bytes) as host,
        device.allocate_host(8) as host_flags,
    ):
        stream = device.open_stream()
        host_flags.data[:] = 0
        device.upload(flags.address, host_flags, 8, cuda_stream=stream)
        tensors = RgbTensors(source.address, styled.address, width, height, dtype.itemsize)
        with closing(
            DeviceSteadier(device, tensors, size=(width, height), amount=0.9, flags=flags.address)
        ) as steadier:
            for frame in sources:
                painted = 0.8 * frame[::-1] + 0.1 * random.random(frame.shape, np.float32)
                for memory, values in ((source, frame), (styled, painted)):
                    host.data[:] = values.astype(dtype).reshape(-1).view(np.uint8)
                    device.upload(memory.address, host, num_bytes, cuda_stream=stream)
                    stream.synchronize()
                steadier.enqueue(cuda_stream=stream)
                device.download(host, steadier.result, num_bytes, cuda_stream=stream)
                device.download(host_flags, flags.address, 8, cuda_stream=stream)
                stream.synchronize()
                has_nan, is_cut = host_flags.data.view(np.int32)
                assert not has_nan
                results.append((host.data.view(dtype).reshape(frame.shape).astype(np.float32), bool(is_cut)))
    return results


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
@pytest.mark.parametrize("pix_fmt", ["nv12", "yuv420p", "p010le"])
def test_every_picture_comes_out_once_and_whole(device: CudaDevice, pix_fmt: str, precision: str) -> None:
    width, height, count = 642, 362, 40
    runner = CopyRunner(identity(precision))
    stream = device.open_stream()
    seen = []
    with DevicePass(
        device,
        runner,
        cuda_stream=stream,
        size=(width, height),
        output=SurfaceLayout(pix_fmt, width, height),
        output_color=COLOR,
        is_encoded_by_host=True,
    ) as device_pass:
        waiting = []
        for number in range(count):
            picture = av.VideoFrame(width, height, pix_fmt)
            for index, plane in enumerate(host_planes(picture)):
                code = 128 if index else 16 + number
                if pix_fmt == "p010le":
                    plane.view(np.uint16)[:] = code << 8
                else:
                    plane[:] = code
            picture.pts, picture.time_base, picture.duration = number, Fraction(1, 25), 1
            surface = Surface(picture, COLOR)
            waiting.append((surface, device_pass.begin(surface, finish=Finish())))
            while len(waiting) == NUM_IN_FLIGHT or (number == count - 1 and waiting):
                done, complete = waiting.pop(0)
                complete()
                luma = host_planes(done.picture)[0]
                values = np.unique(luma.view(np.uint16) >> 8 if pix_fmt == "p010le" else luma)
                assert len(values) == 1
                seen.append((done.pts, int(values[0]) - 16))
                del done
        assert seen == [(number, number) for number in range(count)]


@pytest.mark.parametrize("pix_fmt", ["nv12", "p010le"])
def test_ffmpeg_works_in_the_same_context(device: CudaDevice, pix_fmt: str) -> None:
    """It takes the context that is there already, and reads a picture that was finished in our memory."""
    assert gpu_refusal(0) == ""
    context = CudaContext(device_id=0, primary_ctx=True)
    layout = SurfaceLayout(pix_fmt, 642, 362)
    codes = np.random.default_rng(0).integers(0, 256, layout.size_bytes, np.uint8)
    returned = []
    with device.current(), closing(OutputSlot(device, layout, is_for_host=False)) as slot:
        with device.allocate_host(layout.size_bytes) as host:
            stream = device.open_stream()
            host.data[:] = codes
            device.upload(slot.buffer.address, host, layout.size_bytes, cuda_stream=stream)
            stream.synchronize()
        picture = picture_of(slot, lambda: returned.append(slot), cuda_context=context)
        assert (samples_pix_fmt(picture), is_on_device(picture)) == (pix_fmt, True)
        assert tuple(plane.buffer_ptr for plane in picture.planes) == slot.planes.addresses
        assert tuple(plane.line_size for plane in picture.planes) == layout.pitches_bytes
        copied = downloaded(picture)
        assert not returned
        del picture
        assert returned == [slot]
    for plane, offset, pitch in zip(host_planes(copied), layout.offsets_bytes, layout.pitches_bytes, strict=True):
        rows, row_bytes = plane.shape
        wanted = codes[offset : offset + rows * pitch].reshape(rows, pitch)[:, :row_bytes]
        assert np.array_equal(plane, wanted)


def test_a_graph_repeats_what_was_recorded(device: CudaDevice) -> None:
    with device.current(), device.allocate(256) as memory, device.allocate_host(256) as host:
        stream = device.open_stream()
        host.data[:] = 1
        graph = CudaGraph(stream, lambda: device.upload(memory.address, host, 256, cuda_stream=stream))
        for number in (7, 9):
            host.data[:] = number
            graph.launch(cuda_stream=stream.handle)
            stream.synchronize()
            host.data[:] = 0
            device.download(host, memory.address, 256, cuda_stream=stream)
            stream.synchronize()
            assert np.unique(host.data).tolist() == [number]
        graph.close()
        graph.close()


def test_a_pass_that_repeats_is_recorded(device: CudaDevice) -> None:
    with device.current(), device.allocate(256) as read, device.allocate(256) as written:
        stream = device.open_stream()
        repeated = RepeatedPass(device, cuda_stream=stream, name="a copy")
        source, target = (DeviceTensor(memory.address, (64,), "fp32") for memory in (read, written))
        runner, queued = CopyRunner(identity("fp32")), []

        def work() -> None:
            queued.append(len(queued))
            runner.enqueue(source, target=target, cuda_stream=stream.handle)

        with device.allocate_host(256) as host:
            for number in range(1, 6):
                host.data[:] = number
                device.upload(source.address, host, 256, cuda_stream=stream)
                repeated.enqueue((source, target), bind=lambda: None, work=work)
                device.download(host, target.address, 256, cuda_stream=stream)
                stream.synchronize()
                assert np.unique(host.data).tolist() == [number]
        assert repeated.is_recorded
        assert len(queued) == 3
        repeated.forget()


def test_too_little_memory_is_one_line(device: CudaDevice) -> None:
    with pytest.raises(BackendError, match=r"^out of device memory: 8000000 MB wanted, \d+ of \d+ MB are free on "):
        device.allocate(8_000_000_000_000)


def test_a_gpu_that_is_not_there_is_one_line() -> None:
    with pytest.raises(BackendUnavailableError, match=r"there is no GPU 99: this machine has \d+"):
        CudaDevice(99)


def _aligned(size_bytes: int) -> np.ndarray:  # type: ignore[type-arg]
    memory = np.zeros(size_bytes + 256, np.uint8)
    start = -memory.ctypes.data % 256
    return memory[start : start + size_bytes]
