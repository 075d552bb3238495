"""Scenes drawn from nothing, for training without any data.

Dead leaves with power-law sizes share the edge and scale statistics of natural photos (Lee, Mumford
& Huang, IJCV 2001), and each leaf carries 1/f texture (Field, JOSA A 1987). Networks have learned
usable filters from such pictures alone (Baradad et al., "Learning to See by Looking at Noise", 2021).
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["draw_scene"]

_NUM_LEAVES = 220
_MIN_RADIUS_PX = 8.0
_SIZE_EXPONENT = 2.5  # density of radii r^-3 is scale invariant (Lee et al., section 2); a little less covers more


def _pink_noise(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """(H, W) noise with amplitude 1/f, zero mean and unit variance."""
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.hypot(fy, fx)
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal((height, width))) / frequency
    noise = np.fft.irfft2(spectrum, s=(height, width)).astype(np.float32)
    noise /= noise.std()
    return noise


def _leaf_outline(rng: np.random.Generator, centre_xy: NDArray[np.float64], radius_px: float) -> NDArray[np.int32]:
    """Corner points (P, 1, 2) of an ellipse, a polygon or a wavy blob."""
    num_points = int(rng.choice([3, 4, 5, 48, 48, 48]))
    angle = np.linspace(0, 2 * np.pi, num_points, endpoint=False) + rng.uniform(0, 2 * np.pi)
    waves = 1 + rng.uniform(0, 0.3) * np.sin(rng.integers(2, 7) * angle)
    stretch = np.array([1.0, rng.uniform(0.35, 1.0)])
    points = radius_px * waves[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1) * stretch
    turn = rng.uniform(0, np.pi)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    outline: NDArray[np.int32] = np.round(points @ rotation.T + centre_xy)[:, None].astype(np.int32)
    return outline


def _palette(rng: np.random.Generator) -> NDArray[np.float64]:
    """(8, 3) RGB colours that belong together, as those of one photo do."""
    base = rng.uniform(0.1, 0.9, 3)
    return np.clip(base + rng.normal(0, 0.25, (8, 1)) + rng.normal(0, 0.12, (8, 3)), 0.02, 0.98)


def draw_scene(seed: int, *, height: int, width: int) -> NDArray[np.uint8]:
    """Draw scene number `seed`; the same number always gives the same picture.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    rng = np.random.default_rng([0x5CE7E, seed])
    palette = _palette(rng)
    sky = np.linspace(0, 1, height)[:, None, None]
    canvas = (palette[0] * (1 - sky) + palette[1] * sky).astype(np.float32).repeat(width, axis=1)
    textures = [_pink_noise(rng, height, width) for _ in range(4)]
    canvas += 0.06 * textures[0][..., None]
    # Inverse transform sampling of the power law between the smallest leaf and a third of the picture.
    largest = max(height, width) / 3
    uniform = rng.uniform(size=_NUM_LEAVES)
    power = 1 - _SIZE_EXPONENT
    radii = (_MIN_RADIUS_PX**power + uniform * (largest**power - _MIN_RADIUS_PX**power)) ** (1 / power)
    for radius in rng.permutation(radii):
        outline = _leaf_outline(rng, rng.uniform([0, 0], [width, height]), radius)
        sheet = _Sheet.random(rng, palette, textures)
        _paint_leaf(canvas, outline, sheet)
    scene: NDArray[np.uint8] = np.clip(np.round(canvas * 255), 0, 255).astype(np.uint8)
    return scene


@dataclass(frozen=True, kw_only=True)
class _Sheet:
    """What a leaf is cut from, as large as the scene: one colour, side light and texture."""

    colour: NDArray[np.float64]
    light: NDArray[np.float64]  # (W)
    texture: NDArray[np.float32]  # (H, W)
    grain: float  # how much of the texture shows

    @classmethod
    def random(
        cls, rng: np.random.Generator, palette: NDArray[np.float64], textures: list[NDArray[np.float32]]
    ) -> "_Sheet":
        colour = palette[rng.integers(len(palette))] + rng.normal(0, 0.03, 3)
        texture = textures[rng.integers(len(textures))]
        light = np.linspace(-1, 1, texture.shape[1]) * rng.uniform(-0.1, 0.1)
        return cls(colour=colour, light=light, texture=texture, grain=rng.uniform(0.0, 0.12))

    def cut(self, rows: slice, columns: slice) -> NDArray[np.float32]:
        """Part of the sheet, (rows, columns, 3)."""
        shade = self.light[columns] + self.grain * self.texture[rows, columns]
        return (self.colour + shade[..., None]).astype(np.float32)


def _paint_leaf(canvas: NDArray[np.float32], outline: NDArray[np.int32], sheet: _Sheet) -> None:
    """Paint the leaf over the canvas in place, within its bounding box only."""
    height, width = canvas.shape[:2]
    x, y, box_width, box_height = cv2.boundingRect(outline)
    rows = slice(max(y - 1, 0), min(y + box_height + 1, height))
    columns = slice(max(x - 1, 0), min(x + box_width + 1, width))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    mask = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.uint8)
    cv2.fillPoly(mask, [outline - (columns.start, rows.start)], 255, cv2.LINE_AA)
    alpha = mask[..., None].astype(np.float32) / 255
    part = canvas[rows, columns]
    part += alpha * (sheet.cut(rows, columns) - part)
