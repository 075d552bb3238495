"""Steadying, on the CPU and by the kernels of the GPU: each claim on a clip whose motion is known exactly."""

import sys
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.clips import ClipSpec, read_frames, write_clip
from helpers.host_steady import HostSteadier
from helpers.networks import write_affine
from stylize.benchmarks.clips import Layer, Scene, generated_scenes, wave_texture
from stylize.benchmarks.temporal import FloatArray, pair_errors, rms
from stylize.runtime import EncodeOptions, FinishOptions, stylize_video
from stylize.runtime.errors import BackendUnavailableError, OptionError
from stylize.runtime.finish import Finish
from stylize.runtime.frame import WHITE, Frame
from stylize.runtime.pipeline import run_pipeline
from stylize.runtime.steady import Steadier

AMOUNT = 0.9


@pytest.fixture(params=["CPU", "kernels"])
def steadier(request: pytest.FixtureRequest) -> Iterator[Steadier | HostSteadier]:
    """The one of the CPU, and that of a GPU on kernels compiled for the CPU."""
    if request.param == "CPU":
        yield Steadier(AMOUNT)
    else:
        on_device = HostSteadier(AMOUNT)
        yield on_device
        on_device.close()


def painted(source: FloatArray, *, flicker: float = 0.0, seed: int = 0) -> FloatArray:
    """What a network might paint: the source in other colours, under blotches that change from frame to frame.

    Args:
        source: (T, H, W, 3) in [0, 1].
        flicker: standard deviation of the blotches, which are about 5 px large.
        seed: of the blotches.
    """
    random = np.random.default_rng(seed)
    colours = 0.15 + 0.7 * source[..., ::-1]
    blotches = np.stack(
        [cv2.GaussianBlur(random.normal(0, 1, frame.shape).astype(np.float32), (0, 0), 1.5) for frame in source]
    )
    return np.asarray(np.clip(colours + flicker * blotches / blotches.std(), 0, 1), np.float32)


def steadied(
    source: FloatArray, plain: FloatArray, *, steadier: Steadier | HostSteadier | None = None
) -> tuple[FloatArray, list[int]]:
    """The plain clip after steadying, and the frames at which a new scene begins."""
    steadier = steadier or Steadier(AMOUNT)
    results, cuts = [], []
    for index, (frame, picture) in enumerate(zip(source, plain, strict=True)):
        planes = [np.rint(plane * WHITE).astype(np.uint16) for plane in np.moveaxis(frame, -1, 0)]
        result_CHW = np.ascontiguousarray(np.moveaxis(picture, -1, 0)) * np.float32(WHITE)
        if steadier.push(planes, result_CHW):
            cuts.append(index)
        results.append(np.moveaxis(result_CHW, 0, -1) / WHITE)
    return np.stack(results), cuts


def mean_gradient(clip: FloatArray) -> float:
    return float(np.mean([np.hypot(*np.gradient(frame.mean(axis=-1))).mean() for frame in clip]))


@pytest.mark.parametrize("number", [0, 1, 2], ids=["pan", "sub-pixel pan", "turn and zoom"])
def test_flicker_is_halved_along_the_motion_and_strokes_stay_sharp(
    number: int, steadier: Steadier | HostSteadier
) -> None:
    scene = generated_scenes(num_frames=8)[number]
    source = scene.frames()
    calm, plain = painted(source), painted(source, flicker=0.05)
    result, cuts = steadied(source, plain, steadier=steadier)
    before, after = (rms(pair_errors(clip, scene.motions())) for clip in (plain, result))
    assert after < 0.5 * before
    assert not cuts
    # The flicker has edges of its own, which go; those of the painting stay.
    assert mean_gradient(result[-2:]) > 0.9 * mean_gradient(calm[-2:])


def test_nothing_is_left_behind_an_object(steadier: Steadier | HostSteadier) -> None:
    """Nothing flickers here, so every difference to the plain clip is a ghost or a smear."""
    square = Layer(texture=lambda points: np.full((*points.shape[:-1], 3), (0.9, 0.1, 0.1), np.float32),
                   extent_px=(20, 35, 60, 80), shift_px=(6, 1))  # fmt: skip
    scene = Scene(name="square", num_frames=8, layers=[Layer(texture=wave_texture(4)), square])
    source = scene.frames()
    plain = painted(source)
    result, _ = steadied(source, plain, steadier=steadier)
    for motion in scene.motions():
        uncovered = ~motion.visible
        gap = np.abs(result[motion.target_index] - plain[motion.target_index])[uncovered]
        # A frame that were only blended, by 0.81, would be off by 0.3 here.
        assert gap.mean() < 0.02
    assert np.abs(result - plain).mean() < 0.005


def test_what_is_painted_on_a_flat_thing_moves_with_it(steadier: Steadier | HostSteadier) -> None:
    """Its inside looks alike whether it moves or stands; what is around it decides, else paint sticks to the screen."""
    square = Layer(texture=lambda points: np.full((*points.shape[:-1], 3), (0.9, 0.1, 0.1), np.float32),
                   extent_px=(10, 40, 50, 80), shift_px=(4, 0))  # fmt: skip
    source = Scene(name="flat", num_frames=12, layers=[Layer(texture=wave_texture(4)), square]).frames()
    plain = painted(source)
    slope = np.linspace(0, 0.2, 40, dtype=np.float32)[:, None]
    for index in range(len(plain)):
        left = 10 + 4 * index
        plain[index, 40:80, left : left + 40] = 0.4 + slope
    result, _ = steadied(source, plain, steadier=steadier)
    left = 10 + 4 * 11
    # Stuck to the screen it lags by 0.022; the motion found inside is three quarters of the true one.
    assert np.abs(result - plain)[11, 50:70, left + 8 : left + 32].mean() < 0.019


def test_first_frame_of_a_new_scene_is_the_plain_one(steadier: Steadier | HostSteadier) -> None:
    source = np.concatenate([generated_scenes(num_frames=3)[number].frames() for number in (0, 1)])
    plain = painted(source, flicker=0.05)
    result, cuts = steadied(source, plain, steadier=steadier)
    assert cuts == [3]
    np.testing.assert_allclose(result[3], plain[3], atol=1e-6)  # rounding of [0, 1] to [0, WHITE] and back
    assert np.abs(result[4] - plain[4]).max() > 0.01  # and the next ones are steadied again


@pytest.mark.parametrize("height", [0.25, -0.25])
def test_flash_passes_within_a_frame(height: float, steadier: Steadier | HostSteadier) -> None:
    source = 0.3 + 0.4 * np.repeat(generated_scenes(num_frames=1)[0].frames(), 6, axis=0)
    source[3] += height
    plain = painted(source)
    result, _ = steadied(source, plain, steadier=steadier)
    assert np.abs(result - plain).mean(axis=(1, 2, 3)).max() < 0.003


def test_fade_is_not_delayed(steadier: Steadier | HostSteadier) -> None:
    light = np.linspace(1, 0, 16, dtype=np.float32)[:, None, None, None]
    source = light * np.repeat(generated_scenes(num_frames=1)[0].frames(), 16, axis=0)
    plain = source[..., ::-1].copy()
    result, cuts = steadied(source, plain, steadier=steadier)
    # A blend of 0.81 without regard to light would stay 0.13 behind.
    assert np.abs(result - plain).mean(axis=(1, 2, 3)).max() < 0.01
    assert not cuts


def test_what_the_network_paints_elsewhere_passes_too(steadier: Steadier | HostSteadier) -> None:
    """A halo around something that passes by, on ground that stays as it is, leaves no ghost of itself."""
    source = np.repeat(generated_scenes(num_frames=1)[0].frames(), 8, axis=0)
    plain = painted(source)
    for index in range(3, 6):
        left = 30 + 30 * (index - 3)
        plain[index, 30:70, left : left + 30] *= 0.6
    result, _ = steadied(source, plain, steadier=steadier)
    # A blend of 0.81 would be off by 0.15 in each halo, new and old.
    assert np.abs(result - plain)[:, 35:65].mean(axis=(1, 2, 3)).max() < 0.02
    assert np.abs(result - plain)[6:, 35:65, 35:115].max() < 0.1


def test_noise_of_a_still_camera_does_not_shimmer(steadier: Steadier | HostSteadier) -> None:
    random = np.random.default_rng(0)
    still = np.repeat(generated_scenes(num_frames=1)[0].frames(), 12, axis=0)
    source = np.clip(still + random.normal(0, 4 / 255, still.shape), 0, 1).astype(np.float32)
    plain = painted(still, flicker=0.03)
    result, _ = steadied(source, plain, steadier=steadier)
    before, after = (float(np.sqrt(np.square(np.diff(clip[4:], axis=0)).mean())) for clip in (plain, result))
    assert after < 0.3 * before


def test_three_hundred_frames_neither_blur_nor_drift(steadier: Steadier | HostSteadier) -> None:
    """Warped 300 times over, the picture must still be the one the network paints."""
    layer = Layer(texture=wave_texture(2), shift_px=(0.7, 0.4))
    source = Scene(name="long pan", num_frames=300, layers=[layer], width_px=80, height_px=60).frames()
    plain = painted(source)
    result, _ = steadied(source, plain, steadier=steadier)
    assert mean_gradient(result[-10:]) > 0.9 * mean_gradient(plain[-10:])
    early, late = (float(np.abs(result[part] - plain[part]).mean()) for part in (slice(20, 40), slice(-20, None)))
    assert late < 0.03
    assert late < 1.3 * early


def test_same_frames_give_the_same_bits_after_a_reset_and_beside_other_threads() -> None:
    scene = generated_scenes(num_frames=5)[3]
    source = scene.frames()
    plain = painted(source, flicker=0.05)
    steadier = Steadier(AMOUNT)
    first, _ = steadied(source, plain, steadier=steadier)
    steadier.reset()
    num_threads = cv2.getNumThreads()
    cv2.setNumThreads(7)
    try:
        again, _ = steadied(source, plain, steadier=steadier)
        assert cv2.getNumThreads() == 7
    finally:
        cv2.setNumThreads(num_threads)
    np.testing.assert_array_equal(first, again)


def test_warm_up_leads_to_the_same_pictures() -> None:
    """What a resumed video needs: frames pushed again from some earlier one on."""
    random = np.random.default_rng(0)
    still = random.random((1, 40, 48, 3), np.float32)
    finish = Finish(FinishOptions(steady=AMOUNT))
    assert Finish().num_warmup_frames == 0
    num_frames = finish.num_warmup_frames + 1
    source, plain = np.repeat(still, num_frames + 5, axis=0), random.random((num_frames + 5, 40, 48, 3), np.float32)
    whole, _ = steadied(source, plain)
    resumed, _ = steadied(source[5:], plain[5:])
    difference = np.abs(whole[5:] - resumed).max(axis=(1, 2, 3))
    assert difference[-1] < 0.5 / 255
    assert difference[num_frames // 4] > 0.5 / 255


@pytest.mark.parametrize(("width", "height"), [(1, 1), (5, 3), (31, 33), (64, 7), (41, 90)])
def test_any_size(width: int, height: int, steadier: Steadier | HostSteadier) -> None:
    source = np.random.default_rng(0).random((3, height, width, 3), np.float32)
    result, _ = steadied(source, source, steadier=steadier)
    assert np.isfinite(result).all()
    plain = 0.5 + 0.05 * source
    steadier.reset()
    result, _ = steadied(np.repeat(source[:1], 3, axis=0), plain, steadier=steadier)
    assert np.abs(result[2] - plain[2]).max() > 0.001  # a still source is steadied whatever its size


def test_a_change_of_size_begins_anew(steadier: Steadier | HostSteadier) -> None:
    small, large = (np.random.default_rng(0).random((1, side, side, 3), np.float32) for side in (40, 48))
    steadied(small, small, steadier=steadier)
    result, _ = steadied(large, large, steadier=steadier)
    np.testing.assert_allclose(result, large, atol=1e-6)


@pytest.mark.parametrize("amount", [-0.1, 1.1, float("nan")])
def test_rejects_amounts_outside(amount: float) -> None:
    with pytest.raises(OptionError, match="outside 0"):
        FinishOptions(steady=amount)


def test_missing_opencv_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(BackendUnavailableError, match=r"stylize\[steady\]"):
        stylized_frames(tmp_path, FinishOptions(steady=AMOUNT))
    assert not list(tmp_path.glob("out*"))


def stylized_frames(tmp_path: Path, finish: FinishOptions | None) -> tuple[Sequence[NDArray[np.uint8]], float]:
    source = write_clip(tmp_path / "in.mkv", ClipSpec(codec="ffv1", options=(), pix_fmt="bgr0"))
    network = write_affine(tmp_path / "half.onnx", scale=0.5, offset=0.25)
    target = tmp_path / "out.mkv"
    report = stylize_video(network, source, target, encode=EncodeOptions(codec="ffv1", pix_fmt="bgr0"), finish=finish)
    assert report.num_frames == 10
    return read_frames(target), report.settle_seconds


def test_off_is_bit_for_bit_as_without(tmp_path: Path) -> None:
    without, _ = stylized_frames(tmp_path, None)
    off, seconds = stylized_frames(tmp_path, FinishOptions(steady=0.0))
    on, seconds_on = stylized_frames(tmp_path, FinishOptions(steady=AMOUNT))
    assert seconds == 0 < seconds_on
    np.testing.assert_array_equal(np.stack(off), np.stack(without))
    assert not np.array_equal(np.stack(on), np.stack(without))


def test_strength_is_applied_to_the_steadied_picture(tmp_path: Path) -> None:
    """At no strength the source passes, so it must not be the result of the blend that is steadied."""
    fade = FinishOptions(steady=AMOUNT, fade_in_seconds=0.2)
    frames, _ = stylized_frames(tmp_path, fade)
    source = read_frames(tmp_path / "in.mkv")
    np.testing.assert_array_equal(frames[0], source[0])
    assert not np.array_equal(frames[4], source[4])


def test_settling_happens_once_per_frame_in_order_and_in_its_own_thread() -> None:
    finish = Finish(FinishOptions(steady=AMOUNT))
    frames = []
    for index in range(6):
        frame = Frame.from_array(np.full((40, 40, 3), 20 * index, np.uint8))
        frame.set_time(index, duration=1, time_base=Fraction(1, 25))
        frames.append(frame)
    seen: list[int] = []

    def settle(frame: Frame) -> None:
        seen.append(frame.pts)
        finish.settle(frame)

    def network(frame: Frame) -> None:
        if frame.pts != 2:  # left alone, as where the style has no weight
            finish.store(np.full((3, 40, 40), 100 * 256, np.float32), frame, weight=1.0)

    seconds = run_pipeline(iter(frames), network=network, settle=settle, sink=lambda item: None)
    assert seen == list(range(6))
    assert seconds.settle > 0
    assert [int(frame.planes[0][0, 0]) >> 8 for frame in frames] == [100, 100, 40, 100, 100, 100]


def test_what_follows_a_frame_without_style_holds_on_to_nothing() -> None:
    finish = Finish(FinishOptions(steady=AMOUNT))
    random = np.random.default_rng(0)
    still = random.integers(0, 256, (40, 48, 3), np.uint8)
    painted = [(random.random((3, 40, 48), np.float32) * WHITE).round() for _ in range(3)]
    for index, picture in enumerate((painted[0], None, painted[1], painted[2])):
        frame = Frame.from_array(still)
        frame.set_time(index, duration=1, time_base=Fraction(1, 25))
        if picture is not None:
            finish.store(picture.copy(), frame, weight=1.0)
        finish.settle(frame)
        is_plain = picture is not None and np.array_equal(frame.planes, picture)
        assert is_plain == (index in (0, 2))


def test_an_error_while_settling_is_raised_and_leaves_no_thread() -> None:
    frame = Frame.from_array(np.zeros((8, 8, 3), np.uint8))

    def fail(frame: Frame) -> None:
        raise ValueError("settling failed")

    with pytest.raises(ValueError, match="settling failed"):
        run_pipeline([frame] * 20, network=lambda frame: None, settle=fail, sink=lambda item: None)
