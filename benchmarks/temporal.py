"""How steady a stylized clip is: warping errors with occlusion, and what moves although nothing should.

Every figure follows one written definition; `FORMULA_VERSION` changes when any of them does, and
stands in every result file. Clips are (T, H, W, 3) RGB, uint8 in [0, 255] or float in [0, 1]; all
errors are on the [0, 1] scale. Errors are averaged over all H * W * 3 elements, invisible ones
counting as zero, which is what the ReCoNet paper divides by.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FORMULA_VERSION",
    "Clip",
    "FloatArray",
    "Mask",
    "PairMotion",
    "flicker_map",
    "luminance",
    "luminance_pair_errors",
    "pair_errors",
    "relative_error",
    "rms",
    "static_flicker",
    "t_of_px",
    "unit_frame",
    "visible_mask",
    "warp_backward",
]

FORMULA_VERSION = 1

FloatArray = NDArray[np.float32]
Mask = NDArray[np.bool_]
Clip = NDArray[np.uint8] | NDArray[np.float32]

# ITU-R BT.709-6, item 3.2. Often misprinted with 0.7512 for green.
_LUMINANCE_WEIGHTS = np.array([0.2126, 0.7152, 0.0722], np.float32)

# Sundaram, Brox, Keutzer, "Dense point trajectories by GPU-accelerated large displacement optical
# flow" (ECCV 2010), as used by Ruder et al. 2016, Lai et al. 2018 and the ReCoNet ports.
_CONSISTENCY_SLOPE = 0.01
_CONSISTENCY_OFFSET_PX2 = 0.5
_BOUNDARY_SLOPE = 0.01
_BOUNDARY_OFFSET = 0.002

# TecoGAN, metrics.py: Farneback's parameters and the border left out.
_TOF_PYRAMID_SCALE, _TOF_LEVELS, _TOF_WINDOW_PX = 0.5, 3, 15
_TOF_ITERATIONS, _TOF_NEIGHBOURHOOD_PX, _TOF_SIGMA = 3, 5, 1.2
_TOF_BORDER_PX = 8


@dataclass(frozen=True, kw_only=True)
class PairMotion:
    """Where each pixel of one frame was in another frame of the same clip.

    Attributes:
        target_index: the frame whose pixels are looked at.
        reference_index: the frame that is warped onto it.
        flow_px: (H, W, 2) float32, (dx, dy) from the target's grid into the reference.
        visible: (H, W), True where the pixel can be seen in both frames.
    """

    target_index: int
    reference_index: int
    flow_px: FloatArray
    visible: Mask


def unit_frame(frame: Clip) -> FloatArray:
    """A frame as float32 in [0, 1], whatever it was; floats are passed through."""
    if frame.dtype == np.uint8:
        return frame.astype(np.float32) / np.float32(255)
    return frame.astype(np.float32, copy=False)


def luminance(frame: FloatArray) -> FloatArray:
    """Relative luminance Y = 0.2126 R + 0.7152 G + 0.0722 B of (..., 3), as (...)."""
    return np.asarray(frame @ _LUMINANCE_WEIGHTS, np.float32)


def warp_backward(image: FloatArray, flow_px: FloatArray) -> FloatArray:
    """Sample an image bilinearly where the flow points; zero flow returns it bit for bit.

    Coordinates are pixel centres. What lies outside takes the nearest border pixel. `cv2.remap` is
    not used because it rounds coordinates to 1/32 px.

    Args:
        image: (H, W) or (H, W, C), any range.
        flow_px: (H, W, 2), (dx, dy) from the result's grid into `image`.

    Raises:
        ValueError: height or width differ.
    """
    height, width = image.shape[:2]
    if flow_px.shape != (height, width, 2):
        raise ValueError(f"flow {flow_px.shape} does not fit image {image.shape}: expected {(height, width, 2)}")
    x_px = np.clip(np.arange(width, dtype=np.float32) + flow_px[..., 0], 0, width - 1)
    y_px = np.clip(np.arange(height, dtype=np.float32)[:, None] + flow_px[..., 1], 0, height - 1)
    left, top = x_px.astype(np.intp), y_px.astype(np.intp)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    trailing = (1,) * (image.ndim - 2)
    x_weight = (x_px - left).reshape(height, width, *trailing)
    y_weight = (y_px - top).reshape(height, width, *trailing)
    # a + w (b - a) is exactly a for w = 0, which (1 - w) a + w b is not for every rounding.
    upper = image[top, left] + x_weight * (image[top, right] - image[top, left])
    lower = image[bottom, left] + x_weight * (image[bottom, right] - image[bottom, left])
    return np.asarray(upper + y_weight * (lower - upper), image.dtype)


def visible_mask(flow_px: FloatArray, reverse_flow_px: FloatArray) -> Mask:
    """Where a pixel of the target can be seen in the reference.

    With F the flow from the target and B the one back, a pixel is invisible where
    |F + B(x + F)|^2 >= 0.01 (|F|^2 + |B|^2) + 0.5, on a motion boundary, where
    |grad u|^2 + |grad v|^2 > 0.01 |F|^2 + 0.002, and where it comes from outside the frame.

    Args:
        flow_px: (H, W, 2), from the target's grid into the reference.
        reverse_flow_px: (H, W, 2), from the reference's grid into the target.

    Returns:
        (H, W) bool.
    """
    height, width = flow_px.shape[:2]
    returning = warp_backward(reverse_flow_px, flow_px)
    flow_energy = np.square(flow_px).sum(axis=-1)
    gap_energy = np.square(flow_px + returning).sum(axis=-1)
    energies = flow_energy + np.square(returning).sum(axis=-1)
    is_consistent = gap_energy < _CONSISTENCY_SLOPE * energies + _CONSISTENCY_OFFSET_PX2
    gradients = np.gradient(flow_px, axis=(0, 1))
    gradient_energy = np.square(gradients[0]).sum(axis=-1) + np.square(gradients[1]).sum(axis=-1)
    is_smooth = gradient_energy <= _BOUNDARY_SLOPE * flow_energy + _BOUNDARY_OFFSET
    x_px = np.arange(width, dtype=np.float32) + flow_px[..., 0]
    y_px = np.arange(height, dtype=np.float32)[:, None] + flow_px[..., 1]
    is_inside = (x_px >= 0) & (x_px <= width - 1) & (y_px >= 0) & (y_px <= height - 1)
    return np.asarray(is_consistent & is_smooth & is_inside)


def _warped_change(clip: Clip, motion: PairMotion) -> FloatArray:
    """O_t - W(O_s), (H, W, 3)."""
    reference = unit_frame(clip[motion.reference_index])
    return unit_frame(clip[motion.target_index]) - warp_backward(reference, motion.flow_px)


def _squared_errors(clip: Clip, motion: PairMotion) -> FloatArray:
    """M_t (O_t - W(O_s))^2, (H, W, 3)."""
    return np.square(_warped_change(clip, motion)) * motion.visible[..., None]


def pair_errors(clip: Clip, motions: Sequence[PairMotion]) -> NDArray[np.float64]:
    """Warping error of each pair: the mean over all elements of M_t (O_t - W(O_s))^2.

    `rms` of these is e_stab for neighbouring frames and the long-term error for distant ones.

    Source: Huang et al., "Real-time neural style transfer for videos" (CVPR 2017); ReCoNet,
    arXiv 1807.01197, section 4.3.
    """
    return np.array([_squared_errors(clip, motion).mean(dtype=np.float64) for motion in motions])


def luminance_pair_errors(clip: Clip, source: Clip, motions: Sequence[PairMotion]) -> NDArray[np.float64]:
    """The same after taking the source's own luminance change from every channel.

    Light that changes in the scene may then change the output too: the mean over all elements of
    M_t ((O_t - W(O_s))_c - (I_t - W(I_s))_Y)^2.

    Args:
        clip: the stylized clip O.
        source: the clip I it was made from, of the same shape.
        motions: pairs, measured on `source`.

    Source: ReCoNet, arXiv 1807.01197, equation 6.
    """
    errors = []
    for motion in motions:
        light_change = luminance(_warped_change(source, motion))[..., None]
        squared = np.square(_warped_change(clip, motion) - light_change)
        errors.append((squared * motion.visible[..., None]).mean(dtype=np.float64))
    return np.array(errors)


def rms(errors: NDArray[np.float64]) -> float:
    """Square root of the mean of squared errors: from pairs to one figure for a clip.

    Raises:
        ValueError: there are no pairs; a clip needs at least two frames.
    """
    if errors.size == 0:
        raise ValueError("no frame pairs to average: the clip needs more frames than the gap between a pair")
    return float(np.sqrt(errors.mean()))


def relative_error(output_error: float, source_error: float) -> float | None:
    """How many times the source clip's own error the output has; None for a source without any."""
    return output_error / source_error if source_error > 0 else None


def flicker_map(clip: Clip, motions: Sequence[PairMotion]) -> FloatArray:
    """Where a clip flickers: root mean square over pairs and channels at each pixel, (H, W)."""
    total = np.zeros(clip.shape[1:3], np.float64)
    for motion in motions:
        total += _squared_errors(clip, motion).mean(axis=-1)
    return np.sqrt(total / max(len(motions), 1)).astype(np.float32)


def static_flicker(clip: Clip) -> float:
    """Mean absolute change between neighbouring frames of a clip in which nothing moves, in [0, 1].

    VBench's `temporal_flickering` score is 1 minus this.

    Raises:
        ValueError: fewer than two frames.
    """
    if len(clip) < 2:
        raise ValueError(f"the clip has {len(clip)} frame(s), flicker needs at least 2")
    changes = [
        np.abs(unit_frame(clip[i]) - unit_frame(clip[i - 1])).mean(dtype=np.float64) for i in range(1, len(clip))
    ]
    return float(np.mean(changes))


def _farneback_px(target: Clip, reference: Clip) -> FloatArray:
    grey = [(luminance(unit_frame(frame)) * 255).round().astype(np.uint8) for frame in (target, reference)]
    initial = np.zeros((*grey[0].shape, 2), np.float32)
    flow = cv2.calcOpticalFlowFarneback(
        grey[0], grey[1], initial, _TOF_PYRAMID_SCALE, _TOF_LEVELS, _TOF_WINDOW_PX,
        _TOF_ITERATIONS, _TOF_NEIGHBOURHOOD_PX, _TOF_SIGMA, 0,
    )  # fmt: skip
    border = slice(_TOF_BORDER_PX, -_TOF_BORDER_PX)
    return np.asarray(flow[border, border], np.float32)


def t_of_px(clip: Clip, source: Clip) -> float:
    """tOF: how far the motion seen in the output differs from the motion in the source, in px.

    Mean length of the difference of two Farneback flows, 8 px off the border.

    Raises:
        ValueError: the clips differ in shape, have one frame, or are too small for the border.

    Source: Chu et al., "Learning temporal coherence via self-supervision" (TecoGAN), metrics.py.
    """
    if clip.shape != source.shape:
        raise ValueError(f"the clip is {clip.shape} and its source {source.shape}: they must be alike")
    smallest_px = 2 * _TOF_BORDER_PX + 1
    if len(clip) < 2 or min(clip.shape[1:3]) < smallest_px:
        raise ValueError(f"the clip is {clip.shape}: tOF needs 2 frames of at least {smallest_px}x{smallest_px}")
    lengths = []
    for index in range(1, len(clip)):
        gap = _farneback_px(clip[index], clip[index - 1]) - _farneback_px(source[index], source[index - 1])
        lengths.append(np.linalg.norm(gap, axis=-1).mean(dtype=np.float64))
    return float(np.mean(lengths))
