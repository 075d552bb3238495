"""Colours survive an identity network, and agree with the definition."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from helpers.clips import ClipSpec, write_clip
from helpers.color_reference import Floats, rgb_from_yuv, upsampled, yuv_from_rgb
from stylize.runtime import EncodeOptions, stylize_video
from stylize.runtime.color import Color, ColorConverter, color_from_picture
from stylize.runtime.frame import WHITE

MATRICES = {"601": 6, "709": 1, "2020": 9, "240M": 7}
LIMITED, FULL = 1, 2


def smooth_rgb(width: int, height: int) -> Floats:
    """Slopes of all three colours in [0.02, 0.98]: smooth, so chroma subsampling loses nothing."""
    y, x = np.mgrid[0:height, 0:width] / (max(width, height) - 1)
    return np.stack([0.02 + 0.96 * x, 0.5 + 0.4 * np.sin(3 * y), 0.98 - 0.96 * y], -1)


def picture_of(yuv_HW3: Floats, pix_fmt: str, *, matrix: int, color_range: int) -> av.VideoFrame:
    """A picture of `pix_fmt` with those 4:4:4 code values, chroma averaged where it is subsampled."""
    height, width = yuv_HW3.shape[:2]
    picture = av.VideoFrame(width, height, pix_fmt)
    picture.colorspace, picture.color_range = matrix, color_range
    for plane, values in zip(picture.planes, np.moveaxis(yuv_HW3, -1, 0), strict=True):
        step_y, step_x = height // plane.height, width // plane.width
        averaged = values.reshape(plane.height, step_y, plane.width, step_x).mean((1, 3))
        dtype = np.uint16 if picture.format.components[0].bits > 8 else np.uint8
        rows = np.frombuffer(memoryview(plane), dtype).reshape(plane.height, -1)
        rows[:, : plane.width] = np.rint(averaged)
    return picture


def planes_of(picture: av.VideoFrame) -> list[Floats]:
    dtype = np.uint16 if picture.format.components[0].bits > 8 else np.uint8
    return [
        np.frombuffer(memoryview(plane), dtype).reshape(plane.height, -1)[:, : plane.width].astype(np.float64)
        for plane in picture.planes
    ]


def write_lossless(path: Path, picture: av.VideoFrame, *, matrix: int, color_range: int) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = picture.width, picture.height, picture.format.name
        context.colorspace, context.color_range = matrix, color_range
        for pts in range(3):
            picture.pts, picture.time_base = pts, Fraction(1, 25)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("color_range", [LIMITED, FULL], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", MATRICES.values(), ids=MATRICES)
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv444p12le"])
def test_decoded_rgb_is_that_of_the_definition(pix_fmt: str, matrix: int, color_range: int) -> None:
    bits = av.VideoFormat(pix_fmt).components[0].bits
    tags = {"matrix": matrix, "is_full_range": color_range == FULL, "bits": bits}
    picture = picture_of(yuv_from_rgb(smooth_rgb(96, 64), **tags), pix_fmt, matrix=matrix, color_range=color_range)
    color = color_from_picture(picture)
    frame = ColorConverter().frame_from_picture(picture, color=color, width=96, height=64)
    yuv = np.stack([upsampled(plane, width=96, height=64) for plane in planes_of(picture)], -1)
    difference = np.abs(np.stack(frame.planes, -1) / WHITE - rgb_from_yuv(yuv, **tags))
    # Where chroma is subsampled, swscale interpolates with a cubic and the reference linearly.
    assert difference.max() * 255 < (0.1 if pix_fmt.startswith("yuv444") else 1.5)
    assert color.guess is None


@pytest.mark.parametrize("color_range", [LIMITED, FULL], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", MATRICES.values(), ids=MATRICES)
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p"])
def test_identity_network_returns_the_source(
    pix_fmt: str, matrix: int, color_range: int, identity: Path, tmp_path: Path
) -> None:
    yuv = yuv_from_rgb(smooth_rgb(96, 64), matrix=matrix, is_full_range=color_range == FULL)
    picture = picture_of(yuv, pix_fmt, matrix=matrix, color_range=color_range)
    source = write_lossless(tmp_path / "in.mkv", picture, matrix=matrix, color_range=color_range)
    stylize_video(identity, source, tmp_path / "out.mkv", encode=EncodeOptions(codec="ffv1"))
    with av.open(str(tmp_path / "out.mkv")) as container:
        result = next(container.decode(video=0))
    assert (result.format.name, result.colorspace, result.color_range) == (pix_fmt, matrix, color_range)
    for found, wanted in zip(planes_of(result), planes_of(picture), strict=True):
        assert np.abs(found - wanted).max() <= 1  # the requirement is 2


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_tags_of_the_source_are_on_the_output(suffix: str, identity: Path, tmp_path: Path) -> None:
    picture = picture_of(
        yuv_from_rgb(smooth_rgb(96, 64), matrix=9, is_full_range=False), "yuv420p", matrix=9, color_range=1
    )
    source = tmp_path / "in.mp4"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        context = stream.codec_context
        context.width, context.height = 96, 64
        context.colorspace, context.color_range, context.color_primaries, context.color_trc = 9, 1, 9, 14
        picture.pts = 0
        container.mux([*stream.encode(picture), *stream.encode(None)])
    stylize_video(identity, source, tmp_path / f"out{suffix}")
    with av.open(str(tmp_path / f"out{suffix}")) as container:
        frame = next(container.decode(video=0))
    tags = (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc)
    assert tags == (9, LIMITED, 9, 14)


@pytest.mark.parametrize(("width", "height", "matrix"), [(640, 480, 6), (720, 576, 5), (1280, 720, 1), (1920, 1080, 1)])
def test_untagged_colour_is_guessed_by_size_and_said(width: int, height: int, matrix: int) -> None:
    color = color_from_picture(av.VideoFrame(width, height, "yuv420p"))
    assert (color.matrix, color.is_full_range) == (matrix, False)
    assert color.guess is not None
    assert f"{width}x{height}" in color.guess


@pytest.mark.parametrize("pix_fmt", ["yuvj420p", "gray"])
def test_formats_that_are_full_range_by_definition(pix_fmt: str) -> None:
    assert color_from_picture(av.VideoFrame(64, 48, pix_fmt)).is_full_range


def test_values_brighter_than_white_are_clipped() -> None:
    converter = ColorConverter()
    picture = av.VideoFrame(32, 32, "yuv444p")
    color = Color(matrix=1, is_full_range=False)
    frame = converter.frame_from_picture(picture, color=color, width=32, height=32)
    frame.set_time(0, duration=1, time_base=Fraction(1, 25))
    for plane, value in zip(frame.planes, (0, 65535, WHITE // 2), strict=True):
        plane[:] = value
    array = frame.to_array()
    assert array[0, 0].tolist() == [0, 255, 128]
    encoded = planes_of(converter.picture_from_frame(frame, color=color, pix_fmt="yuv444p"))
    wanted = yuv_from_rgb(np.array([[[0.0, 1.0, 0.5]]]), matrix=1, is_full_range=False)
    assert [plane[0, 0] for plane in encoded] == pytest.approx(
        wanted[0, 0], abs=1
    )  # swscale clips one code above white


def test_ten_bit_source_is_encoded_with_eight_and_said(identity: Path, tmp_path: Path) -> None:
    yuv = yuv_from_rgb(smooth_rgb(96, 64), matrix=1, is_full_range=False, bits=10)
    picture = picture_of(yuv, "yuv420p10le", matrix=1, color_range=LIMITED)
    source = write_lossless(tmp_path / "in.mkv", picture, matrix=1, color_range=LIMITED)
    report = stylize_video(identity, source, tmp_path / "out.mp4", encode=EncodeOptions(crf=0))
    with av.open(str(tmp_path / "out.mp4")) as container:
        result = next(container.decode(video=0))
    for found, wanted in zip(planes_of(result), planes_of(picture), strict=True):
        assert np.abs(found - wanted / 4).max() <= 1
    assert "10-bit source (yuv420p10le) encoded with 8 bits (yuv420p)" in report.notes


@pytest.mark.parametrize("codec_bits", [8, 10, 12, 16])
@pytest.mark.parametrize("kind", ["gbrap", "yuva444p"])
def test_opaque_stays_opaque_and_white_white(kind: str, codec_bits: int) -> None:
    pix_fmt = kind if codec_bits == 8 else f"{kind}{codec_bits}le"
    dtype, most = (np.uint8 if codec_bits == 8 else np.uint16), 2**codec_bits - 1
    picture = av.VideoFrame(32, 16, pix_fmt)
    picture.pts, picture.time_base, picture.colorspace, picture.color_range = 0, Fraction(1, 25), 1, FULL
    neutral = most if kind == "gbrap" else (most + 1) // 2
    for plane, value in zip(picture.planes, (most, neutral, neutral, most), strict=True):
        np.frombuffer(plane, dtype)[:] = value
    converter, color = ColorConverter(), Color(matrix=1, is_full_range=True)
    frame = converter.frame_from_picture(picture, color=color, width=32, height=16)
    assert frame.alpha is not None
    assert frame.alpha.min() == frame.alpha.max() == WHITE
    assert max(abs(int(plane.max()) - WHITE) for plane in frame.planes) <= 3  # of 65280, swscale's rounding
    encoded = converter.picture_from_frame(frame, color=color, pix_fmt=pix_fmt)
    for index, plane in enumerate(encoded.planes):
        values = np.frombuffer(plane, dtype).reshape(16, -1)[:, :32]
        is_chroma = kind == "yuva444p" and index in {1, 2}
        assert np.abs(values.astype(int) - (neutral if is_chroma else most)).max() <= (3 if is_chroma else 0)
    small = converter.picture_from_frame(frame, color=color, pix_fmt="rgba").to_ndarray()
    assert small.min() == 255


@pytest.mark.parametrize(
    ("pix_fmt", "target", "codec", "expected", "note"),
    [
        ("yuv444p", "out.mp4", None, "yuv420p", "4:4:4 source (yuv444p) encoded with 4:2:0 chroma (yuv420p)"),
        (
            "yuv422p10le",
            "out.mp4",
            None,
            "yuv420p",
            "10-bit 4:2:2 source (yuv422p10le) encoded with 8 bits and 4:2:0 chroma (yuv420p)",
        ),
        ("yuv444p", "out.mov", "prores_ks", "yuv444p10le", None),
        ("yuv420p", "out.mov", "prores_ks", "yuv422p10le", None),
        ("yuv422p", "out.mov", "mjpeg", "yuv422p", None),
        ("yuv420p", "out.mov", "png", "rgb24", None),
        ("yuv444p12le", "out.mkv", "ffv1", "yuv444p12le", None),
        ("rgb24", "out.mkv", "ffv1", "bgr0", None),
        ("gray", "out.mp4", None, "yuv420p", None),
    ],
)
def test_codecs_for_editing_keep_depth_and_chroma_others_say_what_they_lose(
    pix_fmt: str, target: str, codec: str | None, expected: str, note: str | None, identity: Path, tmp_path: Path
) -> None:
    codec_in = "libx264rgb" if pix_fmt == "rgb24" else "ffv1"
    source = write_clip(tmp_path / "in.mkv", ClipSpec(codec=codec_in, options=(), pix_fmt=pix_fmt, pts=range(2)))
    report = stylize_video(identity, source, tmp_path / target, encode=EncodeOptions(codec=codec))
    assert report.encoder.partition(", ")[2] == expected
    assert [text for text in report.notes if "encoded with" in text] == ([note] if note else [])
