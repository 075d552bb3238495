"""Style, content and fidelity figures: their fixed points, their order, and values worked out by hand."""

import cv2
import numpy as np
import pytest

from stylize.benchmarks.appearance import content_correlation, gram_distance, style_statistics
from stylize.benchmarks.clips import generated_scenes
from stylize.benchmarks.fidelity import fidelity_row, max_error, psnr_db, ssim
from stylize.benchmarks.jitter import jitter_figures
from stylize.benchmarks.steadiness import estimated_reference, steadiness_row

SCENE = generated_scenes(num_frames=3)[0]
CLIP = (SCENE.frames() * 255).round().astype(np.uint8)


def strokes(horizontal_px: int, vertical_px: int, *, seed: int = 0) -> np.ndarray:
    """Random strokes of this size: (192, 192, 3) uint8."""
    noise = np.random.default_rng(seed).normal(0, 1, (192, 192, 3)).astype(np.float32)
    blurred = cv2.blur(noise, (horizontal_px, vertical_px))
    return np.clip(128 + 50 * blurred / blurred.std(), 0, 255).astype(np.uint8)


def test_a_picture_has_no_distance_from_its_own_style() -> None:
    statistics = style_statistics(CLIP)
    assert gram_distance(statistics, statistics) == 0.0


def test_style_depends_on_strokes_and_not_on_where_they_are() -> None:
    reference = style_statistics([strokes(9, 3)])
    painted_again = gram_distance(style_statistics([strokes(9, 3, seed=1)]), reference)
    assert painted_again < 0.15
    for other in (strokes(3, 9), strokes(15, 5), strokes(2, 2)):
        assert gram_distance(style_statistics([other]), reference) > 2 * painted_again


def test_a_grey_picture_has_no_strokes() -> None:
    reference = style_statistics([strokes(9, 3)])
    grey = style_statistics([np.full((192, 192, 3), 128, np.uint8)])
    # The mean colour is that of the reference, and every filter is silent: half of the error is 1.
    assert gram_distance(grey, reference) == pytest.approx(0.5, abs=0.2)
    assert gram_distance(grey, reference) > 2 * gram_distance(style_statistics([strokes(9, 3, seed=1)]), reference)


def test_a_flat_reference_divides_by_no_rounding_error() -> None:
    black = style_statistics([np.zeros((64, 64, 3), np.uint8)])
    assert gram_distance(black, black) == 0.0
    assert np.isfinite(gram_distance(style_statistics(CLIP), black))


def test_content_survives_in_the_source_and_not_in_grey() -> None:
    assert content_correlation(CLIP, CLIP) == pytest.approx(1.0)
    assert content_correlation(np.full_like(CLIP, 90), CLIP) == 0.0
    assert abs(content_correlation(CLIP[:, ::-1, ::-1], CLIP)) < 0.3


def test_content_does_not_mind_palette_and_contrast() -> None:
    recoloured = (255 - CLIP * 0.5).astype(np.uint8)
    assert content_correlation(recoloured, CLIP) > 0.98


def test_psnr_and_max_error_of_a_constant_offset() -> None:
    reference = np.full((2, 32, 32, 3), 0.5, np.float32)
    # A mean square of 0.1^2 is 20 dB below a peak of 1.
    assert psnr_db(reference + np.float32(0.1), reference) == pytest.approx(20.0, abs=1e-4)
    assert max_error(reference + np.float32(0.1), reference) == pytest.approx(0.1, rel=1e-5)
    assert psnr_db(reference, reference) is None
    assert max_error(reference, reference) == 0.0


def test_ssim_of_two_flat_pictures_is_its_light_term() -> None:
    dark, bright = (np.full((1, 32, 32, 3), value, np.float32) for value in (0.2, 0.4))
    # (2 * 0.2 * 0.4 + 0.01^2) / (0.2^2 + 0.4^2 + 0.01^2)
    assert ssim(dark, bright) == pytest.approx(0.1601 / 0.2001, rel=1e-4)
    assert ssim(CLIP, CLIP) == pytest.approx(1.0)


def test_fidelity_of_an_exact_copy() -> None:
    row = fidelity_row(("m", "b", "fp32"), CLIP, CLIP, SCENE.motions())
    assert (row.psnr_db, row.max_error, row.temporal_difference) == (None, 0.0, 0.0)


def test_more_flicker_than_the_reference_is_positive() -> None:
    restless = CLIP.copy()
    restless[1] = np.clip(CLIP[1].astype(int) + 20, 0, 255)
    difference = fidelity_row(("m", "b", "bf16"), restless, CLIP, SCENE.motions()).temporal_difference
    assert difference == pytest.approx(20 / 255, rel=0.05)  # but for the border and what was clipped
    assert fidelity_row(("m", "b", "bf16"), CLIP, restless, SCENE.motions()).temporal_difference == -difference


def test_rejects_clips_that_differ_in_shape() -> None:
    with pytest.raises(ValueError, match="must be alike"):
        psnr_db(CLIP, CLIP[:2])
    with pytest.raises(ValueError, match="must be alike"):
        content_correlation(CLIP, CLIP[:, :40])


def test_rejects_pictures_too_small_for_the_statistics() -> None:
    with pytest.raises(ValueError, match="31x96 px"):
        style_statistics([np.zeros((96, 31, 3), np.uint8)])


def test_jitter_of_doing_nothing_and_of_halving_contrast() -> None:
    identity = jitter_figures(CLIP[0], lambda frames: frames)
    assert (identity.noise, identity.shift, identity.light) == (1.0, 0.0, 1.0)
    halved = jitter_figures(CLIP[0], lambda frames: frames.astype(np.float32) / 510)
    assert (halved.noise, halved.light) == pytest.approx((0.5, 0.5), rel=1e-5)


def test_jitter_sees_strokes_that_stay_on_the_screen() -> None:
    grain = np.random.default_rng(0).normal(0, 0.1, CLIP.shape[1:]).astype(np.float32)
    figures = jitter_figures(CLIP[0], lambda frames: frames.astype(np.float32) / 255 + grain)
    assert figures.shift > 0.5


def test_rejects_a_picture_that_a_shift_leaves_alone() -> None:
    with pytest.raises(ValueError, match="every column"):
        jitter_figures(np.zeros((64, 64, 3), np.uint8), lambda frames: frames)


@pytest.mark.parametrize(("num_black", "has_jitter"), [(1, True), (3, False)])
def test_a_clip_that_begins_in_black_is_measured_where_there_is_something_to_see(
    num_black: int, has_jitter: bool
) -> None:
    clip = CLIP.copy()
    clip[:num_black] = 0
    row = steadiness_row("m", lambda frames: frames, estimated_reference("fade", clip), clip, style=None)
    if has_jitter:
        assert row.jitter == jitter_figures(clip[1], lambda frames: frames)
    assert (row.jitter is not None, row.static_flicker is not None) == (has_jitter, has_jitter)
    assert np.isfinite([row.e_stab, row.content, row.style_change]).all()
