"""A style picture the project draws itself: a stained-glass window, so that no painting is needed to try a training."""

from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["draw_stained_glass"]

_SUPERSAMPLING = 2  # drawn at twice the size, so that the lead has smooth edges

# Glass colours (RGB in [0, 1]) after the old recipes: cobalt, copper ruby, silver stain, iron and copper
# greens, manganese purple, flashed white. Blues and reds lead, as in French windows of the 13th century.
_GLASS = np.array(
    [
        (0.05, 0.16, 0.62),
        (0.10, 0.35, 0.80),
        (0.72, 0.06, 0.10),
        (0.86, 0.20, 0.08),
        (0.97, 0.72, 0.12),
        (0.99, 0.87, 0.40),
        (0.06, 0.45, 0.25),
        (0.38, 0.66, 0.20),
        (0.42, 0.12, 0.50),
        (0.93, 0.90, 0.80),
    ]
)
_SHARES = np.array([0.19, 0.14, 0.17, 0.08, 0.10, 0.07, 0.09, 0.05, 0.06, 0.05])
_PANE_REACH = 0.12  # of the side: beyond that from its centre no pane goes
_LEAD = np.array((0.06, 0.055, 0.06))  # nearly black against the light


def draw_stained_glass(size_px: int = 768, *, seed: int = 0) -> NDArray[np.uint8]:
    """A rose window of coloured panes between lead cames; the same picture for the same arguments.

    Panes are the Voronoi cells of jittered points on rings round the centre, with uneven thickness
    and streaks in the glass and a highlight along one side of each came.

    Args:
        size_px: side of the square picture, at least 64.
        seed: of the panes and their colours.

    Returns:
        (size, size, 3) uint8, RGB.

    Raises:
        ValueError: `size_px` is below 64.
    """
    if size_px < 64:
        raise ValueError(f"size_px={size_px} must be at least 64")
    random = np.random.default_rng(seed)
    side = size_px * _SUPERSAMPLING
    centres = _pane_centres(random)
    colors = _GLASS[random.choice(len(_GLASS), len(centres), p=_SHARES)]
    colors = np.clip(colors * random.uniform(0.8, 1.2, (len(centres), 1)), 0, 1)
    slopes = random.uniform(0, 2 * np.pi, len(centres))
    labels, edge_px = _panes(centres * side, side)
    picture = colors[labels] * _glass_texture(random, slopes[labels], side)[..., None]
    came_px = 0.0055 * side
    lead = np.clip(1 + came_px - edge_px, 0, 1)[..., None]
    picture = picture * (1 - lead) + _LEAD * lead * (1 + _solder(edge_px, came_px))[..., None]
    small = cv2.resize(picture.astype(np.float32), (size_px, size_px), interpolation=cv2.INTER_AREA)
    window: NDArray[np.uint8] = (np.clip(small, 0, 1) * 255 + 0.5).astype(np.uint8)
    return window


def _pane_centres(random: np.random.Generator) -> NDArray[np.float64]:
    """(N, 2) points in units of the side: rings of petals, with jitter; the corners are filled too."""
    radii = np.concatenate([[0.0], np.linspace(0.07, 0.75, 11)])
    points = []
    for index, (inner, outer) in enumerate(pairwise(np.append(radii, 0.82))):
        middle = (inner + outer) / 2 if index else 0.0
        num_petals = max(1, round(2 * np.pi * middle / 0.062))
        angles = (np.arange(num_petals) + 0.5 * (index % 2)) * 2 * np.pi / num_petals
        angles += random.normal(0, 0.12 / max(num_petals, 1), num_petals)
        radius = middle + random.normal(0, 0.011, num_petals)
        points.append(np.stack([np.cos(angles) * radius, np.sin(angles) * radius], axis=1))
    return np.concatenate(points) + 0.5


def _panes(centres_px: NDArray[np.float64], side: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Which pane each pixel belongs to, and its distance in pixels to the nearest pane border."""
    ys, xs = np.mgrid[:side, :side].astype(np.float32)
    wave = 0.006 * side  # borders cut by hand are not straight
    xs, ys = xs + wave * np.sin(ys * 9 / side), ys + wave * np.sin(xs * 11 / side)
    nearest = np.full((side, side), np.inf, np.float32)
    labels = np.zeros((side, side), np.int64)
    reach = round(_PANE_REACH * side)
    for index, (x, y) in enumerate(centres_px.astype(np.float32)):
        top, left = (max(round(float(place)) - reach, 0) for place in (y, x))
        part = slice(top, top + 2 * reach), slice(left, left + 2 * reach)
        distance = (xs[part] - x) ** 2 + (ys[part] - y) ** 2
        is_nearer = distance < nearest[part]
        nearest[part][is_nearer] = distance[is_nearer]
        labels[part][is_nearer] = index
    assert np.isfinite(nearest).all(), "a pane reaches farther than _PANE_REACH"
    is_border = np.zeros((side, side), bool)
    is_border[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    is_border[1:] |= labels[1:] != labels[:-1]
    return labels, cv2.distanceTransform((~is_border).astype(np.uint8), cv2.DIST_L2, 5)


def _glass_texture(random: np.random.Generator, slope: NDArray[np.float64], side: int) -> NDArray[np.float32]:
    """Factor per pixel: each pane thicker towards one side (`slope`, radians), with streaks and grain in it."""
    ys, xs = np.mgrid[:side, :side].astype(np.float32) / side
    ramp = (np.cos(slope) * xs + np.sin(slope) * ys) * 6
    streaks = cv2.GaussianBlur(
        random.normal(0, 1, (side, side)).astype(np.float32), (0, 0), side / 60, sigmaY=side / 400
    )
    streaks /= streaks.std()
    grain = cv2.GaussianBlur(random.normal(0, 1, (side, side)).astype(np.float32), (0, 0), side / 500)
    grain /= grain.std()
    texture: NDArray[np.float32] = (1 + 0.16 * np.sin(ramp) + 0.09 * streaks + 0.05 * grain).astype(np.float32)
    return texture


def _solder(edge_px: NDArray[np.float32], came_px: float) -> NDArray[np.float32]:
    """The came is round: brighter along its middle."""
    shine: NDArray[np.float32] = np.float32(2.2) * np.clip(1 - edge_px / (0.45 * came_px), 0, 1)
    return shine
