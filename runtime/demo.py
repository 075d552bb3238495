"""A short clip with sound that the project draws itself: a lake at sunset, seen in a slow pan.

Everything comes from one seeded generator, so the clip is the same everywhere. Layers of 1/f noise give
it the statistics of a photograph, which is what style networks are trained on.
"""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np
from av.audio.stream import AudioStream
from av.video.stream import VideoStream
from numpy.typing import NDArray

from stylize.runtime.color import Color, ColorConverter
from stylize.runtime.frame import Frame

__all__ = ["draw_demo_frames", "write_demo_clip"]

WIDTH, HEIGHT = 640, 360
RATE_HZ, NUM_FRAMES = 25, 125
SAMPLE_RATE_HZ = 48_000

_HORIZON: Final = 208  # first row of water
_PAN_PX: Final = 90.0  # how far the nearest hills move over the clip
_SUN: Final = (352.0, 150.0)  # x, y at the start
_COLOR: Final = Color(matrix=1, is_full_range=False, primaries=1, transfer=1)  # BT.709, the tag of HD video

Image = NDArray[np.float32]
"""(H, W) or (H, W, 3) float32, [0, 1] unless said otherwise."""


def write_demo_clip(path: Path) -> None:
    """Draw the clip into `path`: 640x360, 25 fps, 5 s, H.264 and AAC in MP4."""
    converter = ColorConverter()
    with av.open(str(path), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=RATE_HZ, options={"crf": "14", "preset": "veryfast"})
        audio = container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="stereo", bit_rate=128_000)
        if not isinstance(video, VideoStream) or not isinstance(audio, AudioStream):
            raise TypeError("libx264 makes video and aac sound")
        context = video.codec_context
        context.width, context.height, context.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        context.time_base = Fraction(1, RATE_HZ)
        context.colorspace, context.color_range = _COLOR.matrix, _COLOR.range
        context.color_primaries, context.color_trc = _COLOR.primaries, _COLOR.transfer
        for index, rgb_HWC in enumerate(draw_demo_frames()):
            frame = Frame.from_array(rgb_HWC)
            frame.set_time(index, duration=1, time_base=context.time_base)
            container.mux(video.encode(converter.picture_from_frame(frame, color=_COLOR, pix_fmt="yuv420p")))
        container.mux(video.encode(None))
        sound = av.AudioFrame.from_ndarray(_sound(), format="fltp", layout="stereo")
        sound.sample_rate, sound.pts = SAMPLE_RATE_HZ, 0
        container.mux([*audio.encode(sound), *audio.encode(None)])


def draw_demo_frames() -> Iterator[NDArray[np.uint8]]:
    """Yield the frames in order: (360, 640, 3) uint8 RGB in [0, 255]."""
    rng = np.random.default_rng(1889)
    width = WIDTH + int(_PAN_PX) + 2
    sky = _sky(rng, width)
    layers = [
        _hills(rng, width, base=176, relief=46, color=(0.44, 0.45, 0.60), haze=0.50, grain=0.5),
        _hills(rng, width, base=190, relief=26, color=(0.24, 0.36, 0.38), haze=0.25, grain=0.8),
        _hills(rng, width, base=203, relief=13, color=(0.17, 0.30, 0.14), haze=0.05, grain=1.3),
    ]
    meadow = _meadow(rng, width)
    for index in range(NUM_FRAMES):
        seconds = index / RATE_HZ
        # Slow start and end, so that the clip loops without a jerk.
        pan_px = _PAN_PX * (0.5 - 0.5 * np.cos(np.pi * index / (NUM_FRAMES - 1)))
        land = _shifted(sky, 0.25 * pan_px)
        for depth, (color, alpha) in zip((0.4, 0.6, 0.8), layers, strict=True):
            _blend(land, _shifted(color, depth * pan_px), _shifted(alpha, depth * pan_px))
        water = _water(land, seconds, sun_x=_SUN[0] - 0.25 * pan_px)
        _draw_boats(water, seconds, pan_px)
        picture = np.concatenate([land, water])
        color, alpha = meadow
        _blend(picture, _shifted(color, pan_px), _shifted(alpha, pan_px))
        yield np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8)


def _noise(rng: np.random.Generator, height: int, width: int, *, slope: float, stretch: float = 1.0) -> Image:
    """Noise whose amplitude falls as frequency ** -slope; mean 0, deviation 1; `stretch` widens it."""
    y, x = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :] * stretch
    radius = np.maximum(np.hypot(y, x), 1 / max(height, width))
    spectrum = np.fft.rfft2(rng.standard_normal((height, width))) * radius**-slope
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, s=(height, width))
    normalized: Image = (field / field.std()).astype(np.float32)
    return normalized


def _mix(first: Image, second: Image, amount: Image) -> Image:
    """From `first` to `second` as `amount` (H, W) goes from 0 to 1."""
    return first + (second - first) * np.clip(amount, 0, 1)[..., None]


def _rgb(red: float, green: float, blue: float) -> Image:
    return np.array([red, green, blue], np.float32)


def _sky(rng: np.random.Generator, width: int) -> Image:
    """Evening sky with lit clouds and a low sun: (horizon, width, 3)."""
    y, x = np.mgrid[0:_HORIZON, 0:width].astype(np.float32)
    height = 1 - y / _HORIZON  # 1 at the top
    glow = np.exp(-np.hypot(x - _SUN[0], (y - _SUN[1]) * 1.3) / 120)
    sky = _mix(np.broadcast_to(_rgb(0.99, 0.78, 0.46), (*y.shape, 3)), _rgb(0.13, 0.28, 0.62), height**0.7 * 1.15)
    sky = _mix(sky, _rgb(1.0, 0.80, 0.42), glow * 0.8)
    cloud = _noise(rng, _HORIZON, width, slope=1.7, stretch=2.6)
    detail = _noise(rng, _HORIZON, width, slope=1.2, stretch=1.8)
    density = np.clip((cloud + 0.25 * detail + 0.1 - 0.5 * np.abs(height - 0.55)) * 0.8, 0, 1)
    # Light comes from the sun below: the upper side of each cloud is its shadow.
    lit = np.clip(0.55 + 1.6 * (np.roll(density, -4, axis=0) - density) + 0.5 * glow, 0, 1)
    shade = _mix(np.broadcast_to(_rgb(0.36, 0.33, 0.48), sky.shape), _rgb(1.0, 0.80, 0.62), lit)
    sky = _mix(sky, shade, density * 0.95)
    disc = np.clip(17 - np.hypot(x - _SUN[0], y - _SUN[1]), 0, 1)
    return _mix(sky, _rgb(1.0, 0.96, 0.80), disc)


def _hills(
    rng: np.random.Generator,
    width: int,
    *,
    base: float,
    relief: float,
    color: tuple[float, float, float],
    haze: float,
    grain: float,
) -> tuple[Image, Image]:
    """A ridge with lit slopes: colour (horizon, width, 3) and opacity (horizon, width)."""
    y = np.arange(_HORIZON, dtype=np.float32)[:, None]
    ridge = base - relief * (0.4 + 0.6 * _noise(rng, 1, width, slope=1.5)[0])
    alpha = np.clip(y - ridge + 0.5, 0, 1)
    texture = _noise(rng, _HORIZON, width, slope=1.1)
    slopes = np.gradient(texture, axis=1) - np.gradient(texture, axis=0)
    light = np.clip(0.85 + grain * 0.16 * texture + grain * 0.35 * slopes, 0.25, 1.7)
    depth = np.clip((y - ridge) / 40, 0, 1)
    picture = _rgb(*color) * light[..., None] * (1.15 - 0.35 * depth[..., None])
    return _mix(picture, _rgb(0.93, 0.70, 0.56), haze * (0.4 + 0.6 * depth)), alpha


def _meadow(rng: np.random.Generator, width: int) -> tuple[Image, Image]:
    """The near shore with grass and flowers: colour (360, width, 3) and opacity (360, width)."""
    y = np.arange(HEIGHT, dtype=np.float32)[:, None]
    x = np.arange(width, dtype=np.float32)
    blades = _noise(rng, HEIGHT, width, slope=0.5, stretch=0.25)  # finer across than along: upright
    shore = 322 + 22 * np.sin(x / 105 + 0.6) + 9 * _noise(rng, 1, width, slope=1.2)[0] + 5 * blades[300]
    alpha = np.clip((y - shore) / 2 + 0.5, 0, 1)
    patches = _noise(rng, HEIGHT, width, slope=1.4)
    light = np.clip(0.75 + 0.22 * blades + 0.15 * patches, 0.2, 1.6)[..., None]
    picture = _mix(np.broadcast_to(_rgb(0.20, 0.33, 0.10), (HEIGHT, width, 3)), _rgb(0.50, 0.46, 0.14), patches) * light
    for petal in (_rgb(0.93, 0.25, 0.20), _rgb(0.98, 0.85, 0.30), _rgb(0.95, 0.90, 0.95)):
        for _ in range(90):
            row, column = rng.integers(308, HEIGHT - 2), rng.integers(2, width - 2)
            size = 1.0 + (row - 300) / 30
            near_y, near_x = np.mgrid[-4:5, -4:5]
            spot = np.clip(size - np.hypot(near_y * 1.3, near_x), 0, 1).astype(np.float32)
            rows, columns = slice(row - 4, row + 5), slice(column - 4, column + 5)
            part = picture[rows, columns]
            part += (petal - part) * spot[: part.shape[0], : part.shape[1], None]
    return picture, alpha


def _water(land: Image, seconds: float, *, sun_x: float) -> Image:
    """The land mirrored in waves that come nearer: (360 - horizon, 640, 3)."""
    rows = np.arange(HEIGHT - _HORIZON, dtype=np.float32)[:, None]
    x = np.arange(WIDTH, dtype=np.float32)
    distance = 60 / (rows + 6)  # perspective: waves are dense at the horizon
    wave = (
        np.sin(9.0 * distance + 0.031 * x + 2.3 * seconds)
        + np.sin(14.0 * distance - 0.052 * x + 3.1 * seconds + 1.7)
        + 0.7 * np.sin(23.0 * distance + 0.110 * x - 4.0 * seconds + 0.4)
        + 0.5 * np.sin(5.0 * distance - 0.017 * x - 1.3 * seconds)
    )
    mirrored = np.clip(_HORIZON - 1 - rows * 1.15 + wave * (0.6 + rows * 0.055), 0, _HORIZON - 1.001)
    above = mirrored.astype(np.intp)
    columns = np.arange(WIDTH)[None, :]
    part = (mirrored - above)[..., None]
    picture = land[above, columns] * (1 - part) + land[above + 1, columns] * part
    deep = (0.16 + rows / 420 - 0.05 * wave).astype(np.float32)
    picture = _mix(picture, _rgb(0.06, 0.20, 0.30), deep)
    glitter = np.exp(-(((x - sun_x) / (14 + rows * 0.42)) ** 2)) * np.clip(wave - 0.7, 0, 1.2)
    return _mix(picture, _rgb(1.0, 0.86, 0.56), (glitter * 0.85).astype(np.float32))


def _draw_boats(water: Image, seconds: float, pan_px: float) -> None:
    """Two sailing boats with their reflections, in place."""
    for start_x, speed, row, size, sail in (
        (150.0, 9.0, 26.0, 30.0, _rgb(0.97, 0.93, 0.86)),
        (520.0, -6.0, 12.0, 17.0, _rgb(0.86, 0.36, 0.22)),
    ):
        x0 = start_x + speed * seconds - 0.85 * pan_px
        heel = 0.06 * np.sin(1.7 * seconds + start_x)
        first = int(np.clip(x0 - size, 0, WIDTH - 2 * size))
        part: Image = water[:, first : first + int(2 * size)]
        y, x = np.mgrid[0 : part.shape[0], first : first + part.shape[1]].astype(np.float32)
        for flip, strength in ((-1.0, 0.35), (1.0, 1.0)):
            up = (row - y) * flip + (np.sin(0.9 * y + 3 * seconds) if flip < 0 else 0.0)
            along = x - x0 + heel * up
            hull = (
                np.minimum(up + size * 0.12, size * 0.10 - up) + 0.02 * size - np.maximum(np.abs(along) - size * 0.4, 0)
            )
            cloth = np.minimum(np.minimum(up - size * 0.14, along + size * 0.02), (size * 1.2 - up) * 0.42 - along)
            jib = np.minimum(np.minimum(up - size * 0.14, -along - size * 0.04), (size * 0.95 - up) * 0.38 + along)
            _blend(part, _rgb(0.22, 0.12, 0.09), np.clip(hull + 0.5, 0, 1) * strength)
            _blend(part, sail, np.clip(cloth + 0.5, 0, 1) * strength)
            _blend(part, sail * np.float32(0.85), np.clip(jib + 0.5, 0, 1) * strength)


def _shifted(layer: Image, offset_px: float) -> Image:
    """The `WIDTH` columns from `offset_px` on, between pixels by linear interpolation; a new array."""
    column, part = int(offset_px), np.float32(offset_px % 1)
    return layer[:, column : column + WIDTH] * (1 - part) + layer[:, column + 1 : column + 1 + WIDTH] * part


def _blend(picture: Image, color: Image, alpha: Image) -> None:
    """Lay `color` over `picture`, in place, with opacity `alpha` (H, W)."""
    picture += (color - picture) * alpha[..., None]


def _sound() -> NDArray[np.float32]:
    """Waves on the shore and a few soft notes: (2, samples) float32 in [-1, 1]."""
    rng = np.random.default_rng(1889)
    seconds = np.arange(SAMPLE_RATE_HZ * NUM_FRAMES // RATE_HZ) / SAMPLE_RATE_HZ
    left = np.zeros_like(seconds)
    right = np.zeros_like(seconds)
    # An A major pentatonic, one note every 0.6 s, each ringing on.
    for step, frequency_hz in enumerate((220.0, 277.18, 329.63, 440.0, 369.99, 329.63, 277.18, 246.94)):
        since = np.maximum(seconds - 0.6 * step, 0)
        envelope = (1 - np.exp(-60 * since)) * np.exp(-2.2 * since)
        note = sum(np.sin(2 * np.pi * frequency_hz * n * since) / n**2 for n in (1, 2, 3)) * envelope
        left += note * (0.6 + 0.1 * (step % 3))
        right += note * (0.8 - 0.1 * (step % 3))
    surf = _noise(rng, 2, len(seconds), slope=0.6) * (0.6 + 0.4 * np.sin(2 * np.pi * seconds / 2.5))
    fade = np.clip(np.minimum(seconds, seconds[-1] - seconds) / 0.2, 0, 1)
    sound: NDArray[np.float32] = (
        np.stack([0.16 * left + 0.03 * surf[0], 0.16 * right + 0.03 * surf[1]]) * fade
    ).astype(np.float32)
    return sound
