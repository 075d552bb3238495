"""Pictures to train on: from folders, or drawn on the spot."""

import logging
from collections.abc import Callable, Set
from pathlib import Path
from typing import Generic, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stylize.train.scenes import draw_scene

__all__ = ["PICTURE_SUFFIXES", "PictureFolder", "SceneCollection", "picture_on_white", "read_picture", "scaled_picture"]

logger = logging.getLogger(__name__)

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
_CACHE_BYTES = 256 << 20  # of each process that loads: 450 drawn scenes, 7 photos of 12 megapixels
_SCENE_SIZE = (384, 512)  # height, width
_NUM_SCENES = 10_000  # drawn when asked for
# Of a style or content picture, long side over short: painted scrolls have about 20, and 32 at a short side of 512 px
# take the loss network 6 GB.
_MOST_ELONGATED = 32


KeyT = TypeVar("KeyT")


class _Kept(Generic[KeyT]):
    """Pictures by their key, those used last kept in memory."""

    def __init__(self, read: Callable[[KeyT], NDArray[np.uint8]]) -> None:
        self._read = read
        self._pictures: dict[KeyT, NDArray[np.uint8]] = {}
        self._num_bytes = 0

    def __call__(self, key: KeyT) -> NDArray[np.uint8]:
        picture = self._pictures.pop(key, None)
        if picture is None:
            picture = self._read(key)
            self._num_bytes += picture.nbytes
        self._pictures[key] = picture  # behind all others
        while self._num_bytes > _CACHE_BYTES and len(self._pictures) > 1:
            self._num_bytes -= self._pictures.pop(next(iter(self._pictures))).nbytes
        return picture


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


def picture_on_white(path: Path) -> NDArray[np.uint8]:
    """As `read_picture`, what is transparent shown over white, as most viewers do; else its hidden colours come out.

    Raises:
        ValueError: not a picture, or damaged.
    """
    rgb = read_picture(path)
    stored = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if stored is None or stored.ndim != 3 or stored.shape[2] != 4 or stored.shape[:2] != rgb.shape[:2]:
        return rgb
    alpha_HW1 = stored[..., 3:] / np.iinfo(stored.dtype).max
    return np.asarray(np.round(rgb * alpha_HW1 + 255 * (1 - alpha_HW1)), np.uint8)


def scaled_picture(path: Path, short_side_px: int) -> Tensor:
    """A picture over white as (1, 3, H, W) RGB in [0, 1] with the short side scaled.

    Raises:
        ValueError: not a picture, damaged, or so elongated that it would fill the memory.
    """
    picture = picture_on_white(path)
    height, width = picture.shape[:2]
    if max(height, width) > _MOST_ELONGATED * min(height, width):
        raise ValueError(
            f"{path}: is {width}x{height}, the long side more than {_MOST_ELONGATED} times the short one: crop it"
        )
    scale = short_side_px / min(height, width)
    size = (round(width * scale), round(height * scale))
    resized = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    return torch.from_numpy(resized).permute(2, 0, 1)[None].float() / 255


class PictureFolder:
    """All pictures in a folder, nested or flat; files that cannot be read are counted and skipped.

    Args:
        folder: searched recursively, in the order of the sorted paths; or one picture file.
        without: folders inside it to leave out.

    Raises:
        ValueError: the folder is missing, or there is no readable picture in it.
    """

    def __init__(self, folder: Path, *, without: Set[Path] = frozenset()) -> None:
        if not folder.exists():
            raise ValueError(f"{folder}: no such folder of pictures")
        files = [folder] if folder.is_file() else sorted(folder.rglob("*"))
        named = [path for path in files if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file()]
        candidates = [path for path in named if path.parent not in without]
        self._folder = folder
        self._paths = [path for path in candidates if cv2.haveImageReader(str(path))]
        self.num_skipped = len(candidates) - len(self._paths)
        self._read = _Kept(read_picture)
        if not self._paths:
            raise ValueError(
                f"{folder}: no readable picture among {len(candidates)} files ({', '.join(sorted(PICTURE_SUFFIXES))})"
            )

    @property
    def description(self) -> str:
        """What it holds, for the log."""
        skipped = f", {self.num_skipped} unreadable files skipped" if self.num_skipped else ""
        return f"{len(self)} pictures in {self._folder}{skipped}"

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
        raise ValueError(f"{self._folder}: none of its pictures can be read")


class SceneCollection:
    """Drawn scenes with the interface of a picture folder."""

    description = "scenes drawn on the spot"

    def __init__(self) -> None:
        self._draw = _Kept(self._draw_scene)

    @staticmethod
    def _draw_scene(index: int) -> NDArray[np.uint8]:
        height, width = _SCENE_SIZE
        return draw_scene(index, height=height, width=width)

    def __len__(self) -> int:
        return _NUM_SCENES

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Scene (H, W, 3) uint8 RGB."""
        return self._draw(index)
