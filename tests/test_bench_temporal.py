"""The steadiness figures, held against values worked out by hand."""

import math
from pathlib import Path

import numpy as np
import pytest

from stylize.benchmarks.clips import Layer, Scene, generated_scenes, wave_texture
from stylize.benchmarks.flow import FlowCache, dis_motions, frame_pairs
from stylize.benchmarks.temporal import (
    flicker_map,
    luminance,
    luminance_pair_errors,
    pair_errors,
    relative_error,
    rms,
    static_flicker,
    t_of_px,
    unit_frame,
    visible_mask,
    warp_backward,
)

SCENES = generated_scenes(num_frames=4)
SCENE_NAMES = [scene.name for scene in SCENES]


def flickered(clip: np.ndarray, amplitude: float) -> np.ndarray:
    """Every second frame brighter by `amplitude`."""
    signs = (np.arange(len(clip)) % 2).astype(np.float32)
    return clip + np.float32(amplitude) * signs[:, None, None, None]


def uniform_flow(height: int, width: int, dx: float, dy: float) -> np.ndarray:
    return np.broadcast_to(np.array([dx, dy], np.float32), (height, width, 2)).copy()


def test_zero_flow_returns_the_picture_bit_for_bit() -> None:
    image = np.random.default_rng(0).random((31, 47, 3), np.float32)
    warped = warp_backward(image, np.zeros((31, 47, 2), np.float32))
    assert warped.dtype == np.float32
    assert np.array_equal(warped, image)


def test_whole_pixel_flow_shifts_exactly() -> None:
    image = np.random.default_rng(0).random((31, 47, 3), np.float32)
    warped = warp_backward(image, uniform_flow(31, 47, 5, -3))
    assert np.array_equal(warped[3:, :-5], image[:-3, 5:])


def test_half_pixel_flow_averages_two_neighbours() -> None:
    image = np.array([[0.0, 1.0, 4.0]], np.float32)
    # (0 + 1) / 2, (1 + 4) / 2, and the border pixel repeated.
    assert warp_backward(image, uniform_flow(1, 3, 0.5, 0)).tolist() == [[0.5, 2.5, 4.0]]


def test_rejects_flow_of_another_size() -> None:
    with pytest.raises(ValueError, match=r"flow \(4, 4, 2\) does not fit image \(4, 5, 3\)"):
        warp_backward(np.zeros((4, 5, 3), np.float32), np.zeros((4, 4, 2), np.float32))


def test_luminance_weights_are_bt709() -> None:
    primaries = np.eye(3, dtype=np.float32)
    assert luminance(primaries).tolist() == pytest.approx([0.2126, 0.7152, 0.0722])
    assert luminance(np.ones(3, np.float32)) == pytest.approx(1.0)


def test_pixels_from_outside_the_frame_are_invisible() -> None:
    visible = visible_mask(uniform_flow(20, 30, 4, 0), uniform_flow(20, 30, -4, 0))
    # x + 4 <= 29 leaves columns 0 ... 25.
    assert visible[:, :26].all()
    assert not visible[:, 26:].any()


@pytest.mark.parametrize(("gap_px", "is_visible"), [(0.70, True), (0.72, False)])
def test_forward_backward_gap_decides_at_the_published_threshold(gap_px: float, is_visible: bool) -> None:
    # |F + B|^2 = gap^2 against 0.01 gap^2 + 0.5: the threshold is sqrt(0.5 / 0.99) = 0.7107 px.
    visible = visible_mask(uniform_flow(9, 9, 0, 0), uniform_flow(9, 9, gap_px, 0))
    assert visible[:, :8].all() == is_visible


@pytest.mark.parametrize(("slope", "is_visible"), [(0.04, True), (0.05, False)])
def test_motion_boundary_decides_at_the_published_threshold(slope: float, is_visible: bool) -> None:
    # |grad u|^2 = slope^2 against 0.01 |F|^2 + 0.002, with F = 0 in the middle: 0.0447.
    flow_px = np.zeros((9, 9, 2), np.float32)
    flow_px[..., 0] = slope * (np.arange(9, dtype=np.float32) - 4)
    assert visible_mask(flow_px, -flow_px)[4, 4] == is_visible


def test_uncovered_background_behind_a_moving_square_is_invisible() -> None:
    crossing = SCENES[SCENE_NAMES.index("crossing object")]
    motion = crossing.motions()[0]
    # Frame 1: the square fills columns 44 ... 88, rows 36 ... 80. In frame 0 its left edge was at 40
    # and the background, moving by -2, lay two columns further right: 38 ... 43 were covered.
    assert motion.visible[50, 30:38].all()
    assert not motion.visible[50, 38:44].any()
    assert motion.visible[50, 44:89].all()


@pytest.mark.parametrize("scene", SCENES, ids=SCENE_NAMES)
def test_identity_on_exact_flow_has_no_error(scene: Scene) -> None:
    error = rms(pair_errors(scene.frames(), scene.motions()))
    if scene.name in {"whole-pixel pan", "crossing object"}:
        assert error == 0.0
    else:
        # Bilinear sampling of a 5 px wave: at most (2 pi / 5)^2 / 8 = 0.2 of that wave's amplitude.
        assert error < 0.005


@pytest.mark.parametrize("amplitude", [0.02, 0.1])
def test_brightness_flicker_gives_the_value_computed_by_hand(amplitude: float) -> None:
    scene = SCENES[SCENE_NAMES.index("whole-pixel pan")]
    motions = scene.motions()
    # Every visible element is off by exactly the amplitude, the invisible ones count as zero. The pan
    # of (3, -2) px hides 3 of 160 columns and 2 of 120 rows.
    by_hand = amplitude * math.sqrt((157 * 118) / (160 * 120))
    error = rms(pair_errors(flickered(scene.frames(), amplitude), motions))
    assert error == pytest.approx(by_hand, rel=1e-5)  # float32 sums


def test_brightness_flicker_of_a_static_clip_is_its_amplitude() -> None:
    still = Scene(name="still", layers=[Layer(texture=wave_texture(5))], num_frames=4)
    clip = flickered(still.frames(), 0.05)
    assert rms(pair_errors(clip, still.motions())) == pytest.approx(0.05, rel=1e-5)
    assert static_flicker(clip) == pytest.approx(0.05, rel=1e-5)
    assert flicker_map(clip, still.motions()) == pytest.approx(np.full((120, 160), 0.05), rel=1e-4)


def test_light_that_changes_in_the_source_is_not_flicker() -> None:
    scene = SCENES[0]
    source = flickered(scene.frames(), 0.1)
    steady_style = source * np.float32(0.5) + flickered(np.zeros_like(source), 0.05)
    motions = scene.motions()
    assert rms(pair_errors(steady_style, motions)) > 0.09
    assert rms(luminance_pair_errors(steady_style, source, motions)) < 1e-6
    # A style that ignores the light is charged with the luminance change it left out.
    assert rms(luminance_pair_errors(scene.frames(), source, motions)) == pytest.approx(
        0.1 * math.sqrt((157 * 118) / (160 * 120)), rel=1e-5
    )


@pytest.mark.parametrize("scene", SCENES, ids=SCENE_NAMES)
@pytest.mark.parametrize("fault", ["flicker", "noise", "screen-fixed grain"])
def test_estimated_flow_agrees_with_exact_flow(scene: Scene, fault: str) -> None:
    clip = scene.frames()
    random = np.random.default_rng(7)
    match fault:
        case "flicker":
            output = flickered(clip, 0.05)
        case "noise":
            output = clip + random.normal(0, 0.05, clip.shape).astype(np.float32)
        case _:
            output = clip + random.normal(0, 0.1, clip.shape[1:]).astype(np.float32)
    exact = rms(pair_errors(output, scene.motions()))
    estimated = rms(pair_errors(output, dis_motions(clip, frame_pairs(len(clip), gap=1))))
    assert estimated == pytest.approx(exact, rel=0.15)


def test_long_term_error_sees_drift_that_neighbours_hide() -> None:
    scene = Scene(name="still", layers=[Layer(texture=wave_texture(6))], num_frames=11)
    drift = np.linspace(0, 0.1, 11, dtype=np.float32)[:, None, None, None]
    clip = scene.frames() + drift
    assert rms(pair_errors(clip, scene.motions())) == pytest.approx(0.01, rel=1e-4)
    assert rms(pair_errors(clip, scene.motions(gap=9))) == pytest.approx(0.09, rel=1e-4)


def test_bytes_and_floats_give_the_same_error() -> None:
    scene = SCENES[1]
    as_bytes = (scene.frames() * 255).round().astype(np.uint8)
    as_floats = np.stack([unit_frame(frame) for frame in as_bytes])
    motions = scene.motions()
    assert np.array_equal(pair_errors(as_bytes, motions), pair_errors(as_floats, motions))


def test_t_of_is_zero_for_the_source_and_sees_invented_motion() -> None:
    source = SCENES[0].frames()
    assert t_of_px(source, source) == 0.0
    still = np.repeat(source[:1], len(source), axis=0)
    # The source moves by (3, -2), the output not at all: sqrt(13) = 3.6 px, estimated by Farneback.
    assert t_of_px(still, source) == pytest.approx(math.sqrt(13), rel=0.1)


def test_relative_error_needs_a_source_error() -> None:
    assert relative_error(0.06, 0.02) == pytest.approx(3.0)
    assert relative_error(0.06, 0.0) is None


def test_rejects_clips_too_short_or_too_small() -> None:
    one_frame = np.zeros((1, 32, 32, 3), np.float32)
    with pytest.raises(ValueError, match="no frame pairs"):
        rms(pair_errors(one_frame, []))
    with pytest.raises(ValueError, match=r"1 frame\(s\)"):
        static_flicker(one_frame)
    with pytest.raises(ValueError, match="at least 17x17"):
        t_of_px(np.zeros((2, 16, 32, 3), np.float32), np.zeros((2, 16, 32, 3), np.float32))


def test_flow_is_stored_once_and_read_back(tmp_path: Path) -> None:
    clip = SCENES[1].frames()[:2]
    pairs = frame_pairs(2, gap=1)
    cache = FlowCache(tmp_path / "flow")
    measured = dis_motions(clip, pairs, cache=cache)[0]
    assert len(list((tmp_path / "flow").iterdir())) == 1
    stored = dis_motions(clip, pairs, cache=cache)[0]
    assert np.array_equal(measured.flow_px, stored.flow_px)
    assert np.array_equal(measured.visible, stored.visible)
