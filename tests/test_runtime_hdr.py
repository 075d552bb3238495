"""HDR video becomes ordinary video whose mid-tones are where they were and whose highlights fit, or stays HDR."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.networks import write_affine
from stylize.runtime import ComputePrecision, EncodeOptions, Selection, Stylizer, stylize_video
from stylize.runtime.color import Color, ColorConverter
from stylize.runtime.errors import OptionError
from stylize.runtime.frame import WHITE, Frame
from stylize.runtime.hdr_metadata import hdr_metadata
from stylize.runtime.selection import Hdr
from stylize.runtime.tone_map import HdrRestorer, ToneMapper, hlg_scene, hlg_signal, pq_nits, pq_signal, tone_curve

PQ, HLG = 16, 18


def write_hdr(
    path: Path, rgb_signal: tuple[float, float, float], transfer: int, *, x265: str = "log-level=error"
) -> Path:
    """Three frames of one colour in 10-bit BT.2020, limited range."""
    red, green, blue = rgb_signal
    luma = 0.2627 * red + 0.678 * green + 0.0593 * blue
    codes = (876 * luma + 64, 896 * (blue - luma) / 1.8814 + 512, 896 * (red - luma) / 1.4746 + 512)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx265", rate=25, options={"crf": "4", "x265-params": f"{x265}:log-level=error"}
        )
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = 64, 64, "yuv420p10le"
        context.colorspace, context.color_range, context.color_primaries, context.color_trc = 9, 1, 9, transfer
        for pts in range(3):
            picture = av.VideoFrame(64, 64, "yuv420p10le")
            for plane, code in zip(picture.planes, codes, strict=True):
                np.frombuffer(memoryview(plane), np.uint16)[:] = round(code)
            picture.pts, picture.time_base = pts, Fraction(1, 25)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def sdr_code(nits: float) -> float:
    """8-bit code of a grey of `nits` on a display of 203 nits and gamma 2.4."""
    return float(255 * (nits / 203) ** (1 / 2.4))


# SMPTE ST 2084 states 0.508 for 100 nits and 0.7518 for 1000 (ITU-R BT.2408-7, table 1: 58 % is 203 nits).
@pytest.mark.parametrize(("nits", "signal"), [(0, 0), (100, 0.5081), (203, 0.5807), (1000, 0.7518), (10_000, 1)])
def test_pq_is_that_of_the_standard(nits: float, signal: float) -> None:
    assert pq_signal(np.array(float(nits))) == pytest.approx(signal, abs=1e-4)
    assert pq_nits(pq_signal(np.array(float(nits)))) == pytest.approx(nits, rel=1e-6, abs=1e-6)


def test_hlg_reference_white_is_203_nits() -> None:
    # ITU-R BT.2408-7, table 1: 75 % HLG is 203 nits on a display of 1000 nits, gamma 1.2.
    assert 1000 * hlg_scene(np.array(0.75)) ** 1.2 == pytest.approx(203, abs=1)


def test_curve_keeps_mid_tones_and_never_turns() -> None:
    nits = np.linspace(0, 2000, 4001)
    mapped = tone_curve(nits)
    assert np.all(np.diff(mapped) >= 0)
    assert mapped[nits <= 80] == pytest.approx(nits[nits <= 80], abs=0.01)
    assert mapped[nits >= 1000] == pytest.approx(203, abs=0.01)


@pytest.mark.parametrize("nits", [1.0, 20.0, 60.0])
@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_greys_below_the_knee_keep_their_light(nits: float, transfer: int, tmp_path: Path) -> None:
    scene = (nits / 1000) ** (1 / 1.2)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    hlg = (3 * scene) ** 0.5 if scene <= 1 / 12 else a * np.log(12 * scene - b) + c
    signal = float(pq_signal(np.array(nits))) if transfer == PQ else float(hlg)
    source = write_hdr(tmp_path / "in.mp4", (signal,) * 3, transfer)
    report = stylize_video(write_affine(tmp_path / "identity.onnx"), source, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        frame = next(container.decode(video=0))
    tags = (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc)
    assert tags == (1, 1, 1, 1)
    found = frame.to_ndarray(format="rgb24")[32, 32].astype(int)
    assert np.ptp(found) <= 2
    assert found.mean() == pytest.approx(sdr_code(nits), abs=3)
    name = "PQ" if transfer == PQ else "HLG"
    assert f"{name} high dynamic range is tone-mapped to ordinary BT.709 video" in report.notes


def write_colors(path: Path, transfer: int, pix_fmt: str) -> Path:
    """A smooth field of colours over the whole range of the curve, lossless."""
    width, height = 128, 96
    frame = Frame.blank(width, height)
    right, down = np.linspace(0, 1, width)[None, :], np.linspace(0, 1, height)[:, None]
    for plane, values in zip(frame.planes, (right + 0 * down, right * down, right * (1 - down)), strict=True):
        plane[:] = np.rint(values * WHITE)
    frame.set_time(0, duration=1, time_base=Fraction(1, 25))
    color = Color(matrix=9, is_full_range=False, primaries=9, transfer=transfer)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = width, height, pix_fmt
        context.colorspace, context.color_range, context.color_primaries, context.color_trc = 9, 1, 9, transfer
        container.mux(stream.encode(ColorConverter().picture_from_frame(frame, color=color, pix_fmt=pix_fmt)))
        container.mux(stream.encode(None))
    return path


def first_picture(path: Path) -> av.VideoFrame:
    with av.open(str(path)) as container:
        return next(container.decode(video=0))


def codes_of(picture: av.VideoFrame) -> list[NDArray[np.int64]]:
    """The code values of each plane, more than 8 bits each."""
    return [
        np.frombuffer(memoryview(plane), np.uint16).reshape(plane.height, -1)[:, : plane.width].astype(np.int64)
        for plane in picture.planes
    ]


@pytest.mark.parametrize("pix_fmt", ["yuv420p10le", "yuv444p10le"])
@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_kept_hdr_comes_back_from_an_identity_network(transfer: int, pix_fmt: str, tmp_path: Path) -> None:
    source, target = write_colors(tmp_path / "in.mkv", transfer, pix_fmt), tmp_path / "out.mkv"
    identity = write_affine(tmp_path / "identity.onnx")
    encode, selection = EncodeOptions(codec="ffv1"), Selection(hdr=Hdr.KEEP)
    with Stylizer(identity, precision=ComputePrecision.FP32) as stylizer:
        report = stylize_video(stylizer, source, target, selection=selection, encode=encode)
    found, wanted = first_picture(target), first_picture(source)
    tags = [
        (frame.format.name, frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc)
        for frame in (found, wanted)
    ]
    assert tags[0] == tags[1] == (pix_fmt, 9, 1, 9, transfer)
    for have, want in zip(codes_of(found), codes_of(wanted), strict=True):
        assert np.abs(have - want).max() <= 2  # of 1023
    assert any("is kept" in note for note in report.notes)


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_white_paint_is_paper_white_and_lamps_shine_through(transfer: int, tmp_path: Path) -> None:
    mapper = ToneMapper("PQ" if transfer == PQ else "HLG", is_to_be_restored=True)
    frame = Frame.blank(2, 1)
    lamp = 1000.0
    signals = (
        pq_signal(np.array([5.0, lamp])) if transfer == PQ else hlg_signal((np.array([5.0, lamp]) / 1000) ** (1 / 1.2))
    )
    for plane in frame.planes:
        plane[0] = np.rint(signals * WHITE)
    frame.set_time(0, duration=1, time_base=Fraction(1, 25))
    mapped = mapper.mapped(frame)
    mapped.copy_time_from(frame)
    for plane in mapped.planes:
        plane[:] = WHITE  # the network paints it white
    restored = HdrRestorer("PQ" if transfer == PQ else "HLG").restored(mapped).planes[0][0] / WHITE
    nits = pq_nits(restored) if transfer == PQ else 1000 * hlg_scene(restored) ** 1.2
    assert nits == pytest.approx([203, lamp], rel=0.01)


def test_kept_hdr_is_ten_bit_hevc_with_its_metadata(tmp_path: Path) -> None:
    display = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
    source = write_hdr(tmp_path / "in.mp4", (0.5, 0.4, 0.3), PQ, x265=f"{display}:max-cll=900,300")
    report = stylize_video(
        write_affine(tmp_path / "identity.onnx"), source, tmp_path / "out.mp4", selection=Selection(hdr=Hdr.KEEP)
    )
    assert report.encoder == "libx265, yuv420p10le"
    found = first_picture(tmp_path / "out.mp4")
    assert (found.colorspace, found.color_primaries, found.color_trc) == (9, 9, PQ)
    assert hdr_metadata(found) == f"{display}:max-cll=900,300"


@pytest.mark.parametrize(
    ("name", "encode", "message"),
    [
        ("out.gif", EncodeOptions(), "a GIF has no place for it"),
        ("%d.png", EncodeOptions(), "has no place for it"),
        ("out.mp4", EncodeOptions(pix_fmt="yuv420p"), "HDR needs 10 bits"),
        ("out.mkv", EncodeOptions(codec="mpeg4"), "mpeg4 has no yuv420p10le"),
    ],
)
def test_rejects_hdr_where_there_is_no_place_for_it(
    name: str, encode: EncodeOptions, message: str, tmp_path: Path
) -> None:
    source, identity = write_colors(tmp_path / "in.mkv", PQ, "yuv420p10le"), write_affine(tmp_path / "identity.onnx")
    with pytest.raises(OptionError, match=message):
        stylize_video(identity, source, tmp_path / name, selection=Selection(hdr=Hdr.KEEP), encode=encode)


def test_highlights_are_white_and_hues_stay() -> None:
    frame = Frame.blank(2, 1)
    signals = pq_signal(np.array([[1000.0, 500.0], [1000.0, 80.0], [1000.0, 80.0]]))
    for plane, values in zip(frame.planes, signals, strict=True):
        plane[0] = np.rint(values * WHITE)
    result = ToneMapper("PQ").mapped(frame).to_array()[0]
    assert result[0].tolist() == pytest.approx([255, 255, 255], abs=1)
    red, green, blue = (int(value) for value in result[1])
    assert red > 200
    assert max(green, blue) < 130
    assert abs(green - blue) < 40
