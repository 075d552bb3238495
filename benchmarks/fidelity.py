"""How close one rendering of a clip comes to another of the same frames."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from stylize.benchmarks.results import FidelityRow
from stylize.benchmarks.temporal import Clip, FloatArray, PairMotion, luminance, pair_errors, rms, unit_frame

__all__ = ["fidelity_row", "max_error", "psnr_db", "ssim"]

# Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment" (IEEE TIP 2004), section III-C: an 11x11
# Gaussian window of sigma 1.5 and K1, K2 on a range of 1.
_SSIM_WINDOW, _SSIM_SIGMA = (11, 11), 1.5
_SSIM_C1, _SSIM_C2 = 0.01**2, 0.03**2


def _check_alike(clip: Clip, reference: Clip) -> None:
    if clip.shape != reference.shape:
        raise ValueError(f"the clip is {clip.shape} and the reference {reference.shape}: they must be alike")


def psnr_db(clip: Clip, reference: Clip) -> float | None:
    """Peak signal to noise ratio over the whole clip, for a peak of 1; None for equal clips.

    Raises:
        ValueError: the clips differ in shape.
    """
    _check_alike(clip, reference)
    squared = [
        np.square(unit_frame(frame) - unit_frame(reference_frame)).mean(dtype=np.float64)
        for frame, reference_frame in zip(clip, reference, strict=True)
    ]
    mean_squared = float(np.mean(squared))
    return -10 * math.log10(mean_squared) if mean_squared > 0 else None


def max_error(clip: Clip, reference: Clip) -> float:
    """Largest difference of any element, on the [0, 1] scale.

    Raises:
        ValueError: the clips differ in shape.
    """
    _check_alike(clip, reference)
    return max(
        float(np.abs(unit_frame(frame) - unit_frame(reference_frame)).max())
        for frame, reference_frame in zip(clip, reference, strict=True)
    )


def _blurred(plane: FloatArray) -> NDArray[np.float64]:
    # float64: variances are differences of nearly equal squares.
    return np.asarray(cv2.GaussianBlur(plane.astype(np.float64), _SSIM_WINDOW, _SSIM_SIGMA))


def _frame_ssim(first: FloatArray, second: FloatArray) -> float:
    mean_first, mean_second = _blurred(first), _blurred(second)
    variance_first = _blurred(first * first) - mean_first**2
    variance_second = _blurred(second * second) - mean_second**2
    covariance = _blurred(first * second) - mean_first * mean_second
    structure = (2 * covariance + _SSIM_C2) / (variance_first + variance_second + _SSIM_C2)
    light = (2 * mean_first * mean_second + _SSIM_C1) / (mean_first**2 + mean_second**2 + _SSIM_C1)
    return float((light * structure).mean())


def ssim(clip: Clip, reference: Clip) -> float:
    """Structural similarity of luminance, mean over frames; 1 for equal clips.

    Raises:
        ValueError: the clips differ in shape.
    """
    _check_alike(clip, reference)
    values = [
        _frame_ssim(luminance(unit_frame(frame)), luminance(unit_frame(reference_frame)))
        for frame, reference_frame in zip(clip, reference, strict=True)
    ]
    return float(np.mean(values))


def fidelity_row(
    names: tuple[str, str, str], clip: Clip, reference: Clip, motions: Sequence[PairMotion]
) -> FidelityRow:
    """Compare what one backend made of a clip with what the float32 ONNX model made of it.

    Args:
        names: model, backend and precision of `clip`.
        clip: (T, H, W, 3) stylized frames.
        reference: the same frames from the reference.
        motions: of the source clip, for the difference in steadiness.

    Raises:
        ValueError: the clips differ in shape.
    """
    model, backend, precision = names
    return FidelityRow(
        model=model,
        backend=backend,
        precision=precision,
        psnr_db=psnr_db(clip, reference),
        ssim=ssim(clip, reference),
        max_error=max_error(clip, reference),
        temporal_difference=rms(pair_errors(clip, motions)) - rms(pair_errors(reference, motions)),
    )
