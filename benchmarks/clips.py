"""Small clips whose motion is known exactly: the yardstick for everything that estimates motion.

A scene is a stack of layers. Each carries a texture defined at every real coordinate and moves by an
affine map of time, so frames, flow and visibility all follow from formulas and none from another
frame. Coordinates are pixels from the frame's top left pixel centre, time is in frames.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stylize.benchmarks.temporal import FloatArray, Mask, PairMotion

__all__ = ["Layer", "Scene", "generated_scenes", "wave_texture"]

Points = NDArray[np.float64]
"""(..., 2) of (x, y) in pixels."""

# Enough waves for a texture without visible repetition, few enough to draw a frame in milliseconds.
_NUM_WAVES = 40
_LONGEST_WAVE_PX = 120.0
_SHORTEST_WAVE_PX = 5.0
# Root mean square before tanh: the frames' standard deviation becomes 0.2, as in photographs.
_CONTRAST = 0.5


def wave_texture(seed: int) -> Callable[[Points], FloatArray]:
    """A smooth coloured texture with falling spectrum, defined at every real coordinate.

    The shortest wave is 5 px, so that bilinear sampling follows it.

    Returns:
        A function from points (..., 2) to RGB (..., 3) in [0, 1].
    """
    random = np.random.default_rng(seed)
    span = math.log(_LONGEST_WAVE_PX / _SHORTEST_WAVE_PX)
    length_px = _SHORTEST_WAVE_PX * np.exp(random.uniform(0, span, _NUM_WAVES))
    angle = random.uniform(0, 2 * math.pi, _NUM_WAVES)
    frequency_x = (2 * math.pi / length_px * np.cos(angle)).astype(np.float32)
    frequency_y = (2 * math.pi / length_px * np.sin(angle)).astype(np.float32)
    phase = random.uniform(0, 2 * math.pi, _NUM_WAVES).astype(np.float32)
    # Natural pictures have amplitudes that fall like 1/f: Field, JOSA A 4 (1987).
    amplitude = random.uniform(-1, 1, (_NUM_WAVES, 3)) * np.sqrt(length_px)[:, None]
    amplitude *= _CONTRAST / np.sqrt(np.square(amplitude).sum(axis=0) / 2)
    amplitude_WC = amplitude.astype(np.float32)

    def texture(points: Points) -> FloatArray:
        x, y = np.moveaxis(points.astype(np.float32), -1, 0)
        total = np.zeros((*x.shape, 3), np.float32)
        # One wave at a time: a matrix product may round a point differently by where it stands.
        for wave in range(_NUM_WAVES):
            height = np.sin(x * frequency_x[wave] + y * frequency_y[wave] + phase[wave])
            for channel in range(3):
                total[..., channel] += amplitude_WC[wave, channel] * height
        # tanh keeps the sum of waves inside [0, 1] without a crease.
        return np.asarray(0.5 + 0.5 * np.tanh(total), np.float32)

    return texture


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A textured sheet, cut to a rectangle, that moves, turns and grows steadily.

    Attributes:
        texture: colour at each point of the sheet, see `wave_texture`.
        extent_px: (left, top, right, bottom) of the cut on the sheet; None for an endless sheet.
        centre_px: (x, y), the point on the sheet that turning and growing leave in place.
        shift_px: (x, y) moved per frame.
        turn_rad: angle turned per frame.
        growth: factor of size per frame.
    """

    texture: Callable[[Points], FloatArray]
    extent_px: tuple[float, float, float, float] | None = None
    centre_px: tuple[float, float] = (0.0, 0.0)
    shift_px: tuple[float, float] = (0.0, 0.0)
    turn_rad: float = 0.0
    growth: float = 1.0

    def _matrix(self, time: int) -> NDArray[np.float64]:
        cosine, sine = math.cos(self.turn_rad * time), math.sin(self.turn_rad * time)
        return self.growth**time * np.array([[cosine, -sine], [sine, cosine]])

    def on_frame(self, points: Points, time: int) -> Points:
        """Where points of the sheet are on the frame."""
        centre = np.array(self.centre_px)
        moved = (points - centre) @ self._matrix(time).T + centre + time * np.array(self.shift_px)
        return np.asarray(moved, np.float64)

    def on_sheet(self, points: Points, time: int) -> Points:
        """Which points of the sheet are at points of the frame."""
        centre = np.array(self.centre_px)
        moved = points - centre - time * np.array(self.shift_px)
        return np.asarray(moved @ np.linalg.inv(self._matrix(time)).T + centre, np.float64)

    def covers(self, points: Points, time: int) -> Mask:
        """Which points of the frame the sheet covers."""
        if self.extent_px is None:
            return np.ones(points.shape[:-1], np.bool_)
        left, top, right, bottom = self.extent_px
        x, y = np.moveaxis(self.on_sheet(points, time), -1, 0)
        return np.asarray((x >= left) & (x < right) & (y >= top) & (y < bottom))


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A generated clip: layers from back to front, the first one endless.

    Attributes:
        name: what moves in it.
        layers: from back to front.
        num_frames: length of the clip.
        height_px: height of a frame.
        width_px: width of a frame.
    """

    name: str
    layers: Sequence[Layer]
    num_frames: int = 6
    height_px: int = 120
    width_px: int = 160

    @cached_property
    def _grid(self) -> Points:
        y, x = np.mgrid[: self.height_px, : self.width_px]
        return np.stack([x, y], axis=-1).astype(np.float64)

    def _owners(self, time: int) -> NDArray[np.intp]:
        """(H, W): the number of the front-most layer at each pixel."""
        owners = np.zeros((self.height_px, self.width_px), np.intp)
        for number, layer in enumerate(self.layers[1:], start=1):
            owners[layer.covers(self._grid, time)] = number
        return owners

    def frames(self) -> FloatArray:
        """The clip, (T, H, W, 3) RGB float32 in [0, 1]."""
        clip = np.empty((self.num_frames, self.height_px, self.width_px, 3), np.float32)
        for time in range(self.num_frames):
            owners = self._owners(time)
            for number, layer in enumerate(self.layers):
                is_shown = owners == number
                clip[time][is_shown] = layer.texture(layer.on_sheet(self._grid[is_shown], time))
        return clip

    def motions(self, *, gap: int = 1) -> list[PairMotion]:
        """Exact motion of every pair `gap` frames apart.

        A pixel is visible where all four pixels that bilinear sampling reads in the reference exist
        and show the same layer.
        """
        return [self._motion(time, time - gap) for time in range(gap, self.num_frames)]

    def _motion(self, target_index: int, reference_index: int) -> PairMotion:
        grid = self._grid
        owners, earlier_owners = self._owners(target_index), self._owners(reference_index)
        destination = np.empty_like(grid)
        for number, layer in enumerate(self.layers):
            is_shown = owners == number
            on_sheet = layer.on_sheet(grid[is_shown], target_index)
            destination[is_shown] = layer.on_frame(on_sheet, reference_index)
        flow_px = (destination - grid).astype(np.float32)
        limits = np.array([self.width_px - 1, self.height_px - 1])
        visible = np.all((destination >= 0) & (destination <= limits), axis=-1)
        low = np.clip(np.floor(destination), 0, limits).astype(np.intp)
        high = np.clip(np.ceil(destination), 0, limits).astype(np.intp)
        for x in (low[..., 0], high[..., 0]):
            for y in (low[..., 1], high[..., 1]):
                visible &= earlier_owners[y, x] == owners
        return PairMotion(target_index=target_index, reference_index=reference_index, flow_px=flow_px, visible=visible)


def generated_scenes(*, num_frames: int = 6) -> list[Scene]:
    """The four standard scenes: whole-pixel pan, sub-pixel pan, turn with zoom, object over background."""
    centre_px = (80.0, 60.0)
    crossing = Layer(texture=wave_texture(11), extent_px=(40, 35, 85, 80), shift_px=(4, 1))
    return [
        Scene(name="whole-pixel pan", num_frames=num_frames, layers=[Layer(texture=wave_texture(1), shift_px=(3, -2))]),
        Scene(
            name="sub-pixel pan", num_frames=num_frames, layers=[Layer(texture=wave_texture(2), shift_px=(1.3, 0.7))]
        ),
        Scene(
            name="turn and zoom",
            num_frames=num_frames,
            layers=[Layer(texture=wave_texture(3), centre_px=centre_px, turn_rad=0.02, growth=1.01)],
        ),
        Scene(
            name="crossing object",
            num_frames=num_frames,
            layers=[Layer(texture=wave_texture(4), shift_px=(-2, 0)), crossing],
        ),
    ]
