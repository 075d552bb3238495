"""Small data sets with motion, in the published formats byte for byte.

The scene is a picture that moves right by a whole number of pixels in each frame, so every value that
a reader gives can be foretold.
"""

from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from helpers.sintel import write_flo
from stylize.train.scenes import draw_scene

SHIFT_PX = 4
SIZE = (96, 128)  # height, width


def moving_frames(num_frames: int, *, seed: int = 1, shift_px: int = SHIFT_PX) -> list[NDArray[np.uint8]]:
    """(H, W, 3) uint8 RGB: frame i shows the scene `i * shift_px` further right."""
    height, width = SIZE
    wide = draw_scene(seed, height=height, width=width + shift_px * num_frames)
    starts = [shift_px * (num_frames - index) for index in range(num_frames)]
    return [np.ascontiguousarray(wide[:, start : start + width]) for start in starts]


def flow_px(dx: float) -> NDArray[np.float32]:
    """(H, W, 2) the same shift everywhere."""
    flow = np.zeros((*SIZE, 2), np.float32)
    flow[..., 0] = dx
    return flow


def write_png(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write (H, W, 3) RGB or (H, W) grey by the suffix, making the folders it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ordered = picture[..., ::-1] if picture.ndim == 3 else picture
    path.write_bytes(cv2.imencode(path.suffix, np.ascontiguousarray(ordered))[1].tobytes())


def write_pfm(path: Path, flow: NDArray[np.float32]) -> None:
    """As the SceneFlow data sets do: three channels, the last nothing, little-endian, bottom row first."""
    height, width = flow.shape[:2]
    values = np.zeros((height, width, 3), "<f4")
    values[..., :2] = flow
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"PF\n%d %d\n-1\n" % (width, height) + values[::-1].tobytes())


def write_scene_flow(root: Path, scene: str, *, side: str = "left", first: int = 6, num_frames: int = 3) -> None:
    """Frames, flow both ways and motion boundaries of one scene, seen from one side."""
    letter = side[0].upper()
    for index, frame in enumerate(moving_frames(num_frames)):
        name = f"{first + index:04}"
        write_png(root / "frames_finalpass" / scene / side / f"{name}.png", frame)
        flow = root / "optical_flow" / scene
        write_pfm(flow / "into_future" / side / f"OpticalFlowIntoFuture_{name}_{letter}.pfm", flow_px(SHIFT_PX))
        write_pfm(flow / "into_past" / side / f"OpticalFlowIntoPast_{name}_{letter}.pfm", flow_px(-SHIFT_PX))
        boundaries = np.zeros(SIZE, np.uint8)
        boundaries[:, 64] = 255
        write_png(root / "motion_boundaries" / scene / "into_past" / side / f"{name}.pgm", boundaries)


def write_sintel(root: Path, scene: str, *, num_frames: int = 3) -> None:
    """Frames, forward flow, occlusions and invalid pixels of one scene."""
    for index, frame in enumerate(moving_frames(num_frames), start=1):
        name = f"frame_{index:04}"
        write_png(root / "training" / "final" / scene / f"{name}.png", frame)
        if index == num_frames:
            break  # the last frame moves nowhere
        path = root / "training" / "flow" / scene / f"{name}.flo"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_flo(path, flow_px(SHIFT_PX))
        for kind, row in (("occlusions", 40), ("invalid", 50)):
            mask = np.zeros(SIZE, np.uint8)
            mask[row] = 255
            write_png(root / "training" / kind / scene / f"{name}.png", mask)


def write_video(path: Path, frames: list[NDArray[np.uint8]], *, rotation_degrees: int = 0) -> None:
    """A nearly lossless H.264 clip."""
    height, width = frames[0].shape[:2]
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "4"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        if rotation_degrees:
            video.set_display_rotation(rotation_degrees)
        for frame in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(video.encode(None))
