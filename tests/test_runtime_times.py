"""Every frame keeps the time its source gave it."""

from fractions import Fraction
from pathlib import Path

import pytest

from helpers.clips import ClipSpec, frame_number, frame_times, packets_of, read_frames, write_clip
from helpers.networks import write_affine
from stylize.runtime import stylize_video

CASES = {
    "constant rate": ClipSpec(),
    "variable rate": ClipSpec(pts=(0, 1, 5, 6, 40, 41, 43, 90, 91, 250), time_base=Fraction(1, 1000)),
    "ntsc": ClipSpec(pts=range(0, 10010, 1001), time_base=Fraction(1, 30_000)),
    "starts late": ClipSpec(pts=range(31, 41)),
    "b-frames": ClipSpec(options=(("preset", "medium"), ("bf", "3"), ("crf", "10"))),
    "starts late, variable, 90 kHz": ClipSpec(pts=(90_001, 93_754, 93_755, 180_000), time_base=Fraction(1, 90_000)),
}


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_affine(tmp_path_factory.mktemp("model") / "identity.onnx")


@pytest.mark.parametrize("name", CASES)
def test_times_are_kept_exactly(name: str, identity: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", CASES[name])
    report = stylize_video(identity, source, tmp_path / "out.mp4")
    assert frame_times(tmp_path / "out.mp4") == frame_times(source)
    assert report.num_frames == len(CASES[name].pts)


@pytest.mark.parametrize("start_seconds", [0.0, 0.25, 1.5])
def test_sound_keeps_its_distance_to_a_late_video(start_seconds: float, identity: Path, tmp_path: Path) -> None:
    spec = ClipSpec(pts=range(20, 30), sound_start_seconds=start_seconds)
    source, target = write_clip(tmp_path / "in.mp4", spec), tmp_path / "out.mp4"
    stylize_video(identity, source, target)
    assert frame_times(target) == frame_times(source)
    assert packets_of(target, "audio") == packets_of(source, "audio")


def test_frames_keep_their_order(identity: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", ClipSpec(options=(("bf", "3"), ("crf", "10"))))
    stylize_video(identity, source, tmp_path / "out.mp4")
    assert [frame_number(frame) for frame in read_frames(tmp_path / "out.mp4")] == list(range(10))


def test_matroska_keeps_times_to_its_millisecond(identity: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", CASES["ntsc"])
    stylize_video(identity, source, tmp_path / "out.mkv")
    pairs = zip(frame_times(tmp_path / "out.mkv"), frame_times(source), strict=True)
    assert max(abs(found - wanted) for found, wanted in pairs) <= Fraction(1, 2000)


def test_missing_times_are_repaired_and_said(identity: Path, tmp_path: Path) -> None:
    # A bare H.264 stream stores no times at all; with B-frames its packets are not in the pictures' order.
    source = write_clip(tmp_path / "in.h264", ClipSpec(options=(("bf", "3"), ("crf", "10"))))
    report = stylize_video(identity, source, tmp_path / "out.mp4")
    assert frame_times(tmp_path / "out.mp4") == [Fraction(index, 25) for index in range(10)]
    assert [frame_number(frame) for frame in read_frames(tmp_path / "out.mp4")] == list(range(10))
    assert "10 missing or backward timestamps were repaired" in report.notes
