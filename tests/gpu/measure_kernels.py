"""Bandwidth of the colour kernels and of copies from and to the host, beside that of a copy on the GPU, and the time of
steadying a picture; writes JSON.
"""

import ctypes
import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np

from stylize.runtime.color import Color
from stylize.runtime.cuda import CudaDevice
from stylize.runtime.cuda_graph import CudaGraph
from stylize.runtime.device import DeviceBuffer
from stylize.runtime.device_color import RgbTensors, SurfaceLayout, kernel_name, kernel_pass
from stylize.runtime.device_steady import DeviceSteadier
from stylize.runtime.gpu import call_driver

COLOR = Color(matrix=1, is_full_range=False)
NUM_LAUNCHES, NUM_SAMPLES = 50, 15
BEYOND_CACHES_BYTES = 256 << 20  # 60 MB in an H200, 96 in an RTX 5090


def seconds_per_launch(device: CudaDevice, work: Callable[[], None]) -> float:
    """Median over samples of many launches each; the first sample warms up."""
    samples = []
    for _ in range(NUM_SAMPLES + 1):
        device.synchronize()
        started = time.perf_counter()
        for _ in range(NUM_LAUNCHES):
            work()
        device.synchronize()
        samples.append((time.perf_counter() - started) / NUM_LAUNCHES)
    return statistics.median(samples[1:])


def measured(device: CudaDevice, width: int, height: int) -> dict[str, float]:
    """Bytes moved per second, in turn over so many pictures that no cache holds them, queued as one graph.

    A kernel at 1080p takes as long as queueing it, and its picture fits into the cache of a large GPU.
    """
    layout = SurfaceLayout("nv12", width, height)
    rgb_bytes = 3 * width * height * 2
    stream = device.open_stream()
    names = [kernel_name(direction, layout, 2) for direction in ("rgb_from_yuv", "yuv_from_rgb")]
    rates: dict[str, float] = {}
    with ExitStack() as owned:
        owned.enter_context(device.current())

        def addresses(size_bytes: int) -> list[int]:
            return [owned.enter_context(device.allocate(size_bytes)).address for _ in range(num_pictures)]

        num_pictures = -(-BEYOND_CACHES_BYTES // (layout.size_bytes + rgb_bytes))
        surfaces, sources, styled = addresses(layout.size_bytes), addresses(rgb_bytes), addresses(rgb_bytes)
        host = owned.enter_context(device.allocate_host(layout.size_bytes))

        def convert(name: str, number: int, columns: int, rows: int) -> None:
            tensors = RgbTensors(sources[number], styled[number], width, height, 2)
            planes = layout.planes_at(surfaces[number])
            argument = kernel_pass(planes, tensors, size=(width, height), color=COLOR)
            device.launch(name, argument, columns, rows, cuda_stream=stream)

        def copy(number: int) -> None:
            numbers = (styled[number], sources[number], rgb_bytes, stream.handle)
            call_driver("cuMemcpyDtoDAsync_v2", *map(ctypes.c_ulonglong, numbers))

        works: dict[str, tuple[Callable[[int], None], int]] = {
            "copy": (copy, 2 * rgb_bytes),
            "copy in": (
                lambda number: device.upload(surfaces[number], host, layout.size_bytes, cuda_stream=stream),
                layout.size_bytes,
            ),
            "copy out": (
                lambda number: device.download(host, surfaces[number], layout.size_bytes, cuda_stream=stream),
                layout.size_bytes,
            ),
            names[0]: (
                lambda number: convert(names[0], number, -(-width // 16), height),
                layout.size_bytes + rgb_bytes,
            ),
            names[1]: (
                lambda number: convert(names[1], number, -(-width // 8), height // 2),
                layout.size_bytes + rgb_bytes,
            ),
        }
        for name, (work, num_bytes) in works.items():
            work(0)  # which loads the kernel
            stream.synchronize()
            with closing(
                CudaGraph(stream, lambda work=work: [work(number) for number in range(num_pictures)])
            ) as graph:  # type: ignore[misc]
                seconds = seconds_per_launch(device, lambda graph=graph: graph.launch(cuda_stream=stream.handle))  # type: ignore[misc]
            rates[f"{name}_gb_per_second"] = num_pictures * num_bytes / seconds / 1e9
    return rates


def steadying(device: CudaDevice, width: int, height: int) -> dict[str, float]:
    """Time of steadying a picture that moves, queued kernel by kernel and as a graph of two pictures.

    Where the graph is faster, launching is the limit and not the GPU. Both include making RGB of NV12.
    """
    layout = SurfaceLayout("nv12", width, height)
    rgb_bytes = 3 * width * height * 2
    stream = device.open_stream()
    texture = np.repeat(
        np.repeat(np.random.default_rng(0).integers(16, 236, (height // 8 + 1, width // 8 + 2)), 8, 0), 8, 1
    )
    with ExitStack() as owned:
        owned.enter_context(device.current())
        surfaces = [owned.enter_context(device.allocate(layout.size_bytes)) for _ in range(2)]
        source, styled = (owned.enter_context(device.allocate(rgb_bytes)) for _ in range(2))
        flags = owned.enter_context(device.allocate(8))
        host = owned.enter_context(device.allocate_host(layout.size_bytes))
        for number, surface in enumerate(surfaces):
            host.data[:] = 128
            luma = host.data[: layout.offsets_bytes[1]].reshape(height, -1)
            luma[:, :width] = texture[:height, 3 * number : 3 * number + width]
            device.upload(surface.address, host, layout.size_bytes, cuda_stream=stream)
            stream.synchronize()
        name = kernel_name("rgb_from_yuv", layout, 2)

        def make_rgb(target: int, surface: DeviceBuffer) -> None:
            tensors = RgbTensors(target, target, width, height, 2)
            argument = kernel_pass(layout.planes_at(surface.address), tensors, size=(width, height), color=COLOR)
            device.launch(name, argument, -(-width // 16), height, cuda_stream=stream)

        tensors = RgbTensors(source.address, styled.address, width, height, 2)
        steadier = owned.enter_context(
            closing(DeviceSteadier(device, tensors, size=(width, height), amount=0.9, flags=flags.address))
        )

        def two_pictures() -> None:
            for surface in surfaces:
                make_rgb(source.address, surface)
                steadier.enqueue(cuda_stream=stream)

        make_rgb(styled.address, surfaces[0])
        two_pictures()  # the first picture has nothing to hold on to
        graph = owned.enter_context(closing(CudaGraph(stream, two_pictures)))
        works = {"steady": two_pictures, "steady_as_graph": lambda: graph.launch(cuda_stream=stream.handle)}
        return {f"{name}_ms": 1000 * seconds_per_launch(device, work) / 2 for name, work in works.items()}


def main(target: Path) -> None:
    with CudaDevice() as device:
        results = {
            f"{width}x{height}": measured(device, width, height) | steadying(device, width, height)
            for width, height in ((1920, 1080), (3840, 2160))
        }
        gpu = device.gpu.name
    target.write_text(json.dumps({"gpu": gpu, "num_launches": NUM_LAUNCHES, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
