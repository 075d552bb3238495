"""What is broken is said in one line; what can be shown is kept; nothing unfinished gets the asked name."""

import contextlib
import dataclasses
import errno
import os
from fractions import Fraction
from pathlib import Path

import av
import pytest

from helpers.clips import ClipSpec, frame_times, read_frames, write_clip
from helpers.networks import write_affine
from stylize.runtime import EncodeOptions, ModelContract, Selection, open_artifact, stylize_video
from stylize.runtime.check import check_tracks, tracks_of_file
from stylize.runtime.decode import Decoder
from stylize.runtime.errors import (
    ArtifactError,
    InputMediaError,
    OptionError,
    OutputMediaError,
    OutputMismatchError,
)
from stylize.runtime.frame import TimedPicture
from stylize.runtime.resume import ResumeOptions

LONG = ClipSpec(pts=range(100), width=128, height=96, sound_start_seconds=0.0, sound_seconds=4.0)


def remux_with_index_first(source: Path, target: Path) -> Path:
    """The same packets with the index at the front, so that a cut file can still be opened."""
    with av.open(str(source)) as old, av.open(str(target), "w", options={"movflags": "faststart"}) as new:
        copies = {stream.index: new.add_stream_from_template(stream, opaque=True) for stream in old.streams}
        for packet in old.demux():
            if packet.size:
                packet.stream = copies[packet.stream.index]
                new.mux(packet)
    return target


def assert_nothing_is_left(folder: Path, *inputs: Path) -> None:
    assert sorted(folder.iterdir()) == sorted(inputs)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize("part", [0.3, 0.7])
def test_truncated_video_is_rendered_as_far_as_it_goes(
    suffix: str, part: float, identity: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = write_clip(tmp_path / f"whole{suffix}", LONG)
    if suffix == ".mp4":
        whole = remux_with_index_first(whole, tmp_path / "indexed.mp4")
    source, target = tmp_path / f"in{suffix}", tmp_path / "out.mkv"
    source.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * part)])
    report = stylize_video(identity, source, target)
    assert 10 < report.num_frames < 90
    assert len(frame_times(target)) == report.num_frames
    if suffix != ".ts":  # a transport stream is made to be cut anywhere and announces no length
        assert any("its header announces: cut off" in problem or "damaged" in problem for problem in report.problems)
        assert str(source) in caplog.text


def decodable_times(path: Path) -> list[Fraction]:
    """Times of all frames that one thread finds, each packet by itself."""
    times: list[Fraction] = []
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        video.codec_context.thread_count = 1
        for packet in [*(packet for packet in container.demux(video) if packet.size), None]:
            with contextlib.suppress(av.FFmpegError):
                times += [frame.pts * video.time_base for frame in video.codec_context.decode(packet)]
    return times


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libsvtav1"])
def test_all_frames_before_a_cut_come_through(codec: str, tmp_path: Path) -> None:
    options = {"libx264": (("bf", "3"), ("g", "30")), "libx265": (("x265-params", "log-level=none"),)}
    spec = ClipSpec(pts=range(60), width=128, height=96, codec=codec, options=options.get(codec, ()))
    whole = remux_with_index_first(write_clip(tmp_path / "whole.mp4", spec), tmp_path / "indexed.mp4").read_bytes()
    source = tmp_path / "in.mp4"
    num_saved = 0
    for part in (0.75, 0.8, 0.85, 0.9, 0.97):  # the header is half of so small a file
        source.write_bytes(whole[: int(len(whole) * part)])
        with Decoder(source) as decoder:
            found = [item.pts * item.time_base for item in decoder if isinstance(item, TimedPicture)]
        assert found == decodable_times(source)
        assert decoder.problems
        assert decoder.num_frames == len(found)
        num_saved += any("decoded again by one thread" in note for note in decoder.notes)
    assert num_saved  # else this shows nothing: the cuts fell between packets


def test_flipped_bits_in_mid_file_are_survived(identity: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mkv", LONG)
    data = bytearray(source.read_bytes())
    for position in range(len(data) // 3, len(data) // 2, 97):
        data[position] ^= 0xFF
    source.write_bytes(data)
    report = stylize_video(identity, source, tmp_path / "out.mkv")
    assert len(frame_times(tmp_path / "out.mkv")) == report.num_frames > 20


def test_what_lies_behind_the_selected_part_is_not_decoded(identity: Path, tmp_path: Path) -> None:
    # The sound is over before the part is: nothing in it says that the rest can be left out.
    source = write_clip(tmp_path / "in.mkv", dataclasses.replace(LONG, sound_seconds=0.2))
    data = bytearray(source.read_bytes())
    for position in range(len(data) // 2, len(data) - 2000, 97):
        data[position] ^= 0xFF
    source.write_bytes(data)
    part = Selection(end_seconds=Fraction(1))
    report = stylize_video(identity, source, tmp_path / "out.mkv", selection=part)
    assert report.num_frames == 25
    assert not report.problems


@pytest.mark.parametrize("content", [b"", b"not a video at all", b"\x00\x00\x00\x18ftypmp42" + bytes(100)])
def test_rejects_what_is_no_video(content: bytes, identity: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.mp4"
    source.write_bytes(content)
    with pytest.raises(InputMediaError, match=r"in\.mp4: "):
        stylize_video(identity, source, tmp_path / "out.mp4")
    assert_nothing_is_left(tmp_path, source)


def test_rejects_video_without_index(identity: Path, tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mp4", LONG)  # index at the end
    source = tmp_path / "in.mp4"
    source.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(InputMediaError, match="header is damaged"):
        stylize_video(identity, source, tmp_path / "out.mp4")


def test_rejects_missing_input(identity: Path, tmp_path: Path) -> None:
    with pytest.raises(InputMediaError, match=r"nowhere\.mp4: no such file"):
        stylize_video(identity, tmp_path / "nowhere.mp4", tmp_path / "out.mp4")


def test_rejects_folder_as_input(identity: Path, tmp_path: Path) -> None:
    with pytest.raises(InputMediaError, match="is a folder"):
        stylize_video(identity, tmp_path, tmp_path / "out.mp4")


def test_rejects_sound_without_video(identity: Path, tmp_path: Path) -> None:
    with av.open(str(write_clip(tmp_path / "a.mkv", LONG))) as old, av.open(str(tmp_path / "in.mka"), "w") as new:
        copy = new.add_stream_from_template(old.streams.audio[0])
        for packet in old.demux(old.streams.audio[0]):
            if packet.size:
                packet.stream = copy
                new.mux(packet)
    with pytest.raises(InputMediaError, match=r"has no video.*audio"):
        stylize_video(identity, tmp_path / "in.mka", tmp_path / "out.mp4")


@pytest.mark.parametrize("target", ["missing/out.mp4", ".", "out.xyz", "out"])
def test_rejects_output_that_cannot_be_written(target: str, identity: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4")
    with pytest.raises(OutputMediaError):
        stylize_video(identity, source, tmp_path / target)
    assert_nothing_is_left(tmp_path, source)


@pytest.mark.parametrize("resume", [None, ResumeOptions()])
def test_rejects_the_current_folder_as_output(
    resume: ResumeOptions | None, identity: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_clip(tmp_path / "in.mp4")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputMediaError, match=r"^\.: is a folder, expected a file name"):
        stylize_video(identity, source, ".", resume=resume)
    assert_nothing_is_left(tmp_path, source)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_rejects_read_only_folder(identity: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4")
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(OutputMediaError, match="cannot be written"):
        stylize_video(identity, source, tmp_path / "locked" / "out.mp4")


def test_full_disk_is_one_clear_error(identity: Path, tmp_path: Path) -> None:
    # /dev/full fails every write as a full disk does.
    source, partial = write_clip(tmp_path / "in.mp4", LONG), tmp_path / ".out.mkv.partial.mkv"
    partial.symlink_to("/dev/full")
    with pytest.raises(OutputMediaError, match=os.strerror(errno.ENOSPC)):
        stylize_video(identity, source, tmp_path / "out.mkv")
    assert not (tmp_path / "out.mkv").exists()


def test_rejects_writing_over_the_input(identity: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4")
    before = source.read_bytes()
    with pytest.raises(OptionError, match="is the input itself"):
        stylize_video(identity, source, tmp_path / "." / "in.mp4")
    assert source.read_bytes() == before


def test_existing_output_is_replaced_only_when_complete(identity: Path, tmp_path: Path) -> None:
    source, target = write_clip(tmp_path / "in.mp4"), tmp_path / "out.mp4"
    target.write_bytes(b"old")
    with pytest.raises(OptionError, match="preset"):
        stylize_video(identity, source, target, encode=EncodeOptions(codec="ffv1", preset="fast"))
    assert target.read_bytes() == b"old"
    stylize_video(identity, source, target)
    assert len(read_frames(target)) == 10


OPTIONS = [
    (EncodeOptions(codec="libx265x"), "did you mean libx265"),
    (EncodeOptions(codec="h265"), r"did you mean libx265\?$"),
    (EncodeOptions(codec="aac"), "encodes audio"),
    (EncodeOptions(pix_fmt="rgb48be"), "libx264 has"),
    (EncodeOptions(codec="ffv1", crf=20), "ffv1 has no such option"),
]


@pytest.mark.parametrize(("options", "message"), OPTIONS)
def test_rejects_encoder_options_it_cannot_honour(
    options: EncodeOptions, message: str, identity: Path, tmp_path: Path
) -> None:
    source = write_clip(tmp_path / "in.mp4")
    with pytest.raises(OptionError, match=message):
        stylize_video(identity, source, tmp_path / "out.mkv", encode=options)
    assert_nothing_is_left(tmp_path, source)


def test_rejects_codec_the_container_cannot_hold(identity: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4")
    with pytest.raises(OutputMediaError, match="webm cannot hold libx264"):
        stylize_video(identity, source, tmp_path / "out.webm", encode=EncodeOptions(codec="libx264"))


@pytest.mark.parametrize("suffix", [".avi", ".wmv", ".ogv", ".y4m", ".h264", ".yuv"])
def test_rejects_containers_that_keep_no_times(suffix: str, identity: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4")
    with pytest.raises(OutputMediaError, match=r"keeps no frame times; use \.mp4"):
        stylize_video(identity, source, tmp_path / f"out{suffix}")
    assert_nothing_is_left(tmp_path, source)


def test_rejects_output_without_a_suffix(identity: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputMediaError, match=r"out/%04d\.png for pictures"):
        stylize_video(identity, write_clip(tmp_path / "in.mp4"), tmp_path / "out")


def test_missing_frames_in_the_output_are_found(identity: Path, tmp_path: Path) -> None:
    tracks = tracks_of_file(write_clip(tmp_path / "ten.mp4"))
    fewer = tracks_of_file(write_clip(tmp_path / "nine.mp4", ClipSpec(pts=range(9))))
    later = tracks_of_file(write_clip(tmp_path / "later.mp4", ClipSpec(pts=(*range(9), 12))))
    check_tracks(tmp_path, tracks, tracks)
    with pytest.raises(OutputMismatchError, match="has 9 packets, 10 were written"):
        check_tracks(tmp_path, tracks, fewer)
    with pytest.raises(OutputMismatchError, match="last frame"):
        check_tracks(tmp_path, tracks, later)
    with pytest.raises(OutputMismatchError, match="tracks"):
        check_tracks(tmp_path, [*tracks, *tracks], tracks)


NOT_MODELS = [b"", b"hello", b"\x89PNG\r\n\x1a\n" + bytes(64), bytes(1000), b"\x08\x09" * 5]


@pytest.mark.parametrize("content", NOT_MODELS)
def test_rejects_what_is_no_model(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"m\.onnx: is not a usable ONNX model"):
        open_artifact(path)


@pytest.mark.parametrize("part", [0.2, 0.6, 0.95])
def test_rejects_truncated_model(part: float, tmp_path: Path) -> None:
    data = write_affine(tmp_path / "whole.onnx").read_bytes()
    path = tmp_path / "m.onnx"
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(ArtifactError, match=r"m\.onnx: is not a usable ONNX model"):
        open_artifact(path)


def test_rejects_missing_model(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"missing\.onnx: no such file"):
        open_artifact(tmp_path / "missing.onnx")


def test_rejects_checkpoint_as_model(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(ArtifactError, match="stylize-export"):
        open_artifact(path)


def test_rejects_foreign_model_without_a_range(tmp_path: Path) -> None:
    path = write_affine(tmp_path / "m.onnx", has_contract=False)
    with pytest.raises(ArtifactError, match=r"--input-range 0\.\.255"):
        open_artifact(path)


def test_rejects_range_for_a_model_with_contract(identity: Path) -> None:
    with pytest.raises(OptionError, match="--input-range"):
        open_artifact(identity, input_range=(0.0, 255.0))


@pytest.mark.parametrize("shape", [("N", 1, "H", "W"), ("N", 3), (1, 4, 8, 8)])
def test_rejects_foreign_model_that_takes_no_picture(shape: tuple[object, ...], tmp_path: Path) -> None:
    path = write_affine(tmp_path / "m.onnx", has_contract=False, shape=shape)
    with pytest.raises(ArtifactError, match=r"expected \(N, 3, H, W\)"):
        open_artifact(path, input_range=(0.0, 1.0))


def test_rejects_contract_of_another_schema(tmp_path: Path) -> None:
    path = write_affine(tmp_path / "m.onnx")
    path.write_bytes(path.read_bytes().replace(b'"schema_version": 1', b'"schema_version": 9'))
    with pytest.raises(ArtifactError, match="schema_version=9"):
        open_artifact(path)


def test_contract_survives_the_file(tmp_path: Path) -> None:
    contract = ModelContract(network="fast-48", style="x", size_multiple=8, training_size_px=256, hashes={"a": "b"})
    assert open_artifact(write_affine(tmp_path / "m.onnx", contract=contract)).contract == contract
