"""Optical flow measured on any clip, forwards and backwards, kept so that it is computed once."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from stylize.benchmarks.temporal import Clip, FloatArray, Mask, PairMotion, visible_mask

__all__ = ["FlowCache", "dis_flow_px", "dis_motions", "frame_pairs"]

# Change when the flow of an unchanged clip would change: part of the key of stored flow.
_FLOW_VERSION = 1


def frame_pairs(num_frames: int, *, gap: int) -> list[tuple[int, int]]:
    """(target, reference) for every frame that has one `gap` frames earlier."""
    return [(index, index - gap) for index in range(gap, num_frames)]


def _grey(frame: Clip) -> np.ndarray:
    if frame.dtype != np.uint8:
        frame = (np.clip(frame, 0, 1) * 255).round().astype(np.uint8)
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY))


def dis_flow_px(target: Clip, reference: Clip) -> FloatArray:
    """Flow from the target's grid into the reference by dense inverse search, preset medium.

    Args:
        target: (H, W, 3) RGB, uint8 or float in [0, 1].
        reference: the same shape.

    Returns:
        (H, W, 2) float32, (dx, dy) in pixels.

    Source: Kroeger et al., "Fast optical flow using dense inverse search" (ECCV 2016), OpenCV.
    """
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return np.asarray(search.calc(_grey(target), _grey(reference), None), np.float32)


def _visible_flow(target: Clip, reference: Clip) -> tuple[FloatArray, Mask]:
    flow_px = dis_flow_px(target, reference)
    return flow_px, visible_mask(flow_px, dis_flow_px(reference, target))


class FlowCache:
    """Flow and visibility of frame pairs, stored as files named by the pictures' content.

    Args:
        folder: where to keep them; made when missing. Delete it at any time.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, target: Clip, reference: Clip) -> tuple[FloatArray, Mask]:
        """The stored result for these two pictures, measured and stored when there is none."""
        digest = hashlib.blake2b(f"{_FLOW_VERSION} {cv2.__version__} {target.shape}".encode(), digest_size=16)
        digest.update(target.tobytes())
        digest.update(reference.tobytes())
        path = self._folder / f"{digest.hexdigest()}.npz"
        if path.exists():
            with np.load(path) as stored:
                return stored["flow_px"], stored["visible"]
        flow_px, visible = _visible_flow(target, reference)
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, flow_px=flow_px, visible=visible)
        partial.replace(path)
        return flow_px, visible


def dis_motions(
    clip: Clip,
    pairs: Sequence[tuple[int, int]],
    *,
    cache: FlowCache | None = None,
) -> list[PairMotion]:
    """Motion of the given frame pairs of a clip, visible by the check of `visible_mask`.

    Args:
        clip: (T, H, W, 3) RGB.
        pairs: (target, reference) frame numbers, see `frame_pairs`.
        cache: keeps flow between runs; None measures it.
    """
    find = _visible_flow if cache is None else cache
    motions = []
    for target_index, reference_index in pairs:
        flow_px, visible = find(clip[target_index], clip[reference_index])
        motions.append(
            PairMotion(target_index=target_index, reference_index=reference_index, flow_px=flow_px, visible=visible)
        )
    return motions
