"""MPI-Sintel: rendered film with true motion, read from its folders as they are unpacked.

Read are `training/final/SCENE/frame_0001.png`, `training/flow/SCENE/frame_0001.flo` and two masks of the same name:
`training/occlusions/...`, not black where a pixel of frame 1 is hidden in frame 2, and, where it is there,
`training/invalid/...`, not black where the flow is not known. Flow and masks end one frame early. `albedo`, `clean` and
`flow_viz` lie beside them.
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

__all__ = ["RECONET_SCENES", "read_flo", "read_picture", "read_sintel_scene", "sintel_frames"]

# Table 2 of the ReCoNet paper, arXiv 1807.01197.
RECONET_SCENES: Sequence[str] = ("alley_2", "ambush_5", "bandage_2", "market_6", "temple_2")

# The number "PIEH" read as a little-endian float: the first four bytes of every .flo file.
_FLO_MAGIC = 202021.25


def read_flo(path: Path) -> FloatArray:
    """Flow from a Middlebury `.flo` file, (H, W, 2) float32 in pixels.

    Raises:
        InputMediaError: missing, not such a file, or cut short.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputMediaError(path, f"cannot be read: {error.strerror}") from error
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


def sintel_frames(folder: Path, scene: str) -> list[Path]:
    """The frames of one scene in order, none of them opened.

    Args:
        folder: the dataset, or its `training` folder.
        scene: name of the scene.

    Raises:
        InputMediaError: the scene is missing.
    """
    root = folder / "training" if (folder / "training").is_dir() else folder
    frames = sorted((root / "final" / scene).glob("frame_*.png"))
    if len(frames) < 2:
        raise InputMediaError(
            root / "final" / scene, "holds no frames: expected MPI-Sintel's training/final/SCENE/frame_0001.png"
        )
    return frames


def read_sintel_scene(folder: Path, scene: str) -> ReferenceClip:
    """One scene with its true motion.

    Sintel gives flow from a frame to the next one only, so each frame is compared with the next one
    warped back onto it, as `consistencyChecker`'s backward evaluation does.

    Args:
        folder: the dataset, or its `training` folder.
        scene: name of the scene.

    Raises:
        InputMediaError: the scene is missing, or a picture or flow of it is missing, damaged or of another size.
    """
    paths = sintel_frames(folder, scene)
    root = paths[0].parents[2]
    frames = [read_picture(path, cv2.IMREAD_COLOR_RGB) for path in paths]
    motions = []
    for index, path in enumerate(paths[:-1]):
        flow_path = root / "flow" / scene / f"{path.stem}.flo"
        flow_px = read_flo(flow_path)
        masks = [root / "occlusions" / scene / path.name]
        if (invalid := root / "invalid" / scene / path.name).is_file():
            masks.append(invalid)
        left_out = [read_picture(mask, cv2.IMREAD_GRAYSCALE) for mask in masks]
        sizes = {flow_px.shape[:2], *(array.shape[:2] for array in (frames[index], frames[index + 1], *left_out))}
        if len(sizes) > 1:
            raise InputMediaError(flow_path, f"is of another size than its frames and masks: {sorted(sizes)}")
        motions.append(
            PairMotion(
                target_index=index,
                reference_index=index + 1,
                flow_px=flow_px,
                visible=_inside(flow_px) & (np.maximum.reduce(left_out) == 0),
            )
        )
    return ReferenceClip(
        name=f"sintel {scene}", frames=np.stack(frames), flow="ground truth", motions=motions, long_motions=()
    )


def _inside(flow_px: FloatArray) -> NDArray[np.bool_]:
    """Where the flow stays inside the frame."""
    height, width = flow_px.shape[:2]
    x_px = np.arange(width, dtype=np.float32) + flow_px[..., 0]
    y_px = np.arange(height, dtype=np.float32)[:, None] + flow_px[..., 1]
    return np.asarray((x_px >= 0) & (x_px <= width - 1) & (y_px >= 0) & (y_px <= height - 1))
