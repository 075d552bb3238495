"""Containers, codecs, picture sequences and pipes, in and out."""

import struct
import subprocess
import sys
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest

from helpers.clips import ClipSpec, frame_number, frame_times, numbered_frame, read_frames, write_clip
from helpers.networks import write_affine
from stylize.runtime import EncodeOptions, Selection, stylize_video
from stylize.runtime.decode import Decoder
from stylize.runtime.errors import BackendError, InputMediaError, OptionError, OutputMediaError
from stylize.runtime.frame import Frame
from stylize.runtime.partial_file import PartialFile
from stylize.runtime.still import write_still
from stylize.runtime.tone_map import SDR_COLOR
from stylize.runtime.video_encoder import VideoEncoder
from stylize.runtime.video_info import VideoInfo

RUN = [sys.executable, "-c", "from stylize.runtime.cli import main; main()"]


def write_pictures(folder: Path, names: dict[str, int]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, index in names.items():
        with PartialFile(folder / name) as output:
            frame = Frame.from_array(numbered_frame(index, 64, 48))
            frame.set_time(0, duration=1, time_base=Fraction(1, 25))
            write_still(frame, output)
            output.commit()
    return folder


def decoded(source: str | Path, rate: str = "25") -> tuple[list[tuple[Fraction, int]], list[str]]:
    """(time in seconds, number) of every frame, and the notes."""
    with Decoder(source, selection=Selection(picture_rate=Fraction(rate))) as decoder:
        frames = [item for item in decoder if isinstance(item, Frame)]
        assert decoder.problems == []
        return [(frame.pts * frame.time_base, frame_number(frame.to_array())) for frame in frames], decoder.notes


CODECS = [
    ("libx265", ".mp4", "hevc", "yuv420p"),
    ("libsvtav1", ".mp4", "libdav1d", "yuv420p"),
    ("libsvtav1", ".webm", "libdav1d", "yuv420p"),
    ("libvpx-vp9", ".webm", "vp9", "yuv420p"),
    ("prores_ks", ".mov", "prores", "yuv422p10le"),
    ("ffv1", ".mkv", "ffv1", "yuv420p"),
    ("libx264", ".mov", "h264", "yuv420p"),
]


@pytest.mark.parametrize(("codec", "suffix", "name", "pix_fmt"), CODECS)
def test_codecs_keep_frames_times_and_order(
    codec: str, suffix: str, name: str, pix_fmt: str, identity: Path, tmp_path: Path
) -> None:
    source = write_clip(tmp_path / "in.mp4", ClipSpec(width=128, height=96, sound_start_seconds=0.0))
    target = tmp_path / f"out{suffix}"
    report = stylize_video(identity, source, target, encode=EncodeOptions(codec=codec))
    with av.open(str(target)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == (name, pix_fmt)
        assert len(container.streams.audio) == 1
    # Matroska has no negative times: it moves all by the 21 ms by which AAC starts early.
    times = frame_times(target)
    pairs = zip(times, frame_times(source), strict=True)
    assert max(abs(found - times[0] - wanted) for found, wanted in pairs) <= Fraction(1, 1000)
    assert [frame_number(frame) for frame in read_frames(target)] == list(range(10))
    assert report.encoder == f"{codec}, {pix_fmt}"


@pytest.mark.parametrize(
    ("codec", "asked", "is_live", "crf"),
    [
        ("libx264", (), False, "17"),
        ("libsvtav1", (), False, "20"),
        ("libsvtav1", (), True, "35"),
        ("libvpx-vp9", (), False, "23"),
        ("libvpx-vp9", (("b", "2M"),), False, None),
        ("libsvtav1", (("qp", "40"),), False, None),
        ("libx264", (("b", "2M"),), True, None),
    ],
)
def test_default_quality_unless_a_rate_is_given(
    codec: str, asked: tuple[tuple[str, str], ...], is_live: bool, crf: str | None
) -> None:
    info = VideoInfo(
        width=64,
        height=48,
        time_base=Fraction(1, 25),
        frame_rate=Fraction(25),
        color=SDR_COLOR,
        decoder="",
        pix_fmt="yuv420p",
    )
    with av.open(BytesIO(), "w", format="matroska") as container:
        options = EncodeOptions(codec=codec, encoder_options=asked, is_live=is_live)
        stream = VideoEncoder(container, info=info, options=options, target="o.mkv").stream
        assert stream.options.get("crf") == crf
        assert dict(asked).items() <= stream.options.items()


@pytest.mark.parametrize(
    ("name", "doubt"),
    [
        ("probesize", None),
        ("probsize", "--input-option probsize has no effect where FFmpeg knows none of that name; did you mean "),
        ("foo", "--input-option foo has no effect where FFmpeg knows none of that name"),
    ],
)
def test_input_options_that_look_mistyped_are_said(name: str, doubt: str | None, tmp_path: Path) -> None:
    selection = Selection(input_options=((name, "100000"),))
    with Decoder(write_clip(tmp_path / "in.mp4"), selection=selection) as decoder:
        said = [note for note in decoder.notes if "--input-option" in note]
        assert [note.startswith(doubt or "") for note in said] == [True] * (doubt is not None)


@pytest.mark.parametrize("name", ["probesize", "analyzeduration", "fpsprobesize", "max_streams", "ignore_editlist"])
def test_usual_input_options_are_known_to_ffmpeg(name: str, tmp_path: Path) -> None:
    # It refuses what is no number for them, and takes it for names that it does not know.
    clip = write_clip(tmp_path / "in.mp4")
    with pytest.raises(InputMediaError, match="Invalid argument"):
        Decoder(clip, selection=Selection(input_options=((name, "what?"),)))
    with Decoder(clip, selection=Selection(input_options=(("foo", "what?"),))):
        pass


def test_rejects_input_options_for_pictures(tmp_path: Path) -> None:
    selection = Selection(input_options=(("foo", "1"),))
    with pytest.raises(OptionError, match=r"--input-option foo: numbered pictures and folders take none"):
        Decoder(write_pictures(tmp_path / "in", {"1.png": 1}), selection=selection)


def test_encoder_options_reach_the_encoder(identity: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", ClipSpec(pts=range(20)))
    options = EncodeOptions(encoder_options=(("g", "5"), ("x264-params", "scenecut=0")))
    stylize_video(identity, source, tmp_path / "out.mp4", encode=options)
    with av.open(str(tmp_path / "out.mp4")) as container:
        keys = [frame.key_frame for frame in container.decode(video=0)]
    assert keys == [index % 5 == 0 for index in range(20)]


def test_rejects_encoder_option_it_does_not_have(identity: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4")
    options = EncodeOptions(encoder_options=(("tunes", "film"),))
    with pytest.raises(OptionError, match=r"--encoder-option tunes: .* did you mean tune"):
        stylize_video(identity, source, tmp_path / "out.mp4", encode=options)


def test_rejects_unknown_container(identity: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--format nope: no such container"):
        stylize_video(
            identity, write_clip(tmp_path / "in.mp4"), tmp_path / "o.mp4", encode=EncodeOptions(container="nope")
        )


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif"])
def test_numbered_pictures_in(suffix: str, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "a 'b", {f"shot{index + 7:04}{suffix}": index for index in range(4)})
    found, notes = decoded(folder / f"shot%04d{suffix}", "10")
    assert found == [(Fraction(index, 10), index) for index in range(4)]
    assert "4 pictures are shown at 10 per second" in notes


def test_ntsc_pictures_do_not_drift(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "in", {f"{index}.bmp": index % 16 for index in range(300)})
    found, _ = decoded(folder / "%d.bmp", "30000/1001")
    wanted = [(Fraction(index * 1001, 30_000), index % 16) for index in range(300)]
    assert [number for _, number in found] == [number for _, number in wanted]
    assert max(abs(time - want) for (time, _), (want, _) in zip(found, wanted, strict=True)) < Fraction(1, 10_000)


def test_missing_numbers_are_said(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "in", {"1.png": 1, "2.png": 2, "5.png": 5})
    found, notes = decoded(folder / "%d.png")
    assert [number for _, number in found] == [1, 2, 5]
    assert "2 numbers between 1 and 5 are missing: shown without a gap" in notes


def test_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "in", {"f10.png": 3, "f2.png": 2, "f1.png": 1, "thumb.jpg": 9})
    (folder / "notes.txt").write_text("no picture")
    found, notes = decoded(folder)
    assert [number for _, number in found] == [1, 2, 3]
    assert "1 pictures that are not .png are left out" in notes


@pytest.mark.parametrize("name", ["%04d.png", "nowhere/%04d.png"])
def test_rejects_pattern_without_files(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputMediaError, match=r"no file has a name of this form|no such folder"):
        Decoder(tmp_path / name)


@pytest.mark.parametrize("index", [1, 4])
def test_damaged_picture_is_left_out_and_said(index: int, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "in", {f"{index}.png": index for index in range(6)})
    path = folder / f"{index}.png"
    path.write_bytes(path.read_bytes()[:60])
    with Decoder(folder) as decoder:
        numbers = [frame_number(item.to_array()) for item in decoder if isinstance(item, Frame)]
    assert numbers == [number for number in range(6) if number != index]
    assert decoder.problems == ["1 packets are damaged and could not be decoded"]


@pytest.mark.parametrize(("pattern", "first"), [("%04d.png", "0001.png"), ("a%d.jpg", "a1.jpg")])
def test_numbered_pictures_out(pattern: str, first: str, identity: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mkv", ClipSpec(sound_start_seconds=0.0))
    report = stylize_video(identity, source, tmp_path / "out" / pattern)
    files = sorted((tmp_path / "out").iterdir(), key=lambda path: (len(path.name), path.name))
    assert files[0].name == first
    assert [frame_number(read_frames(path)[0]) for path in files] == list(range(10))
    assert "audio track 1 left out: pictures hold none" in report.notes


def test_folder_of_pictures_is_made_with_the_first_one(identity: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", ClipSpec(pts=(0, 1)))
    broken = write_affine(tmp_path / "broken.onnx", scale=float("nan"))
    files = set(tmp_path.iterdir())
    with pytest.raises(BackendError, match="NaN"):
        stylize_video(broken, source, tmp_path / "out" / "%d.png")
    for target in (tmp_path / "missing" / "out" / "%d.png", source / "%d.png"):
        with pytest.raises(OutputMediaError, match=r"no such folder: .*(missing|in\.mp4)$"):
            stylize_video(identity, source, target)
    assert set(tmp_path.iterdir()) == files
    stylize_video(identity, source, tmp_path / "out" / "%d.png")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"1.png", "2.png"}


def test_videos_whose_names_look_numbered_are_videos(identity: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a%03d.mp4")
    assert stylize_video(identity, source, tmp_path / "b%03d.mp4").num_frames == 10
    assert len(read_frames(tmp_path / "b%03d.mp4")) == 10
    assert stylize_video(identity, source, tmp_path / "b%03d.png").num_frames == 10
    with pytest.raises(OptionError, match="is the input itself"):
        stylize_video(identity, source, source)


def test_pictures_to_pictures(identity: Path, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "in", {f"{index}.png": index for index in range(3)})
    (tmp_path / "out").mkdir()
    stylize_video(identity, folder, tmp_path / "out" / "%d.png", selection=Selection(frame_rate=Fraction(50)))
    numbers = [frame_number(read_frames(tmp_path / "out" / f"{index}.png")[0]) for index in range(1, 7)]
    assert numbers == [0, 0, 1, 1, 2, 2]
    with pytest.raises(OptionError, match="among the pictures read"):
        stylize_video(identity, folder, folder / "%d.png")


def test_gif_out_and_in(identity: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mkv", ClipSpec(pts=(0, 1, 2, 10, 11), sound_start_seconds=0.0))
    report = stylize_video(identity, source, tmp_path / "out.gif")
    assert report.encoder == "gif, pal8"
    assert not any("bits" in note for note in report.notes)
    assert frame_times(tmp_path / "out.gif") == frame_times(source)
    for found, was in zip(read_frames(tmp_path / "out.gif"), read_frames(source), strict=True):
        assert np.abs(found.astype(int) - was).mean() < 6  # 256 colours, dithered; 332 RGB gives 20
    stylize_video(identity, tmp_path / "out.gif", tmp_path / "back.mp4")
    assert frame_times(tmp_path / "back.mp4") == frame_times(source)


def test_gif_rounds_times_to_its_clock(identity: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", ClipSpec(pts=range(0, 9009, 1001), time_base=Fraction(1, 30_000)))
    stylize_video(identity, source, tmp_path / "out.gif")
    pairs = zip(frame_times(tmp_path / "out.gif"), frame_times(source), strict=True)
    assert max(abs(found - wanted) for found, wanted in pairs) <= Fraction(1, 200)


def test_rejects_gif_too_fast_for_players(identity: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", ClipSpec(time_base=Fraction(1, 60)))
    with pytest.raises(OptionError, match="add --fps 50 or less"):
        stylize_video(identity, source, tmp_path / "out.gif", selection=Selection(frame_rate=Fraction(60)))


@pytest.mark.parametrize(
    ("options", "container"), [((), "matroska"), (("--format", "mp4"), "mp4"), (("--format", "mpegts"), "mpegts")]
)
def test_pipe_to_pipe(options: tuple[str, ...], container: str, identity: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mkv", ClipSpec(sound_start_seconds=0.0))
    command = [*RUN, str(identity), "-", "-", *options]
    result = subprocess.run(command, input=source.read_bytes(), capture_output=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr.decode()
    (tmp_path / "out").write_bytes(result.stdout)
    with av.open(str(tmp_path / "out")) as found:
        assert container in found.format.name
        assert [stream.type for stream in found.streams] == ["video", "audio"]
    assert [frame_number(frame) for frame in read_frames(tmp_path / "out")] == list(range(10))


def test_rejects_two_writers_on_standard_output(identity: Path) -> None:
    result = subprocess.run(
        [*RUN, str(identity), "demo", "-", "--json", "-"], capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 1
    assert "would both write to standard output" in result.stderr


def test_pipe_that_is_no_video_is_one_line(identity: Path, tmp_path: Path) -> None:
    command = [*RUN, str(identity), "-", str(tmp_path / "o.mp4")]
    large = ClipSpec(codec="rawvideo", options=(), pts=range(100), width=128, height=96)  # more than FFmpeg buffers
    index_last = write_clip(tmp_path / "in.mov", large).read_bytes()
    for content in (b"not a video", index_last):
        result = subprocess.run(command, input=content, capture_output=True, timeout=300, check=False)
        assert result.returncode == 1
        assert result.stderr.count(b"\n") == 1
        assert b"error: -: " in result.stderr
        assert b"an MP4 with its index at the end cannot come through a pipe" in result.stderr


def test_same_pictures_are_encoded_the_same_each_time() -> None:
    # Smooth pictures let x264's mb-tree work; at 160 pixels its AVX-512 code gave a new file each time.
    def encoded() -> bytes:
        with av.open(buffer := BytesIO(), "w", format="h264") as container:
            info = VideoInfo(width=160, height=120, time_base=Fraction(1, 25), frame_rate=Fraction(25), color=SDR_COLOR)
            encoder = VideoEncoder(container, info=info, options=EncodeOptions(), target=Path("out.h264"))
            for pts in range(60):
                frame = Frame.from_array(numbered_frame(pts, 160, 120))
                frame.set_time(pts, duration=1, time_base=info.time_base)
                container.mux(list(encoder.encode(frame)))
            container.mux(list(encoder.flush()))
        return buffer.getvalue()

    assert len({encoded() for _ in range(4)}) == 1


def test_moving_avif_and_apng(identity: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4")
    assert stylize_video(identity, source, tmp_path / "out.avif").num_frames == 10
    assert stylize_video(identity, source, tmp_path / "out.apng").num_frames == 10
    content = (tmp_path / "out.apng").read_bytes()
    control = content.index(b"acTL") + 4
    num_frames, num_plays = struct.unpack(">II", content[control : control + 8])
    assert (num_frames, num_plays) == (10, 0)  # again and again
    with pytest.raises(InputMediaError, match=r"FFmpeg reads stills alone"):
        stylize_video(identity, write_moving_webp(tmp_path / "in.webp"), tmp_path / "out.mp4")


def write_moving_webp(path: Path) -> Path:
    with av.open(str(path), "w", format="webp") as container:
        stream = container.add_stream("libwebp_anim", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(3):
            frame = av.VideoFrame.from_ndarray(numbered_frame(index, 64, 48), "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
