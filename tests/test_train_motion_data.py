"""Readers of data with motion: clips, the SceneFlow family, MPI-Sintel; and the mix of several."""

import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.motion_data import (
    SHIFT_PX,
    SIZE,
    flow_px,
    moving_frames,
    write_pfm,
    write_png,
    write_scene_flow,
    write_sintel,
    write_video,
)
from stylize.train import clips
from stylize.train.clips import ClipPairs, clip_frames
from stylize.train.data import FramePairs, open_data, parse_data
from stylize.train.frame_pair import Degradation, FramePair, MeasuredPair, PairSource, Window, cut_pair
from stylize.train.motion import warp_backward
from stylize.train.sceneflow import SceneFlowPairs, read_pfm
from stylize.train.sintel import SintelPairs, read_flo

CROP_PX = 64
WINDOW = Window(crop_px=CROP_PX)


def _pairs(source: PairSource, *, num_pairs: int = 6) -> list[FramePair]:
    pairs = FramePairs([(source, 1.0)], num_pairs=num_pairs, seed=3)
    return [pairs[index] for index in range(num_pairs)]


def _check(pairs: list[FramePair], *, dx_px: float, tolerance_px: float) -> None:
    """The stated motion lays the previous frame over the current one, and is the motion of the scene."""
    for pair in pairs:
        assert pair.current.shape == pair.previous_clean.shape == (3, CROP_PX, CROP_PX)
        visible = pair.visible[0] > 0
        assert visible.float().mean() > 0.3
        warped = warp_backward(pair.previous_clean[None], pair.flow[None])[0]
        moved = (warped - pair.current_clean).abs().mean(0)[visible].mean()
        still = (pair.previous_clean - pair.current_clean).abs().mean(0)[visible].mean()
        assert moved < 0.35 * still  # scaling to the crop resamples both frames
        # A window is shown at full to half size, mirrored or not.
        dx = pair.flow[0][visible].median()
        assert 0.5 * abs(dx_px) - tolerance_px <= dx.abs() <= abs(dx_px) + tolerance_px
        assert pair.flow[1][visible].abs().median() <= tolerance_px


def test_scene_flow_of_every_layout_and_side(tmp_path: Path) -> None:
    for root, scene in (("monkaa", "a_rain_of_stones_x2"), ("flyingthings3d", "TRAIN/A/0000")):
        write_scene_flow(tmp_path / root, scene)
        write_scene_flow(tmp_path / root, scene, side="right")
        source = SceneFlowPairs(tmp_path / root, window=WINDOW)
        assert source.description == f"4 pairs of {tmp_path / root / 'frames_finalpass'}"
        _check(_pairs(source), dx_px=-SHIFT_PX, tolerance_px=1e-4)
        shutil.rmtree(tmp_path / root / "frames_finalpass" / scene / "left")
        assert SceneFlowPairs(tmp_path / root, window=WINDOW).description.startswith("2 pairs")


def test_scene_flow_hides_what_the_flows_and_boundaries_say(tmp_path: Path) -> None:
    write_scene_flow(tmp_path, "scene", num_frames=2)
    future = tmp_path / "optical_flow" / "scene" / "into_future" / "left" / "OpticalFlowIntoFuture_0006_L.pfm"
    flow = flow_px(SHIFT_PX)
    flow[20:30] = (30, 0)  # does not lead back
    flow[60, 60] = np.nan
    write_pfm(future, flow)
    source = SceneFlowPairs(tmp_path, window=WINDOW)
    visible = source._measured(source._entries[0]).visible
    assert not visible[20:30].any()  # the flows disagree
    assert not visible[:, 64].any()  # the published motion boundary
    assert not visible[:, :SHIFT_PX].any()  # came from outside the frame
    assert visible[40:55, 70:].all()
    shutil.rmtree(tmp_path / "motion_boundaries")
    source = SceneFlowPairs(tmp_path, window=WINDOW)
    assert "motion boundaries found in the flow" in source.description
    assert source._measured(source._entries[0]).visible[40:55, 64].all()


def test_pfm_is_read_bottom_up_in_either_byte_order(tmp_path: Path) -> None:
    rows = np.arange(2 * 3 * 3, dtype=np.float32).reshape(2, 3, 3)
    (tmp_path / "little.pfm").write_bytes(b"PF\n3 2\n-1.0\n" + rows[::-1].astype("<f4").tobytes())
    (tmp_path / "big.pfm").write_bytes(b"PF\n3 2\n1.0\n" + rows[::-1].astype(">f4").tobytes())
    (tmp_path / "grey.pfm").write_bytes(b"Pf\n3 2\n-1\n" + rows[::-1, :, :1].astype("<f4").tobytes())
    assert np.array_equal(read_pfm(tmp_path / "little.pfm"), rows)
    assert np.array_equal(read_pfm(tmp_path / "big.pfm"), rows)
    assert np.array_equal(read_pfm(tmp_path / "grey.pfm"), rows[..., :1])
    (tmp_path / "cut.pfm").write_bytes((tmp_path / "big.pfm").read_bytes()[:-1])
    with pytest.raises(ValueError, match="holds 71 bytes of values, 3x2 takes 72"):
        read_pfm(tmp_path / "cut.pfm")
    (tmp_path / "words.pfm").write_text("words")
    with pytest.raises(ValueError, match=r"not a .pfm file"):
        read_pfm(tmp_path / "words.pfm")


def test_sintel_is_told_backwards(tmp_path: Path) -> None:
    write_sintel(tmp_path, "alley_1")
    source = SintelPairs(tmp_path, window=WINDOW)
    assert source.description == f"2 pairs of {tmp_path / 'training' / 'final'}"
    _check(_pairs(source), dx_px=SHIFT_PX, tolerance_px=1e-4)
    visible = source._measured(source._entries[0]).visible
    assert not visible[40].any()
    assert not visible[50].any()
    assert visible[45].all()
    assert SintelPairs(tmp_path / "training", window=WINDOW).description == source.description


def test_flo_file_needs_its_magic_and_length(tmp_path: Path) -> None:
    write_sintel(tmp_path, "alley_1", num_frames=2)
    path = tmp_path / "training" / "flow" / "alley_1" / "frame_0001.flo"
    assert np.array_equal(read_flo(path), flow_px(SHIFT_PX))
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match="128x96 flow takes 98316"):
        read_flo(path)
    path.write_bytes(b"HEIP" + content[4:])
    with pytest.raises(ValueError, match="does not begin with PIEH"):
        read_flo(path)


@pytest.mark.parametrize(
    ("present", "message"),
    [
        (("frames_finalpass/s/left/0001.png",), "has frames_finalpass but no optical_flow beside it"),
        (("frames_finalpass/s/0001.png", "optical_flow/x"), "no SCENE/left/0006.png nor SCENE/right/0006.png"),
        (
            ("frames_cleanpass/s/left/0001.png", "frames_cleanpass/s/left/0002.png", "optical_flow/x"),
            r"first that is missing is optical_flow/s/into_future/left/OpticalFlowIntoFuture_0001_L.pfm",
        ),
        (("training/final/s/frame_0001.png",), "looks like MPI-Sintel but has no folder flow"),
        (("training/clean/s/frame_0001.png", "training/flow/x"), "has no folder occlusions"),
        (("training/final/s/x.png", "training/flow/x", "training/occlusions/x"), "no SCENE/frame_0001.png in it"),
        (
            ("monkaa/frames_finalpass/x", "sintel/training/final/x", "sintel/training/flow/x"),
            "holds whole data sets; give each of them: --data .*monkaa --data .*sintel",
        ),
        (("notes.txt",), "no readable picture among 0 files"),
    ],
)
def test_incomplete_tree_is_named_in_one_line(tmp_path: Path, present: tuple[str, ...], message: str) -> None:
    for name in present:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=message) as error:
        open_data([str(tmp_path)], WINDOW, cache=tmp_path / "cache")
    assert "\n" not in str(error.value)


def test_frames_of_a_data_set_are_not_taken_for_stills(tmp_path: Path) -> None:
    write_scene_flow(tmp_path / "monkaa", "scene")
    with pytest.raises(ValueError, match="give the folder above it"):
        open_data([str(tmp_path / "monkaa" / "frames_finalpass")], WINDOW)


def test_damaged_pair_is_reported_and_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_sintel(tmp_path, "alley_1")
    (tmp_path / "training" / "flow" / "alley_1" / "frame_0001.flo").write_bytes(b"PIEH")
    _check(_pairs(SintelPairs(tmp_path, window=WINDOW)), dx_px=SHIFT_PX, tolerance_px=1e-4)
    assert "skipped: " in caplog.text
    (tmp_path / "training" / "flow" / "alley_1" / "frame_0002.flo").write_bytes(b"PIEH")
    with pytest.raises(ValueError, match="none of the frame pairs can be read"):
        _pairs(SintelPairs(tmp_path, window=WINDOW))


def test_unknown_motion_is_not_visible(tmp_path: Path) -> None:
    frames = moving_frames(2)
    flow = flow_px(-SHIFT_PX)
    flow[:, ::20] = np.nan
    measured = MeasuredPair(frames[0], frames[1], flow, np.ones(SIZE, bool))

    class Source:
        description = "one pair"

        def pair(self, rng: np.random.Generator) -> FramePair:
            from stylize.train.frame_pair import measured_or_next

            return cut_pair(rng, measured_or_next([measured], 0, lambda pair: pair), WINDOW)

    for pair in _pairs(Source()):
        assert torch.isfinite(pair.flow).all()
        assert 0 < pair.visible.mean() < 1


def test_clip_gives_its_motion_and_leaves_out_cuts(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", moving_frames(3) + moving_frames(3, seed=9))
    source = ClipPairs([tmp_path / "clip.mp4"], window=WINDOW, cache=tmp_path / "cache")
    assert source.description == "4 pairs of 1 clips, 1 cuts or unclear motions left out"
    _check(_pairs(source), dx_px=-SHIFT_PX, tolerance_px=0.5)


def test_clip_is_measured_once_and_again_when_it_changes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path, cache = tmp_path / "clip.mp4", tmp_path / "cache"
    write_video(path, moving_frames(3))
    first = _pairs(ClipPairs([path], window=WINDOW, cache=cache))
    assert caplog.text.count("measuring the motion of 2 of 3 frames") == 1
    path.rename(tmp_path / "moved.mp4")
    again = _pairs(ClipPairs([tmp_path / "moved.mp4"], window=WINDOW, cache=cache))
    assert caplog.text.count("measuring") == 1
    for a, b in zip(first, again, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    write_video(path, moving_frames(3, seed=5))
    ClipPairs([path], window=WINDOW, cache=cache)
    assert caplog.text.count("measuring") == 2


def test_cache_is_bounded_and_spares_what_is_in_use(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for seed in (1, 2):
        write_video(tmp_path / f"{seed}.mp4", moving_frames(2, seed=seed))
        ClipPairs([tmp_path / f"{seed}.mp4"], window=WINDOW, cache=cache)
    old, new = sorted((path for path in cache.iterdir()), key=lambda path: path.stat().st_mtime)
    left, at_work = cache / ".1234.5.partial", cache / ".1234.6.partial"
    left.mkdir()
    os.utime(left, (0, 0))
    at_work.mkdir()
    clips._trim(cache, keep={new}, limit_bytes=1)
    assert not old.exists()
    assert new.exists()
    assert not left.exists()  # by a process that was killed
    assert at_work.exists()


def test_rotated_and_broken_videos(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # As a phone does: stored lying, with the turn that sets it upright.
    upright = np.zeros((96, 64, 3), np.uint8)
    upright[:20] = (220, 40, 40)
    lying = np.ascontiguousarray(np.rot90(upright, -1))
    write_video(tmp_path / "phone.mp4", [lying, lying], rotation_degrees=90)
    shown = next(iter(clip_frames(tmp_path / "phone.mp4")))
    assert shown.shape == upright.shape
    assert np.abs(shown.astype(int) - upright).mean() < 10
    (tmp_path / "words.mp4").write_text("words")
    write_video(tmp_path / "good.mp4", moving_frames(3))
    paths = [tmp_path / "good.mp4", tmp_path / "words.mp4"]
    source = ClipPairs(paths, window=WINDOW, cache=tmp_path / "cache")
    assert source.description == "2 pairs of 1 clips, 1 clips without a usable pair skipped"
    assert "words.mp4: read as far as it goes: Invalid data" in caplog.text
    with pytest.raises(ValueError, match=r"words.mp4: no two frames that belong together"):
        ClipPairs(paths[1:], window=WINDOW, cache=tmp_path / "cache")


def test_folder_is_recognised_by_looking_at_it(tmp_path: Path) -> None:
    for index, frame in enumerate(moving_frames(4)):
        write_png(tmp_path / "mixed" / "clip" / f"frame_{index:03}.png", frame)
        # Numbered without a gap too, but no clip.
        write_png(tmp_path / "mixed" / "photos" / f"{index}.png", moving_frames(1, seed=index)[0])
    write_video(tmp_path / "mixed" / "video.mp4", moving_frames(3, seed=7))
    sources = open_data([f"{tmp_path / 'mixed'}"], WINDOW, cache=tmp_path / "cache")
    assert [source.description for source, _ in sources] == [
        "5 pairs of 2 clips",
        f"4 pictures in {tmp_path / 'mixed'}",
    ]
    assert [weight for _, weight in sources] == [0.5, 0.5]


def test_clips_without_a_pair_do_not_keep_the_pictures_beside_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_png(tmp_path / "photos" / "a.png", moving_frames(1)[0])
    (tmp_path / "photos" / "still.gif").write_bytes(b"GIF89a")
    sources = open_data([str(tmp_path / "photos")], WINDOW, cache=tmp_path / "cache")
    assert [source.description for source, _ in sources] == [f"1 pictures in {tmp_path / 'photos'}"]
    assert "still.gif: no two frames that belong together" in caplog.text


def test_sources_are_mixed_by_weight(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    write_sintel(tmp_path / "sintel", "alley_1")
    write_png(tmp_path / "stills" / "a.png", moving_frames(1)[0])
    sources = open_data([f"{tmp_path / 'sintel'}:3", f"{tmp_path / 'stills'}"], WINDOW)
    assert "data, 75 %: 2 pairs of" in caplog.text
    assert "data, 25 %: 1 pictures in" in caplog.text
    drawn: list[int] = []

    class Counted:
        def __init__(self, number: int) -> None:
            self._number = number
            self.description = str(number)

        def pair(self, rng: np.random.Generator) -> FramePair:
            drawn.append(self._number)
            return FramePair(*(torch.zeros(1) for _ in range(6)))

    weights = [weight for _, weight in sources]
    pairs = FramePairs([(Counted(0), weights[0]), (Counted(1), weights[1])], num_pairs=400, seed=0)
    for index in range(400):
        _ = pairs[index]
    assert 0.69 < drawn.count(0) / 400 < 0.81  # three standard deviations


@pytest.mark.parametrize(
    ("text", "path", "weight"),
    [
        ("photos", "photos", 1.0),
        ("photos:0.3", "photos", 0.3),
        ("C:\\photos", "C:\\photos", 1.0),
        ("photos:2e1", "photos", 20.0),
        ("photos:take2", "photos:take2", 1.0),
    ],
)
def test_weight_is_what_follows_the_last_colon(text: str, path: str, weight: float) -> None:
    assert parse_data(text) == (Path(path), weight)


def test_rejects_weights_of_nothing() -> None:
    with pytest.raises(ValueError, match="--data photos:0: weight 0 must be above 0"):
        parse_data("photos:0")


def test_measured_pairs_are_damaged_for_the_network_only() -> None:
    frames = moving_frames(2)
    measured = MeasuredPair(frames[0], frames[1], flow_px(-SHIFT_PX), np.ones(SIZE, bool))
    plain = Degradation(noise=0, block_noise=0, compressed_share=0)
    pair = cut_pair(np.random.default_rng(0), measured, Window(crop_px=CROP_PX, degradation=plain))
    assert torch.equal(pair.current, pair.current_clean)
    pair = cut_pair(np.random.default_rng(0), measured, WINDOW)
    assert not torch.equal(pair.current, pair.current_clean)
