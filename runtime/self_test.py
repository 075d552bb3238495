"""Renders generated clips through an identity network and measures what came out: `stylize-run --self-test`.

Each case draws a clip in which one property can be read from the pixels or the sound, and says what was
found. Nothing is read with the code under test: outputs are decoded by FFmpeg alone.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np
from av.audio.stream import AudioStream
from av.video.stream import VideoStream
from numpy.typing import NDArray

from stylize.runtime.color import Color, ColorConverter
from stylize.runtime.encode import EncodeOptions
from stylize.runtime.errors import StylizeError
from stylize.runtime.frame import Frame
from stylize.runtime.identity import write_identity
from stylize.runtime.render import stylize_video
from stylize.runtime.stylizer import Stylizer

__all__ = ["CASES", "Case", "CaseResult", "run_self_test"]

Pixels = NDArray[np.uint8]
"""(H, W, 3) uint8 RGB."""

_WIDTH, _HEIGHT = 96, 64
_SAMPLE_RATE_HZ: Final = 48_000
_BT709: Final = Color(matrix=1, is_full_range=False, primaries=1, transfer=1)
_BT601: Final = Color(matrix=6, is_full_range=False, primaries=6, transfer=6)
_MAX_CODE_ERROR: Final = 2  # code values of 8 bits: what an eye cannot see and rounding twice can make
# Viewers notice sound 45 ms early (ITU-R BT.1359-1, figure 2); an AAC frame of 21 ms hides the true onset.
_MAX_SYNC_ERROR: Final = 0.022
_BAR_PX: Final = 48
_BIT_PX: Final = 12  # side of one square of a frame's number: survives chroma subsampling and compression


class _FailedError(Exception):
    """What was found is not what was drawn."""


@dataclass(frozen=True, kw_only=True)
class _Clip:
    """What is drawn and how it is stored."""

    pictures: Sequence[Pixels]
    times: Sequence[int] = ()
    """In ticks of `time_base`; 0, 1, 2 ... when empty."""
    time_base: Fraction = Fraction(1, 25)
    suffix: str = ".mp4"
    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    color: Color = _BT709
    rotation_degrees: int = 0
    sound: NDArray[np.float32] | None = None
    """(samples,) at 48 kHz, from time 0 on."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One property: a clip and how to see in the output that it survived."""

    name: str
    clip: Callable[[], _Clip]
    check: Callable[[Path, Path], str]
    """From source and output to what was found; raises where that is wrong."""
    encode: EncodeOptions = field(default_factory=EncodeOptions)
    target: str = ""
    """Suffix of the output; by default that of the clip."""


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """Outcome of one case."""

    name: str
    is_ok: bool
    finding: str


def run_self_test(cases: Sequence[Case] | None = None) -> Iterator[CaseResult]:
    """Render `cases`, by default all, one after the other, in a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="stylize-") as name:
        folder = Path(name)
        with Stylizer(write_identity(folder / "identity.onnx")) as stylizer:
            for case in CASES if cases is None else cases:
                yield _run(case, stylizer, folder)


def _run(case: Case, stylizer: Stylizer, folder: Path) -> CaseResult:
    clip = case.clip()
    source, target = folder / f"in{clip.suffix}", folder / f"out{case.target or clip.suffix}"
    _write(source, clip)
    try:
        stylize_video(stylizer, source, target, encode=case.encode)
        return CaseResult(name=case.name, is_ok=True, finding=case.check(source, target))
    except (StylizeError, _FailedError) as error:
        return CaseResult(name=case.name, is_ok=False, finding=str(error))


def _write(path: Path, clip: _Clip) -> None:
    height, width = clip.pictures[0].shape[:2]
    converter = ColorConverter()
    with av.open(str(path), "w") as container:
        options = {"crf": "12", "preset": "veryfast", "bf": "3"} if clip.codec == "libx264" else {}
        video = container.add_stream(clip.codec, rate=25, options=options)
        audio = container.add_stream("aac", rate=_SAMPLE_RATE_HZ, layout="mono") if clip.sound is not None else None
        if not isinstance(video, VideoStream):
            raise TypeError(f"{clip.codec} makes no video")
        context = video.codec_context
        context.width, context.height, context.pix_fmt = width, height, clip.pix_fmt
        context.time_base = clip.time_base
        context.colorspace, context.color_range = clip.color.matrix, clip.color.range
        context.color_primaries, context.color_trc = clip.color.primaries, clip.color.transfer
        if clip.rotation_degrees:
            video.set_display_rotation(clip.rotation_degrees)
        for pts, pixels in zip(clip.times or range(len(clip.pictures)), clip.pictures, strict=True):
            frame = Frame.from_array(pixels)
            frame.set_time(pts, duration=1, time_base=clip.time_base)
            container.mux(video.encode(converter.picture_from_frame(frame, color=clip.color, pix_fmt=clip.pix_fmt)))
        container.mux(video.encode(None))
        if isinstance(audio, AudioStream) and clip.sound is not None:
            sound = av.AudioFrame.from_ndarray(clip.sound[None], format="fltp", layout="mono")
            sound.sample_rate, sound.pts = _SAMPLE_RATE_HZ, 0
            container.mux([*audio.encode(sound), *audio.encode(None)])


def _numbered(index: int) -> Pixels:
    """A slope with its number in binary, six white or black squares from left to right."""
    picture = np.full((_HEIGHT, _WIDTH, 3), 128, np.uint8)
    picture[_HEIGHT // 2 :] = np.linspace(40, 210, _WIDTH)[None, :, None]
    for bit in range(6):
        columns = slice(4 + bit * (_BIT_PX + 2), 4 + bit * (_BIT_PX + 2) + _BIT_PX)
        picture[8 : 8 + _BIT_PX, columns] = 255 if index >> bit & 1 else 0
    return picture


def _number_in(frame: av.VideoFrame) -> int:
    picture = frame.to_ndarray(format="rgb24")
    centers = [4 + bit * (_BIT_PX + 2) + _BIT_PX // 2 for bit in range(6)]
    return sum(int(picture[8 + _BIT_PX // 2, x, 1] > 127) << bit for bit, x in enumerate(centers))


def _bars() -> Pixels:
    """Eight bars at 75 %, as test patterns have them, above a grey ramp; soft edges, as chroma is subsampled."""
    colors = np.array([[code >> bit & 1 for bit in (1, 2, 0)] for code in range(7, -1, -1)]) * 191.0
    place = (np.arange(8 * _BAR_PX) + 0.5) / _BAR_PX - 0.5
    part = np.clip(2 * (place % 1) - 0.5, 0, 1)[:, None]
    part = part * part * (3 - 2 * part)
    left, right = (np.clip(np.floor(place).astype(int) + step, 0, 7) for step in (0, 1))
    bars = colors[left] * (1 - part) + colors[right] * part
    ramp = np.linspace(0, 255, len(bars))[:, None]
    down = np.clip((np.arange(_HEIGHT) - 24) / 16, 0, 1)[:, None, None]
    down = down * down * (3 - 2 * down)
    picture: Pixels = np.rint(bars * (1 - down) + ramp * down).astype(np.uint8)
    return picture


def _quarters(width: int = _WIDTH, height: int = _HEIGHT) -> Pixels:
    """Red, green, blue and white quarters, clockwise from the upper left."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2, 0] = 200
    picture[: height // 2, width // 2 :, 1] = 200
    picture[height // 2 :, width // 2 :, 2] = 200
    picture[height // 2 :, : width // 2] = 200
    return picture


def _frames(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def _times(path: Path) -> list[float]:
    return [float(frame.time) for frame in _frames(path) if frame.time is not None]


def _check_numbers(source: Path, target: Path) -> str:
    found, wanted = ([_number_in(frame) for frame in _frames(path)] for path in (target, source))
    if found != wanted:
        raise _FailedError(f"frames {found} instead of {wanted}")
    return f"{len(found)} frames in order"


def _check_times(source: Path, target: Path) -> str:
    found, wanted = _times(target), _times(source)
    if len(found) != len(wanted):
        raise _FailedError(f"{len(found)} frames instead of {len(wanted)}")
    worst = max(abs(have - want) for have, want in zip(found, wanted, strict=True))
    if worst > 1e-6:
        raise _FailedError(f"times differ by up to {worst * 1000:.1f} ms")
    return f"{len(found)} times equal to the source's"


def _check_sync(source: Path, target: Path) -> str:
    (found, was), limit = (_sync_seconds(path) for path in (target, source)), _MAX_SYNC_ERROR
    if abs(found - was) > limit:
        raise _FailedError(f"sound moved by {(found - was) * 1000:+.1f} ms against the picture")
    return f"beep {found * 1000:+.1f} ms from the flash, {was * 1000:+.1f} ms in the source"


def _sync_seconds(path: Path) -> float:
    """Time of the beep after the flash."""
    flash = next((f.time for f in _frames(path) if f.to_ndarray(format="gray").mean() > 200), None)
    with av.open(str(path)) as container:
        if not container.streams.audio:
            raise _FailedError("the sound is missing")
        for block in container.decode(audio=0):
            loud = np.flatnonzero(np.abs(block.to_ndarray()[0]) > 0.2)
            if loud.size and flash is not None and block.time is not None:
                return float(block.time) + int(loud[0]) / _SAMPLE_RATE_HZ - float(flash)
    raise _FailedError("flash or beep are missing")


def _check_codes(source: Path, target: Path) -> str:
    """Compare the code values themselves, which no conversion to RGB can flatter."""
    found, wanted = _frames(target)[0], _frames(source)[0]
    tags = [(f.format.name, f.colorspace, f.color_range) for f in (found, wanted)]
    if tags[0] != tags[1]:
        raise _FailedError(f"tagged {tags[0]} instead of {tags[1]}")
    scale = 2 ** (max(component.bits for component in wanted.format.components) - 8)
    difference = np.abs(found.to_ndarray().astype(int) - wanted.to_ndarray()).max() / scale
    if difference > _MAX_CODE_ERROR:
        raise _FailedError(f"colours are off by {difference:.1f} code values")
    return f"{found.format.name} within {difference:.1f} code values"


def _check_rgb(source: Path, target: Path) -> str:
    """Compare what the network saw with the colours that the source's code values stand for (ITU-T H.273, 8.3)."""
    found, coded = _frames(target)[0].to_ndarray(format="rgb24").astype(float), _frames(source)[0]
    luma, blueness, redness = (
        np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, -1)[:, : plane.width].astype(float)
        for plane in coded.planes
    )
    red_share, blue_share = {1: (0.2126, 0.0722), 6: (0.299, 0.114)}[coded.colorspace]
    luma, blueness, redness = (luma - 16) / 219, (blueness - 128) / 224, (redness - 128) / 224
    red, blue = luma + 2 * (1 - red_share) * redness, luma + 2 * (1 - blue_share) * blueness
    green = (luma - red_share * red - blue_share * blue) / (1 - red_share - blue_share)
    worst = np.abs(found - 255 * np.clip(np.dstack([red, green, blue]), 0, 1)).max()
    if worst > _MAX_CODE_ERROR:
        raise _FailedError(f"the network saw colours that are off by {worst:.1f} code values")
    return f"the network saw the colours within {worst:.1f} code values"


def _check_upright(_source: Path, target: Path) -> str:
    frame = _frames(target)[0]
    picture = frame.to_ndarray(format="rgb24").astype(int)
    # Shown 90 degrees counterclockwise, what was at the upper right comes to the upper left.
    if (frame.width, frame.height, frame.rotation) != (_HEIGHT, _WIDTH, 0):
        raise _FailedError(f"{frame.width}x{frame.height} with {frame.rotation} degrees left to turn")
    if int(picture[16, 16].argmax()) != 1 or int(picture[16, -16].argmax()) != 2:
        raise _FailedError("turned the wrong way")
    return f"upright, {frame.width}x{frame.height}"


def _check_odd(source: Path, target: Path) -> str:
    found, wanted = (_frames(path)[0].to_ndarray(format="rgb24").astype(int) for path in (target, source))
    height, width = wanted.shape[:2]
    if found.shape[:2] != (height + height % 2, width + width % 2):
        raise _FailedError(f"{found.shape[1]}x{found.shape[0]} for {width}x{height}")
    corners = [(0, 0), (0, width - 1), (height - 1, 0), (height - 1, width - 1)]
    worst = max(int(np.abs(found[corner] - wanted[corner]).max()) for corner in corners)
    if worst > 16:  # compression and half the chroma at flat corners; a sheared line is off by 200
        raise _FailedError(f"corners are off by {worst} of 255")
    return f"{width}x{height} kept, stored as {found.shape[1]}x{found.shape[0]}"


def _flash() -> _Clip:
    """Frame 10 of 25 is white, and a tone starts with it."""
    pictures = [np.full((_HEIGHT, _WIDTH, 3), 255 if index == 10 else 16, np.uint8) for index in range(25)]
    seconds = np.arange(_SAMPLE_RATE_HZ) / _SAMPLE_RATE_HZ
    tone = np.where((seconds >= 0.4) & (seconds < 0.44), 0.8 * np.sin(2 * np.pi * 1000 * seconds), 0.0)
    return _Clip(pictures=pictures, sound=tone.astype(np.float32))


def _lossless(pix_fmt: str, color: Color) -> Case:
    bits = av.VideoFormat(pix_fmt).components[0].bits
    chroma = {"yuv420p": "4:2:0", "yuv422p": "4:2:2", "yuv444p": "4:4:4"}[pix_fmt.removesuffix("10le")]
    return Case(
        name=f"{color.description}, {chroma}, {bits} bits",
        clip=lambda: _Clip(pictures=[_bars()], suffix=".mkv", codec="ffv1", pix_fmt=pix_fmt, color=color),
        check=_check_codes,
        encode=EncodeOptions(codec="ffv1"),
    )


def _seen(color: Color) -> Case:
    """A wrong matrix that is used both ways comes out right: what is in between is looked at as a picture."""
    return Case(
        name=f"{color.description}, as RGB",
        clip=lambda: _Clip(pictures=[_bars()], suffix=".mkv", codec="ffv1", pix_fmt="yuv444p", color=color),
        check=_check_rgb,
        target=".png",
    )


_VARIABLE_TIMES: Final = (0, 40, 41, 90, 250, 251, 252, 700, 701, 1500)

CASES: Final = (
    Case(name="frame order", clip=lambda: _Clip(pictures=[_numbered(n) for n in range(40)]), check=_check_numbers),
    Case(
        name="variable frame rate",
        clip=lambda: _Clip(
            pictures=[_numbered(n) for n in range(10)], times=_VARIABLE_TIMES, time_base=Fraction(1, 1000)
        ),
        check=_check_times,
    ),
    Case(name="beep and flash", clip=_flash, check=_check_sync),
    _lossless("yuv420p", _BT601),
    _lossless("yuv420p", _BT709),
    _lossless("yuv420p", Color(matrix=1, is_full_range=True, primaries=1, transfer=1)),
    _lossless("yuv444p", _BT709),
    _lossless("yuv420p10le", _BT709),
    _seen(_BT601),
    _seen(_BT709),
    Case(
        name="rotation",
        clip=lambda: _Clip(pictures=[_quarters()] * 3, rotation_degrees=90),
        check=_check_upright,
    ),
    Case(
        name="odd size",
        clip=lambda: _Clip(pictures=[_quarters(95, 63)] * 3, suffix=".mp4", pix_fmt="yuv444p"),
        check=_check_odd,
    ),
)
