"""Proof that an exported model paints what the trained network paints.

Both run on the same frames, padded the way `stylize-run` pads them, and the model through the very
runner that `stylize-run` uses.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from stylize.runtime.artifact import open_artifact
from stylize.runtime.contract import NOISE_INPUT, STYLE_WEIGHTS_INPUT, ModelContract, Precision
from stylize.runtime.demo import draw_demo_frames
from stylize.runtime.extra_inputs import ExtraInputs, Extras
from stylize.runtime.network_pass import padded_size, reflect_pad
from stylize.runtime.plan import EnginePrecision
from stylize.runtime.runner import Backend, HostRunner, open_runner
from stylize.train.scenes import draw_scene
from stylize.train.style_network import StyleNetwork

__all__ = [
    "FLOORS",
    "FrameFidelity",
    "cases",
    "check_floor",
    "compare_on_frames",
    "fidelity",
    "figures_of",
    "growth_of_a_tiny_change",
    "verification_frames",
]

FrameHWC = NDArray[np.uint8]

# On pictures and noise trained networks make a change 2 to 10 times larger, on a patch of 3x5 px up to 900 times.
_LARGEST_GROWTH = 100.0
# Of the range; in half precision two or more steps between neighbouring numbers.
_TINY_CHANGES: Mapping[Precision, float] = {"fp32": 1e-6, "fp16": 2e-3}


@dataclass(frozen=True, kw_only=True)
class FrameFidelity:
    """How far the model is from the network on one frame."""

    name: str
    width: int
    height: int
    max_abs_error: float
    """In [0, 1], over all pixels and channels."""
    psnr_db: float
    """Peak signal to noise ratio for a peak of 1; infinite when equal."""
    growth: float = 1.0
    """How many times larger a tiny change of this frame comes out; only measured where the model is off."""

    @property
    def is_telling(self) -> bool:
        """Whether the frame can tell a wrong model from one that rounds differently.

        In a picture of one colour every instance norm divides rounding by rounding: a trained `reconet` makes a
        change of 1e-6 there 600,000 times larger, and differs from itself in float64 by 0.13 of the range.
        """
        return self.growth <= _LARGEST_GROWTH


@dataclass(frozen=True, kw_only=True)
class Floor:
    """What an export must reach to be written."""

    max_abs_error: float
    psnr_db: float


# float32 graphs differ by the order of summation only. Half precision rounds activations to 11 bits;
# at 45 dB the mean error is 0.6 % of the range, under one and a half code values.
FLOORS: Mapping[EnginePrecision, Floor] = {
    "fp32": Floor(max_abs_error=1e-3, psnr_db=60.0),
    "fp16": Floor(max_abs_error=1.0, psnr_db=45.0),
    # Of an engine against the integers of its own ONNX, which may round to the neighbour in every layer.
    "int8": Floor(max_abs_error=1.0, psnr_db=32.0),
}


def figures_of(results: Sequence[FrameFidelity]) -> dict[str, float]:
    """The worst of the results that tell something, as contracts and headers hold it."""
    telling = [result for result in results if result.is_telling]
    return {
        "max_abs_error": max(result.max_abs_error for result in telling),
        "min_psnr_db": min(result.psnr_db for result in telling),
        "num_frames": float(len(telling)),
    }


def growth_of_a_tiny_change(
    paint: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    frame: NDArray[np.float32],
    *,
    precision: Precision = "fp32",
    white: float = 1.0,
) -> float:
    """Largest difference between what is painted of two frames that hardly differ, over their difference.

    They differ everywhere, by a millionth of the range, for half precision by two thousandths.

    Args:
        paint: gives RGB in [0, 1].
        frame: RGB in [0, white], of any shape that `paint` takes.
        precision: what it is painted in.
        white: the largest value of `frame`.
    """
    signs = np.random.default_rng(0).choice(np.array([-1, 1], np.float32), frame.shape)
    tiny = _TINY_CHANGES[precision]
    change = paint((frame + signs * white * tiny).astype(np.float32)) - paint(frame)
    return float(np.abs(change).max()) / tiny


def fidelity(
    name: str,
    frame: FrameHWC,
    *,
    got: NDArray[np.float32],
    expected: NDArray[np.float32],
    growth: Callable[[], float],
) -> FrameFidelity:
    """How far what was painted of a frame is from what should be.

    Args:
        name: of the frame.
        frame: (H, W, 3) uint8 RGB.
        got: RGB in [0, 1], of any shape.
        expected: of the same shape.
        growth: measures `FrameFidelity.growth`; asked only where the picture is off.
    """
    error = np.abs(got - expected)
    mean_square = float(np.square(error, dtype=np.float64).mean())
    # Whatever the precision. NaN needs no second look, since nothing excuses it.
    is_off = bool(error.max() > FLOORS["fp32"].max_abs_error)
    return FrameFidelity(
        name=name,
        width=frame.shape[1],
        height=frame.shape[0],
        max_abs_error=float(error.max()),
        psnr_db=float(-10 * np.log10(mean_square)) if mean_square else float("inf"),
        growth=growth() if is_off else 1.0,
    )


def verification_frames(size: tuple[int, int] | None) -> dict[str, FrameHWC]:
    """Frames (H, W, 3) uint8 RGB that exercise a model: drawn pictures, noise, and awkward sizes.

    Args:
        size: (width, height) when the model takes one size only; None gives odd, tiny and large sizes.
    """
    landscape = next(iter(draw_demo_frames()))
    noise = np.random.default_rng(0).integers(0, 256, (123, 217, 3), np.uint8)
    if size is None:
        return {
            "landscape": landscape,
            "scene, odd size": draw_scene(1, height=239, width=321),
            "scene, multiple of four": draw_scene(2, height=256, width=384),
            "noise, odd size": noise,
            "tiny": landscape[200:205, 100:103],
            "one pixel": landscape[100:101, 100:101],
        }
    width, height = size
    return {
        "scene": draw_scene(1, height=height, width=width),
        "noise": np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8),
    }


def compare_on_frames(network: StyleNetwork, model: Path, frames: Mapping[str, FrameHWC]) -> Iterable[FrameFidelity]:
    """Run the float32 network in PyTorch and the model in ONNX Runtime on each frame.

    Args:
        network: in evaluation mode on the CPU.
        model: an exported ONNX file with its contract.
        frames: (H, W, 3) uint8 RGB by name.

    Yields:
        One result for each of `cases`.

    Raises:
        StylizeError: ONNX Runtime refuses the model or fails on a frame.
    """
    artifact = open_artifact(model)
    with open_runner(artifact, backend=Backend.ONNXRUNTIME) as runner:
        for name, mix, frame in cases(artifact.contract, frames):
            padded_1CHW = _padded(frame, artifact.contract)
            height, width = frame.shape[:2]
            padded_height, padded_width = padded_1CHW.shape[2:]
            extras = ExtraInputs(artifact.contract, style_mix=mix).at(0.0, height=padded_height, width=padded_width)
            paint = partial(_expected, network, extras=extras)
            expected = paint(padded_1CHW)[..., :height, :width]
            got = _run(runner, padded_1CHW, extras)[..., :height, :width]
            growth = partial(growth_of_a_tiny_change, paint, padded_1CHW)
            yield fidelity(name, frame, got=got, expected=expected, growth=growth)


def check_floor(results: Iterable[FrameFidelity], precision: EnginePrecision) -> None:
    """Refuse a model that differs too much from its network.

    Raises:
        ValueError: a frame that tells something is below the floor of this precision, any is not finite, or none
            tells anything.
    """
    floor = FLOORS[precision]
    results = list(results)
    for result in results:
        if math.isfinite(result.max_abs_error) and not result.is_telling:
            continue
        # Written so that NaN fails too.
        if not (result.max_abs_error <= floor.max_abs_error and result.psnr_db >= floor.psnr_db):
            raise ValueError(
                f"the exported model differs from the network on {result.name!r} ({result.width}x{result.height}): "
                f"max error {result.max_abs_error:.2e} (at most {floor.max_abs_error:g}), "
                f"PSNR {result.psnr_db:.1f} dB (at least {floor.psnr_db:g}); nothing was written"
            )
    if not any(result.is_telling for result in results):
        raise ValueError(
            f"on all {len(results)} frames a tiny change comes out more than {_LARGEST_GROWTH:g} times larger, so "
            "nothing can be proven of this network: train it longer, or give pictures with --frames; "
            "nothing was written"
        )


def _padded(frame_HWC: FrameHWC, contract: ModelContract) -> NDArray[np.float32]:
    """(1, 3, H, W) float32 in [0, 1], mirrored up to a size the model takes."""
    height, width = frame_HWC.shape[:2]
    padded_width, padded_height = contract.fixed_size or padded_size(contract, width, height)
    padded = np.zeros((1, 3, padded_height, padded_width), np.float32)
    padded[0, :, :height, :width] = frame_HWC.transpose(2, 0, 1) / np.float32(255)
    reflect_pad(padded[0], width=width, height=height)
    return padded


def cases(
    contract: ModelContract, frames: Mapping[str, FrameHWC]
) -> Iterator[tuple[str, Sequence[float] | str | None, FrameHWC]]:
    """Name, mix of styles and frame: each style alone on the first frame, an even mix of all on every one."""
    if not contract.style_names:
        yield from ((name, None, frame) for name, frame in frames.items())
        return
    first, picture = next(iter(frames.items()))
    yield from ((f"{first}, {style}", style, picture) for style in contract.style_names)
    yield from ((f"{name}, mixed", [1.0] * len(contract.style_names), frame) for name, frame in frames.items())


def _expected(network: StyleNetwork, source_NCHW: NDArray[np.float32], *, extras: Extras) -> NDArray[np.float32]:
    mix, noise = (
        torch.from_numpy(extras[name].astype(np.float32)) if name in extras else None
        for name in (STYLE_WEIGHTS_INPUT, NOISE_INPUT)
    )
    with torch.no_grad():
        stylized: NDArray[np.float32] = network(torch.from_numpy(source_NCHW), mix, noise).numpy()
    return stylized


def _run(runner: HostRunner, source_NCHW: NDArray[np.float32], extras: Extras) -> NDArray[np.float32]:
    source = source_NCHW.astype(np.float16) if runner.contract.precision == "fp16" else source_NCHW
    target = np.empty_like(source)
    runner.enqueue(source, target=target, cuda_stream=None, extras=extras)
    return target.astype(np.float32)
