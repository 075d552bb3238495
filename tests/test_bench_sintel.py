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
    # The last four columns leave the frame, a corner's motion is not known; everything else is found again exactly.
    assert clip.motions[0].visible.sum() == 96 * 120 - 20 * 20
    assert rms(pair_errors(clip.frames, clip.motions)) == 0.0


def test_hidden_pixels_are_left_out(tmp_path: Path) -> None:
    write_scene(tmp_path, "alley_2", shift_px=4)
    hidden = np.zeros((120, 100), np.uint8)
    hidden[:60] = 255
    cv2.imwrite(str(tmp_path / "training/occlusions/alley_2/frame_0001.png"), hidden)
    motion = read_sintel_scene(tmp_path / "training", "alley_2").motions[0]
    assert not motion.visible[:60].any()
    assert motion.visible[60:, :96].all()


def test_rejects_a_missing_scene(tmp_path: Path) -> None:
    with pytest.raises(InputMediaError, match="ambush_5: holds no frames"):
        read_sintel_scene(tmp_path, "ambush_5")


def test_flow_is_read_as_published(tmp_path: Path) -> None:
    """A Middlebury file of 2x1 flow, byte for byte, by hand."""
    flow = "5049454802000000010000000000803f000000c00000003f00000000"  # PIEH 2 1 (1, -2) (0.5, 0)
    (tmp_path / "by_hand.flo").write_bytes(bytes.fromhex(flow))
    assert read_flo(tmp_path / "by_hand.flo").tolist() == [[[1.0, -2.0], [0.5, 0.0]]]


@pytest.mark.parametrize("missing", ["flow/alley_2/frame_0002.flo", "occlusions/alley_2/frame_0001.png"])
def test_rejects_a_scene_with_a_file_missing(missing: str, tmp_path: Path) -> None:
    write_scene(tmp_path, "alley_2", shift_px=4)
    (tmp_path / "training" / missing).unlink()
    with pytest.raises(InputMediaError, match=missing):
        read_sintel_scene(tmp_path, "alley_2")


def test_rejects_flow_of_another_size(tmp_path: Path) -> None:
    write_scene(tmp_path, "alley_2", shift_px=4)
    write_flo(tmp_path / "training/flow/alley_2/frame_0001.flo", np.zeros((8, 8, 2), np.float32))
    with pytest.raises(InputMediaError, match=r"frame_0001.flo: is of another size .*\[\(8, 8\), \(120, 100\)\]"):
        read_sintel_scene(tmp_path, "alley_2")


def test_rejects_flow_that_is_cut_short_or_something_else(tmp_path: Path) -> None:
    write_flo(tmp_path / "short.flo", np.zeros((4, 5, 2), np.float32))
    (tmp_path / "short.flo").write_bytes((tmp_path / "short.flo").read_bytes()[:-8])
    with pytest.raises(InputMediaError, match="has 164 bytes, 5x4 flow takes 172"):
        read_flo(tmp_path / "short.flo")
    (tmp_path / "other.flo").write_bytes(b"not flow at all")
    with pytest.raises(InputMediaError, match="does not begin with PIEH"):
        read_flo(tmp_path / "other.flo")
