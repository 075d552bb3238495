"""Any size, orientation and pixel shape in; upright pictures of the same content out."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from helpers.clips import ClipSpec, frame_number, numbered_frame, read_frames, write_clip
from helpers.networks import write_affine
from stylize.runtime import EncodeOptions, ModelContract, Stylizer, open_artifact, open_runner, stylize_video
from stylize.runtime.decode import Decoder
from stylize.runtime.errors import OptionError
from stylize.runtime.memory import check_memory
from stylize.runtime.network_pass import reflect_pad

SHARP = EncodeOptions(crf=1, preset="ultrafast")


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (1, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size_multiple", [1, 4, 8, 48])
@pytest.mark.parametrize(("width", "height"), [(1, 1), (2, 2), (3, 5), (1, 40), (33, 31), (64, 48), (65, 47)])
def test_arrays_of_any_size_come_back_whole(width: int, height: int, size_multiple: int, tmp_path: Path) -> None:
    contract = ModelContract(network="affine", style="identity", size_multiple=size_multiple)
    frames = noise(height, width)
    with Stylizer(write_affine(tmp_path / "identity.onnx", contract=contract)) as stylizer:
        assert np.array_equal(stylizer.run(frames), frames)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (2, 2), (3, 5), (7, 4), (16, 16)])
def test_padding_mirrors_without_repeating_the_border(width: int, height: int) -> None:
    picture = np.random.default_rng(0).random((3, height, width), dtype=np.float32)
    padded = np.zeros((3, 16, 16), np.float32)
    padded[:, :height, :width] = picture
    reflect_pad(padded, width=width, height=height)
    # np.pad's "reflect" goes to and fro as often as needed too.
    sides = ((0, 0), (0, 16 - height), (0, 16 - width))
    assert np.array_equal(padded, np.pad(picture, sides, mode="reflect"))


@pytest.mark.parametrize(("width", "height"), [(65, 48), (64, 47), (65, 47), (17, 33)])
def test_odd_video_sizes_grow_by_one_repeated_pixel(width: int, height: int, identity: Path, tmp_path: Path) -> None:
    spec = ClipSpec(width=width, height=height, codec="ffv1", options=(), pix_fmt="yuv444p")
    source, target = write_clip(tmp_path / "in.mkv", spec), tmp_path / "out.mp4"
    report = stylize_video(identity, source, target, encode=SHARP)
    assert (report.width, report.height) == (width + width % 2, height + height % 2)
    frames = read_frames(target)
    assert frames[0].shape == (report.height, report.width, 3)
    inside = frames[0][:height, :width].astype(int)
    assert np.abs(inside - read_frames(source)[0]).mean() < 3  # chroma at half the size
    assert any(f"{width}x{height} encoded as {report.width}x{report.height}" in note for note in report.notes)


def test_odd_video_sizes_are_kept_when_asked_for(identity: Path, tmp_path: Path) -> None:
    spec = ClipSpec(width=65, height=47, codec="ffv1", options=(), pix_fmt="yuv444p")
    source = write_clip(tmp_path / "in.mkv", spec)
    report = stylize_video(identity, source, tmp_path / "out.mp4", encode=EncodeOptions(pix_fmt="yuv444p"))
    assert (report.width, report.height) == (65, 47)


@pytest.mark.parametrize(("width", "height"), [(2, 2), (4, 2), (16, 16)])
def test_tiny_videos(width: int, height: int, identity: Path, tmp_path: Path) -> None:
    spec = ClipSpec(width=width, height=height, codec="ffv1", options=())
    report = stylize_video(identity, write_clip(tmp_path / "in.mkv", spec), tmp_path / "out.mp4")
    assert (report.num_frames, report.width, report.height) == (10, width, height)


@pytest.mark.parametrize(("width", "height"), [(8192, 16), (16, 4320), (7680, 34)])
def test_sides_as_long_as_those_of_8k(width: int, height: int, identity: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", ClipSpec(width=width, height=height, pts=range(2), matrix=1))
    report = stylize_video(identity, source, tmp_path / "out.mp4", encode=SHARP)
    assert (report.num_frames, report.width, report.height) == (2, width, height)
    for found, wanted in zip(read_frames(tmp_path / "out.mp4"), read_frames(source), strict=True):
        assert np.abs(found.astype(int) - wanted).mean() < 2


def test_rejects_frames_that_memory_cannot_hold(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       4000000 kB\nMemAvailable:   1000000 kB\n")
    check_memory(3840, 2160, meminfo=meminfo)
    with pytest.raises(OptionError, match=r"7680x4320 need more than 1\.8 GB.* has 1\.0 GB left.*--scale 3840x-1"):
        check_memory(7680, 4320, meminfo=meminfo)
    check_memory(7680, 4320, meminfo=tmp_path / "nowhere")


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_rotation_is_applied_and_cleared(degrees: int, identity: Path, tmp_path: Path) -> None:
    # FFmpeg's angles go counterclockwise, as np.rot90's.
    source = write_clip(tmp_path / "in.mp4", ClipSpec(rotation_degrees=degrees, sample_aspect_ratio=Fraction(4, 3)))
    target = tmp_path / "out.mp4"
    report = stylize_video(identity, source, target, encode=SHARP)
    upright = np.rot90(numbered_frame(0, 64, 48), degrees // 90)
    found = read_frames(target)[0]
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright).mean() < 4
    with av.open(str(target)) as container:
        frame = next(container.decode(video=0))
        assert frame.rotation == 0
        turned = Fraction(3, 4) if degrees != 180 else Fraction(4, 3)
        assert container.streams.video[0].sample_aspect_ratio == turned
    assert "the display rotation was applied to the pixels" in report.notes


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_pixel_shape_is_kept(suffix: str, identity: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", ClipSpec(sample_aspect_ratio=Fraction(16, 11)))
    stylize_video(identity, source, tmp_path / f"out{suffix}")
    with av.open(str(tmp_path / f"out{suffix}")) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(16, 11)


def test_interlaced_video_is_deinterlaced_and_said(identity: Path, tmp_path: Path) -> None:
    options = (("x264-params", "tff=1"), ("crf", "10"), ("flags", "+ilme+ildct"))
    source = write_clip(tmp_path / "in.mp4", ClipSpec(options=options, height=64))
    report = stylize_video(identity, source, tmp_path / "out.mp4")
    assert report.num_frames == 10
    with av.open(str(tmp_path / "out.mp4")) as container:
        frames = list(container.decode(video=0))
    assert not any(frame.interlaced_frame for frame in frames)
    assert [frame.pts * frame.time_base for frame in frames] == [Fraction(index, 25) for index in range(10)]
    assert [frame_number(frame.to_ndarray(format="rgb24")) for frame in frames] == list(range(10))
    assert any("interlaced" in note for note in report.notes)


@pytest.mark.parametrize("fixed", [(64, 48), (40, 56), (128, 32)])
def test_model_of_one_size_gets_fitted_frames(fixed: tuple[int, int], tmp_path: Path) -> None:
    model = write_affine(tmp_path / "fixed.onnx", shape=(1, 3, fixed[1], fixed[0]), has_contract=False)
    artifact = open_artifact(model, input_range=(0.0, 1.0))
    assert artifact.contract.fixed_size == fixed
    frames = numbered_frame(3, 64, 48)[None]
    with Stylizer(artifact) as stylizer:
        restored = stylizer.run(frames)
        report = stylize_video(stylizer, write_clip(tmp_path / "in.mp4"), tmp_path / "out.mp4")
    assert np.abs(restored.astype(int) - frames).max() <= (0 if fixed == (64, 48) else 6)  # shrunk and enlarged
    assert any("takes" in note and "scaled down" in note for note in report.notes) == (fixed != (64, 48))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("value_range", [(0.0, 255.0), (-1.0, 1.0)])
def test_foreign_range_and_layout(layout: str, value_range: tuple[float, float], tmp_path: Path) -> None:
    # The network inverts its input: white - x + black.
    black, white = value_range
    shape = ("N", 3, "H", "W") if layout == "NCHW" else ("N", "H", "W", 3)
    model = write_affine(tmp_path / "m.onnx", scale=-1, offset=black + white, shape=shape, has_contract=False)
    frames = noise(37, 21)
    with Stylizer(open_artifact(model, input_range=value_range)) as stylizer:
        assert np.array_equal(stylizer.run(frames), 255 - frames)


def test_resolution_change_in_mid_stream_is_scaled_to_the_first(tmp_path: Path) -> None:
    first = write_clip(tmp_path / "1.ts", ClipSpec(codec="mpeg2video", options=()))
    second = write_clip(
        tmp_path / "2.ts", ClipSpec(codec="mpeg2video", options=(), width=96, height=80, pts=range(10, 20))
    )
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    with Decoder(joined) as decoder:
        sizes = {(item.width, item.height) for item in decoder}
    assert sizes == {(64, 48)}
    assert any("changes its size" in note for note in decoder.notes)


def test_half_precision_model(tmp_path: Path) -> None:
    contract = ModelContract(network="affine", style="half", size_multiple=4, precision="fp16")
    model = write_affine(tmp_path / "half.onnx", contract=contract, elem_type=10)
    frames = noise(20, 24)
    with Stylizer(model) as stylizer:
        assert np.array_equal(stylizer.run(frames), frames)


def test_runner_runs_batches(identity: Path) -> None:
    batch = np.random.default_rng(0).random((3, 3, 32, 36), dtype=np.float32)
    target = np.empty_like(batch)
    with open_runner(open_artifact(identity)) as runner:
        runner.enqueue(batch, target=target, cuda_stream=None)
    assert np.array_equal(target, batch)
