"""Whole videos through `stylize_video` on each backend of the GPU, and PyTorch eager beside them; writes JSON."""

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import av

from stylize.runtime import Backend, Stylizer, stylize_video
from stylize.runtime.artifact import builtin_styles
from stylize.runtime.demo import write_demo_clip
from stylize.runtime.errors import StylizeError

NUM_REPEATS = 3
SCALES = ("1280x720", "1920x1080")


def main(target: Path) -> None:
    results: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        demo = folder / "demo.mp4"
        write_demo_clip(demo)
        for scale in SCALES:
            width, height = map(int, scale.split("x"))
            clip = folder / f"{scale}.mp4"
            with av.open(str(demo)) as source, av.open(str(clip), "w") as container:
                stream = container.add_stream("libx264", rate=25, options={"preset": "veryfast"})
                stream.codec_context.width, stream.codec_context.height = width, height
                for _ in range(2):  # twice the demo, so that starting costs less
                    for picture in source.decode(video=0):
                        larger = picture.reformat(width, height, format="yuv420p")
                        larger.pts = None
                        container.mux(stream.encode(larger))
                    source.seek(0)
                container.mux(stream.encode(None))
            models = [style.name for style in builtin_styles()] + [str(path) for path in Path().glob("*.plan")]
            results += [
                _measured(model, backend, scale, clip, folder / "out.mp4")
                for model in models
                for backend in (Backend.TENSORRT, Backend.ONNXRUNTIME_CUDA)
            ]
    target.write_text(json.dumps({"num_repeats": NUM_REPEATS, "results": results}, indent=2) + "\n")


def _measured(model: str, backend: Backend, scale: str, clip: Path, output: Path) -> dict[str, object]:
    """The fastest of the repeats after one to warm up, or why there is none."""
    row: dict[str, object] = {"model": model, "backend": backend.value, "size": scale}
    try:
        with Stylizer(model, backend=backend) as stylizer:
            reports = [stylize_video(stylizer, clip, output) for _ in range(NUM_REPEATS + 1)][1:]
    except StylizeError as error:
        return row | {"error": str(error)}
    best = max(reports, key=lambda report: report.frames_per_second)
    return row | {"frames_per_second": best.frames_per_second, "report": asdict(best)}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
