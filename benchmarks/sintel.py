"""MPI-Sintel: rendered film with true motion, read from its folders as they are unpacked.

Layout: `training/final/SCENE/frame_0001.png`, `training/flow/SCENE/frame_0001.flo` and
`training/occlusions/SCENE/frame_0001.png`, white where a pixel of frame 1 is hidden in frame 2.
Source: Butler et al., "A naturalistic open source movie for optical flow evaluation" (ECCV 2012).
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from stylize.benchmarks.steadiness import ReferenceClip
from stylize.benchmarks.temporal import FloatArray, PairMotion
from stylize.runtime.errors import InputMediaError

__all__ = ["RECONET_SCENES", "read_flo", "read_picture", "read_sintel_scene"]

# Table 2 of the ReCoNet paper, arXiv 1807.01197.
RECONET_SCENES: Sequence[str] = ("alley_2", "ambush_5", "bandage_2", "market_6", "temple_2")

# The number "PIEH" read as a little-endian float: the first four bytes of every .flo file.
_FLO_MAGIC = 202021.25


def read_flo(path: Path) -> FloatArray:
    """Flow from a Middlebury `.flo` file, (H, W, 2) float32 in pixels.

    Raises:
        InputMediaError: not such a file, or cut short.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    if len(content) < 12 or np.frombuffer(content, "<f4", 1)[0] != _FLO_MAGIC:
        raise InputMediaError(path, "is not a .flo file: it does not begin with PIEH")
    width, height = (int(size) for size in np.frombuffer(content, "<i4", 2, offset=4))
    if len(content) != 12 + 8 * width * height:
        raise InputMediaError(path, f"has {len(content)} bytes, {width}x{height} flow takes {12 + 8 * width * height}")
    return np.frombuffer(content, "<f4", offset=12).reshape(height, width, 2).astype(np.float32)


def read_picture(path: Path, flags: int) -> NDArray[np.uint8]:
    """A picture file by OpenCV's reader, (H, W, 3) or (H, W) uint8 as `flags` say.

    Raises:
        InputMediaError: missing or not a picture.
    """
    picture = cv2.imread(str(path), flags)
    if picture is None:
        raise InputMediaError(path, "is missing or not a picture")
    return np.asarray(picture, np.uint8)


def read_sintel_scene(folder: Path, scene: str, *, num_frames: int | None = None) -> ReferenceClip:
    """One scene with its true motion.

    Sintel gives flow from a frame to the next one only, so each frame is compared with the next one
    warped back onto it, as `consistencyChecker`'s backward evaluation does.

    Args:
        folder: the dataset, or its `training` folder.
        scene: name of the scene.
        num_frames: read no more than this many frames, None for all.

    Raises:
        InputMediaError: the scene is missing, or a file of it is missing or damaged.
    """
    root = folder / "training" if (folder / "training").is_dir() else folder
    names = sorted(path.stem for path in (root / "final" / scene).glob("frame_*.png"))[:num_frames]
    if len(names) < 2:
        raise InputMediaError(
            root / "final" / scene, "holds no frames: expected MPI-Sintel's training/final/SCENE/frame_0001.png"
        )
    frames = [read_picture(root / "final" / scene / f"{name}.png", cv2.IMREAD_COLOR_RGB) for name in names]
    motions = []
    for index, name in enumerate(names[:-1]):
        flow_px = read_flo(root / "flow" / scene / f"{name}.flo")
        hidden = read_picture(root / "occlusions" / scene / f"{name}.png", cv2.IMREAD_GRAYSCALE)
        motions.append(
            PairMotion(
                target_index=index,
                reference_index=index + 1,
                flow_px=flow_px,
                visible=_inside(flow_px) & (hidden == 0),
            )
        )
    return ReferenceClip(
        name=f"sintel {scene}", frames=np.stack(frames), flow="ground truth", motions=motions, long_motions=()
    )


def _inside(flow_px: FloatArray) -> NDArray[np.bool_]:
    """Where the flow stays inside the frame; `occlusions` leaves that to `out_of_frame`."""
    height, width = flow_px.shape[:2]
    x_px = np.arange(width, dtype=np.float32) + flow_px[..., 0]
    y_px = np.arange(height, dtype=np.float32)[:, None] + flow_px[..., 1]
    return np.asarray((x_px >= 0) & (x_px <= width - 1) & (y_px >= 0) & (y_px <= height - 1))
