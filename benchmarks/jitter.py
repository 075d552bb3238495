"""What a model makes of changes that should not matter: noise, a shift of one pixel, a little more light.

One picture is made into a clip whose change is known; the figure is the output's change over the
input's. No flow is estimated. 1 passes the change on as it is, more amplifies it.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stylize.benchmarks.temporal import Clip, FloatArray, unit_frame, warp_backward

__all__ = ["SMALLEST_SIDE_PX", "JitterFigures", "can_be_shifted", "jitter_figures", "noisy_still"]

# Four code values: the noise of a decent camera indoors, and of H.264 at medium quality.
_NOISE_SIGMA = 4 / 255
_LIGHT_STEP = 4 / 255
_NUM_FRAMES = 4  # of the noise and light clips
# Sixteen pixels: the reach of the border padding and of the wrapped column in shallow networks.
_BORDER_PX = 16
_INNER = slice(_BORDER_PX, -_BORDER_PX)

SMALLEST_SIDE_PX = 3 * _BORDER_PX
"""Of a picture that can be measured on."""

Model = Callable[[NDArray[np.uint8]], Clip]
"""From (T, H, W, 3) uint8 RGB to the stylized clip of the same shape, every frame on its own."""


@dataclass(frozen=True, kw_only=True)
class JitterFigures:
    """Output change over input change, each a root mean square; 0 would be perfectly calm.

    Attributes:
        noise: under independent noise of 4 code values per frame.
        shift: after shifting by one pixel and shifting back; 0 when strokes follow the picture.
        light: under brightness rising by 4 code values per frame.
    """

    noise: float
    shift: float
    light: float


def _rms_change(later: FloatArray, earlier: FloatArray) -> float:
    return float(np.sqrt(np.square(later - earlier).mean(dtype=np.float64)))


def _bytes(frame: FloatArray) -> NDArray[np.uint8]:
    return (np.clip(frame, 0, 1) * 255).round().astype(np.uint8)


def noisy_still(picture: NDArray[np.uint8], *, num_frames: int) -> NDArray[np.uint8]:
    """A static clip as a camera sees it: one picture under independent noise of 4 code values.

    Returns:
        (num_frames, H, W, 3) uint8.
    """
    random = np.random.default_rng(0)
    still = unit_frame(picture)
    noise = random.normal(0, _NOISE_SIGMA, (num_frames, *picture.shape)).astype(np.float32)
    return np.stack([_bytes(still + frame) for frame in noise])


def _changes(clip: Clip) -> float:
    frames = [unit_frame(frame) for frame in clip]
    squared = [_rms_change(later, earlier) ** 2 for earlier, later in itertools.pairwise(frames)]
    return float(np.sqrt(np.mean(squared)))


def _shifted(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.roll(picture, -1, axis=1)


def can_be_shifted(picture: NDArray[np.uint8]) -> bool:
    """Whether a shift by one pixel changes a picture: not so a black one."""
    return not np.array_equal(_shifted(picture)[_INNER, _INNER], picture[_INNER, _INNER])


def _shift_ratio(picture: NDArray[np.uint8], model: Model) -> float:
    """Columns on the right border are left out: what enters there is not known."""
    shifted = _shifted(picture)
    original, moved = (unit_frame(frame) for frame in model(np.stack([picture, shifted])))
    flow_px = np.zeros((*picture.shape[:2], 2), np.float32)
    flow_px[..., 0] = -1
    returned = warp_backward(moved, flow_px)
    source_change = _rms_change(unit_frame(shifted)[_INNER, _INNER], unit_frame(picture)[_INNER, _INNER])
    return _rms_change(returned[_INNER, _INNER], original[_INNER, _INNER]) / source_change


def jitter_figures(picture: NDArray[np.uint8], model: Model) -> JitterFigures:
    """Feed a model the three disturbed versions of one picture.

    Args:
        picture: (H, W, 3) uint8 RGB, at least 48x48 and not of one colour.
        model: stylizes a clip, every frame on its own.

    Raises:
        ValueError: the picture is too small or has no horizontal change to shift.
    """
    if min(picture.shape[:2]) < SMALLEST_SIDE_PX:
        raise ValueError(
            f"the picture is {picture.shape[1]}x{picture.shape[0]} px: "
            f"the shift test needs {SMALLEST_SIDE_PX}x{SMALLEST_SIDE_PX}"
        )
    if not can_be_shifted(picture):
        raise ValueError("every column of the picture is the same: a shift would change nothing")
    noisy = noisy_still(picture, num_frames=_NUM_FRAMES)
    # Lowered contrast leaves room for the light to rise without clipping.
    dimmed = unit_frame(picture) * np.float32(0.9)
    rising = np.stack([_bytes(dimmed + np.float32(step * _LIGHT_STEP)) for step in range(_NUM_FRAMES)])
    return JitterFigures(
        noise=_changes(model(noisy)) / _changes(noisy),
        shift=_shift_ratio(picture, model),
        light=_changes(model(rising)) / _changes(rising),
    )
