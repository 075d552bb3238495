"""Training data: pictures from folders, and frame pairs made from them by known motion.

Everything here is a pure function of a seed and an index, so an interrupted training goes on with
exactly the pairs it would have seen, and loader processes need no shared state.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from stylize.train.motion import inside, pixel_grid, sample_at
from stylize.train.scenes import draw_scene

__all__ = ["FramePair", "FramePairs", "MotionRange", "PictureFolder", "SceneCollection", "read_picture"]

logger = logging.getLogger(__name__)

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
_NUM_CACHED_PICTURES = 512  # about 230 MB of 481x321 pictures
_SCENE_SIZE = (384, 512)  # height, width
_NUM_SCENES = 10_000  # drawn when asked for
_JPEG_QUALITY = (30, 95)  # from visible 8x8 blocks, as in web video, to hardly any


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Read a picture as (H, W, 3) uint8 RGB, turned upright by its EXIF orientation.

    Raises:
        ValueError: not a picture, or damaged.
    """
    # cv2.imdecode, not imread: imread cannot open every path and hides why it failed.
    encoded = np.frombuffer(path.read_bytes(), np.uint8)
    picture = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if encoded.size else None
    if picture is None:
        raise ValueError(f"{path}: not a picture that can be read")
    rgb: NDArray[np.uint8] = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    return rgb


class PictureFolder:
    """All pictures in folders, nested or flat; files that cannot be read are counted and skipped.

    Args:
        folders: searched recursively, in the order of the sorted paths.

    Raises:
        ValueError: a folder is missing, or there is no readable picture in all of them.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        candidates: list[Path] = []
        for folder in folders:
            if not folder.is_dir():
                raise ValueError(f"{folder}: no such folder of pictures")
            candidates += sorted(p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file())
        self._paths = [path for path in candidates if cv2.haveImageReader(str(path))]
        self.num_skipped = len(candidates) - len(self._paths)
        self._read = lru_cache(_NUM_CACHED_PICTURES)(read_picture)
        if not self._paths:
            raise ValueError(
                f"{', '.join(map(str, folders))}: no readable picture among {len(candidates)} files "
                f"({', '.join(sorted(_SUFFIXES))})"
            )

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Picture (H, W, 3) uint8 RGB; a file that breaks while reading is replaced by the next one."""
        for offset in range(len(self)):
            path = self._paths[(index + offset) % len(self)]
            try:
                return self._read(path)
            except (ValueError, OSError, cv2.error) as error:
                logger.warning("skipped: %s", error)
        raise ValueError("none of the pictures can be read any more")


class SceneCollection:
    """Drawn scenes with the interface of a picture folder."""

    num_skipped = 0

    def __init__(self) -> None:
        self._draw: Callable[[int], NDArray[np.uint8]] = lru_cache(_NUM_CACHED_PICTURES)(self._draw_scene)

    @staticmethod
    def _draw_scene(index: int) -> NDArray[np.uint8]:
        height, width = _SCENE_SIZE
        return draw_scene(index, height=height, width=width)

    def __len__(self) -> int:
        return _NUM_SCENES

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Scene (H, W, 3) uint8 RGB."""
        return self._draw(index)


class FramePair(NamedTuple):
    """Two successive frames with the exact motion between them; stacked along N in a batch."""

    previous: Tensor
    """(3, H, W) float32 RGB in [0, 1], with sensor noise and codec blocks: what the network sees."""
    current: Tensor
    """The next frame, as `previous`."""
    previous_clean: Tensor
    """`previous` as drawn: what the losses compare."""
    current_clean: Tensor
    flow: Tensor
    """(2, H, W): (dx, dy) in pixels from the current frame's grid into the previous frame."""
    visible: Tensor
    """(1, H, W): 1 where a current pixel is seen in the previous frame, else 0."""


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
    noise: float = 0.02
    """Largest standard deviation of the sensor noise."""
    block_noise: float = 0.01
    """Largest standard deviation of the offsets of 8x8 blocks: what low bit rates leave in flat areas."""
    compressed_share: float = 0.5
    """Share of pairs whose frames went through a lossy codec, each at its own quality, as in video."""


@dataclass(frozen=True)
class _Layer:
    """One sheet of the scene: a texture, where it is opaque, and how it moved."""

    texture_13HW: Tensor
    texture_position: Callable[[Tensor], Tensor]
    alpha: Callable[[Tensor], Tensor]
    motion: Callable[[Tensor], Tensor]
    """Position in the current frame to position in the previous one; both (1, 2, H, W)."""


class FramePairs(Dataset[FramePair]):
    """Endless frame pairs cut from still pictures; item i is the same in every run with that seed."""

    def __init__(
        self,
        pictures: PictureFolder | SceneCollection,
        *,
        crop_px: int,
        num_pairs: int,
        seed: int,
        motion: MotionRange | None = None,
    ) -> None:
        self._pictures = pictures
        self._crop_px = crop_px
        self._num_pairs = num_pairs
        self._seed = seed
        self._motion = motion or MotionRange()
        self._grid = pixel_grid(crop_px, crop_px)

    def __len__(self) -> int:
        return self._num_pairs

    def __getitem__(self, index: int) -> FramePair:
        """Pair number `index`, at the size of the crop."""
        if not 0 <= index < self._num_pairs:
            raise IndexError(index)  # ends `for pair in pairs`
        rng = np.random.default_rng([self._seed, index])
        is_static = rng.uniform() < self._motion.static_share
        layers = [self._background(rng, is_static=is_static)]
        layers += [self._cutout(rng, is_static=is_static) for _ in range(rng.integers(self._motion.max_cutouts + 1))]
        previous = self._render(layers, [self._grid] * len(layers))
        sources = [layer.motion(self._grid) for layer in layers]
        current = self._render(layers, sources)
        flow, visible = self._flow_and_visibility(layers, sources)
        gain = 1 + rng.uniform(-1, 1) * self._motion.gain
        current = (current * gain).clamp(0, 1)
        sigmas = rng.uniform(0, self._motion.noise), rng.uniform(0, self._motion.block_noise)
        seen = [_with_noise(rng, frame[0], *sigmas) for frame in (previous, current)]
        if rng.uniform() < self._motion.compressed_share:
            seen = [_through_codec(frame, int(rng.integers(*_JPEG_QUALITY))) for frame in seen]
        return FramePair(seen[0], seen[1], previous[0], current[0], flow, visible)

    def _texture(self, rng: np.random.Generator) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """A random picture, and the map from crop positions into it."""
        picture = self._pictures[int(rng.integers(len(self._pictures)))]
        height, width = picture.shape[:2]
        # Video frames are smoother per pixel than photos scaled down for the web, so pictures are shown
        # from enlarged 2.5 times to shrunk by half, as far as they fill the crop.
        fit = min(height, width) / self._crop_px
        zoom = min(float(rng.uniform(0.4, 2.0)), max(fit, 0.4))
        half = np.array([self._crop_px, self._crop_px]) * zoom / 2
        size = np.array([width, height])
        centre = rng.uniform(np.minimum(half, size / 2), np.maximum(size - half, size / 2))
        mirror = float(rng.choice([-1.0, 1.0]))
        texture = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
        if zoom >= 2 / 1.2:  # beyond that, bilinear sampling would skip pixels and alias
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
            distance = torch.linalg.vector_norm(offset, dim=1, keepdim=True)
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


def _with_noise(rng: np.random.Generator, clean_3HW: Tensor, sensor_sigma: float, block_sigma: float) -> Tensor:
    """The frame with grey sensor noise and with coloured offsets of its 8x8 blocks."""
    _, height, width = clean_3HW.shape
    sensor = rng.normal(0, sensor_sigma, (1, height, width)).astype(np.float32)
    offsets = rng.normal(0, block_sigma, (3, -(-height // 8), -(-width // 8))).astype(np.float32)
    blocks = offsets.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
    return (clean_3HW + torch.from_numpy(sensor + blocks)).clamp(0, 1)


def _through_codec(frame_3HW: Tensor, quality: int) -> Tensor:
    """The frame after JPEG: its 8x8 transform blocks are those of video codecs' intra frames.

    Without them in training, a network paints the block edges of real clips as strokes, and they
    change with every frame.
    """
    bgr = (frame_3HW.flip(0) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert decoded is not None
    return torch.from_numpy(decoded).permute(2, 0, 1).flip(0).float() / 255


def _affine(
    zoom: float, turn_radians: float, shift: NDArray[np.float64], about: NDArray[np.float64], *, mirror: float = 1.0
) -> Callable[[Tensor], Tensor]:
    """Map positions (1, 2, H, W): turn and zoom about a point, then shift, all in pixels."""
    cos, sin = zoom * np.cos(turn_radians), zoom * np.sin(turn_radians)
    matrix = torch.tensor([[cos * mirror, -sin], [sin * mirror, cos]], dtype=torch.float32)
    centre = torch.from_numpy(np.asarray(about, np.float32))[None, :, None, None]
    offset = torch.from_numpy(np.asarray(shift, np.float32))[None, :, None, None]
    return lambda p: torch.einsum("ij,njhw->nihw", matrix, p - centre) + centre + offset
