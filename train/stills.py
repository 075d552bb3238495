"""Frame pairs made from still pictures by known motion: flow and occlusion are exact and cost nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from stylize.train.frame_pair import Degradation, FramePair, degraded
from stylize.train.motion import inside, pixel_grid, sample_at
from stylize.train.pictures import PictureFolder, SceneCollection

__all__ = ["MotionRange", "StillPairs"]


@dataclass(frozen=True, kw_only=True)
class MotionRange:
    """Limits of the random motion between two frames, for a 192-pixel crop at video rate."""

    shift_px: float = 6.0
    turn_degrees: float = 2.0
    zoom: float = 0.03
    bend_px: float = 1.5
    """Peak of the smooth random field that stands for parallax and deformation."""
    cutout_shift_px: float = 12.0
    max_cutouts: int = 2
    static_share: float = 0.3
    """Share of pairs without any motion: a tripod, where flicker shows most."""
    gain: float = 0.08
    """Largest relative change of brightness between the frames."""


@dataclass(frozen=True)
class _Layer:
    """One sheet of the scene: a texture, where it is opaque, and how it moved."""

    texture_13HW: Tensor
    texture_position: Callable[[Tensor], Tensor]
    alpha: Callable[[Tensor], Tensor]
    motion: Callable[[Tensor], Tensor]
    """Position in the current frame to position in the previous one; both (1, 2, H, W)."""


class StillPairs:
    """Frame pairs cut from still pictures.

    Args:
        pictures: what is shown.
        crop_px: side of the frames.
        content_size_px: short side the pictures are scaled to; None for many sizes.
        motion: how far things move between two frames.
        degradation: what noise and codecs do to them.
    """

    def __init__(
        self,
        pictures: PictureFolder | SceneCollection,
        *,
        crop_px: int,
        content_size_px: int | None = None,
        motion: MotionRange | None = None,
        degradation: Degradation | None = None,
    ) -> None:
        self._pictures = pictures
        self._crop_px = crop_px
        self._content_size_px = content_size_px
        self._motion = motion or MotionRange()
        self._degradation = degradation or Degradation()
        self._grid = pixel_grid(crop_px, crop_px)

    @property
    def description(self) -> str:
        """What it holds, for the log."""
        return self._pictures.description

    def pair(self, rng: np.random.Generator) -> FramePair:
        """A random pair, (3, crop_px, crop_px) each."""
        is_static = rng.uniform() < self._motion.static_share
        layers = [self._background(rng, is_static=is_static)]
        layers += [self._cutout(rng, is_static=is_static) for _ in range(rng.integers(self._motion.max_cutouts + 1))]
        previous = self._render(layers, [self._grid] * len(layers))
        sources = [layer.motion(self._grid) for layer in layers]
        current = self._render(layers, sources)
        flow, visible = self._flow_and_visibility(layers, sources)
        gain = 1 + rng.uniform(-1, 1) * self._motion.gain
        current = (current * gain).clamp(0, 1)
        seen = degraded(rng, self._degradation, previous[0], current[0])
        return FramePair(seen[0], seen[1], previous[0], current[0], flow, visible)

    def _texture(self, rng: np.random.Generator) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """A random picture, and the map from crop positions into it."""
        picture = self._pictures[int(rng.integers(len(self._pictures)))]
        height, width = picture.shape[:2]
        # Video frames are smoother per pixel than photos scaled down for the web, so pictures are shown
        # from enlarged 2.5 times to shrunk by half, as far as they fill the crop.
        fit = min(height, width) / self._crop_px
        zoom = min(float(rng.uniform(0.4, 2.0)), max(fit, 0.4))
        if self._content_size_px is not None:
            zoom = min(height, width) / self._content_size_px
        half = np.array([self._crop_px, self._crop_px]) * zoom / 2
        size = np.array([width, height])
        centre = rng.uniform(np.minimum(half, size / 2), np.maximum(size - half, size / 2))
        mirror = float(rng.choice([-1.0, 1.0]))
        texture = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
        while zoom >= 2 / 1.2:  # beyond that, bilinear sampling would skip pixels and alias
            texture, zoom, centre = F.avg_pool2d(texture, 2), zoom / 2, (centre - 0.5) / 2
        transform = _affine(zoom, rng.uniform(-0.1, 0.1), centre - self._middle, self._middle, mirror=mirror)
        return texture, transform

    @property
    def _middle(self) -> NDArray[np.float64]:
        return np.full(2, (self._crop_px - 1) / 2)

    def _background(self, rng: np.random.Generator, *, is_static: bool) -> _Layer:
        texture, position = self._texture(rng)
        return _Layer(texture, position, lambda p: torch.ones_like(p[:, :1]), self._camera(rng, is_static=is_static))

    def _camera(self, rng: np.random.Generator, *, is_static: bool) -> Callable[[Tensor], Tensor]:
        """Shift, turn, zoom and a smooth bend."""
        if is_static:
            return lambda p: p
        limits = self._motion
        affine = _affine(
            1 + rng.uniform(-1, 1) * limits.zoom,
            np.radians(rng.uniform(-1, 1) * limits.turn_degrees),
            rng.uniform(-1, 1, 2) * limits.shift_px,
            self._middle,
        )
        knots = torch.from_numpy(rng.uniform(-1, 1, (1, 2, 4, 4)).astype(np.float32))
        bend = F.interpolate(knots, size=self._grid.shape[-2:], mode="bicubic", align_corners=True)
        amount = float(rng.uniform(0, limits.bend_px))
        return lambda p: affine(p) + amount * bend

    def _cutout(self, rng: np.random.Generator, *, is_static: bool) -> _Layer:
        """A wavy blob with its own texture and motion; a pixel wide soft edge."""
        texture, position = self._texture(rng)
        centre = torch.from_numpy(rng.uniform(0, self._crop_px, (1, 2, 1, 1)).astype(np.float32))
        radius = float(rng.uniform(0.08, 0.3) * self._crop_px)
        lobes, wave, phase = int(rng.integers(2, 6)), float(rng.uniform(0, 0.3)), float(rng.uniform(0, 6.28))

        def alpha(p: Tensor) -> Tensor:
            offset = p - centre
            angle = torch.atan2(offset[:, 1:], offset[:, :1])
            outline: Tensor = radius * (1 + wave * torch.sin(lobes * angle + phase))
            distance = torch.hypot(offset[:, :1], offset[:, 1:])
            inside_px: Tensor = outline - distance + 0.5
            return inside_px.clamp(0, 1)

        if is_static:
            return _Layer(texture, position, alpha, lambda p: p)
        limits = self._motion
        motion = _affine(
            1 + rng.uniform(-1, 1) * limits.zoom,
            np.radians(rng.uniform(-2, 2) * limits.turn_degrees),
            rng.uniform(-1, 1, 2) * limits.cutout_shift_px,
            centre.numpy().reshape(2).astype(np.float64),
        )
        return _Layer(texture, position, alpha, motion)

    @staticmethod
    def _render(layers: Sequence[_Layer], positions: Sequence[Tensor]) -> Tensor:
        """(1, 3, H, W): the layers painted one over another, each read at its own positions."""
        canvas = torch.zeros(1, 3, *positions[0].shape[-2:])
        for layer, position in zip(layers, positions, strict=True):
            colour = sample_at(layer.texture_13HW, layer.texture_position(position))
            canvas = torch.lerp(canvas, colour, layer.alpha(position))
        return canvas

    def _flow_and_visibility(self, layers: Sequence[_Layer], sources: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Flow of the topmost layer at each current pixel, and whether that point was seen before.

        A pixel is hidden where the previous frame shows a higher layer at its source, where it lies
        on the soft edge of any layer in either frame, or where its source is outside the frame.
        """
        size = self._crop_px
        flow = sources[0] - self._grid
        visible = inside(sources[0], size, size)
        for above in layers[1:]:
            visible &= above.alpha(sources[0]) == 0
        for number, (layer, source) in enumerate(zip(layers[1:], sources[1:], strict=True), start=1):
            alpha = layer.alpha(source)
            own_visible = inside(source, size, size) & (alpha == 1)
            for above in layers[number + 1 :]:
                own_visible &= above.alpha(source) == 0
            covers = alpha > 0
            flow = torch.where(covers, source - self._grid, flow)
            visible = torch.where(covers, own_visible, visible)
        return flow[0], visible[0].float()


def _affine(
    zoom: float, turn_radians: float, shift: NDArray[np.float64], about: NDArray[np.float64], *, mirror: float = 1.0
) -> Callable[[Tensor], Tensor]:
    """Map positions (1, 2, H, W): turn and zoom about a point, then shift, all in pixels."""
    cos, sin = zoom * np.cos(turn_radians), zoom * np.sin(turn_radians)
    matrix = torch.tensor([[cos * mirror, -sin], [sin * mirror, cos]], dtype=torch.float32)
    centre = torch.from_numpy(np.asarray(about, np.float32))[None, :, None, None]
    offset = torch.from_numpy(np.asarray(shift, np.float32))[None, :, None, None]
    return lambda p: torch.einsum("ij,njhw->nihw", matrix, p - centre) + centre + offset
