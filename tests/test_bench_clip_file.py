"""The clip that is measured on is a part of the one that was given, with nothing missing in it."""

from fractions import Fraction
from pathlib import Path

import pytest

from helpers.clips import ClipSpec, frame_times, write_clip
from stylize.benchmarks.clip_file import cut_clip


@pytest.mark.parametrize(("num_frames", "num_kept"), [(4, 5), (5, 5), (6, 9), (10, 12), (99, 12)])
def test_a_cut_leaves_no_gap_where_frames_are_coded_out_of_order(
    num_frames: int, num_kept: int, tmp_path: Path
) -> None:
    # Coded as 0 4 2 1 3 8 6 5 7, then 11 9 10: the first six packets would be shown as 0 1 2 3 4 8.
    options = (("preset", "medium"), ("bf", "3"), ("x264-params", "b-adapt=0:b-pyramid=normal"))
    clip = write_clip(tmp_path / "clip.mp4", ClipSpec(pts=range(12), options=options))
    cut_clip(clip, tmp_path / "cut.mkv", num_frames=num_frames)
    assert frame_times(tmp_path / "cut.mkv") == [Fraction(index, 25) for index in range(num_kept)]
