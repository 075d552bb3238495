"""Style pictures that train badly are named."""

import cv2
import numpy as np
import pytest

from stylize.train.scenes import draw_scene
from stylize.train.style_check import style_facts, style_warnings


@pytest.fixture
def painting() -> np.ndarray:
    """A drawn scene with strokes all over, as paintings have."""
    rng = np.random.default_rng(0)
    canvas = draw_scene(3, height=384, width=512)
    for _ in range(6000):
        x, y = rng.uniform([0, 0], [512, 384])
        angle, length = rng.uniform(0, np.pi), rng.uniform(6, 20)
        end = (int(x + length * np.cos(angle)), int(y + length * np.sin(angle)))
        colour = canvas[int(y), int(x)].astype(int) + rng.integers(-40, 40, 3)
        cv2.line(canvas, (int(x), int(y)), end, np.clip(colour, 0, 255).tolist(), 3, cv2.LINE_AA)
    return canvas


def test_painting_has_nothing_against_it(painting: np.ndarray) -> None:
    assert style_warnings(painting) == []


def test_noise_is_named_where_it_drowns_the_strokes(painting: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    noisy = np.clip(painting + rng.normal(0, 50, painting.shape), 0, 255).astype(np.uint8)
    assert "is noisy" in style_warnings(noisy)[0]
    faint = np.clip(painting + rng.normal(0, 3, painting.shape), 0, 255).astype(np.uint8)
    assert style_warnings(faint) == []


def test_flat_and_smooth_pictures_have_little_texture() -> None:
    flat = np.full((400, 500, 3), (180, 120, 60), np.uint8)
    flat[:208] = (60, 140, 200)
    assert "has little texture: 100% of it is flat" in style_warnings(flat)[0]
    slope = np.linspace(0, 255, 512)[None, :, None] * np.ones((384, 1, 3))
    assert "has little texture" in style_warnings(slope.astype(np.uint8))[0]


def test_thumbnails_are_named(painting: np.ndarray) -> None:
    small = cv2.resize(painting, (160, 120), interpolation=cv2.INTER_AREA)
    assert style_warnings(small)[0].startswith("is small (160x120)")


def test_noise_is_measured_in_parts_of_the_range() -> None:
    rng = np.random.default_rng(2)
    grey = np.clip(128 + rng.normal(0, 12.75, (512, 512, 1)), 0, 255).repeat(3, axis=2).astype(np.uint8)
    facts = style_facts(grey)
    assert 0.047 < facts.noise < 0.053  # 12.75 of 255 is 5 %
    assert abs(facts.fine_correlation + 0.1) < 0.15
