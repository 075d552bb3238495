"""Two successive frames with the motion between them: the unit that every kind of training data gives.

Everything here is a pure function of a random generator, so an interrupted training goes on with
exactly the pairs it would have seen, and loader processes need no shared state.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stylize.train.motion import inside, pixel_grid

__all__ = [
    "Degradation",
    "FramePair",
    "MeasuredPair",
    "PairSource",
    "Window",
    "cut_pair",
    "degraded",
    "measured_or_next",
]

logger = logging.getLogger(__name__)

_Entry = TypeVar("_Entry")

_JPEG_QUALITY = (30, 95)  # from visible 8x8 blocks, as in web video, to hardly any
_LARGEST_SHRINK = 2.0  # of measured frames: at most twice the crop is shown in it


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


class MeasuredPair(NamedTuple):
    """Two whole frames whose motion was rendered or measured."""

    previous: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    current: NDArray[np.uint8]
    flow: NDArray[np.float32]
    """(H, W, 2): (dx, dy) in pixels from the current frame's grid into the previous frame."""
    visible: NDArray[np.bool_]
    """(H, W): True where a current pixel is seen in the previous frame."""


class PairSource(Protocol):
    """Anything that frame pairs can be drawn from."""

    @property
    def description(self) -> str:
        """What it holds, for the log: `200 pictures in photos`."""

    def pair(self, rng: np.random.Generator) -> FramePair:
        """A random pair; the same state of `rng` gives the same pair in every process."""


@dataclass(frozen=True, kw_only=True)
class Degradation:
    """Limits of the damage that the network sees and the losses do not."""

    noise: float = 0.02
    """Largest standard deviation of the sensor noise."""
    block_noise: float = 0.01
    """Largest standard deviation of the offsets of 8x8 blocks: what low bit rates leave in flat areas."""
    compressed_share: float = 0.5
    """Share of pairs whose frames went through a lossy codec, each at its own quality, as in video."""


def degraded(rng: np.random.Generator, limits: Degradation, *frames_3HW: Tensor) -> list[Tensor]:
    """The frames (3, H, W) in [0, 1] with noise and codec damage of one strength, each with its own draw."""
    sigmas = rng.uniform(0, limits.noise), rng.uniform(0, limits.block_noise)
    seen = [_with_noise(rng, frame, *sigmas) for frame in frames_3HW]
    if rng.uniform() < limits.compressed_share:
        seen = [_through_codec(frame, int(rng.integers(*_JPEG_QUALITY))) for frame in seen]
    return seen


def measured_or_next(entries: Sequence[_Entry], index: int, read: Callable[[_Entry], MeasuredPair]) -> MeasuredPair:
    """What `read` makes of an entry; one that is damaged is reported and replaced by the next.

    Motion that is not a finite number counts as unknown: not visible.

    Raises:
        ValueError: none of the entries can be read any more.
    """
    for offset in range(len(entries)):
        try:
            pair = read(entries[(index + offset) % len(entries)])
            shapes = {pair.previous.shape[:2], pair.current.shape[:2], pair.flow.shape[:2], pair.visible.shape}
            if len(shapes) > 1:
                raise ValueError(f"frames, flow and masks of {entries[index]} differ in size: {sorted(shapes)}")
        except (ValueError, OSError, cv2.error) as error:
            logger.warning("skipped: %s", error)
            continue
        is_finite = np.isfinite(pair.flow).all(axis=-1)
        if is_finite.all():
            return pair
        return pair._replace(flow=np.nan_to_num(pair.flow, posinf=0, neginf=0), visible=pair.visible & is_finite)
    raise ValueError("none of the frame pairs can be read any more")


@dataclass(frozen=True, kw_only=True)
class Window:
    """How measured frames are cut for training."""

    crop_px: int
    """Side of the frames given out."""
    content_size_px: int | None = None
    """Short side the frames are scaled to; None for many sizes, from full to half."""
    degradation: Degradation = Degradation()


def cut_pair(rng: np.random.Generator, measured: MeasuredPair, window: Window) -> FramePair:
    """A random window of a measured pair, scaled to the crop and mirrored half the time.

    Frames smaller than the crop are enlarged. Pixels whose source falls outside the window do not
    count as visible.
    """
    crop_px = window.crop_px
    height, width = measured.visible.shape
    short = min(height, width)
    zoom = float(rng.uniform(1, _LARGEST_SHRINK))
    if window.content_size_px is not None:
        zoom = short / window.content_size_px
    side = min(max(round(crop_px * zoom), 1), short)
    top, left = (int(rng.integers(size - side + 1)) for size in (height, width))
    part = np.s_[top : top + side, left : left + side]
    is_mirrored = bool(rng.integers(2))

    def resized(array: NDArray[np.generic]) -> NDArray[np.float32]:
        piece = np.ascontiguousarray(array[part], np.float32)
        if is_mirrored:
            piece = np.ascontiguousarray(piece[:, ::-1])
        interpolation = cv2.INTER_AREA if side > crop_px else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(piece, (crop_px, crop_px), interpolation=interpolation), np.float32)

    previous, current = (
        torch.from_numpy(resized(frame)).permute(2, 0, 1).contiguous() / 255
        for frame in (measured.previous, measured.current)
    )
    scale = np.float32(crop_px / side)
    flow_HW2 = resized(measured.flow) * np.array([-scale if is_mirrored else scale, scale], np.float32)
    flow = torch.from_numpy(flow_HW2).permute(2, 0, 1).contiguous()
    whole = torch.from_numpy(resized(measured.visible)) > 0.999  # every pixel under it is visible
    within = inside(pixel_grid(crop_px, crop_px) + flow, crop_px, crop_px)[0, 0]
    seen = degraded(rng, window.degradation, previous, current)
    return FramePair(seen[0], seen[1], previous, current, flow, (whole & within)[None].float())


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
