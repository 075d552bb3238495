"""Pictures in, pictures out."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from helpers.clips import ClipSpec, read_frames, write_clip, write_png
from helpers.networks import write_affine
from stylize.runtime import EncodeOptions, Selection, stylize_video
from stylize.runtime.resume import ResumeOptions

SIZE = (48, 64)


def smooth_rgba(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([40 + 2 * x, 60 + 2 * y, 200 - x - y, 255 - 3 * x], -1).clip(0, 255).astype(np.uint8)


def read_rgba(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgba")


@pytest.mark.parametrize(("suffix", "tolerance"), [(".png", 0), (".bmp", 0), (".tif", 0), (".jpg", 4), (".webp", 8)])
def test_picture_of_every_kind(suffix: str, tolerance: int, identity: Path, tmp_path: Path) -> None:
    picture = smooth_rgba(*SIZE)[..., :3].copy()
    source, target = write_png(tmp_path / "in.png", picture, "rgb24"), tmp_path / f"out{suffix}"
    report = stylize_video(identity, source, target)
    assert np.abs(read_frames(target)[0].astype(int) - picture).max() <= tolerance
    assert (report.num_frames, report.width, report.height) == (1, 64, 48)
    assert sorted(tmp_path.iterdir()) == [source, target]


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_transparency_is_kept(suffix: str, identity: Path, tmp_path: Path) -> None:
    picture = smooth_rgba(*SIZE)
    report = stylize_video(identity, write_png(tmp_path / "in.png", picture, "rgba"), tmp_path / f"out{suffix}")
    assert np.array_equal(read_rgba(tmp_path / f"out{suffix}")[..., 3], picture[..., 3])
    assert report.encoder.endswith("a" if suffix != ".webp" else "yuva420p")
    assert not report.notes


def test_transparency_that_is_lost_is_said(identity: Path, tmp_path: Path) -> None:
    source = write_png(tmp_path / "in.png", smooth_rgba(*SIZE), "rgba")
    assert stylize_video(identity, source, tmp_path / "out.jpg").notes == (
        "transparency is lost: .jpg is written without",
    )


def write_rgba_gif(path: Path, holes: list[bool]) -> Path:
    """Frames of one colour, with a transparent column where there is a hole."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("gif", rate=10)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "pal8"
        for index, has_hole in enumerate(holes):
            rows = np.zeros((16, 16), np.uint8)
            rows[:, 8:] = 1 if has_hole else 0
            palette = np.tile(np.array([[255, 0, 0, 200 - index]], np.uint8), (256, 1))
            palette[1] = (0, 0, 0, 0)
            picture = av.VideoFrame.from_ndarray((rows, palette), "pal8")
            picture.pts, picture.time_base = index, Fraction(1, 10)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("resume", [None, ResumeOptions(segment_frames=2)])
@pytest.mark.parametrize(("holes", "is_lost"), [([False] * 4, False), ([True, False, False, False], True)])
def test_transparency_of_a_video_is_said_to_be_lost_only_where_there_is_any(
    holes: list[bool], is_lost: bool, resume: ResumeOptions | None, identity: Path, tmp_path: Path
) -> None:
    source = write_rgba_gif(tmp_path / "in.gif", holes)
    for target, name in [("out.mp4", "yuv420p")] if resume else [("out.ts", "yuv420p"), ("%d.jpg", ".jpg")]:
        report = stylize_video(identity, source, tmp_path / target, resume=resume)
        said = [note for note in report.notes if "transparency" in note]
        assert said == [f"transparency is lost: {name} is written without"] * is_lost


def write_transparent_video(path: Path) -> Path:
    """Five frames in VP9 that fade from left to right."""
    picture = smooth_rgba(*SIZE)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=25, options={"crf": "10", "cpu-used": "8"})
        stream.width, stream.height, stream.pix_fmt = picture.shape[1], picture.shape[0], "yuva420p"
        for index in range(5):
            frame = av.VideoFrame.from_ndarray(picture, "rgba").reformat(format="yuva420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def alphas_of(path: Path) -> list[np.ndarray]:
    """The opacity of all frames; FFmpeg's own decoder of VP9 leaves it out."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        if context.name == "vp9":
            context = av.CodecContext.create("libvpx-vp9", "r")
        packets = [*container.demux(stream)]
        frames = [frame for packet in packets for frame in context.decode(packet if packet.size else None)]
        return [frame.to_ndarray(format="rgba")[..., 3].astype(int) for frame in frames]


@pytest.mark.parametrize(
    ("target", "codec", "tolerance"),
    [
        ("out.webm", "libvpx-vp9", 6),
        ("out.mov", "prores_ks", 2),
        ("out.mov", "png", 2),
        ("out.mov", "qtrle", 2),
        ("out.mkv", "ffv1", 2),
        ("out.apng", None, 2),
    ],
)
def test_transparency_of_a_video_is_kept(
    target: str, codec: str | None, tolerance: int, identity: Path, tmp_path: Path
) -> None:
    source = write_transparent_video(tmp_path / "in.webm")
    report = stylize_video(identity, source, tmp_path / target, encode=EncodeOptions(codec=codec))
    found = alphas_of(tmp_path / target)
    assert len(found) == 5
    assert max(np.abs(alpha - smooth_rgba(*SIZE)[..., 3]).max() for alpha in found) <= tolerance + 6  # VP9's own
    assert not any("transparency" in note for note in report.notes)
    cut = stylize_video(identity, source, tmp_path / "%d.png", selection=Selection(start_seconds=Fraction(2, 25)))
    assert cut.num_frames == 3
    assert np.abs(read_rgba(tmp_path / "3.png")[..., 3].astype(int) - smooth_rgba(*SIZE)[..., 3]).max() <= 6


def test_holes_of_a_gif_stay_holes(identity: Path, tmp_path: Path) -> None:
    source = write_rgba_gif(tmp_path / "in.gif", [True, False, True])
    report = stylize_video(identity, source, tmp_path / "out.gif")
    assert [(alpha[0, 0], alpha[0, 12]) for alpha in alphas_of(tmp_path / "out.gif")] == [
        (alpha[0, 0], alpha[0, 12]) for alpha in alphas_of(source)
    ]
    assert report.notes == ()


def test_codec_that_keeps_transparency_is_named(identity: Path, tmp_path: Path) -> None:
    source = write_transparent_video(tmp_path / "in.webm")
    for target, codec in (("out.webm", "libvpx-vp9"), ("out.mov", "prores_ks"), ("out.mkv", "ffv1")):
        report = stylize_video(identity, source, tmp_path / target)
        assert f"transparency is lost: yuv420p is written without; --codec {codec} keeps it" in report.notes
        with av.open(str(tmp_path / target)) as container:
            assert not any("alpha" in key.lower() for key in container.streams.video[0].metadata)


def test_opaque_picture_with_an_alpha_channel_loses_nothing(identity: Path, tmp_path: Path) -> None:
    picture = smooth_rgba(*SIZE)
    picture[..., 3] = 255
    source = write_png(tmp_path / "in.png", picture, "rgba")
    for target in ("out.jpg", "out.mp4"):
        assert not [note for note in stylize_video(identity, source, tmp_path / target).notes if "lost" in note]


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_compressed_pictures_as_input(suffix: str, identity: Path, tmp_path: Path) -> None:
    picture = smooth_rgba(*SIZE)[..., :3].copy()
    first = tmp_path / f"first{suffix}"
    stylize_video(identity, write_png(tmp_path / "in.png", picture, "rgb24"), first)
    stylize_video(identity, first, tmp_path / "out.png")
    assert np.abs(read_frames(tmp_path / "out.png")[0].astype(int) - picture).max() <= 6


def test_sixteen_bit_and_grey_pictures(identity: Path, tmp_path: Path) -> None:
    grey = np.repeat(np.arange(0, 256, 4, dtype=np.uint8)[None], 48, axis=0)
    stylize_video(identity, write_png(tmp_path / "grey.png", grey, "gray"), tmp_path / "a.png")
    assert np.array_equal(read_frames(tmp_path / "a.png")[0][..., 1], grey)
    deep = np.repeat(np.linspace(0, 65535, 64).astype(np.uint16)[None, :, None], 48, axis=0).repeat(3, axis=2)
    report = stylize_video(identity, write_png(tmp_path / "deep.png", deep, "rgb48be"), tmp_path / "b.png")
    assert "16-bit source (rgb48be) written with 8 bits (rgb24)" in report.notes
    assert np.abs(read_frames(tmp_path / "b.png")[0] - deep / 257).max() <= 1


@pytest.mark.parametrize("name", ["with space.png", "100%.png", "scan%03d.png", "a:b.png", "[1].png", "ü.PNG"])
def test_names_that_look_like_something_else(name: str, identity: Path, tmp_path: Path) -> None:
    picture = smooth_rgba(*SIZE)[..., :3].copy()
    source = write_png(tmp_path / name, picture, "rgb24")
    (tmp_path / "out").mkdir()
    stylize_video(identity, source, tmp_path / "out" / name)
    assert (tmp_path / "out" / name).exists()


@pytest.mark.parametrize(
    ("orientation", "turns", "is_mirrored"), [(3, 2, False), (6, 3, False), (8, 1, False), (2, 0, True)]
)
def test_phone_photos_come_out_upright(
    orientation: int, turns: int, is_mirrored: bool, identity: Path, tmp_path: Path
) -> None:
    picture = smooth_rgba(*SIZE)[..., :3].copy()
    stylize_video(identity, write_png(tmp_path / "in.png", picture, "rgb24"), tmp_path / "plain.jpg")
    # Exif 2.32, 4.6.4: a TIFF directory with the one entry Orientation (0x0112, SHORT).
    tiff = b"MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01" + bytes([0, orientation]) + bytes(6)
    segment = b"Exif\x00\x00" + tiff
    plain = (tmp_path / "plain.jpg").read_bytes()
    tagged = plain[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + plain[2:]
    (tmp_path / "phone.jpg").write_bytes(tagged)
    stylize_video(identity, tmp_path / "phone.jpg", tmp_path / "out.png")
    upright = np.rot90(picture[:, ::-1] if is_mirrored else picture, turns)
    with av.open(str(tmp_path / "out.png")) as container:
        frame = next(container.decode(video=0))
    assert frame.rotation == 0
    found = frame.to_ndarray(format="rgb24")
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright).max() <= 6


def test_picture_becomes_a_video_of_one_frame(identity: Path, tmp_path: Path) -> None:
    source = write_png(tmp_path / "in.png", smooth_rgba(*SIZE)[..., :3].copy(), "rgb24")
    report = stylize_video(identity, source, tmp_path / "out.mp4")
    assert report.num_frames == len(read_frames(tmp_path / "out.mp4")) == 1


def test_video_of_one_frame_becomes_a_picture(identity: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", ClipSpec(pts=(0,)))
    stylize_video(identity, source, tmp_path / "out.png")
    assert read_frames(tmp_path / "out.png")[0].shape == (48, 64, 3)


def test_pictures_through_a_pipe_become_numbered_ones(tmp_path: Path) -> None:
    write_affine(tmp_path / "identity.onnx")
    pictures = [np.full((*SIZE, 3), 40 * index, np.uint8) for index in range(3)]
    piped = b"".join(write_png(tmp_path / "in.png", picture, "rgb24").read_bytes() for picture in pictures)
    command = [sys.executable, "-c", "from stylize.runtime.cli import main; main()", "identity.onnx", "-", "out%d.png"]
    result = subprocess.run(command, cwd=tmp_path, input=piped, capture_output=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    for index, picture in enumerate(pictures, start=1):
        assert np.array_equal(read_frames(tmp_path / f"out{index}.png")[0], picture)
