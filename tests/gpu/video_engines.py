"""Prints as JSON which formats the GPU's video engines take, and why not."""

import json
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import av

from stylize.runtime.hardware_video import NVENC_OF, ffmpeg_reasons, nvdec, nvenc_refusal
from stylize.runtime.surface import is_on_device

SOURCES = {
    "H.264, 8 bits": ("libx264", "yuv420p"),
    "H.264, 10 bits": ("libx264", "yuv420p10le"),
    "HEVC, 8 bits": ("libx265", "yuv420p"),
    "HEVC, 10 bits": ("libx265", "yuv420p10le"),
    "AV1, 8 bits": ("libsvtav1", "yuv420p"),
}


def decoded_where(codec: str, pix_fmt: str, folder: Path) -> str:
    """`device`, or where else a clip of that kind comes out and why."""
    path = folder / f"{codec}-{pix_fmt}.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = 640, 360, pix_fmt
        for number in range(5):
            picture = av.VideoFrame(640, 360, pix_fmt)
            picture.pts, picture.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    with ffmpeg_reasons() as reasons:
        try:
            with av.open(str(path), hwaccel=nvdec(0)) as container:
                picture = next(container.decode(video=0))
        except av.FFmpegError as error:
            return f"error: {error}"
    return (
        "device" if is_on_device(picture) else f"host: {'; '.join(reasons) or 'no decoder of the GPU for this codec'}"
    )


def main() -> None:
    encoders = {
        f"{codec}, {pix_fmt}": nvenc_refusal(codec, pix_fmt, 0) or "ok"
        for codec in NVENC_OF.values()
        for pix_fmt in ("nv12", "p010le")
    }
    with tempfile.TemporaryDirectory() as folder:
        decoders = {name: decoded_where(*kind, Path(folder)) for name, kind in SOURCES.items()}
    json.dump({"NVENC": encoders, "NVDEC": decoders}, sys.stdout)


if __name__ == "__main__":
    main()
