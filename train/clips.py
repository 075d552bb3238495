"""Frame pairs from ordinary video: motion measured once, kept on disk.

Flow is OpenCV's dense inverse search both ways (Kroeger et al., ECCV 2016), visibility the
forward-backward check. Frames are kept as PNG, flow with its mask as 16-bit PNG in KITTI's layout
(Menze & Geiger, CVPR 2015): 64 steps to the pixel, a tenth of what the search itself is off by.
"""

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from stylize.train.frame_pair import FramePair, MeasuredPair, Window, cut_pair, measured_or_next
from stylize.train.motion import occlusion_from_flows
from stylize.train.pictures import read_picture

__all__ = ["VIDEO_SUFFIXES", "Clip", "ClipPairs", "are_successive", "clip_frames"]

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".gif"})

Clip = Path | tuple[Path, ...]
"""A video file, or the pictures of a clip in their order."""

# Change when what is kept of an unchanged clip would change: part of the key.
_FORMAT = 1
_SHORT_SIDE_PX = 360  # larger frames are scaled down: flow costs a second for five 640x360 pairs on one core
_MAX_PAIRS = 120  # of one clip, spread evenly: neighbours teach little that is new
_CACHE_BYTES = 8 << 30  # what is kept of all clips ever used, about 8,000 pairs
_ABANDONED_SECONDS = 3600  # nothing was added to a folder for so long: a pair takes well under a second
_LEAST_VISIBLE = 0.3  # share of a pair's pixels; below it, the two frames are a cut
_FLOW_STEPS, _FLOW_ZERO = 64.0, 1 << 15  # KITTI's: value = 64 flow + 2^15


def clip_frames(clip: Clip) -> Iterator[NDArray[np.uint8]]:
    """All frames of a clip as (H, W, 3) uint8 RGB, upright; a damaged video ends where it breaks.

    Raises:
        ValueError: there is no video in the file, or a picture of the clip cannot be read.
    """
    if isinstance(clip, tuple):
        yield from map(read_picture, clip)
        return
    try:
        with av.open(str(clip)) as container:
            if not container.streams.video:
                raise ValueError(f"{clip}: there is no video in it")
            container.streams.video[0].thread_type = "AUTO"
            for frame in container.decode(video=0):
                quarter_turns = round(frame.rotation / 90)
                yield np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), quarter_turns))
    except av.FFmpegError as error:
        logger.warning("%s: read as far as it goes: %s", clip, error.strerror)


def are_successive(first: Path, second: Path) -> bool:
    """Whether two pictures are frames of one shot: motion found both ways agrees for enough pixels.

    Of 52 pairs of photos (BSDS300) the most alike agree for 11 % of their pixels, successive frames of
    Sintel for 88 % and more.
    """
    try:
        previous, current = (_scaled(read_picture(path)) for path in (first, second))
    except ValueError:
        return False
    return previous.shape == current.shape and bool(_measured(previous, current).visible.mean() >= _LEAST_VISIBLE)


def _num_frames(clip: Clip) -> int:
    """Frames by counting packets, without decoding."""
    if isinstance(clip, tuple):
        return len(clip)
    try:
        with av.open(str(clip)) as container:
            return sum(1 for packet in container.demux(video=0) if packet.size) if container.streams.video else 0
    except av.FFmpegError:
        return 0


class ClipPairs:
    """Frame pairs of video clips, measured at the first use of a clip.

    Args:
        clips: what to read.
        window: how the frames are cut.
        cache: folder for frames and flow; may be deleted at any time between two trainings.

    Raises:
        ValueError: no clip gives a single usable pair.
    """

    def __init__(self, clips: Sequence[Clip], *, window: Window, cache: Path) -> None:
        self._window = window
        self._entries: list[tuple[Path, int]] = []
        self._num_clips = self._num_cuts = 0
        folders = [_kept(clip, cache) for clip in clips]
        _trim(cache, keep={folder for folder in folders if folder is not None})
        for folder in folders:
            if folder is None:
                continue
            index = json.loads((folder / "index.json").read_text())
            self._entries += [(folder, number) for number in index["pairs"]]
            self._num_clips += bool(index["pairs"])
            self._num_cuts += index["num_cuts"]
        self._num_skipped = len(clips) - self._num_clips
        if not self._entries:
            raise ValueError(f"{_name(clips[0])}{' ...' if len(clips) > 1 else ''}: no two frames that belong together")

    @property
    def description(self) -> str:
        """What it holds, for the log."""
        cuts = f", {self._num_cuts} cuts or unclear motions left out" if self._num_cuts else ""
        skipped = f", {self._num_skipped} clips without a usable pair skipped" if self._num_skipped else ""
        return f"{len(self._entries)} pairs of {self._num_clips} clips{cuts}{skipped}"

    def pair(self, rng: np.random.Generator) -> FramePair:
        """A window of a random pair; a damaged one is replaced by the next."""
        index = int(rng.integers(len(self._entries)))
        return cut_pair(rng, measured_or_next(self._entries, index, _load), self._window)


def _name(clip: Clip) -> Path:
    return clip if isinstance(clip, Path) else clip[0].parent


def _kept(clip: Clip, cache: Path) -> Path | None:
    """The folder with what is kept of a clip, filled when it is new; None when the clip cannot be read."""
    digest = hashlib.blake2b(f"{_FORMAT} {cv2.__version__} {_SHORT_SIDE_PX} {_MAX_PAIRS}".encode(), digest_size=16)
    try:
        for path in clip if isinstance(clip, tuple) else (clip,):
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        folder = cache / digest.hexdigest()
        if not (folder / "index.json").is_file():
            _measure(clip, folder)
        os.utime(folder)  # the least recently used are removed first
    except (ValueError, cv2.error) as error:
        logger.warning("skipped: %s", error)
        return None
    return folder


def _measure(clip: Clip, folder: Path) -> None:
    """Fill a folder, whole or not at all."""
    num_frames = _num_frames(clip)
    num_pairs = max(num_frames - 1, 0)
    wanted = set(np.linspace(1, num_pairs, min(_MAX_PAIRS, num_pairs)).round().astype(int).tolist())
    logger.info("%s: measuring the motion of %d of %d frames", _name(clip), len(wanted), num_frames)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    try:
        usable: list[int] = []
        num_measured = 0
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            pairs = _wanted_pairs(clip, wanted)
            while batch := list(islice(pairs, 2 * (os.cpu_count() or 1))):  # bounds what waits in memory
                measured = pool.map(lambda item: (item[0], _measured(*item[1])), batch)
                for number, pair in measured:
                    num_measured += 1
                    if pair.visible.mean() >= _LEAST_VISIBLE:
                        _store(partial, number, pair)
                        usable.append(number)
        index = {"source": str(_name(clip)), "pairs": usable, "num_cuts": num_measured - len(usable)}
        (partial / "index.json").write_text(json.dumps(index))
        if folder.exists():  # another process was faster, or an earlier one was killed
            shutil.rmtree(folder, ignore_errors=True)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _wanted_pairs(clip: Clip, wanted: set[int]) -> Iterator[tuple[int, tuple[NDArray[np.uint8], NDArray[np.uint8]]]]:
    """(number of the current frame, (previous, current)), scaled."""
    previous: NDArray[np.uint8] | None = None
    for number, frame in enumerate(clip_frames(clip)):
        is_needed = number in wanted or number + 1 in wanted
        current = _scaled(frame) if is_needed else None
        if number in wanted and previous is not None and current is not None and previous.shape == current.shape:
            yield number, (previous, current)
        previous = current


def _scaled(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = frame.shape[:2]
    scale = _SHORT_SIDE_PX / min(height, width)
    if scale >= 1:
        return frame
    size = (round(width * scale), round(height * scale))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)


def _measured(previous: NDArray[np.uint8], current: NDArray[np.uint8]) -> MeasuredPair:
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (previous, current)]
    flows = []
    for target, reference in ((grey[1], grey[0]), (grey[0], grey[1])):
        search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # not for two threads at once
        flows.append(np.asarray(search.calc(target, reference, None), np.float32))
    into_past, into_future = (torch.from_numpy(flow).permute(2, 0, 1)[None] for flow in flows)
    visible = occlusion_from_flows(into_past, into_future)[0, 0].bool().numpy()
    return MeasuredPair(previous=previous, current=current, flow=flows[0], visible=visible)


def _store(folder: Path, number: int, pair: MeasuredPair) -> None:
    """Write the two frames, which neighbouring pairs share, and the flow between them."""
    for index, frame in ((number - 1, pair.previous), (number, pair.current)):
        path = folder / f"frame_{index:06}.png"
        if not path.exists():
            _write_png(path, np.ascontiguousarray(frame[..., ::-1]))
    steps = np.clip(np.round(pair.flow * _FLOW_STEPS) + _FLOW_ZERO, 0, 2 * _FLOW_ZERO - 1)
    # OpenCV stores channels in the order B, G, R; KITTI's R, G, B are x, y, valid.
    _write_png(
        folder / f"flow_{number:06}.png",
        np.dstack([pair.visible, steps[..., 1], steps[..., 0]]).astype(np.uint16),
    )


def _write_png(path: Path, picture: NDArray[np.generic]) -> None:
    # Level 1 writes five times as fast as the default and is a tenth larger.
    path.write_bytes(cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes())


def _load(entry: tuple[Path, int]) -> MeasuredPair:
    folder, number = entry
    path = folder / f"flow_{number:06}.png"
    stored = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if stored is None or stored.dtype != np.uint16:
        raise ValueError(f"{path}: damaged; delete {folder} to have it made again")
    flow = (stored[..., :0:-1].astype(np.float32) - _FLOW_ZERO) / _FLOW_STEPS
    return MeasuredPair(
        previous=read_picture(folder / f"frame_{number - 1:06}.png"),
        current=read_picture(folder / f"frame_{number:06}.png"),
        flow=np.ascontiguousarray(flow),
        visible=stored[..., 0] > 0,
    )


def _trim(cache: Path, *, keep: Iterable[Path], limit_bytes: int = _CACHE_BYTES) -> None:
    """Remove what killed processes left, then the clips used longest ago until the cache is within its limit."""
    for left in cache.glob(".*.partial"):
        if time.time() - left.stat().st_mtime > _ABANDONED_SECONDS:
            shutil.rmtree(left, ignore_errors=True)
    kept = set(keep)
    folders = sorted((path for path in cache.glob("[0-9a-f]*") if path.is_dir()), key=lambda path: path.stat().st_mtime)
    sizes = {folder: sum(file.stat().st_size for file in folder.iterdir()) for folder in folders}
    total = sum(sizes.values())
    for folder in folders:
        if total <= limit_bytes:
            return
        if folder not in kept:
            shutil.rmtree(folder, ignore_errors=True)
            total -= sizes[folder]
    if total > limit_bytes:
        logger.warning("%s holds %.1f GB, all of it of clips in use", cache, total / 1e9)
