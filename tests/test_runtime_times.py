"""Every frame keeps the time its source gave it."""

import itertools
from fractions import Fraction
from pathlib import Path

import av
import pytest

from helpers.clips import ClipSpec, frame_number, frame_times, packets_of, read_frames, write_clip
from stylize.runtime import stylize_video
from stylize.runtime.check import tracks_of_file
from stylize.runtime.clock import Clock
from stylize.runtime.timecode import moved_timecode

NTSC = Fraction(30_000, 1001)

CASES = {
    "constant rate": ClipSpec(),
    "variable rate": ClipSpec(pts=(0, 1, 5, 6, 40, 41, 43, 90, 91, 250), time_base=Fraction(1, 1000)),
    "ntsc": ClipSpec(pts=range(0, 10010, 1001), time_base=Fraction(1, 30_000)),
    "starts late": ClipSpec(pts=range(31, 41)),
    "b-frames": ClipSpec(options=(("preset", "medium"), ("bf", "3"), ("crf", "10"))),
    "starts late, variable, 90 kHz": ClipSpec(pts=(90_001, 93_754, 93_755, 180_000), time_base=Fraction(1, 90_000)),
}


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


def test_a_picture_that_does_not_say_how_long_lasts_as_long_as_usual() -> None:
    clock = Clock(Fraction(1, 100), Fraction(25))
    picture = av.VideoFrame(16, 16, "yuv420p")
    for number, pts in enumerate((0, 4, 7)):
        picture.pts, picture.time_base, picture.duration = pts, Fraction(1, 100), 3 if number == 1 else 0
        assert clock.time_of(picture) == (pts, 3 if number == 1 else 4)
    assert (clock.num_repaired, clock.span_seconds) == (0, 0.11)


def _transport_stream(path: Path, start: int) -> Path:
    """Ten frames and their sound from `start` on, in ticks of 1/90000 s."""
    pts = range(start, start + 36_000, 3600)
    return write_clip(path, ClipSpec(pts=pts, time_base=Fraction(1, 90_000), sound_start_seconds=start / 90_000))


@pytest.mark.parametrize("starts", [(0, 450_000_000), (450_000_000, 0), (0, 0)])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_transport_streams_put_together_are_joined(
    starts: tuple[int, int], suffix: str, identity: Path, tmp_path: Path
) -> None:
    parts = [_transport_stream(tmp_path / f"{index}.ts", start) for index, start in enumerate(starts)]
    source, target = tmp_path / "in.ts", tmp_path / f"out{suffix}"
    source.write_bytes(b"".join(part.read_bytes() for part in parts))
    report = stylize_video(identity, source, target)
    times = frame_times(target)
    steps = [after - before for before, after in itertools.pairwise(times)]
    assert [frame_number(frame) for frame in read_frames(target)] == [*range(10), *range(10)]
    at_join = steps.pop(9)
    assert all(abs(step - Fraction(1, 25)) <= Fraction(1, 1000) for step in steps), steps
    assert Fraction(39, 1000) <= at_join < Fraction(1, 8)  # sound and picture keep their distance
    sound = packets_of(parts[0], "audio")
    assert 2 * len(sound) - 4 <= len(packets_of(target, "audio")) <= 2 * len(sound)  # less what both have at once
    assert "the times of the stream jumped once: joined" in report.notes
    assert not any("repaired" in note for note in report.notes)
    assert report.problems == ()


@pytest.mark.parametrize("start", [126_000, 2**33 - 18_000], ids=["a second late", "through the end of its clock"])
def test_clock_of_a_transport_stream_begins_at_zero(start: int, identity: Path, tmp_path: Path) -> None:
    source, target = _transport_stream(tmp_path / "in.ts", start), tmp_path / "out.mp4"
    report = stylize_video(identity, source, target)
    times = frame_times(target)
    assert [time - times[0] for time in times] == [Fraction(index, 25) for index in range(10)]
    assert 0 <= times[0] < Fraction(1, 20)  # sound begins up to one AAC frame before
    assert report.notes == ("no colour matrix is tagged: read as BT.601, as usual for 64x48",)


def test_transport_stream_joined_in_the_middle_is_not_damaged(identity: Path, tmp_path: Path) -> None:
    spec = ClipSpec(pts=range(75), options=(("g", "25"), ("preset", "ultrafast")), width=160, height=96)
    whole, source = write_clip(tmp_path / "whole.ts", spec), tmp_path / "in.ts"
    source.write_bytes(whole.read_bytes()[188 * 12 :])
    report = stylize_video(identity, source, tmp_path / "out.mp4")
    assert report.num_frames == 50  # from the second key frame on
    assert report.problems == ()


def test_frames_that_players_would_hide_are_found(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "early.mp4", ClipSpec(pts=range(-4, 6)))
    (track,) = tracks_of_file(clip)
    assert (track.num_packets, track.start) == (6, 0)


@pytest.mark.parametrize(
    ("text", "seconds", "rate", "new_rate", "expected"),
    [
        ("10:00:00:00", Fraction(5, 2), Fraction(25), Fraction(25), "10:00:02:12"),
        ("23:59:59:24", Fraction(1, 25), Fraction(25), Fraction(25), "00:00:00:00"),
        ("10:00:00:45", Fraction(0), Fraction(60), Fraction(25), "10:00:00:19"),
        # SMPTE ST 12-1: the minute begins with 2, every tenth one with 0, and an hour of numbers is 3.6 ms short.
        ("00:00:59;29", Fraction(1001, 30_000), NTSC, NTSC, "00:01:00;02"),
        ("00:09:59;29", Fraction(1001, 30_000), NTSC, NTSC, "00:10:00;00"),
        ("00:00:00;00", Fraction(3600), NTSC, NTSC, "01:00:00;00"),
        ("00:00:59;59", Fraction(1001, 60_000), 2 * NTSC, 2 * NTSC, "00:01:00;04"),
        ("00:01:00;02", Fraction(0), NTSC, Fraction(25), "00:01:00:02"),
        ("reel 5", Fraction(0), NTSC, NTSC, None),
    ],
)
def test_timecodes_are_moved(
    text: str, seconds: Fraction, rate: Fraction, new_rate: Fraction, expected: str | None
) -> None:
    assert moved_timecode(text, by_seconds=seconds, rate=rate, new_rate=new_rate) == expected
