"""The artist's controls: strength, colours, mask, fades and the size of strokes."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from helpers.clips import ClipSpec, read_frames, write_clip, write_png
from helpers.networks import write_affine
from stylize.runtime import EncodeOptions, FinishOptions, ModelContract, Selection, Stylizer, stylize_video
from stylize.runtime.color import Color
from stylize.runtime.decode import VideoInfo
from stylize.runtime.errors import InputMediaError, OptionError
from stylize.runtime.finish import Finish
from stylize.runtime.frame import WHITE, Frame
from stylize.runtime.partial_file import PartialFile
from stylize.runtime.still import write_still

LOSSLESS = EncodeOptions(codec="ffv1", pix_fmt="bgr0")
CLIP = ClipSpec(codec="ffv1", options=(), pix_fmt="bgr0")


@pytest.fixture(scope="module")
def white(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that paints everything white."""
    return write_affine(tmp_path_factory.mktemp("model") / "white.onnx", scale=0.0, offset=1.0)


def write_picture(path: Path, rgb_HWC: np.ndarray) -> Path:
    with PartialFile(path) as output:
        frame = Frame.from_array(rgb_HWC)
        frame.set_time(0, duration=1, time_base=Fraction(1, 25))
        write_still(frame, output)
        output.commit()
    return path


def left_half(width: int, height: int) -> np.ndarray:
    mask = np.zeros((height, width, 3), np.uint8)
    mask[:, : width // 2] = 255
    return mask


def shares(frames: list[np.ndarray], sources: list[np.ndarray]) -> list[float]:
    """How much of the white style each frame shows, from its mean distance to the source."""
    return [
        float((frame - source.astype(float)).sum() / (255.0 - source).sum())
        for frame, source in zip(frames, sources, strict=True)
    ]


@pytest.mark.parametrize("strength", [0.0, 0.25, 1.0])
def test_strength_blends(strength: float, white: Path) -> None:
    frames = np.full((1, 40, 48, 3), 55, np.uint8)
    with Stylizer(white, strength=strength) as stylizer:
        assert np.all(stylizer.run(frames) == 55 + 200 * strength)


@pytest.mark.parametrize("matrix", [1, 6, 9])
def test_keep_colors_takes_luma_from_the_style_and_chroma_from_the_source(matrix: int) -> None:
    rng = np.random.default_rng(0)
    source = rng.integers(90, 140, (8, 8, 3), dtype=np.uint8)
    style = rng.integers(100, 150, (8, 8, 3), dtype=np.uint8)
    info = VideoInfo(
        width=8,
        height=8,
        time_base=Fraction(1, 25),
        frame_rate=Fraction(25),
        color=Color(matrix=matrix, is_full_range=False),
    )
    frame = Frame.from_array(source)
    with Finish(FinishOptions(keep_colors=True), info=info) as finish:
        finish.store(np.moveaxis(style, -1, 0).astype(np.float32) * 256, frame, weight=1.0)
    result = np.stack(frame.planes, -1) / 256
    # H.273, table 4
    weights = {1: (0.2126, 0.7152, 0.0722), 6: (0.299, 0.587, 0.114), 9: (0.2627, 0.678, 0.0593)}[matrix]
    luma, luma_source = result @ weights, source @ weights
    assert np.abs(luma - style @ weights).max() < 0.02  # 1/256 of truncation per plane
    for channel in (0, 2):
        chroma = result[..., channel] - luma
        assert np.abs(chroma - (source[..., channel] - luma_source)).max() < 0.02


def test_mask_picture_of_another_size(white: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mkv", CLIP)
    mask = write_picture(tmp_path / "mask.png", left_half(128, 96))
    stylize_video(white, source, tmp_path / "out.mkv", encode=LOSSLESS, finish=FinishOptions(mask=mask))
    for found, was in zip(read_frames(tmp_path / "out.mkv"), read_frames(source), strict=True):
        assert found[:, :30].min() == 255
        assert np.array_equal(found[:, 34:], was[:, 34:])


def test_feather_softens_the_edge_over_its_pixels(white: Path, tmp_path: Path) -> None:
    source = write_picture(tmp_path / "in.png", np.zeros((64, 128, 3), np.uint8))
    mask = write_picture(tmp_path / "mask.png", left_half(128, 64))
    options = FinishOptions(mask=mask, mask_feather_px=20)
    stylize_video(white, source, tmp_path / "out.png", finish=options)
    row = read_frames(tmp_path / "out.png")[0][32, :, 0] / 255
    assert np.all(np.diff(row) <= 0.005)
    assert row[10] > 0.99
    assert row[-10] < 0.01
    # 10 to 90 % over 20 px
    assert int(np.argmax(row < 0.1)) - int(np.argmax(row < 0.9)) == pytest.approx(20, abs=2)


def test_mask_video_follows_the_clock_not_the_count(white: Path, tmp_path: Path) -> None:
    # The mask has a frame every 80 ms, the clip every 40 ms: each mask frame holds for two.
    source = write_clip(tmp_path / "in.mkv", CLIP)
    for name, level in (("black", 0), ("white", 255)):
        write_picture(tmp_path / f"{name}.png", np.full((48, 64, 3), level, np.uint8))
    mask = tmp_path / "mask.mkv"
    write_clip(tmp_path / "base.mkv", ClipSpec(codec="ffv1", options=(), pix_fmt="bgr0", pts=range(0, 10, 2)))
    fade = FinishOptions(fade_in_seconds=0.32)
    stylize_video(white, tmp_path / "base.mkv", mask, encode=LOSSLESS, finish=fade)
    # At 0 s the mask shows numbered frame 0, at 0.32 s white, as later.
    stylize_video(white, source, tmp_path / "out.mkv", encode=LOSSLESS, finish=FinishOptions(mask=mask))
    found = shares(read_frames(tmp_path / "out.mkv"), read_frames(source))
    assert found[8] == found[9] == pytest.approx(1.0)
    assert all(found[index] == pytest.approx(found[index + 1], abs=0.02) for index in range(0, 10, 2))
    assert all(found[index + 2] - found[index] > 0.05 for index in range(0, 8, 2))


def test_transparent_parts_of_a_mask_count_as_black(white: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mkv", CLIP)
    rgba = np.full((48, 64, 4), 255, np.uint8)
    rgba[:, 32:, 3] = 0
    mask = write_png(tmp_path / "mask.png", rgba, "rgba")
    stylize_video(white, source, tmp_path / "out.mkv", encode=LOSSLESS, finish=FinishOptions(mask=mask))
    found, was = read_frames(tmp_path / "out.mkv")[0], read_frames(source)[0]
    assert found[:, :32].min() == 255
    assert np.array_equal(found[:, 32:], was[:, 32:])


def test_mask_video_is_cut_with_the_video_it_lies_on(white: Path, tmp_path: Path) -> None:
    source, mask = (write_clip(tmp_path / name, CLIP) for name in ("in.mkv", "mask.mkv"))
    frames = []
    for start in (0, 4):
        part = Selection(start_seconds=Fraction(start, 25))
        target = tmp_path / f"{start}.mkv"
        stylize_video(white, source, target, encode=LOSSLESS, finish=FinishOptions(mask=mask), selection=part)
        frames.append(read_frames(target))
    np.testing.assert_array_equal(frames[0][4:], frames[1])


def test_fades_go_by_the_frames_own_times(white: Path, tmp_path: Path) -> None:
    times_ms = (0, 100, 150, 500, 600, 1000, 1900, 1990)
    spec = ClipSpec(codec="ffv1", options=(), pix_fmt="bgr0", pts=times_ms, time_base=Fraction(1, 1000))
    source = write_clip(tmp_path / "in.mkv", spec)
    options = FinishOptions(fade_in_seconds=0.5, fade_out_seconds=1.0)
    stylize_video(white, source, tmp_path / "out.mkv", encode=LOSSLESS, finish=options)
    found = shares(read_frames(tmp_path / "out.mkv"), read_frames(source))
    assert found[:6] == pytest.approx([0, 0.2, 0.3, 1, 1, 1], abs=0.05)
    assert found[6] == pytest.approx(0.1, abs=0.05)
    assert found[7] < 0.06


def test_fade_out_ends_with_the_video_though_the_sound_goes_on(white: Path, tmp_path: Path) -> None:
    spec = ClipSpec(codec="ffv1", options=(), pix_fmt="bgr0", sound_start_seconds=0.0, sound_seconds=3.0)
    source = write_clip(tmp_path / "in.mkv", spec)
    options = FinishOptions(fade_out_seconds=0.2)
    stylize_video(white, source, tmp_path / "out.mkv", encode=LOSSLESS, finish=options)
    found = shares(read_frames(tmp_path / "out.mkv"), read_frames(source))
    assert found == pytest.approx([1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2], abs=0.03)


def test_style_scale_changes_what_the_network_sees_not_the_output(tmp_path: Path) -> None:
    contract = ModelContract(network="affine", style="identity", size_multiple=1)
    identity = write_affine(tmp_path / "identity.onnx", contract=contract)
    stripes = np.zeros((1, 64, 96, 3), np.uint8)
    stripes[:, :, ::2] = 255
    with Stylizer(identity, style_scale=0.25) as stylizer:
        found = stylizer.run(stripes)
    assert found.shape == stripes.shape
    assert np.ptp(found[:, 8:-8, 8:-8].astype(int)) < 60  # stripes of one pixel are gone at a quarter of the size
    slope = np.repeat(np.linspace(0, 255, 96).astype(np.uint8)[None, None, :, None], 64, axis=1).repeat(3, axis=3)
    for style_scale in (0.5, 1.0, 2.0):
        with Stylizer(identity, style_scale=style_scale) as stylizer:
            assert np.abs(stylizer.run(slope).astype(int) - slope).max() <= 3


def test_rejects_style_scale_of_a_network_of_one_size(tmp_path: Path) -> None:
    contract = ModelContract(network="affine", style="x", size_multiple=1, fixed_size=(64, 64))
    with pytest.raises(OptionError, match="runs at 64x64 only"):
        Stylizer(write_affine(tmp_path / "m.onnx", contract=contract, shape=(1, 3, 64, 64)), style_scale=0.5)


@pytest.mark.parametrize("style_scale", [0.0, -1.0, 5.0, float("nan")])
def test_rejects_style_scale_outside_its_range(style_scale: float, white: Path) -> None:
    with pytest.raises(OptionError, match="style scale"):
        Stylizer(white, style_scale=style_scale)


@pytest.mark.parametrize(
    "options",
    [{"fade_in_seconds": -1.0}, {"fade_out_seconds": float("nan")}, {"mask_feather_px": 5.0}],
)
def test_rejects_controls_outside_their_range(options: dict[str, float]) -> None:
    with pytest.raises(OptionError):
        FinishOptions(**options)


def test_rejects_missing_mask(white: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mkv", CLIP)
    with pytest.raises(InputMediaError, match=r"nowhere\.png: no such file"):
        stylize_video(white, source, tmp_path / "out.mkv", finish=FinishOptions(mask=tmp_path / "nowhere.png"))
    assert not list(tmp_path.glob("*out*"))


def test_stretched_mask_is_said(white: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mkv", CLIP)
    mask = write_picture(tmp_path / "mask.png", left_half(64, 64))
    report = stylize_video(white, source, tmp_path / "out.mkv", finish=FinishOptions(mask=mask))
    assert "the mask of 64x64 is stretched to 64x48" in report.notes


def test_white_is_the_end_of_the_scale() -> None:
    frame = Frame.from_array(np.full((4, 4, 3), 200, np.uint8))
    finish = Finish(FinishOptions(keep_colors=True))
    finish.store(np.full((3, 4, 4), 2.0 * WHITE, np.float32), frame, weight=1.0)
    assert np.all(frame.to_array() == 255)
