"""Proof that a model made from an ONNX file paints what that file paints, and so does its engine."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from stylize.export.verify import FrameFidelity, cases, fidelity, growth_of_a_tiny_change
from stylize.runtime.artifact import Artifact
from stylize.runtime.contract import ModelContract
from stylize.runtime.extra_inputs import ExtraInputs
from stylize.runtime.network_pass import padded_size, reflect_pad
from stylize.runtime.runner import Backend, HostRunner, open_runner
from stylize.runtime.stylizer import Stylizer

__all__ = ["compare_engine", "compare_models"]

FrameHWC = NDArray[np.uint8]
PictureHWC = NDArray[np.float32]
"""RGB in [0, 1]."""


def compare_models(original: Artifact, made: Artifact, frames: Mapping[str, FrameHWC]) -> Iterator[FrameFidelity]:
    """Run both in ONNX Runtime on each frame, whatever range and layout each has.

    Args:
        original: the given file; a foreign one too.
        made: what was made from it.
        frames: (H, W, 3) uint8 RGB by name.

    Yields:
        One result for each of `cases`.

    Raises:
        StylizeError: ONNX Runtime refuses a model or fails on a frame.
    """
    with (
        open_runner(original, backend=Backend.ONNXRUNTIME) as first,
        open_runner(made, backend=Backend.ONNXRUNTIME) as second,
    ):
        for name, mix, frame in cases(made.contract, frames):
            # The frame as the stricter of the two wants it; both see the same pixels.
            size = _padded_size(frame, original.contract, made.contract)
            paint = partial(_painted, padded_size=size, mix=mix)
            expected, got = paint(first, frame), paint(second, frame)
            yield fidelity(name, frame, got=got, expected=expected, growth=partial(_growth, first, frame, size, mix))


def compare_engine(
    exact: Artifact, onnx: Artifact, plan: Artifact, frames: Mapping[str, FrameHWC]
) -> Iterator[FrameFidelity]:
    """Run the ONNX model in ONNX Runtime and the engine on the GPU, both the way `stylize-run` does.

    What is compared are the 8-bit pictures that come out: each rounds by up to half a code value.

    Args:
        exact: the model that was made into `onnx`, by which frames that can tell nothing are known.
        onnx: the model the engine was built from.
        plan: a plan whose engine fits this machine.
        frames: (H, W, 3) uint8 RGB by name.

    Yields:
        One result per frame, in order.

    Raises:
        StylizeError: the engine cannot be run here, or fails.
    """
    # One mix, since starting an engine takes its time; no two shares are equal, so that none can be taken for another.
    mix = [1.0 + number for number, _ in enumerate(onnx.contract.style_names)] or None
    with (
        Stylizer(onnx, backend=Backend.ONNXRUNTIME, style_mix=mix) as first,
        Stylizer(plan, style_mix=mix) as second,
        open_runner(exact, backend=Backend.ONNXRUNTIME) as runner,
    ):
        for name, frame in frames.items():
            expected, got = (stylizer.run(frame[None])[0].astype(np.float32) / 255 for stylizer in (first, second))
            size = _padded_size(frame, exact.contract, onnx.contract)
            yield fidelity(name, frame, got=got, expected=expected, growth=partial(_growth, runner, frame, size, mix))


def _growth(
    runner: HostRunner, frame: FrameHWC, padded_size: tuple[int, int], mix: Sequence[float] | str | None
) -> float:
    return growth_of_a_tiny_change(
        lambda changed: _painted(runner, changed, padded_size, mix),
        frame.astype(np.float32),
        precision=runner.contract.precision,
        white=255.0,
    )


def _painted(
    runner: HostRunner,
    frame: FrameHWC | PictureHWC,
    padded_size: tuple[int, int],
    mix: Sequence[float] | str | None,
) -> PictureHWC:
    """What the runner's model makes of the frame, 0..255, in this mix of its styles."""
    contract = runner.contract
    height, width = frame.shape[:2]
    padded_width, padded_height = padded_size
    black, white = contract.value_range
    source_CHW = np.zeros((3, padded_height, padded_width), np.float32)
    source_CHW[:, :height, :width] = frame.transpose(2, 0, 1) / np.float32(255) * (white - black) + black
    reflect_pad(source_CHW, width=width, height=height)
    source = source_CHW[None] if contract.layout == "NCHW" else source_CHW.transpose(1, 2, 0)[None]
    source = np.ascontiguousarray(source, np.float16 if contract.precision == "fp16" else np.float32)
    target = np.empty_like(source)
    extras = ExtraInputs(contract, style_mix=mix).at(0.0, height=padded_height, width=padded_width)
    runner.enqueue(source, target=target, cuda_stream=None, extras=extras)
    painted_HWC = target[0].transpose(1, 2, 0) if contract.layout == "NCHW" else target[0]
    scaled: PictureHWC = (painted_HWC[:height, :width].astype(np.float32) - black) / np.float32(white - black)
    return np.clip(scaled, 0.0, 1.0)


def _padded_size(frame: FrameHWC, *contracts: ModelContract) -> tuple[int, int]:
    """(width, height) in pixels that all models take."""
    fixed = next((contract.fixed_size for contract in contracts if contract.fixed_size is not None), None)
    if fixed is not None:
        return fixed
    stricter = max(contracts, key=lambda contract: contract.size_multiple)
    return padded_size(stricter, frame.shape[1], frame.shape[0])
