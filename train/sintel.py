"""MPI-Sintel: rendered film with true motion, read from its folders as they are unpacked.

    training/final/SCENE/frame_0001.png       or training/clean
    training/flow/SCENE/frame_0001.flo        motion into frame 2
    training/occlusions/SCENE/frame_0001.png  white where frame 2 does not show the pixel
    training/invalid/SCENE/frame_0001.png     optional; white where the motion is not known

Source: Butler et al., "A naturalistic open source movie for optical flow evaluation" (ECCV 2012).
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stylize.train.frame_pair import FramePair, MeasuredPair, Window, cut_pair, measured_or_next
from stylize.train.pictures import read_picture

__all__ = ["SintelPairs", "read_flo"]

_FLO_MAGIC = b"PIEH"  # 202021.25 as a little-endian float
_PASSES = ("final", "clean")  # best first


def read_flo(path: Path) -> NDArray[np.float32]:
    """Flow from a Middlebury `.flo` file, (H, W, 2) float32 in pixels.

    Raises:
        ValueError: not such a file, or cut short.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    if len(content) < 12 or content[:4] != _FLO_MAGIC:
        raise ValueError(f"{path}: not a .flo file: it does not begin with PIEH")
    width, height = (int(size) for size in np.frombuffer(content, "<i4", 2, offset=4))
    if len(content) != 12 + 8 * width * height:
        raise ValueError(f"{path}: has {len(content)} bytes, {width}x{height} flow takes {12 + 8 * width * height}")
    return np.frombuffer(content, "<f4", offset=12).reshape(height, width, 2).astype(np.float32)


class _Entry(NamedTuple):
    """Files of one pair; `flow`, `occlusion` and `invalid` belong to the first frame."""

    first: Path
    second: Path
    flow: Path
    occlusion: Path
    invalid: Path | None


class SintelPairs:
    """Frame pairs of MPI-Sintel's training part, told backwards.

    Sintel gives the motion from a frame into the next one only, while training compares a frame with
    what was seen before: so the next frame takes the part of the previous one.

    Args:
        folder: the data set, or its `training` folder.
        window: how the frames are cut.

    Raises:
        ValueError: a part of the tree is missing; the message names it.
    """

    def __init__(self, folder: Path, *, window: Window) -> None:
        self._root = self._training(folder)
        self._window = window
        for kind in ("flow", "occlusions"):
            if not (self._root / kind).is_dir():
                raise ValueError(
                    f"{self._root}: looks like MPI-Sintel but has no folder {kind}: "
                    "unpack MPI-Sintel-complete.zip whole"
                )
        self._frames = next(self._root / name for name in _PASSES if (self._root / name).is_dir())
        listed = list(self._listed())
        self._entries = [entry for entry in listed if entry.flow.is_file() and entry.occlusion.is_file()]
        self._num_skipped = len(listed) - len(self._entries)
        if not listed:
            raise ValueError(f"{self._frames}: no SCENE/frame_0001.png in it")
        if not self._entries:
            first = listed[0]
            missing = first.occlusion if first.flow.is_file() else first.flow
            raise ValueError(f"{self._root}: no flow for any frame; the first that is missing is {missing}")

    @staticmethod
    def _training(folder: Path) -> Path:
        return folder / "training" if (folder / "training").is_dir() else folder

    @classmethod
    def is_tree(cls, folder: Path) -> bool:
        """Whether a folder looks like MPI-Sintel, complete or not."""
        root = cls._training(folder)
        has_frames = any((root / name).is_dir() for name in _PASSES)
        return has_frames and (root.name == "training" or (root / "flow").is_dir())

    @property
    def description(self) -> str:
        """What it holds, for the log."""
        skipped = f", {self._num_skipped} pairs without flow skipped" if self._num_skipped else ""
        return f"{len(self._entries)} pairs of {self._frames}{skipped}"

    def _listed(self) -> Iterator[_Entry]:
        """All successive frames, whether their flow is there or not."""
        for scene in sorted(path for path in self._frames.iterdir() if path.is_dir()):
            frames = sorted(scene.glob("frame_*.png"))
            for first, second in pairwise(frames):
                invalid = self._root / "invalid" / scene.name / first.name
                yield _Entry(
                    first,
                    second,
                    self._root / "flow" / scene.name / f"{first.stem}.flo",
                    self._root / "occlusions" / scene.name / first.name,
                    invalid if invalid.is_file() else None,
                )

    def pair(self, rng: np.random.Generator) -> FramePair:
        """A window of a random pair; a damaged one is replaced by the next."""
        index = int(rng.integers(len(self._entries)))
        return cut_pair(rng, measured_or_next(self._entries, index, self._measured), self._window)

    @staticmethod
    def _measured(entry: _Entry) -> MeasuredPair:
        visible = read_picture(entry.occlusion)[..., 0] == 0
        if entry.invalid is not None:
            visible &= read_picture(entry.invalid)[..., 0] == 0
        return MeasuredPair(
            previous=read_picture(entry.second),
            current=read_picture(entry.first),
            flow=read_flo(entry.flow),
            visible=visible,
        )
