"""Reading MPI-Sintel's folders, on a scene of that layout made here."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from helpers.sintel import write_flo, write_scene
from stylize.benchmarks.sintel import read_flo, read_sintel_scene
from stylize.benchmarks.temporal import pair_errors, rms
from stylize.runtime.errors import InputMediaError


def test_a_scene_with_true_flow_has_no_error_of_its_own(tmp_path: Path) -> None:
    write_scene(tmp_path, "alley_2", shift_px=4)
    clip = read_sintel_scene(tmp_path, "alley_2")
    assert clip.frames.shape == (3, 120, 100, 3)
    assert len(clip.motions) == 2
    # The last four columns leave the frame; everything else is found again exactly.
    assert clip.motions[0].visible.mean() == pytest.approx(96 / 100)
    assert rms(pair_errors(clip.frames, clip.motions)) == 0.0


def test_hidden_pixels_are_left_out(tmp_path: Path) -> None:
    write_scene(tmp_path, "alley_2", shift_px=4)
    hidden = np.zeros((120, 100), np.uint8)
    hidden[:60] = 255
    cv2.imwrite(str(tmp_path / "training/occlusions/alley_2/frame_0001.png"), hidden)
    motion = read_sintel_scene(tmp_path / "training", "alley_2").motions[0]
    assert not motion.visible[:60].any()
    assert motion.visible[60:, :96].all()


def test_reads_no_more_frames_than_asked(tmp_path: Path) -> None:
    write_scene(tmp_path, "alley_2", shift_px=1)
    assert len(read_sintel_scene(tmp_path, "alley_2", num_frames=2).frames) == 2


def test_rejects_a_missing_scene(tmp_path: Path) -> None:
    with pytest.raises(InputMediaError, match="ambush_5: holds no frames"):
        read_sintel_scene(tmp_path, "ambush_5")


def test_rejects_flow_that_is_cut_short_or_something_else(tmp_path: Path) -> None:
    write_flo(tmp_path / "short.flo", np.zeros((4, 5, 2), np.float32))
    (tmp_path / "short.flo").write_bytes((tmp_path / "short.flo").read_bytes()[:-8])
    with pytest.raises(InputMediaError, match="has 164 bytes, 5x4 flow takes 172"):
        read_flo(tmp_path / "short.flo")
    (tmp_path / "other.flo").write_bytes(b"not flow at all")
    with pytest.raises(InputMediaError, match="does not begin with PIEH"):
        read_flo(tmp_path / "other.flo")
