"""Bandwidth of the colour kernels and of copies from and to the host, beside that of a copy on the GPU; writes JSON."""

import ctypes
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from stylize.runtime.color import Color
from stylize.runtime.cuda import CudaDevice
from stylize.runtime.device_color import RgbTensors, SurfaceLayout, kernel_name, kernel_pass

COLOR = Color(matrix=1, is_full_range=False)
NUM_LAUNCHES, NUM_SAMPLES = 200, 15


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
    layout = SurfaceLayout("nv12", width, height)
    rgb_bytes = 3 * width * height * 2
    stream = device.open_stream()
    copy = ctypes.CDLL("libcuda.so.1").cuMemcpyDtoDAsync_v2
    with (
        device.current(),
        device.allocate(layout.size_bytes) as surface,
        device.allocate(rgb_bytes) as source,
        device.allocate(rgb_bytes) as styled,
        device.allocate_host(layout.size_bytes) as host,
    ):
        tensors = RgbTensors(source.address, styled.address, width, height, 2)
        argument = kernel_pass(layout.planes_at(surface.address), tensors, size=(width, height), color=COLOR)
        names = [kernel_name(direction, layout, 2) for direction in ("rgb_from_yuv", "yuv_from_rgb")]
        arguments = [ctypes.c_ulonglong(styled.address), ctypes.c_ulonglong(source.address), ctypes.c_size_t(rgb_bytes)]
        works: dict[str, tuple[Callable[[], None], int]] = {
            "copy": (lambda: copy(*arguments, ctypes.c_void_p(stream.handle)), 2 * rgb_bytes),
            "copy in": (
                lambda: device.upload(surface.address, host, layout.size_bytes, cuda_stream=stream),
                layout.size_bytes,
            ),
            "copy out": (
                lambda: device.download(host, surface.address, layout.size_bytes, cuda_stream=stream),
                layout.size_bytes,
            ),
            names[0]: (
                lambda: device.launch(names[0], argument, width // 16, height, cuda_stream=stream),
                layout.size_bytes + rgb_bytes,
            ),
            names[1]: (
                lambda: device.launch(names[1], argument, width // 8, height // 2, cuda_stream=stream),
                layout.size_bytes + rgb_bytes,
            ),
        }
        return {
            f"{name}_gb_per_second": num_bytes / seconds_per_launch(device, work) / 1e9
            for name, (work, num_bytes) in works.items()
        }


def main(target: Path) -> None:
    with CudaDevice() as device:
        results = {
            f"{width}x{height}": measured(device, width, height) for width, height in ((1920, 1080), (3840, 2160))
        }
        gpu = device.gpu.name
    target.write_text(json.dumps({"gpu": gpu, "num_launches": NUM_LAUNCHES, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
