"""Monkaa, FlyingThings3D and Driving: rendered scenes with true motion both ways, read as they are unpacked.

Below a root folder, with SCENE as deep as the data set has it (`a_rain_of_stones_x2`, `TRAIN/A/0000`)
and SIDE `left` or `right`, either of which may be missing:

    frames_finalpass/SCENE/SIDE/0006.png            or frames_cleanpass
    optical_flow/SCENE/into_future/SIDE/OpticalFlowIntoFuture_0006_L.pfm
    optical_flow/SCENE/into_past/SIDE/OpticalFlowIntoPast_0007_L.pfm
    motion_boundaries/SCENE/into_past/SIDE/0007.pgm  optional: else found in the flow

Source: Mayer et al., "A large dataset to train convolutional networks for disparity, optical flow, and
scene flow estimation" (CVPR 2016).
"""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from stylize.train.frame_pair import FramePair, MeasuredPair, Window, cut_pair, measured_or_next
from stylize.train.motion import occlusion_from_flows
from stylize.train.pictures import read_picture

__all__ = ["SceneFlowPairs", "read_pfm"]

_PASSES = ("frames_finalpass", "frames_cleanpass", "frames_finalpass_webp", "frames_cleanpass_webp")  # best first
_SIDES = {"left": "L", "right": "R"}
_FRAME_SUFFIXES = {".png", ".webp"}
_PFM_HEADER = re.compile(rb"(P[Ff])\s+(\d+)\s+(\d+)\s+(-?[0-9.eE+-]+)\s", re.DOTALL)


def read_pfm(path: Path) -> NDArray[np.float32]:
    """A portable float map as (H, W, C) float32, top row first; C is 3 (`PF`) or 1 (`Pf`).

    Raises:
        ValueError: not such a file, or cut short.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    header = _PFM_HEADER.match(content)
    if header is None:
        raise ValueError(f"{path}: not a .pfm file: it begins with {content[:12]!r}, not PF, width, height, scale")
    num_channels = 3 if header[1] == b"PF" else 1
    width, height = int(header[2]), int(header[3])
    num_bytes = 4 * width * height * num_channels
    if len(content) - header.end() != num_bytes:
        raise ValueError(
            f"{path}: holds {len(content) - header.end()} bytes of values, {width}x{height} takes {num_bytes}"
        )
    byte_order = "<" if header[4].startswith(b"-") else ">"
    rows = np.frombuffer(content, f"{byte_order}f4", offset=header.end()).reshape(height, width, num_channels)
    return np.ascontiguousarray(rows[::-1], np.float32)  # the format stores the bottom row first


class _Entry(NamedTuple):
    """Files of one pair; `future` starts from the previous frame, `past` and `boundaries` from the current one."""

    previous: Path
    current: Path
    future: Path
    past: Path
    boundaries: Path | None


class SceneFlowPairs:
    """Frame pairs of a data set of the SceneFlow family.

    Args:
        root: the folder that holds `frames_finalpass` (or `frames_cleanpass`) and `optical_flow`.
        window: how the frames are cut.

    Raises:
        ValueError: a part of the tree is missing; the message names it.
    """

    def __init__(self, root: Path, *, window: Window) -> None:
        self._root = root
        self._window = window
        self._frames = next((root / name for name in _PASSES if (root / name).is_dir()), None)
        if self._frames is None:
            raise ValueError(f"{root}: none of {', '.join(_PASSES)} is in it")
        if not (root / "optical_flow").is_dir():
            raise ValueError(
                f"{root}: has {self._frames.name} but no optical_flow beside it: "
                "unpack the data set's optical_flow archive there"
            )
        self._has_boundaries = (root / "motion_boundaries").is_dir()
        listed = list(self._listed())
        self._entries = [entry for entry in listed if entry.future.is_file() and entry.past.is_file()]
        self._num_skipped = len(listed) - len(self._entries)
        if not listed:
            raise ValueError(f"{self._frames}: no SCENE/left/0006.png nor SCENE/right/0006.png in it")
        if not self._entries:
            first = listed[0]
            missing = first.past if first.future.is_file() else first.future
            raise ValueError(f"{root}: no flow for any frame; the first that is missing is {missing.relative_to(root)}")

    @staticmethod
    def is_tree(folder: Path) -> bool:
        """Whether a folder looks like one of these data sets, complete or not."""
        return any((folder / name).is_dir() for name in _PASSES)

    @property
    def description(self) -> str:
        """What it holds, for the log."""
        assert self._frames is not None
        boundaries = "" if self._has_boundaries else ", motion boundaries found in the flow"
        skipped = f", {self._num_skipped} pairs without flow skipped" if self._num_skipped else ""
        return f"{len(self._entries)} pairs of {self._frames}{boundaries}{skipped}"

    def _listed(self) -> Iterator[_Entry]:
        """All successive frames, whether their flow is there or not."""
        assert self._frames is not None
        for folder in sorted(path for side in _SIDES for path in self._frames.rglob(side) if path.is_dir()):
            scene, side = folder.parent.relative_to(self._frames), folder.name
            flow = self._root / "optical_flow" / scene
            frames = sorted(path for path in folder.iterdir() if path.suffix in _FRAME_SUFFIXES)
            for previous, current in pairwise(frames):
                boundaries = self._root / "motion_boundaries" / scene / "into_past" / side / f"{current.stem}.pgm"
                yield _Entry(
                    previous,
                    current,
                    flow / "into_future" / side / f"OpticalFlowIntoFuture_{previous.stem}_{_SIDES[side]}.pfm",
                    flow / "into_past" / side / f"OpticalFlowIntoPast_{current.stem}_{_SIDES[side]}.pfm",
                    boundaries if self._has_boundaries and boundaries.is_file() else None,
                )

    def pair(self, rng: np.random.Generator) -> FramePair:
        """A window of a random pair; a damaged one is replaced by the next."""
        index = int(rng.integers(len(self._entries)))
        return cut_pair(rng, measured_or_next(self._entries, index, self._measured), self._window)

    @staticmethod
    def _measured(entry: _Entry) -> MeasuredPair:
        past_13HW, future_13HW = (
            torch.from_numpy(read_pfm(path)).permute(2, 0, 1)[None] for path in (entry.past, entry.future)
        )
        boundaries = None
        if entry.boundaries is not None:
            grey = read_picture(entry.boundaries)[..., 0]
            boundaries = torch.from_numpy(grey > 0)[None, None]
        visible = occlusion_from_flows(past_13HW[:, :2], future_13HW[:, :2], boundaries)
        return MeasuredPair(
            previous=read_picture(entry.previous),
            current=read_picture(entry.current),
            flow=past_13HW[0, :2].permute(1, 2, 0).numpy(),
            visible=visible[0, 0].bool().numpy(),
        )
