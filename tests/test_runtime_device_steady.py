"""Steadying's kernels against the CPU's, part by part. What both are for is tested in test_runtime_steady.py."""

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.host_steady import HostSteadier
from stylize.benchmarks.clips import Layer, Scene, generated_scenes, wave_texture
from stylize.runtime.frame import WHITE
from stylize.runtime.steady import Steadier
from stylize.runtime.steady_constants import guide_size
from stylize.runtime.steady_motion import Guide, MotionSearch

AMOUNT = 0.9
Floats = NDArray[np.float32]
SIZES = {"even": (160, 120), "odd": (163, 121), "halved": (642, 362), "small": (41, 30)}


@pytest.fixture
def on_device() -> Iterator[HostSteadier]:
    steadier = HostSteadier(AMOUNT)
    yield steadier
    steadier.close()


def planes_of(frame_HWC: Floats) -> list[NDArray[np.uint16]]:
    return [np.rint(plane * WHITE).astype(np.uint16) for plane in np.moveaxis(frame_HWC, -1, 0)]


def painted(frame_HWC: Floats) -> Floats:
    """A result of other colours, (3, H, W) in [0, WHITE]."""
    return np.ascontiguousarray(np.moveaxis(0.15 + 0.7 * frame_HWC[..., ::-1], -1, 0)) * np.float32(WHITE)


def moving_clip(width: int, height: int, *, num_frames: int = 4, pan_px: tuple[float, float] = (1.7, 0.4)) -> Floats:
    """A pan by parts of pixels with a square that moves against it, under noise."""
    square = Layer(
        texture=lambda points: np.full((*points.shape[:-1], 3), (0.9, 0.1, 0.1), np.float32),
        extent_px=(width // 4, height // 4, width // 2, height // 2),
        shift_px=(-2.3, 1.2),
    )
    layers = [Layer(texture=wave_texture(4), shift_px=pan_px), square]
    frames = Scene(name="both", num_frames=num_frames, layers=layers, width_px=width, height_px=height).frames()
    noise = np.random.default_rng(0).normal(0, 2 / 255, frames.shape)
    return np.clip(frames + noise, 0, 1).astype(np.float32)


def cells_of(size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the cells of a picture of that size."""
    width, height = guide_size(*size)
    return -(-height // 2), -(-width // 2)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_the_guide_and_its_cells_are_those_of_the_cpu(size: tuple[int, int], on_device: HostSteadier) -> None:
    frame = np.random.default_rng(0).random((size[1], size[0], 3), np.float32)
    on_device.push(planes_of(frame), painted(frame))
    guide = Guide(cv2, planes_of(frame))
    found = on_device.array("guide 0", guide.rgby.shape)
    # OpenCV rounds the mean to the codes of the frame, of which there are 65,280.
    np.testing.assert_allclose(found, guide.rgby, atol=1e-5)
    np.testing.assert_allclose(on_device.array("luma 0 1", guide.cells), guide.mean_of_cells(guide.luma), atol=2e-5)


@pytest.mark.parametrize("size", [(30, 30), (28, 25)], ids=["even", "odd"])
def test_a_level_of_the_search_is_what_the_cpu_refines_by(size: tuple[int, int], on_device: HostSteadier) -> None:
    """So small a picture has one level; the CPU begins it with no motion, as the pyramid does at its top."""
    first, second = moving_clip(*size, num_frames=2)
    for frame in (first, second):
        on_device.push(planes_of(frame), painted(frame))
    guide, earlier = (Guide(cv2, planes_of(frame)) for frame in (second, first))
    start = np.zeros((2, *guide.cells), np.float32)
    wanted = MotionSearch(cv2)._refined(guide, earlier, start)
    found = on_device.array("flow 0", wanted.shape)
    assert np.abs(wanted).max() > 0.3
    assert np.abs(found - wanted).max() < 1e-4


def test_less_light_is_no_motion(on_device: HostSteadier) -> None:
    """On ground with little to hold on to, such as asphalt under a camera that adapts to a car."""
    ground = cv2.GaussianBlur(np.random.default_rng(0).random((120, 160, 3), np.float32), (0, 0), 4)
    slope = np.linspace(0.3, 0.5, 160, dtype=np.float32)[:, None]
    for light in (1.0, 0.96):
        frame = (light * (slope + 0.2 * ground)).astype(np.float32)
        on_device.push(planes_of(frame), painted(frame))
    assert on_device.array("mask 1", cells_of((160, 120)), np.uint8).mean() < 0.02  # all of it where light counts


def test_what_moves_is_what_moves_on_the_cpu(on_device: HostSteadier, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = moving_clip(160, 120, num_frames=2, pan_px=(0, 0))
    for frame in (first, second):
        on_device.push(planes_of(frame), painted(frame))
    guide, earlier = (Guide(cv2, planes_of(frame)) for frame in (second, first))
    search = MotionSearch(cv2)
    monkeypatch.setattr(search, "_refined", lambda *_: on_device.array("flow 0", (2, *guide.cells)).copy())
    wanted = search(guide, earlier)[0].any(axis=0)
    found = on_device.array("mask 1", guide.cells, np.uint8).astype(bool)
    # The square, where its old and new place are not one, and flat as it is all that is between its edges.
    assert 0.05 < wanted.mean() < 0.4
    assert (found != wanted).mean() < 0.005


@pytest.mark.parametrize("size", list(SIZES.values())[:3], ids=list(SIZES)[:3])
def test_with_the_same_motion_the_picture_is_that_of_the_cpu(
    size: tuple[int, int], on_device: HostSteadier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the search: what moves, differences, light, what is repainted, cubic warps and the blend."""
    on_host = Steadier(AMOUNT)
    # Two steps for each level: the flow lies where it began.
    monkeypatch.setattr(on_host._search, "_refined", lambda *_: on_device.array("flow 0", (2, *cells_of(size))).copy())
    frames = moving_clip(*size)
    frames[2:] *= np.linspace(1, 0.9, size[0], dtype=np.float32)[:, None]  # less light on one side
    for frame in frames:
        found, wanted = painted(frame), painted(frame)
        plain = wanted.copy()
        assert on_device.push(planes_of(frame), found) == on_host.push(planes_of(frame), wanted)
        # A fortieth of a code of 8 bits.
        np.testing.assert_allclose(found, wanted, atol=WHITE * 1e-4)
    assert np.abs(wanted - plain).mean() > 0.005 * WHITE


def test_where_nothing_moves_the_picture_is_that_of_the_cpu(on_device: HostSteadier) -> None:
    on_host, random = Steadier(AMOUNT), np.random.default_rng(0)
    still = generated_scenes(num_frames=1)[0].frames()[0]
    for _ in range(4):
        frame = np.clip(still + random.normal(0, 3 / 255, still.shape), 0, 1).astype(np.float32)
        found = painted(frame) + random.normal(0, 0.02 * WHITE, (3, *still.shape[:2])).astype(np.float32)
        np.clip(found, 0, WHITE, out=found)
        wanted = found.copy()
        on_device.push(planes_of(frame), found)
        on_host.push(planes_of(frame), wanted)
        np.testing.assert_allclose(found, wanted, atol=WHITE * 1e-4)


@pytest.mark.parametrize(("contrast", "is_cut"), [(1.0, False), (0.1, True)])
def test_a_cut_is_what_the_contrast_of_the_source_makes_one(
    contrast: float, is_cut: bool, on_device: HostSteadier
) -> None:
    """The same change: on blocks of black and white it is noise, on grey ones it is all there is."""
    random, on_host = np.random.default_rng(0), Steadier(AMOUNT)
    blocks = random.integers(0, 2, (10, 10, 1)).repeat(8, axis=0).repeat(8, axis=1)
    found = []
    for _ in range(2):
        frame = 0.5 + contrast * 0.6 * (blocks - 0.5) + random.uniform(-0.15, 0.15, (80, 80, 3))
        frame = frame.astype(np.float32)
        found.append([steadier.push(planes_of(frame), painted(frame)) for steadier in (on_device, on_host)])
    assert found == [[False, False], [is_cut, is_cut]]


def test_half_precision_is_as_good() -> None:
    frames = moving_clip(160, 120, num_frames=8)
    results = []
    for precision in ("fp32", "fp16"):
        steadier = HostSteadier(AMOUNT, precision=precision)  # type: ignore[arg-type]
        pictures = [painted(frame) for frame in frames]
        for frame, picture in zip(frames, pictures, strict=True):
            steadier.push(planes_of(frame), picture)
        steadier.close()
        results.append(np.stack(pictures) / WHITE)
    difference = np.abs(results[0] - results[1])
    assert 0 < difference.mean() < 3e-4  # a 13th of a code of 8 bits


@pytest.mark.parametrize("value_range", [(0.0, 255.0), (-1.0, 1.0)])
def test_value_range_of_a_foreign_model(value_range: tuple[float, float], on_device: HostSteadier) -> None:
    scaled = HostSteadier(AMOUNT, value_range=value_range)
    for frame in moving_clip(80, 60):
        found, wanted = painted(frame), painted(frame)
        scaled.push(planes_of(frame), found)
        on_device.push(planes_of(frame), wanted)
        assert np.abs(found - wanted).mean() < WHITE * 1e-4
    scaled.close()


def test_values_that_are_not_numbers_are_noticed(on_device: HostSteadier) -> None:
    frame = moving_clip(40, 40, num_frames=1)[0]
    for number in range(3):
        picture = painted(frame)
        if number == 2:
            picture[1, 39, 39] = np.nan
            with pytest.raises(ValueError, match="no numbers"):
                on_device.push(planes_of(frame), picture)
        else:
            on_device.push(planes_of(frame), picture)


def test_nothing_is_allocated_between_the_first_picture_and_the_last(on_device: HostSteadier) -> None:
    frames = moving_clip(64, 48)
    on_device.push(planes_of(frames[0]), painted(frames[0]))
    num_allocations = on_device.device.num_allocations
    for frame in frames[1:]:
        on_device.push(planes_of(frame), painted(frame))
    assert on_device.device.num_allocations == num_allocations
    on_device.close()
    assert on_device.device.allocated_bytes == 0
