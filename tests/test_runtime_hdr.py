"""HDR video becomes ordinary video whose mid-tones are where they were and whose highlights fit."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from helpers.networks import write_affine
from stylize.runtime import stylize_video
from stylize.runtime.frame import WHITE, Frame
from stylize.runtime.tone_map import ToneMapper, hlg_scene, pq_nits, pq_signal, tone_curve

PQ, HLG = 16, 18


def write_hdr(path: Path, rgb_signal: tuple[float, float, float], transfer: int) -> Path:
    """Three frames of one colour in 10-bit BT.2020, limited range."""
    red, green, blue = rgb_signal
    luma = 0.2627 * red + 0.678 * green + 0.0593 * blue
    codes = (876 * luma + 64, 896 * (blue - luma) / 1.8814 + 512, 896 * (red - luma) / 1.4746 + 512)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx265", rate=25, options={"crf": "4", "x265-params": "log-level=error"})
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
