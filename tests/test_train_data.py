"""Frame pairs with known motion, and the pictures they are made from."""

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from helpers.training import write_picture
from stylize.train.data import FramePairs
from stylize.train.frame_pair import Degradation
from stylize.train.motion import warp_backward
from stylize.train.pictures import PictureFolder, SceneCollection, picture_on_white, read_picture, scaled_picture
from stylize.train.scenes import draw_scene
from stylize.train.stills import MotionRange, StillPairs


@pytest.fixture
def pictures(tmp_path: Path) -> PictureFolder:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for seed in range(3):
        write_picture(tmp_path / "deep" / "er" / f"{seed}.jpg", seed=seed, height=160, width=200)
    return PictureFolder(tmp_path)


def _pairs(pictures: PictureFolder, **limits: float) -> FramePairs:
    damage = {name: limits.pop(name) for name in ("noise", "block_noise", "compressed_share") if name in limits}
    source = StillPairs(
        pictures,
        crop_px=64,
        motion=MotionRange(**limits),  # type: ignore[arg-type]
        degradation=Degradation(**damage),
    )
    return FramePairs([(source, 1.0)], num_pairs=12, seed=5)


def test_same_index_gives_the_same_pair_whatever_was_read_before(pictures: PictureFolder) -> None:
    first, second = _pairs(pictures), _pairs(pictures)
    _ = second[3]
    for a, b in zip(first[7], second[7], strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first[7].previous, first[8].previous)


def test_pictures_read_last_are_kept_up_to_so_many_bytes(
    pictures: PictureFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stylize.train.pictures._CACHE_BYTES", 2 * 160 * 200 * 3)
    first, second = pictures[0], pictures[1]
    assert pictures[0] is first
    _ = pictures[2]  # in place of the second, which was used before the first
    (tmp_path / "deep" / "er" / "1.jpg").unlink()
    assert pictures[0] is first
    assert not np.array_equal(pictures[1], second)  # cannot be read again, so the next one takes its place


def test_current_frame_is_the_previous_one_moved(pictures: PictureFolder) -> None:
    for pair in _pairs(pictures, gain=0.0, noise=0.0, static_share=0.0):
        warped = warp_backward(pair.previous_clean[None], pair.flow[None])[0]
        error = ((warped - pair.current_clean).abs() * pair.visible).sum() / (3 * pair.visible.sum())
        still = ((pair.previous_clean - pair.current_clean).abs() * pair.visible).sum() / (3 * pair.visible.sum())
        # What is left is one more bilinear sampling of a sharp picture.
        assert error < 0.03
        assert error < still
        assert pair.visible.mean() > 0.4


def test_static_pairs_differ_by_noise_and_light_only(pictures: PictureFolder) -> None:
    for pair in _pairs(pictures, static_share=1.0, gain=0.0):
        assert torch.equal(pair.previous_clean, pair.current_clean)
        assert not pair.flow.any()
        assert not torch.equal(pair.previous, pair.current)


def test_cutouts_move_on_their_own_and_hide_the_background(pictures: PictureFolder) -> None:
    moved = [
        pair
        for pair in _pairs(
            pictures, static_share=0.0, shift_px=0, turn_degrees=0, zoom=0, bend_px=0, cutout_shift_px=9, gain=0.0
        )
        if pair.flow.any()
    ]
    assert moved
    assert any((pair.visible == 0).any() for pair in moved)
    num_off = 0
    for pair in moved:
        is_background = (pair.flow == 0).all(dim=0)
        assert is_background.any()
        warped = warp_backward(pair.previous_clean[None], pair.flow[None])[0]
        error = (warped - pair.current_clean).abs().amax(dim=0)
        num_off += int((error[(pair.visible[0] > 0) & ~is_background] > 0.15).sum())
    # The soft edges of cutouts are a mixture with what lies behind them; were they visible, there would be 200.
    assert num_off < 40  # sharp pixels, sampled twice


def test_compressed_frames_show_blocks_that_the_losses_do_not_see(pictures: PictureFolder) -> None:
    plain = _pairs(pictures, static_share=1.0, gain=0.0, noise=0.0, block_noise=0.0, compressed_share=0.0)
    assert all(torch.equal(pair.current, pair.current_clean) for pair in plain)
    for pair in _pairs(pictures, static_share=1.0, gain=0.0, noise=0.0, block_noise=0.0, compressed_share=1.0):
        assert torch.equal(pair.previous_clean, pair.current_clean)
        error = (pair.current - pair.current_clean).abs()
        assert 0.001 < error.mean() < 0.1
        # JPEG of the right channel order keeps the colours.
        torch.testing.assert_close(pair.current.mean((1, 2)), pair.current_clean.mean((1, 2)), rtol=0, atol=0.02)


def test_block_noise_is_constant_within_a_block_and_differs_between_frames(pictures: PictureFolder) -> None:
    for pair in _pairs(pictures, static_share=1.0, gain=0.0, noise=0.0, block_noise=0.01, compressed_share=0.0):
        noise = pair.current - pair.current_clean
        block = noise[:, 8:16, 16:24][
            :, (pair.current[:, 8:16, 16:24] % 1 != 0).all(dim=0)
        ]  # where nothing was clipped
        assert block.std(dim=1).max() < 1e-6
        assert not torch.equal(pair.current, pair.previous)


def test_light_and_noise_stay_within_their_limits(pictures: PictureFolder) -> None:
    ratios = []
    for pair in _pairs(pictures, static_share=1.0, gain=0.05, noise=0.01, block_noise=0.0, compressed_share=0.0):
        ratios.append(float(pair.current_clean.mean() / pair.previous_clean.mean()))
        assert 0.0 < (pair.current - pair.current_clean).std() < 0.0101
    assert 0.94 < min(ratios) < 0.98
    assert 1.02 < max(ratios) < 1.06


def test_broken_files_are_counted_and_skipped(tmp_path: Path) -> None:
    write_picture(tmp_path / "good.png")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "notes.txt").write_text("ignored: not even named like a picture")
    cut = write_picture(tmp_path / "cut.png", seed=3)
    cut.write_bytes(cut.read_bytes()[:100])
    folder = PictureFolder(tmp_path)
    assert folder.num_skipped >= 2
    good = read_picture(tmp_path / "good.png")
    for index in range(len(folder)):
        assert folder[index].shape == good.shape


def test_transparent_parts_are_shown_on_white(tmp_path: Path) -> None:
    opaque = read_picture(write_picture(tmp_path / "opaque.png"))
    assert np.array_equal(picture_on_white(tmp_path / "opaque.png"), opaque)
    alpha = np.full(opaque.shape[:2], 255, np.uint8)
    alpha[:10], alpha[10:20] = 0, 51
    for dtype in (np.uint8, np.uint16):
        bgra = np.dstack([opaque[..., ::-1], alpha]).astype(dtype) * (257 if dtype is np.uint16 else 1)
        (tmp_path / "cut.png").write_bytes(cv2.imencode(".png", bgra)[1].tobytes())
        shown = picture_on_white(tmp_path / "cut.png").astype(int)
        assert (shown[:10] == 255).all()
        assert np.abs(shown[10:20] - (204 + opaque[10:20] / 5)).max() <= 1
        assert np.array_equal(shown[20:], opaque[20:])


def test_rejects_style_pictures_that_would_fill_the_memory(tmp_path: Path) -> None:
    scroll = write_picture(tmp_path / "scroll.png", height=16, width=512)
    assert scaled_picture(scroll, 64).shape == (1, 3, 64, 2048)
    thread = write_picture(tmp_path / "thread.png", height=16, width=528)
    with pytest.raises(ValueError, match=r"thread.png: is 528x16, the long side more than 32 times the short one"):
        scaled_picture(thread, 64)


def test_rejects_folder_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no readable picture among 0 files"):
        PictureFolder(tmp_path)
    with pytest.raises(ValueError, match=r"nowhere: no such folder of pictures"):
        PictureFolder(tmp_path / "nowhere")


def test_scenes_are_repeatable_and_have_the_spectrum_of_photos() -> None:
    scene = draw_scene(4, height=128, width=160)
    assert scene.shape == (128, 160, 3)
    assert scene.dtype == np.uint8
    assert np.array_equal(scene, draw_scene(4, height=128, width=160))
    assert not np.array_equal(scene, draw_scene(5, height=128, width=160))
    slopes = [_amplitude_slope(draw_scene(seed, height=256, width=256)) for seed in range(3)]
    # Natural photos: amplitude falls as f^-1.2 +- 0.25 (Tolhurst et al. 1992).
    assert -1.6 < np.mean(slopes) < -0.8


def test_scene_collection_reads_like_a_folder() -> None:
    scenes = SceneCollection()
    assert len(scenes) > 100
    assert scenes[0].shape[2] == 3


def _amplitude_slope(picture: np.ndarray) -> float:
    grey = picture.mean(axis=2) * np.outer(np.hanning(256), np.hanning(256))
    amplitude = np.abs(np.fft.fft2(grey - grey.mean()))
    radius = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256)[None])
    bands = np.geomspace(0.03, 0.4, 8)
    means = [amplitude[(radius >= low) & (radius < high)].mean() for low, high in itertools.pairwise(bands)]
    centres = np.sqrt(bands[:-1] * bands[1:])
    return float(np.polyfit(np.log(centres), np.log(means), 1)[0])
