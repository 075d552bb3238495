"""Small real media files, made with FFmpeg on the fly."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from stylize.runtime.scheduling import ordinary_threads

Pixels = NDArray[np.uint8]
SAMPLE_RATE_HZ = 48_000


@dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """What `write_clip` writes; the defaults are a plain clip of ten frames."""

    width: int = 64
    height: int = 48
    pts: Sequence[int] = tuple(range(10))
    time_base: Fraction = Fraction(1, 25)
    codec: str = "libx264"
    options: tuple[tuple[str, str], ...] = (("preset", "ultrafast"), ("crf", "10"))
    pix_fmt: str = "yuv420p"
    matrix: int = 2
    color_range: int = 0
    rotation_degrees: int = 0
    sample_aspect_ratio: Fraction = Fraction(1)
    sound_start_seconds: float | None = None
    sound_seconds: float = 0.4
    sound_codec: str = "aac"
    sound_rate_hz: int = SAMPLE_RATE_HZ
    subtitles: tuple[tuple[float, str], ...] = ()
    """(start in seconds, text) of each."""
    subtitle_seconds: float = 0.1


def numbered_frame(index: int, width: int, height: int) -> Pixels:
    """(H, W, 3) uint8: a slope from left to right whose green says which frame it is."""
    picture = np.empty((height, width, 3), np.uint8)
    picture[..., 0] = np.linspace(60, 180, width)[None, :]
    picture[..., 1] = 60 + 8 * (index % 16)
    picture[..., 2] = np.linspace(180, 60, height)[:, None]
    return picture


def frame_number(picture: Pixels) -> int:
    """What `numbered_frame` wrote."""
    return round((float(picture[..., 1].mean()) - 60) / 8)


def write_clip(path: Path, spec: ClipSpec | None = None) -> Path:
    """Write numbered frames, with sound and subtitles where `spec` has them."""
    spec = spec or ClipSpec()
    with av.open(str(path), "w") as container, ordinary_threads():
        video = container.add_stream(spec.codec, rate=25, options=dict(spec.options))
        context = video.codec_context
        context.width, context.height, context.pix_fmt = spec.width, spec.height, spec.pix_fmt
        context.time_base = spec.time_base
        context.sample_aspect_ratio = spec.sample_aspect_ratio
        context.colorspace, context.color_range = spec.matrix, spec.color_range
        if spec.rotation_degrees:
            video.set_display_rotation(spec.rotation_degrees)
        sound = _add_sound(container, spec)
        subtitles = _add_subtitles(container, spec)
        for index, pts in enumerate(spec.pts):
            rgb = av.VideoFrame.from_ndarray(numbered_frame(index, spec.width, spec.height), "rgb24")
            frame = rgb.reformat(format=spec.pix_fmt)
            frame.pts, frame.time_base = pts, spec.time_base
            frame.colorspace, frame.color_range = spec.matrix, spec.color_range
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        container.mux(sound)
        container.mux(subtitles)
    return path


def _add_sound(container: av.container.OutputContainer, spec: ClipSpec) -> list[av.Packet]:
    if spec.sound_start_seconds is None:
        return []
    stream = container.add_stream(spec.sound_codec, rate=spec.sound_rate_hz, layout="mono")
    stream.bit_rate = stream.bit_rate or 64_000  # WMA has no default
    num_samples = int(spec.sound_seconds * spec.sound_rate_hz)
    wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(num_samples) / spec.sound_rate_hz)
    frame = av.AudioFrame.from_ndarray(wave[None, :].astype(np.float32), format="fltp", layout="mono")
    frame.sample_rate = spec.sound_rate_hz
    frame.pts = round(spec.sound_start_seconds * spec.sound_rate_hz)
    frame.time_base = Fraction(1, spec.sound_rate_hz)
    return [*stream.encode(frame), *stream.encode(None)]


def _add_subtitles(container: av.container.OutputContainer, spec: ClipSpec) -> list[av.Packet]:
    packets: list[av.Packet] = []
    if not spec.subtitles:
        return packets
    stream = container.add_mux_stream("subrip", time_base=Fraction(1, 1000))
    for start_seconds, text in spec.subtitles:
        packet = av.Packet(text.encode())
        packet.stream, packet.time_base = stream, Fraction(1, 1000)
        packet.pts = packet.dts = round(start_seconds * 1000)
        packet.duration = round(spec.subtitle_seconds * 1000)
        packets.append(packet)
    return packets


def write_png(path: Path, picture: NDArray[np.uint8] | NDArray[np.uint16], pix_fmt: str) -> Path:
    """A picture file of any of the formats PNG has."""
    context = av.VideoCodecContext.create("png", "w")
    context.width, context.height, context.pix_fmt = picture.shape[1], picture.shape[0], pix_fmt
    context.time_base = Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(picture, pix_fmt)
    path.write_bytes(b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)]))
    return path


def read_frames(path: Path) -> list[Pixels]:
    """All frames as (H, W, 3) uint8 RGB."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def frame_times(path: Path) -> list[Fraction]:
    """Presentation times of all frames in seconds."""
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


def packets_of(path: Path, kind: str) -> list[tuple[Fraction, bytes]]:
    """(time in seconds, bytes) of every packet of the first stream of `kind`."""
    with av.open(str(path)) as container:
        stream = next(stream for stream in container.streams if stream.type == kind)
        return [(packet.pts * packet.time_base, bytes(packet)) for packet in container.demux(stream) if packet.size]
