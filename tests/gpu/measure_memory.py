"""Device memory over 10,000 pictures through a pass with ONNX Runtime; writes JSON and fails where it grows."""

import json
import sys
from fractions import Fraction
from pathlib import Path

import av

from stylize.runtime import Backend
from stylize.runtime.artifact import builtin_styles, open_artifact
from stylize.runtime.color import Color
from stylize.runtime.cuda import CudaDevice
from stylize.runtime.device_bridge import open_cuda_session
from stylize.runtime.device_color import SurfaceLayout
from stylize.runtime.device_pass import NUM_IN_FLIGHT, DevicePass
from stylize.runtime.finish import Finish
from stylize.runtime.surface import Surface

NUM_PICTURES, EVERY = 10_000, 500
WIDTH, HEIGHT = 640, 360
COLOR = Color(matrix=1, is_full_range=False)


def main(target: Path) -> int:
    session = open_cuda_session(open_artifact(builtin_styles()[0].name), backend=Backend.ONNXRUNTIME_CUDA, gpu=0)
    device = session.device
    assert isinstance(device, CudaDevice)
    used: list[int] = []
    picture = av.VideoFrame(WIDTH, HEIGHT, "nv12")
    picture.pts, picture.time_base = 0, Fraction(1, 25)
    with DevicePass(
        device,
        session.runner,
        cuda_stream=session.cuda_stream,
        size=(WIDTH, HEIGHT),
        output=SurfaceLayout("nv12", WIDTH, HEIGHT),
        output_color=COLOR,
        is_encoded_by_host=True,
    ) as device_pass:
        waiting = []
        for number in range(NUM_PICTURES):
            waiting.append(device_pass.begin(Surface(picture, COLOR), finish=Finish()))
            if len(waiting) == NUM_IN_FLIGHT:
                waiting.pop(0)()
            if number % EVERY == EVERY - 1:
                free, total = device.memory_bytes()
                used.append(total - free)
        for complete in waiting:
            complete()
    session.close()
    is_flat = used[-1] <= used[1]
    target.write_text(json.dumps({"used_bytes": used, "every": EVERY, "is_flat": is_flat}, indent=2) + "\n")
    return 0 if is_flat else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
