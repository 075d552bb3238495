"""Sound, subtitles, chapters and tags travel along."""

from fractions import Fraction
from pathlib import Path

import av
import pytest

from helpers.clips import ClipSpec, packets_of, write_clip
from helpers.networks import write_affine
from stylize.runtime import stylize_video


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_affine(tmp_path_factory.mktemp("model") / "identity.onnx")


@pytest.mark.parametrize(
    ("codec", "suffix"), [("aac", ".mp4"), ("libopus", ".mkv"), ("flac", ".mkv"), ("pcm_s16le", ".mov")]
)
def test_sound_packets_are_the_same_bytes(codec: str, suffix: str, identity: Path, tmp_path: Path) -> None:
    spec = ClipSpec(sound_start_seconds=0.0, sound_codec=codec)
    source, target = write_clip(tmp_path / f"in{suffix}", spec), tmp_path / f"out{suffix}"
    report = stylize_video(identity, source, target)
    assert packets_of(target, "audio") == packets_of(source, "audio")
    assert report.notes == ("no colour matrix is tagged: read as BT.601, as usual for 64x48",)


def test_sound_longer_than_the_video_is_kept_whole(identity: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", ClipSpec(sound_start_seconds=0.0, sound_seconds=3.0))
    stylize_video(identity, source, tmp_path / "out.mp4")
    assert packets_of(tmp_path / "out.mp4", "audio") == packets_of(source, "audio")


def test_sound_the_container_refuses_is_transcoded_and_said(identity: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", ClipSpec(sound_start_seconds=0.2))
    report = stylize_video(identity, source, tmp_path / "out.webm")
    with av.open(str(tmp_path / "out.webm")) as container:
        audio = container.streams.audio[0]
        assert audio.codec_context.name == "opus"
        samples = list(container.decode(audio))
    start_seconds = samples[0].pts * samples[0].time_base
    assert abs(start_seconds - Fraction(1, 5)) < Fraction(25, 1000)  # one AAC frame
    assert any("audio track 1 transcoded from aac to" in note for note in report.notes)


@pytest.mark.parametrize("codec", ["libopus", "flac"])
def test_sound_that_quicktime_refuses_late_is_transcoded_too(codec: str, identity: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mkv", ClipSpec(sound_start_seconds=0.0, sound_codec=codec))
    report = stylize_video(identity, source, tmp_path / "out.mov")
    assert any("transcoded from" in note and "to aac: mov cannot hold it" in note for note in report.notes)
    assert packets_of(tmp_path / "out.mov", "audio")


def test_cover_picture_is_no_second_video(identity: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mkv")
    cover = tmp_path / "cover.png"
    stylize_video(identity, source, tmp_path / "%04d.png")
    cover.write_bytes((tmp_path / "0001.png").read_bytes())
    with av.open(str(source)) as plain, av.open(str(tmp_path / "film.mkv"), "w") as film:
        film.add_attachment("cover.png", "image/png", cover.read_bytes())
        stream = film.add_stream_from_template(plain.streams.video[0])
        for packet in plain.demux(plain.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                film.mux(packet)
    report = stylize_video(identity, tmp_path / "film.mkv", tmp_path / "out.mkv")
    assert report.num_frames == 10
    assert "the cover picture is left out" in report.notes
    assert not any("video tracks" in note for note in report.notes)


def test_subtitles_are_rewritten_for_mp4(identity: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mkv", ClipSpec(subtitles=((0.0, "one"), (0.2, "two"))))
    report = stylize_video(identity, source, tmp_path / "out.mp4")
    texts = {time: text[2:] for time, text in packets_of(tmp_path / "out.mp4", "subtitle") if text[2:]}
    assert texts == {Fraction(0): b"one", Fraction(1, 5): b"two"}
    assert any("subtitle track 1 rewritten from srt to mov_text" in note for note in report.notes)


def test_subtitles_are_copied_to_matroska(identity: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mkv", ClipSpec(subtitles=((0.0, "one"), (0.2, "two"))))
    stylize_video(identity, source, tmp_path / "out.mkv")
    assert packets_of(tmp_path / "out.mkv", "subtitle") == packets_of(source, "subtitle")


def test_tags_chapters_and_languages_are_kept(identity: Path, tmp_path: Path) -> None:
    plain = write_clip(tmp_path / "plain.mp4", ClipSpec(sound_start_seconds=0.0))
    source, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    chapter = {"id": 1, "start": 0, "end": 200, "time_base": Fraction(1, 1000), "metadata": {"title": "Opening"}}
    with av.open(str(plain)) as old, av.open(str(source), "w") as new:
        new.metadata["title"] = "Clip"
        new.set_chapters([chapter])
        copies = {stream.index: new.add_stream_from_template(stream, opaque=True) for stream in old.streams}
        copies[0].metadata["language"], copies[1].metadata["language"] = "jpn", "fra"
        for packet in old.demux():
            if packet.size:
                packet.stream = copies[packet.stream.index]
                new.mux(packet)
    stylize_video(identity, source, target)
    with av.open(str(target)) as container:
        assert container.metadata["title"] == "Clip"
        assert [found["metadata"]["title"] for found in container.chapters()] == ["Opening"]
        assert [stream.language for stream in container.streams] == ["jpn", "fra"]
