"""All training data through one door: a folder is recognised by looking at it, several are mixed by weight."""

import logging
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from platformdirs import user_cache_path
from torch.utils.data import Dataset

from stylize.train.clips import VIDEO_SUFFIXES, Clip, ClipPairs, are_successive
from stylize.train.frame_pair import FramePair, PairSource, Window
from stylize.train.pictures import PICTURE_SUFFIXES, PictureFolder, SceneCollection
from stylize.train.sceneflow import SceneFlowPairs
from stylize.train.sintel import SintelPairs
from stylize.train.stills import StillPairs

__all__ = ["FramePairs", "WeightedSource", "open_data", "parse_data"]

logger = logging.getLogger(__name__)

WeightedSource = tuple[PairSource, float]

_LEAST_FRAMES = 3  # consecutive numbers that make pictures a clip


class FramePairs(Dataset[FramePair]):
    """Endless frame pairs from weighted sources; item i is the same in every run with that seed.

    Args:
        sources: what is drawn from, each as often as its weight says.
        num_pairs: the length.
        seed: of everything random.
    """

    def __init__(self, sources: Sequence[WeightedSource], *, num_pairs: int, seed: int) -> None:
        self._sources = [source for source, _ in sources]
        weights = np.array([weight for _, weight in sources])
        self._limits = np.cumsum(weights / weights.sum())
        self._num_pairs = num_pairs
        self._seed = seed

    def __len__(self) -> int:
        return self._num_pairs

    def __getitem__(self, index: int) -> FramePair:
        """Pair number `index`, at the size of the crop."""
        if not 0 <= index < self._num_pairs:
            raise IndexError(index)  # ends `for pair in pairs`
        rng = np.random.default_rng([self._seed, index])
        number = 0
        if len(self._sources) > 1:
            number = min(int(np.searchsorted(self._limits, rng.uniform(), side="right")), len(self._sources) - 1)
        return self._sources[number].pair(rng)


def parse_data(text: str) -> tuple[Path, float]:
    """`folder` or `folder:0.3` as a path and its weight, 1 when none is given.

    Raises:
        ValueError: the weight is not above 0.
    """
    path, colon, weight = text.rpartition(":")
    if not colon or Path(text).exists() or not re.fullmatch(r"[-+0-9.eE]+", weight):
        return Path(text), 1.0
    try:
        number = float(weight)
    except ValueError:
        return Path(text), 1.0
    if not 0 < number < float("inf"):
        raise ValueError(f"--data {text}: weight {weight} must be above 0")
    return Path(path), number


def open_data(data: Sequence[str], window: Window, *, cache: Path | None = None) -> list[WeightedSource]:
    """Everything to draw frame pairs from; what each holds and skipped is logged.

    Args:
        data: folders or files, as `parse_data` reads them; none for scenes drawn on the spot.
        window: how frames are cut from what is there.
        cache: where the motion of clips is kept; None for the user's cache folder.

    Raises:
        ValueError: a folder is missing, holds nothing usable, or is a data set with a part missing.
    """
    if not data:
        return [(_stills(SceneCollection(), window), 1.0)]
    cache = cache or user_cache_path("stylize", appauthor=False) / "clips"
    sources: list[WeightedSource] = []
    for text in data:
        path, weight = parse_data(text)
        found = _sources_in(path, window, cache=cache)
        sources += [(source, weight / len(found)) for source in found]
    total = sum(weight for _, weight in sources)
    for source, weight in sources:
        logger.info("data, %.0f %%: %s", 100 * weight / total, source.description)
    return sources


def _sources_in(path: Path, window: Window, *, cache: Path) -> list[PairSource]:
    """What a folder or file gives; clips and pictures lying together give one source each."""
    if SceneFlowPairs.is_tree(path):
        return [SceneFlowPairs(path, window=window)]
    if SintelPairs.is_tree(path):
        return [SintelPairs(path, window=window)]
    if path.name.startswith("frames_") and SceneFlowPairs.is_tree(path.parent):
        raise ValueError(f"{path}: is the frames of a data set with motion; give the folder above it, {path.parent}")
    _reject_folder_of_data_sets(path)
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    clips: list[Clip] = [file for file in files if file.suffix.lower() in VIDEO_SUFFIXES]
    pictures = [file for file in files if file.suffix.lower() in PICTURE_SUFFIXES]
    numbered = _numbered_clips(pictures)
    clips += numbered
    has_stills = len(pictures) > sum(len(clip) for clip in numbered)
    sources: list[PairSource] = []
    if clips:
        try:
            sources.append(ClipPairs(clips, window=window, cache=cache))
        except ValueError as error:
            if not has_stills:
                raise
            logger.warning("skipped: %s", error)
    if has_stills or not clips:
        stills = PictureFolder(path, without={clip[0].parent for clip in numbered})
        sources.append(_stills(stills, window))
    return sources


def _stills(pictures: PictureFolder | SceneCollection, window: Window) -> StillPairs:
    return StillPairs(
        pictures,
        crop_px=window.crop_px,
        content_size_px=window.content_size_px,
        degradation=window.degradation,
    )


def _reject_folder_of_data_sets(path: Path) -> None:
    """Pictures of a data set taken for stills would lose the motion that was downloaded with them."""
    inside = sorted(
        folder for folder in path.glob("*/") if SceneFlowPairs.is_tree(folder) or SintelPairs.is_tree(folder)
    )
    if inside:
        flags = " ".join(f"--data {folder}" for folder in inside)
        raise ValueError(f"{path}: holds whole data sets; give each of them: {flags}")


def _numbered_clips(pictures: Sequence[Path]) -> list[tuple[Path, ...]]:
    """Folders whose pictures are the frames of a clip: numbered without a gap, and the first two belong together.

    Photo collections have numbered names too, so the pictures are looked at.
    """
    clips = []
    by_folder: dict[Path, list[Path]] = {}
    for picture in pictures:
        by_folder.setdefault(picture.parent, []).append(picture)
    for _, inside in sorted(by_folder.items()):
        frames: dict[int, Path] = {}
        for picture in inside:
            if match := re.search(r"(\d+)$", picture.stem):
                frames[int(match[1])] = picture
        numbers = sorted(frames)
        is_run = len(frames) == len(inside) >= _LEAST_FRAMES and all(b - a == 1 for a, b in pairwise(numbers))
        if is_run and are_successive(frames[numbers[0]], frames[numbers[1]]):
            clips.append(tuple(frames[number] for number in numbers))
    return clips
