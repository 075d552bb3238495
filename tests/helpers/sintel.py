"""Scenes in MPI-Sintel's folders, made on the fly."""

import struct
from pathlib import Path

import cv2
import numpy as np

from stylize.benchmarks.clips import generated_scenes


def write_flo(path: Path, flow_px: np.ndarray) -> None:
    """Write (H, W, 2) flow in Middlebury's format."""
    height, width = flow_px.shape[:2]
    path.write_bytes(b"PIEH" + struct.pack("<ii", width, height) + flow_px.astype("<f4").tobytes())


def write_scene(root: Path, scene: str, *, shift_px: int) -> None:
    """Three frames of a picture that moves right, in the folders that MPI-Sintel-complete.zip unpacks to.

    Flow and masks are of frames 1 and 2. What is not read holds what would be an error if it were. In the upper left
    corner the flow is wrong, and the masks of what is not known say so.
    """
    for unread in ("training/albedo", "training/clean", "training/flow_viz", "test/final"):
        (root / unread / scene).mkdir(parents=True)
        (root / unread / scene / "frame_0001.png").write_bytes(b"not a picture")
    folders = {kind: root / "training" / kind / scene for kind in ("final", "flow", "occlusions", "invalid")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    wide = (generated_scenes(num_frames=1)[0].frames()[0] * 255).round().astype(np.uint8)
    for number in range(1, 4):
        left = 3 * shift_px - number * shift_px
        picture = np.ascontiguousarray(wide[:, left : left + 100, ::-1])
        cv2.imwrite(str(folders["final"] / f"frame_{number:04}.png"), picture)
    flow_px = np.zeros((120, 100, 2), np.float32)
    flow_px[..., 0] = shift_px
    flow_px[:20, :20] = 7
    unknown = np.zeros((120, 100), np.uint8)
    unknown[:20, :20] = 255
    for number in range(1, 3):
        write_flo(folders["flow"] / f"frame_{number:04}.flo", flow_px)
        cv2.imwrite(str(folders["occlusions"] / f"frame_{number:04}.png"), np.zeros((120, 100), np.uint8))
        cv2.imwrite(str(folders["invalid"] / f"frame_{number:04}.png"), unknown)
