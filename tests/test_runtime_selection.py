"""A part of a video, at another rate or size, with everything that belongs to it."""

from fractions import Fraction
from pathlib import Path

import av
import pytest

from helpers.clips import ClipSpec, frame_number, frame_times, packets_of, read_frames, write_clip
from stylize.runtime import EncodeOptions, Selection, stylize_video
from stylize.runtime.decode import Decoder
from stylize.runtime.errors import OptionError
from stylize.runtime.frame import Frame
from stylize.runtime.selection import Cut, resampled, seconds_from_text

LOSSLESS = EncodeOptions(codec="ffv1", pix_fmt="bgr0")
B_FRAMES = (("preset", "medium"), ("bf", "3"), ("g", "25"), ("crf", "10"))


def selected(path: Path, start: str, end: str | None = None) -> list[tuple[Fraction, int]]:
    """(time in seconds, number modulo 16) of the frames of a part."""
    selection = Selection(
        start_seconds=seconds_from_text(start), end_seconds=None if end is None else seconds_from_text(end)
    )
    with Decoder(path, selection=selection) as decoder:
        frames = [item for item in decoder if isinstance(item, Frame)]
        assert decoder.problems == []
        assert decoder.num_frames == len(frames)
        return [(frame.pts * frame.time_base, frame_number(frame.to_array())) for frame in frames]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5", Fraction(3, 2)), (".25", Fraction(1, 4)), ("2:30", 150), ("1:02:30.5", Fraction(7501, 2))],
)
def test_times_are_read_exactly(text: str, seconds: Fraction) -> None:
    assert seconds_from_text(text) == seconds


@pytest.mark.parametrize("text", ["", "abc", "1:", "-1", "1:2:3:4", "1e5", "nan"])
def test_rejects_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="not a time"):
        seconds_from_text(text)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_part_has_exactly_the_frames_of_its_time(suffix: str, tmp_path: Path) -> None:
    source = write_clip(tmp_path / f"in{suffix}", ClipSpec(pts=range(50), options=B_FRAMES))
    found = selected(source, "0.4", "1.2")
    assert [number for _, number in found] == [index % 16 for index in range(10, 30)]
    wanted = [Fraction(index, 25) for index in range(20)]
    assert max(abs(time - want) for (time, _), want in zip(found, wanted, strict=True)) <= Fraction(1, 1000)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_seeking_gives_the_frames_that_decoding_from_the_front_gives(suffix: str, tmp_path: Path) -> None:
    source = write_clip(tmp_path / f"in{suffix}", ClipSpec(pts=range(500), options=B_FRAMES))
    found = selected(source, "15.04", "15.6")
    assert [number for _, number in found] == [index % 16 for index in range(376, 390)]
    assert found[0][0] == 0


def test_seeking_reads_only_what_is_near(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", ClipSpec(pts=range(500), options=B_FRAMES))
    with Decoder(source, selection=Selection(start_seconds=Fraction(18))) as decoder:
        packet = next(decoder.container.demux(decoder.video_stream))
        assert packet.pts is not None
        assert packet.pts * packet.time_base > 7


def test_part_of_a_file_that_starts_late(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", ClipSpec(pts=range(100, 150)))
    assert [number for _, number in selected(source, "1")] == [index % 16 for index in range(25, 50)]


def test_variable_rate_keeps_its_distances(tmp_path: Path) -> None:
    spec = ClipSpec(pts=(0, 1, 5, 6, 40, 41, 43, 90, 91, 250), time_base=Fraction(1, 1000))
    source = write_clip(tmp_path / "in.mp4", spec)
    assert selected(source, "0.006", "0.09") == [
        (Fraction(time, 1000), number) for time, number in ((0, 3), (34, 4), (35, 5), (37, 6))
    ]


def test_sound_and_picture_are_cut_together(identity: Path, tmp_path: Path) -> None:
    spec = ClipSpec(pts=range(75), sound_start_seconds=0.0, sound_seconds=3.0, sound_codec="flac")
    source, target = write_clip(tmp_path / "in.mkv", spec), tmp_path / "out.mkv"
    selection = Selection(start_seconds=Fraction(1), end_seconds=Fraction(2))
    stylize_video(identity, source, target, selection=selection)
    assert frame_times(target)[0] == 0
    assert len(frame_times(target)) == 25
    was = {data: time for time, data in packets_of(source, "audio")}
    now = packets_of(target, "audio")
    assert all(abs(was[data] - 1 - time) <= Fraction(2, 1000) for time, data in now)
    assert now[0][0] < Fraction(1, 10)
    assert Fraction(9, 10) < now[-1][0] < 1


def test_sound_alone_does_not_end_the_part_early(identity: Path, tmp_path: Path) -> None:
    spec = ClipSpec(pts=range(75), sound_start_seconds=0.0, sound_seconds=0.5)
    source, target = write_clip(tmp_path / "in.mkv", spec), tmp_path / "out.mkv"
    report = stylize_video(identity, source, target, selection=Selection(end_seconds=Fraction(2)))
    assert report.num_frames == 50
    assert packets_of(target, "audio") == packets_of(source, "audio")
    assert report.problems == ()


def test_subtitles_are_cut_and_shifted(identity: Path, tmp_path: Path) -> None:
    texts = ((0.0, "gone"), (0.35, "reaches in"), (0.6, "inside"), (1.2, "too late"))
    source = write_clip(tmp_path / "in.mkv", ClipSpec(pts=range(40), subtitles=texts))
    selection = Selection(start_seconds=Fraction(2, 5), end_seconds=Fraction(1))
    stylize_video(identity, source, tmp_path / "out.mkv", selection=selection)
    assert packets_of(tmp_path / "out.mkv", "subtitle") == [(0, b"reaches in"), (Fraction(1, 5), b"inside")]
    with av.open(str(tmp_path / "out.mkv")) as container:
        lasting = [packet.duration * packet.time_base for packet in container.demux(subtitles=0) if packet.size]
    assert lasting == [Fraction(1, 20), Fraction(1, 10)]  # half of the first was before


def test_subtitle_from_long_before_the_nearest_key_frame_reaches_in(identity: Path, tmp_path: Path) -> None:
    # A key frame every second, of which the last one before the part is far from where the text begins.
    spec = ClipSpec(pts=range(450), options=B_FRAMES, subtitles=((6, "reaches in"),), subtitle_seconds=9.2)
    source = write_clip(tmp_path / "in.mkv", spec)
    selection = Selection(start_seconds=Fraction("15.04"), end_seconds=Fraction("15.4"))
    stylize_video(identity, source, tmp_path / "out.mkv", selection=selection)
    assert packets_of(tmp_path / "out.mkv", "subtitle") == [(0, b"reaches in")]


def test_chapters_are_cut_and_shifted() -> None:
    chapters = [
        {"id": index, "start": start, "end": end, "time_base": Fraction(1, 1000), "metadata": {}}
        for index, (start, end) in enumerate(((0, 1000), (1000, 3000), (3000, 5000), (5000, 9000)))
    ]
    cut = Cut(Selection(start_seconds=Fraction(2), end_seconds=Fraction(4)), origin=Fraction(0), waits_for=())
    assert [(found["id"], found["start"], found["end"]) for found in cut.chapters_of(chapters)] == [
        (1, 0, 1000),
        (2, 1000, 2000),
    ]


@pytest.mark.parametrize(("rate", "numbers"), [(25, list(range(10))), (50, [n for n in range(10) for _ in (0, 1)])])
def test_resampling_repeats_frames(rate: int, numbers: list[int], identity: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mkv", ClipSpec())
    report = stylize_video(
        identity, source, tmp_path / "out.mkv", selection=Selection(frame_rate=Fraction(rate)), encode=LOSSLESS
    )
    assert [frame_number(frame) for frame in read_frames(tmp_path / "out.mkv")] == numbers
    assert report.num_frames == len(numbers)
    assert any(f"resampled from 25 to {rate} frames per second" in note for note in report.notes)


def test_resampling_makes_variable_rate_even(identity: Path, tmp_path: Path) -> None:
    spec = ClipSpec(pts=(0, 100, 150, 500, 510, 990), time_base=Fraction(1, 1000), sound_start_seconds=0.0)
    source = write_clip(tmp_path / "in.mp4", spec)
    selection = Selection(frame_rate=Fraction(10))
    stylize_video(identity, source, tmp_path / "out.mp4", selection=selection)
    # At 0.2 s frame 2, from 150 ms on; at 0.5 s frame 4, 510 ms, which overwrites frame 3; frame 5 is nearest
    # to 1.0 s and over before that.
    assert [frame_number(frame) for frame in read_frames(tmp_path / "out.mp4")] == [0, 1, 2, 2, 2, 4, 4, 4, 4, 4]
    assert frame_times(tmp_path / "out.mp4") == [Fraction(index, 10) for index in range(10)]
    assert packets_of(tmp_path / "out.mp4", "audio") == packets_of(source, "audio")


def test_repeated_frames_pass_the_network_once(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mkv")
    with Decoder(source, selection=Selection(frame_rate=Fraction(100))) as decoder:
        assert sum(isinstance(item, Frame) for item in decoder) == 10
        assert decoder.num_frames == 40


def test_half_the_rate_takes_every_second_frame() -> None:
    def frames() -> list[Frame]:
        made = [Frame.blank(8, 8) for _ in range(20)]
        for pts, frame in enumerate(made):
            frame.set_time(pts, duration=1, time_base=Fraction(1, 50))
        return made

    source = frames()
    kept = [source.index(item) for item in resampled(source, Fraction(25)) if isinstance(item, Frame)]
    assert set(map(int.__sub__, kept[2:], kept[1:-1])) == {2}
    assert sum(item.duration for item in resampled(frames(), Fraction(25)) if isinstance(item, Frame)) == 10


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [(32, 24, (32, 24)), (32, None, (32, 24)), (None, 96, (128, 96)), (50, None, (50, 38)), (3, None, (3, 2))],
)
def test_scale(width: int | None, height: int | None, size: tuple[int, int], tmp_path: Path) -> None:
    with Decoder(write_clip(tmp_path / "in.mkv"), selection=Selection(width=width, height=height)) as decoder:
        frame = next(item for item in decoder if isinstance(item, Frame))
        assert (frame.width, frame.height) == size == (decoder.info.width, decoder.info.height)
        assert decoder.info.sample_aspect_ratio == 1
        assert any(f"scaled from 64x48 to {size[0]}x{size[1]}" in note for note in decoder.notes)


def test_rounding_of_a_side_is_no_squeezing(tmp_path: Path) -> None:
    with Decoder(write_clip(tmp_path / "in.mkv"), selection=Selection(width=50, height=38)) as decoder:
        assert decoder.info.sample_aspect_ratio == 1


def test_squeezing_keeps_the_picture_shape(tmp_path: Path) -> None:
    with Decoder(write_clip(tmp_path / "in.mkv"), selection=Selection(width=32, height=48)) as decoder:
        assert decoder.info.sample_aspect_ratio == 2


@pytest.mark.parametrize(
    "options",
    [
        {"start_seconds": Fraction(-1)},
        {"start_seconds": Fraction(5), "end_seconds": Fraction(5)},
        {"frame_rate": Fraction(0)},
        {"width": 0},
        {"height": 100_000},
    ],
)
def test_rejects_selection_that_makes_no_sense(options: dict[str, Fraction]) -> None:
    with pytest.raises(OptionError, match="--"):
        Selection(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_video_that_begins_long_after_the_sound_is_whole(suffix: str, tmp_path: Path) -> None:
    late = ClipSpec(pts=range(1000, 1010), sound_start_seconds=0.0, sound_seconds=41.0)
    source = write_clip(tmp_path / f"in{suffix}", late)
    for end_seconds, num_frames in ((None, 10), (Fraction("40.2"), 5)):
        with Decoder(source, selection=Selection(end_seconds=end_seconds)) as decoder:
            assert sum(isinstance(item, Frame) for item in decoder) == num_frames
        assert not decoder.problems
    with pytest.raises(OptionError, match="no frame lies within --start and --end"):
        Decoder(source, selection=Selection(end_seconds=Fraction(5)))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_rejects_part_without_a_frame(suffix: str, tmp_path: Path) -> None:
    source = write_clip(tmp_path / f"in{suffix}")
    with pytest.raises(OptionError, match=r"no frame lies within --start and --end; the video is 0\.4 s long"):
        Decoder(source, selection=Selection(start_seconds=Fraction(60)))


def test_chapters_of_a_part_are_in_the_file(identity: Path, tmp_path: Path) -> None:
    plain, source, target = (tmp_path / name for name in ("plain.mkv", "in.mkv", "out.mkv"))
    write_clip(plain, ClipSpec(pts=range(50)))
    with av.open(str(plain)) as old, av.open(str(source), "w") as new:
        new.set_chapters(
            [{"id": 1, "start": 500, "end": 2000, "time_base": Fraction(1, 1000), "metadata": {"title": "A"}}]
        )
        copy = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux():
            if packet.size:
                packet.stream = copy
                new.mux(packet)
    stylize_video(identity, source, target, selection=Selection(start_seconds=Fraction(1)))
    with av.open(str(target)) as container:
        (chapter,) = container.chapters()
    assert (chapter["start"] * chapter["time_base"], chapter["end"] * chapter["time_base"]) == (0, 1)
