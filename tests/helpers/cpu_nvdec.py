"""Clips whose pictures the decoder of cpu_nvdec.cpp can show, which looks up what it cannot decode."""

import os
from pathlib import Path

import av
import numpy as np

from helpers.clips import ClipSpec, write_clip
from stylize.runtime.surface import host_planes

_VARIABLE = "CPU_NVDEC_PICTURES"


def write_known_clip(path: Path, spec: ClipSpec) -> Path:
    """`write_clip`, for H.264 or HEVC of one size; where there is a GPU, its own decoder does not need to be told."""
    clip = write_clip(path, spec)
    pictures = path.with_suffix(".pictures")
    with av.open(str(clip)) as container, pictures.open("wb") as file:
        for index, frame in enumerate(container.decode(video=0)):
            is_deep = frame.format.components[0].bits > 8
            if index == 0:
                file.write(np.array([frame.width, frame.height, 1 + is_deep], np.int32).tobytes())
            for plane in host_planes(frame.reformat(format="p010le" if is_deep else "nv12")):
                file.write(plane.tobytes())
    os.environ[_VARIABLE] = str(pictures)
    return clip
