"""What steadying on a GPU is worth beside steadying on the CPU: their searches differ, so their pictures do.

    python tests/measure_steady.py CLIP WIDTHxHEIGHT FIRST:END STYLE...

The kernels of the GPU run on this CPU, compiled by its C++ compiler, on float32 and on float16. For each style: e_stab
plain and steadied, the mean gradient as a ratio to the plain one, how far the steadied pictures are apart, and the
processor time of a frame on the CPU, whose caches are emptied before it as a network does.
"""

import sys
import time
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from helpers.host_steady import HostSteadier
from stylize.benchmarks.appearance import mean_gradient
from stylize.benchmarks.clip_file import read_frames
from stylize.benchmarks.steadiness import estimated_reference
from stylize.benchmarks.temporal import pair_errors, rms
from stylize.runtime import Stylizer
from stylize.runtime.frame import WHITE, Frame
from stylize.runtime.steady import Steadier

AMOUNT = 0.9
CACHE_BYTES = 64 << 20  # more than any
Pixels = NDArray[np.uint8]


class Steadies(Protocol):
    def push(self, source: list[NDArray[np.uint16]], stylized_CHW: NDArray[np.float32], /) -> bool: ...


def steadied(frames: Pixels, stylized: Pixels, steadier: Steadies) -> tuple[Pixels, float]:
    """The stylized clip after steadying, rounded as a video is, and milliseconds a frame, the first one left out."""
    result = np.empty_like(stylized)
    seconds = []
    for source, picture, target in zip(frames, stylized, result, strict=True):
        result_CHW = np.ascontiguousarray(np.moveaxis(picture, -1, 0)) * np.float32(WHITE / 255)
        planes = Frame.from_array(source).planes
        np.ones(CACHE_BYTES, np.uint8)
        started = time.thread_time()
        steadier.push(planes, result_CHW)
        seconds.append(time.thread_time() - started)
        target[:] = np.rint(np.moveaxis(result_CHW, 0, -1) * (255 / WHITE))
    return result, 1e3 * float(np.mean(seconds[1:]))


def main(clip: Path, size: str, part: str, styles: list[str]) -> None:
    width, height = map(int, size.split("x"))
    first, end = map(int, part.split(":"))
    frames = read_frames(clip, num_frames=end, size_px=(width, height))[first:]
    reference = estimated_reference(clip.name, frames)
    print(f"{clip.name}, {len(frames)} frames of {size} from {first} on: e_stab {reference.e_stab:.4f}")
    e_stabs = f"{'plain':>8}{'CPU':>8}{'f32':>8}{'f16':>8}{'f32/CPU':>9}"
    print(f"{'':18}{e_stabs}{'gradient: CPU':>15}{'f32':>6}{'apart':>8}{'ms':>6}")
    for style in styles:
        with Stylizer(style) as stylizer:
            plain = stylizer.run(reference.frames)
        on_cpu, milliseconds = steadied(reference.frames, plain, Steadier(AMOUNT))
        results = {"plain": plain, "CPU": on_cpu}
        for name, precision in (("f32", "fp32"), ("f16", "fp16")):
            steadier = HostSteadier(AMOUNT, precision=precision)  # type: ignore[arg-type]
            results[name], _ = steadied(reference.frames, plain, steadier)
            steadier.close()
        e_stab = {name: rms(pair_errors(result, reference.motions)) for name, result in results.items()}
        sharp = {name: mean_gradient(result) / mean_gradient(plain) for name, result in results.items()}
        apart = np.abs(results["CPU"].astype(np.float32) - results["f32"]).mean() / 255
        print(
            f"{style:18}{''.join(f'{value:8.4f}' for value in e_stab.values())}{e_stab['f32'] / e_stab['CPU']:9.2f}"
            f"{sharp['CPU']:15.2f}{sharp['f32']:6.2f}{apart:8.4f}{milliseconds:6.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])
