"""Sound, subtitles, chapters and tags travel along."""

from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import pytest
from av.stream import Disposition

from helpers.clips import SAMPLE_RATE_HZ, ClipSpec, frame_times, numbered_frame, packets_of, write_clip
from stylize.runtime import ResumeOptions, Selection, stylize_video
from stylize.runtime.errors import InputMediaError


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


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_windows_media_becomes_a_film_with_even_sound(suffix: str, identity: Path, tmp_path: Path) -> None:
    # Its clock counts milliseconds, and of one channel it does not say that it is in the middle.
    spec = ClipSpec(codec="wmv2", options=(), sound_codec="wmav2", sound_start_seconds=0.0, sound_seconds=1.0)
    source, target = write_clip(tmp_path / "in.wmv", spec), tmp_path / f"out{suffix}"
    report = stylize_video(identity, source, target)
    assert any("audio track 1 transcoded from wmav2 to aac" in note for note in report.notes)
    assert len(frame_times(target)) == 10
    times = [time for time, _ in packets_of(target, "audio")]
    assert len(times) > 40
    frame_seconds = Fraction(1024, SAMPLE_RATE_HZ)
    assert all(abs(time - times[0] - index * frame_seconds) <= Fraction(1, 1000) for index, time in enumerate(times))


def test_sound_of_a_rate_the_encoder_lacks_gets_its_best(identity: Path, tmp_path: Path) -> None:
    spec = ClipSpec(sound_start_seconds=0.0, sound_rate_hz=44_100)
    stylize_video(identity, write_clip(tmp_path / "in.mp4", spec), tmp_path / "out.webm")
    with av.open(str(tmp_path / "out.webm")) as container:
        # As Opus notes it; what it is decoded to is always 48 kHz. Source: RFC 7845, section 5.1.
        header = container.streams.audio[0].codec_context.extradata
        assert header is not None
        assert int.from_bytes(header[12:16], "little") == 48_000
        num_samples = sum(frame.samples for frame in container.decode(audio=0))
    assert num_samples / 48_000 == pytest.approx(0.4, abs=0.05)  # an AAC and an Opus frame


@pytest.mark.parametrize("codec", ["libopus", "flac"])
def test_sound_that_quicktime_refuses_late_is_transcoded_too(codec: str, identity: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mkv", ClipSpec(sound_start_seconds=0.0, sound_codec=codec))
    report = stylize_video(identity, source, tmp_path / "out.mov")
    assert any("transcoded from" in note and "to aac: mov cannot hold it" in note for note in report.notes)
    assert packets_of(tmp_path / "out.mov", "audio")


def _with_cover(path: Path, folder: Path) -> bytes:
    """Write a film with sound and a cover picture, and return the latter."""
    plain = write_clip(folder / "plain.mp4", ClipSpec(sound_start_seconds=0.0))
    picture = av.VideoFrame.from_ndarray(numbered_frame(3, 32, 32), "rgb24")
    encoder = av.VideoCodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 32, 32, "rgb24", Fraction(1, 25)
    cover = b"".join(bytes(packet) for packet in [*encoder.encode(picture), *encoder.encode(None)])
    with av.open(str(plain)) as old, av.open(BytesIO(cover)) as image, av.open(str(path), "w") as new:
        copies = {stream.index: new.add_stream_from_template(stream, opaque=True) for stream in old.streams}
        if path.suffix == ".mkv":
            new.add_attachment("front.png", "image/png", cover)
        else:
            stream = new.add_stream_from_template(image.streams.video[0], opaque=True)
            stream.disposition = Disposition.attached_pic
            packet = av.Packet(cover)
            packet.stream = stream
            new.mux(packet)
        for packet in old.demux():
            if packet.size:
                packet.stream = copies[packet.stream.index]
                new.mux(packet)
    return cover


def _covers(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        covers = [stream for stream in container.streams.video if stream.disposition & Disposition.attached_pic]
        return [bytes(packet) for packet in container.demux(covers) if packet.size] if covers else []


@pytest.mark.parametrize("target_suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_cover_picture_is_carried(suffix: str, target_suffix: str, identity: Path, tmp_path: Path) -> None:
    source, target = tmp_path / f"film{suffix}", tmp_path / f"out{target_suffix}"
    cover = _with_cover(source, tmp_path)
    report = stylize_video(identity, source, target, selection=Selection(start_seconds=Fraction(1, 10)))
    assert _covers(target) == [cover]
    assert report.num_frames == len(frame_times(target)) < 10
    assert not any("left out" in note or "video tracks" in note for note in report.notes)


def test_cover_picture_is_carried_after_a_stop(identity: Path, tmp_path: Path) -> None:
    cover = _with_cover(tmp_path / "film.mp4", tmp_path)
    stylize_video(identity, tmp_path / "film.mp4", tmp_path / "out.mp4", resume=ResumeOptions(segment_frames=4))
    assert _covers(tmp_path / "out.mp4") == [cover]


def test_cover_picture_without_a_place_is_said(identity: Path, tmp_path: Path) -> None:
    _with_cover(tmp_path / "film.mp4", tmp_path)
    report = stylize_video(identity, tmp_path / "film.mp4", tmp_path / "out.mov")
    assert "the cover picture is left out: mov cannot hold it" in report.notes
    assert _covers(tmp_path / "out.mov") == []


def test_rejects_sound_with_a_cover(identity: Path, tmp_path: Path) -> None:
    _with_cover(tmp_path / "film.mp4", tmp_path)
    with av.open(str(tmp_path / "film.mp4")) as old, av.open(str(tmp_path / "song.m4a"), "w", format="mp4") as new:
        copies = {stream.index: new.add_stream_from_template(stream, opaque=True) for stream in list(old.streams)[1:]}
        copies[2].disposition = Disposition.attached_pic
        for packet in old.demux(*list(old.streams)[1:]):
            if packet.size:
                packet.stream = copies[packet.stream.index]
                new.mux(packet)
    with pytest.raises(InputMediaError, match="it holds: audio, cover picture"):
        stylize_video(identity, tmp_path / "song.m4a", tmp_path / "out.mp4")


@pytest.mark.parametrize(("suffix", "is_kept"), [(".mp4", True), (".mov", True), (".mkv", False)])
def test_telemetry_of_action_cameras(suffix: str, is_kept: bool, identity: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "in.mp4", tmp_path / f"out{suffix}"
    texts = write_clip(tmp_path / "texts.mkv", ClipSpec(subtitles=((0.0, "DEVC 1"), (0.1, "DEVC 2"))))
    stylize_video(identity, texts, source)
    # Nobody here writes GoPro's telemetry, but its track differs from one of subtitles in two names.
    source.write_bytes(source.read_bytes().replace(b"tx3g", b"gpmd").replace(b"sbtl", b"meta"))
    report = stylize_video(identity, source, target)
    with av.open(str(target)) as container:
        assert [stream.type for stream in container.streams] == (["video", "data"] if is_kept else ["video"])
    assert any("data track 1" in note and "left out" in note for note in report.notes) != is_kept
    if is_kept:
        assert packets_of(target, "data") == packets_of(source, "data")
        assert b"gpmd" in target.read_bytes()


@pytest.mark.parametrize("first_seconds", [0.0, 0.12])
def test_subtitles_are_rewritten_for_mp4(first_seconds: float, identity: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mkv", ClipSpec(subtitles=((first_seconds, "one"), (0.24, "two"))))
    report = stylize_video(identity, source, tmp_path / "out.mp4")
    texts = {float(time): text[2:] for time, text in packets_of(tmp_path / "out.mp4", "subtitle") if text[2:]}
    assert texts == {first_seconds: b"one", 0.24: b"two"}
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
        copies[1].metadata["BPS"] = "64000"  # of the old file's bytes, as mkvmerge writes it
        copies[1].disposition = Disposition.forced
        for packet in old.demux():
            if packet.size:
                packet.stream = copies[packet.stream.index]
                new.mux(packet)
    stylize_video(identity, source, target)
    with av.open(str(target)) as container:
        assert container.metadata["title"] == "Clip"
        assert [found["metadata"]["title"] for found in container.chapters()] == ["Opening"]
        assert [stream.language for stream in container.streams] == ["jpn", "fra"]
        assert "BPS" not in container.streams[1].metadata
        assert Disposition.forced in container.streams[1].disposition


@pytest.mark.parametrize("suffix", [".mov", ".mp4", ".mkv"])
def test_timecode_of_a_camera_is_kept_and_cut(suffix: str, identity: Path, tmp_path: Path) -> None:
    plain, source, target = write_clip(tmp_path / "plain.mp4"), tmp_path / "in.mov", tmp_path / f"out{suffix}"
    with av.open(str(plain)) as old, av.open(str(source), "w") as new:
        copy = new.add_stream_from_template(old.streams.video[0], opaque=True)
        copy.metadata["timecode"] = "10:00:00:00"
        for packet in old.demux():
            if packet.size:
                packet.stream = copy
                new.mux(packet)
    report = stylize_video(identity, source, target)
    assert _timecode(target) == "10:00:00:00"
    assert not any("left out" in note for note in report.notes)
    stylize_video(identity, source, target, selection=Selection(start_seconds=Fraction(1, 5)))
    assert _timecode(target) == "10:00:00:05"


def _timecode(path: Path) -> str:
    with av.open(str(path)) as container:
        tags = {key.lower(): text for key, text in container.streams.video[0].metadata.items()}
        return tags["timecode"]
