"""Whole videos through `stylize_video` on each backend, stage by stage beside what each stage could reach; writes JSON.

    python tests/gpu/measure_pipeline.py OUT.json [BACKENDS [SIZES [MODEL ...]]]

Backends and sizes are separated by commas. `within` is the whole over its slowest stage; `floor_ms` is what decoding
takes alone, and the parts of the network stage, as `measure_networks.py` and `measure_kernels.py` found them on this
machine, where their results stand beside OUT.json.
"""

import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av

from stylize.runtime import Backend, Stylizer, stylize_video
from stylize.runtime.artifact import Artifact, open_artifact
from stylize.runtime.decode import Decoder
from stylize.runtime.demo import write_demo_clip
from stylize.runtime.errors import StylizeError
from stylize.runtime.frame import TimedPicture

NUM_REPEATS = 2
MODELS = ("starry-night", "starry-night-fastest", "four-paintings")
BACKENDS, SIZES = "onnxruntime-cuda,tensorrt", "1280x720,1920x1080"
STAGES = ("decode", "network", "encode")


def main(target: Path, backends: str, sizes: str, models: list[str]) -> None:
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        demo = folder / "demo.mp4"
        write_demo_clip(demo)
        half_folder = folder / "half"
        half_folder.mkdir()
        given = [half_precision(model, half_folder) for model in models] + [
            open_artifact(path) for path in Path().glob("*.plan")
        ]
        for size in sizes.split(","):
            clip = enlarged(demo, folder / f"{size}.mp4", size)
            decode_ms = decoded_alone_ms(clip)
            for artifact in given:
                for backend in map(Backend, backends.split(",")):
                    row = measured(artifact, backend, size, clip, folder / "out.mp4")
                    results.append(row | {"floor_ms": {"decode": decode_ms, **floor_ms(artifact, size, target.parent)}})
                    target.write_text(json.dumps({"num_repeats": NUM_REPEATS, "results": results}, indent=2) + "\n")


def half_precision(model: str, folder: Path) -> Artifact:
    """The model in half precision, as engines have it."""
    from stylize.export.onnx_from_onnx import onnx_from_onnx

    path = folder / f"{Path(model).stem}.onnx"
    path.write_bytes(onnx_from_onnx(open_artifact(model), precision="fp16").data)
    return open_artifact(path)


def enlarged(demo: Path, clip: Path, size: str) -> Path:
    """The demo clip twice in this size, so that starting costs less."""
    width, height = map(int, size.split("x"))
    with av.open(str(demo)) as source, av.open(str(clip), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "veryfast"})
        stream.codec_context.width, stream.codec_context.height = width, height
        for _ in range(2):
            for picture in source.decode(video=0):
                larger = picture.reformat(width, height, format="yuv420p")
                larger.pts = None
                container.mux(stream.encode(larger))
            source.seek(0)
        container.mux(stream.encode(None))
    return clip


def decoded_alone_ms(clip: Path) -> float:
    """Time of a picture where nothing else is done, the fastest of two passes."""
    milliseconds = []
    for _ in range(2):
        with Decoder(clip, surface_gpu=0) as decoder:
            started = time.perf_counter()
            num_frames = sum(isinstance(item, TimedPicture) for item in decoder)
            milliseconds.append(1000 * (time.perf_counter() - started) / num_frames)
    return min(milliseconds)


def measured(artifact: Artifact, backend: Backend, size: str, clip: Path, output: Path) -> dict[str, Any]:
    """The fastest of the repeats after one to warm up, or why there is none."""
    row: dict[str, Any] = {"model": artifact.name, "backend": backend.value, "size": size}
    try:
        with Stylizer(artifact, backend=backend) as stylizer:
            reports = [stylize_video(stylizer, clip, output) for _ in range(NUM_REPEATS + 1)][1:]
    except StylizeError as error:
        return row | {"error": str(error)}
    best = max(reports, key=lambda report: report.frames_per_second)
    busy = {stage: 1000 * getattr(best, f"{stage}_seconds") / best.num_frames for stage in STAGES}
    whole = 1000 * best.wall_seconds / best.num_frames
    return row | {
        "frames_per_second": best.frames_per_second,
        "whole_ms_per_frame": whole,
        "busy_ms_per_frame": busy,
        "slowest": max(busy, key=lambda stage: busy[stage]),
        "within": whole / max(busy.values()),
        "report": asdict(best),
    }


def floor_ms(artifact: Artifact, size: str, folder: Path) -> dict[str, float]:
    """Copies, kernels and network of one picture, each alone; what was not measured is left out."""
    width, height = map(int, size.split("x"))
    surface_bytes, rgb_bytes = width * height * 3 / 2, width * height * 3 * 2
    found: dict[str, float] = {}
    if (folder / "kernels.json").is_file():
        rates = json.loads((folder / "kernels.json").read_text())["results"].get(size, {})
        for name, num_bytes in (
            ("copy in", surface_bytes),
            ("copy out", surface_bytes),
            ("copy", surface_bytes + rgb_bytes),
        ):
            if rate := rates.get(f"{name}_gb_per_second"):
                # A kernel reads the one and writes the other, as a copy at its rate would.
                found["each colour kernel" if name == "copy" else name] = num_bytes / rate / 1e6
    if (folder / "networks.json").is_file():
        for row in json.loads((folder / "networks.json").read_text())["rows"]:
            is_same = row["network"] == artifact.contract.network.partition("(")[0] and row["size"] == size
            if is_same and row["what"] in {Backend.ONNXRUNTIME, Backend.ONNXRUNTIME_CUDA} and "p50_ms" in row:
                found["network"] = row["p50_ms"]
    return found


if __name__ == "__main__":
    arguments = sys.argv[2:]
    main(
        Path(sys.argv[1]),
        arguments[0] if arguments else BACKENDS,
        arguments[1] if len(arguments) > 1 else SIZES,
        arguments[2:] or list(MODELS),
    )
