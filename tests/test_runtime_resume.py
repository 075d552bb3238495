"""A render that was stopped and continued writes what an unbroken one writes."""

import errno
import inspect
import os
import random
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from kill import kill_until_done, outcome_of, unbroken

from helpers.clips import ClipSpec, frame_times, packets_of, read_frames, write_clip
from helpers.networks import write_affine
from stylize.runtime import EncodeOptions, FinishOptions, Selection, Stylizer, stylize_video
from stylize.runtime.errors import InputMediaError, OptionError, OutputMediaError
from stylize.runtime.report import RunReport
from stylize.runtime.resume import ResumeOptions
from stylize.runtime.run_facts import fingerprint

SEGMENTS = ResumeOptions(segment_frames=10)
B_FRAMES = (("preset", "veryfast"), ("bf", "3"), ("g", "20"))
UNEVEN = tuple(index * 1000 + index * 7919 % 600 for index in range(44))


class Stopped(Exception):  # noqa: N818 - not an error
    """What ends a render in mid-video."""


@dataclass(frozen=True)
class Case:
    """A source and options whose result must not depend on where it was stopped."""

    source: str
    spec: ClipSpec
    target: str = "out.mp4"
    selection: Selection = field(default_factory=Selection)
    encode: EncodeOptions = field(default_factory=EncodeOptions)
    finish: FinishOptions = field(default_factory=FinishOptions)


@pytest.fixture(scope="module")
def stylizer(tmp_path_factory: pytest.TempPathFactory) -> Stylizer:
    return Stylizer(write_affine(tmp_path_factory.mktemp("model") / "invert.onnx", scale=-1.0, offset=1.0))


def render(
    stylizer: Stylizer, case: Case, folder: Path, name: str, *, stop_after: int | None = None, is_plain: bool = False
) -> RunReport:
    def on_progress(done: int, _total: int | None) -> None:
        if stop_after is not None and done >= stop_after:
            raise Stopped

    return stylize_video(
        stylizer,
        folder / case.source,
        folder / name,
        selection=case.selection,
        encode=case.encode,
        finish=case.finish,
        resume=None if is_plain else SEGMENTS,
        on_progress=on_progress,
    )


SOUND = ClipSpec(
    pts=UNEVEN,
    time_base=Fraction(1, 25000),
    options=B_FRAMES,
    sound_start_seconds=0.2,
    sound_seconds=2.5,
)
EVEN = ClipSpec(pts=range(44), options=B_FRAMES)
LATE = ClipSpec(pts=range(1000, 1044), options=B_FRAMES, sound_start_seconds=40.0, sound_seconds=2.0)
LONG = ClipSpec(pts=range(0, 25 * 44, 25), options=B_FRAMES)  # a frame a second: far enough to seek
CASES = [
    pytest.param(Case("in.mp4", SOUND), id="variable rate, B-frames, sound"),
    pytest.param(Case("in.mkv", LATE, target="out.mkv"), id="late start"),
    pytest.param(Case("in.mp4", LONG), id="seeking"),
    pytest.param(Case("in.avi", EVEN), id="no presentation times"),
    pytest.param(Case("in.ts", EVEN, target="out.ts"), id="transport stream"),
    pytest.param(Case("in.mp4", EVEN, selection=Selection(frame_rate=Fraction(30))), id="resampled"),
    pytest.param(
        Case("in.mp4", LONG, selection=Selection(start_seconds=Fraction(12), end_seconds=Fraction(42))), id="part"
    ),
    pytest.param(Case("in.mp4", EVEN, finish=FinishOptions(fade_in_seconds=1.5, fade_out_seconds=1.0)), id="fades"),
    pytest.param(
        Case("in.mp4", EVEN, target="out.mkv", encode=EncodeOptions(codec="libx265", preset="ultrafast")), id="x265"
    ),
    pytest.param(Case("in.mp4", EVEN, target="out.mkv", encode=EncodeOptions(codec="ffv1")), id="ffv1"),
    pytest.param(
        Case("in.mp4", EVEN, target="out.webm", encode=EncodeOptions(codec="libsvtav1", preset="12")), id="av1"
    ),
    pytest.param(Case("in.mp4", EVEN, target="out.mov", encode=EncodeOptions(codec="prores_ks")), id="prores"),
]


@pytest.mark.parametrize("case", CASES)
def test_stopped_and_continued_equals_unbroken(case: Case, stylizer: Stylizer, tmp_path: Path) -> None:
    write_clip(tmp_path / case.source, case.spec)
    suffix = Path(case.target).suffix
    render(stylizer, case, tmp_path, f"plain{suffix}", is_plain=True)
    whole = render(stylizer, case, tmp_path, f"whole{suffix}")
    for stop_after in (15, 25):
        with pytest.raises(Stopped):
            render(stylizer, case, tmp_path, f"broken{suffix}", stop_after=stop_after)
        assert not (tmp_path / f"broken{suffix}").exists()
    report = render(stylizer, case, tmp_path, f"broken{suffix}")
    assert report.num_frames == whole.num_frames > report.num_resumed_frames >= 20
    assert outcome_of(tmp_path / f"broken{suffix}") == outcome_of(tmp_path / f"whole{suffix}")
    assert frame_times(tmp_path / f"broken{suffix}") == frame_times(tmp_path / f"plain{suffix}")
    assert not list(tmp_path.glob(".*"))


def test_sound_subtitles_and_chapters_come_from_the_source(stylizer: Stylizer, tmp_path: Path) -> None:
    spec = ClipSpec(pts=range(50), sound_start_seconds=0.0, sound_seconds=2.0, subtitles=((0.2, "one"), (1.6, "two")))
    case = Case("in.mkv", spec)
    write_clip(tmp_path / case.source, spec)
    render(stylizer, case, tmp_path, "plain.mkv", is_plain=True)
    with pytest.raises(Stopped):
        render(stylizer, case, tmp_path, "out.mkv", stop_after=25)
    render(stylizer, case, tmp_path, "out.mkv")
    for kind in ("audio", "subtitle"):
        assert packets_of(tmp_path / "out.mkv", kind) == packets_of(tmp_path / "plain.mkv", kind)


def test_video_mask_goes_on_where_it_was(stylizer: Stylizer, tmp_path: Path) -> None:
    write_clip(tmp_path / "mask.mp4", ClipSpec(pts=range(64)))
    case = Case("in.mp4", EVEN, finish=FinishOptions(mask=tmp_path / "mask.mp4"))
    write_clip(tmp_path / case.source, case.spec)
    render(stylizer, case, tmp_path, "whole.mp4")
    with pytest.raises(Stopped):
        render(stylizer, case, tmp_path, "broken.mp4", stop_after=35)
    render(stylizer, case, tmp_path, "broken.mp4")
    assert outcome_of(tmp_path / "broken.mp4") == outcome_of(tmp_path / "whole.mp4")


def test_damaged_source_is_said_after_continuing_too(stylizer: Stylizer, tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mkv", ClipSpec(pts=range(100), width=128, height=96))
    data = bytearray(whole.read_bytes())
    for position in range(len(data) // 4, len(data) // 3, 97):
        data[position] ^= 0xFF
    (tmp_path / "in.mkv").write_bytes(data)
    case = Case("in.mkv", EVEN)
    expected = render(stylizer, case, tmp_path, "whole.mp4")
    with pytest.raises(Stopped):
        render(stylizer, case, tmp_path, "broken.mp4", stop_after=45)
    report = render(stylizer, case, tmp_path, "broken.mp4")
    assert report.problems == expected.problems != ()
    assert outcome_of(tmp_path / "broken.mp4") == outcome_of(tmp_path / "whole.mp4")


def test_steadying_goes_on_within_a_code_value(stylizer: Stylizer, tmp_path: Path) -> None:
    case = Case("in.mp4", EVEN, encode=EncodeOptions(codec="ffv1"), finish=FinishOptions(steady=0.6))
    write_clip(tmp_path / case.source, case.spec)
    render(stylizer, case, tmp_path, "whole.mkv")
    with pytest.raises(Stopped):
        render(stylizer, case, tmp_path, "broken.mkv", stop_after=25)
    seen: list[int] = []
    stylize_video(
        stylizer,
        tmp_path / case.source,
        tmp_path / "broken.mkv",
        encode=case.encode,
        finish=case.finish,
        resume=SEGMENTS,
        on_progress=lambda done, _total: seen.append(done),
    )
    assert (min(seen), max(seen)) == (20, 44), "frames that only lead to the first missing one are not counted"
    pairs = zip(read_frames(tmp_path / "broken.mkv"), read_frames(tmp_path / "whole.mkv"), strict=True)
    assert max(int(np.abs(found.astype(int) - wanted).max()) for found, wanted in pairs) <= 1


def test_every_setting_of_a_stylizer_is_among_its_facts(stylizer: Stylizer) -> None:
    # `backend` stands for itself, the precision and the GPU; the number of threads changes nothing.
    settings = set(inspect.signature(Stylizer).parameters) - {"precision", "num_threads", "gpu"}
    assert settings <= set(stylizer.facts)


def test_second_run_at_once_is_refused(stylizer: Stylizer, tmp_path: Path) -> None:
    case = Case("in.mp4", EVEN)
    write_clip(tmp_path / "in.mp4", EVEN)
    refusals: list[str] = []

    def run_another(done: int, _total: int | None) -> None:
        if done == 15:
            with (
                Stylizer(stylizer.artifact) as another,
                pytest.raises(OptionError, match=r"\.out\.mp4\.resume: another run is at work there") as caught,
            ):
                render(another, case, tmp_path, "out.mp4")
            refusals.append(str(caught.value))

    stylize_video(stylizer, tmp_path / "in.mp4", tmp_path / "out.mp4", resume=SEGMENTS, on_progress=run_another)
    assert len(refusals) == 1
    assert len(read_frames(tmp_path / "out.mp4")) == 44


def test_another_input_model_or_option_is_named(stylizer: Stylizer, tmp_path: Path) -> None:
    case = Case("in.mp4", EVEN)
    write_clip(tmp_path / "in.mp4", EVEN)
    with pytest.raises(Stopped):
        render(stylizer, case, tmp_path, "out.mp4", stop_after=25)
    kept = sorted((tmp_path / ".out.mp4.resume").iterdir())
    crf = Case("in.mp4", EVEN, encode=EncodeOptions(crf=30))
    with pytest.raises(OptionError, match=r"crf was None, is now 30.*or remove that folder to start afresh"):
        render(stylizer, crf, tmp_path, "out.mp4")
    with Stylizer(write_affine(tmp_path / "other.onnx")) as other, pytest.raises(OptionError, match="model was invert"):
        render(other, case, tmp_path, "out.mp4")
    write_clip(tmp_path / "in.mp4", ClipSpec(pts=range(80)))
    with pytest.raises(OptionError, match=r"input was .*in\.mp4"):
        render(stylizer, case, tmp_path, "out.mp4")
    assert sorted((tmp_path / ".out.mp4.resume").iterdir()) == kept


def test_input_that_vanishes_is_one_clear_error_and_loses_nothing(stylizer: Stylizer, tmp_path: Path) -> None:
    case = Case("in.mp4", EVEN)
    write_clip(tmp_path / "in.mp4", EVEN)
    content, status = (tmp_path / "in.mp4").read_bytes(), (tmp_path / "in.mp4").stat()
    render(stylizer, case, tmp_path, "whole.mp4")

    def vanish(_done: int, _total: int | None) -> None:
        (tmp_path / "in.mp4").unlink(missing_ok=True)

    with pytest.raises(InputMediaError, match=r"in\.mp4: cannot be read"):
        stylize_video(stylizer, tmp_path / "in.mp4", tmp_path / "out.mp4", resume=SEGMENTS, on_progress=vanish)
    (tmp_path / "in.mp4").write_bytes(content)
    os.utime(tmp_path / "in.mp4", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert render(stylizer, case, tmp_path, "out.mp4").num_resumed_frames == 40
    assert outcome_of(tmp_path / "out.mp4") == outcome_of(tmp_path / "whole.mp4")


def test_full_disk_keeps_the_finished_segments(stylizer: Stylizer, tmp_path: Path) -> None:
    case = Case("in.mp4", ClipSpec(pts=range(64), width=320, height=240))
    write_clip(tmp_path / "in.mp4", case.spec)
    folder = tmp_path / ".out.mp4.resume"
    with pytest.raises(Stopped):
        render(stylizer, case, tmp_path, "out.mp4", stop_after=15)
    (folder / ".000002.segment.partial.segment").symlink_to("/dev/full")  # fails every write as a full disk does
    with pytest.raises(OutputMediaError, match=os.strerror(errno.ENOSPC)):
        render(stylizer, case, tmp_path, "out.mp4")
    kept = sorted(path.name for path in folder.iterdir())
    assert kept == ["000000.segment", "000001.segment", "lock", "manifest.json"]
    assert render(stylizer, case, tmp_path, "out.mp4").num_resumed_frames == 20


def test_full_disk_before_the_first_frame_is_one_line(stylizer: Stylizer, tmp_path: Path) -> None:
    write_clip(tmp_path / "in.mp4", EVEN)
    folder = tmp_path / ".out.mp4.resume"
    folder.mkdir()
    (folder / ".manifest.json.partial.json").symlink_to("/dev/full")
    with pytest.raises(OutputMediaError, match=f"out.mp4.*cannot be written: {os.strerror(errno.ENOSPC)}"):
        render(stylizer, Case("in.mp4", EVEN), tmp_path, "out.mp4")
    assert not (folder / "manifest.json").exists()


def test_segment_damaged_on_the_disk_is_rendered_again(stylizer: Stylizer, tmp_path: Path) -> None:
    case = Case("in.mp4", EVEN)
    write_clip(tmp_path / "in.mp4", EVEN)
    render(stylizer, case, tmp_path, "whole.mp4")
    with pytest.raises(Stopped):
        render(stylizer, case, tmp_path, "out.mp4", stop_after=35)
    segment = tmp_path / ".out.mp4.resume" / "000001.segment"
    data = bytearray(segment.read_bytes())
    data[len(data) // 3] ^= 1
    segment.write_bytes(data)
    with pytest.raises(OutputMediaError, match="segment 1 was damaged"):
        render(stylizer, case, tmp_path, "out.mp4")
    render(stylizer, case, tmp_path, "out.mp4")
    assert outcome_of(tmp_path / "out.mp4") == outcome_of(tmp_path / "whole.mp4")


@pytest.mark.parametrize("target", ["out.gif", "out.png", "%04d.png", "-"])
def test_rejects_outputs_without_segments(target: str, stylizer: Stylizer, tmp_path: Path) -> None:
    write_clip(tmp_path / "in.mp4")
    with pytest.raises(OptionError, match=r"--resume: .* is no video file"):
        stylize_video(stylizer, tmp_path / "in.mp4", target if target == "-" else tmp_path / target, resume=SEGMENTS)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_codec_the_container_refuses_is_said_at_once(stylizer: Stylizer, tmp_path: Path) -> None:
    write_clip(tmp_path / "in.mp4")
    with pytest.raises(OutputMediaError, match="mp4 cannot hold huffyuv"):
        render(stylizer, Case("in.mp4", EVEN, encode=EncodeOptions(codec="huffyuv")), tmp_path, "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("out.xyz", r"no container has the suffix \.xyz"),
        ("out", "has no suffix"),
        ("out.avi", "avi keeps no frame times"),
    ],
)
def test_container_that_cannot_hold_what_is_joined_is_said_at_once(
    target: str, message: str, stylizer: Stylizer, tmp_path: Path
) -> None:
    write_clip(tmp_path / "in.mp4")
    with pytest.raises(OutputMediaError, match=message):
        render(stylizer, Case("in.mp4", EVEN), tmp_path, target, stop_after=1)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_killed_at_random_moments(tmp_path: Path) -> None:
    expected, seconds = unbroken(tmp_path)
    found = kill_until_done(tmp_path, num_kills=3, usual_seconds=seconds, random=random.Random(0))
    assert found == expected


def test_the_same_pictures_are_the_same_input_in_every_run(tmp_path: Path) -> None:
    found = set()
    for index in range(16):  # of as many paths some lie in a set in one order and some in the other
        folder = tmp_path / str(index)
        folder.mkdir()
        for name in ("0.png", "1.png"):
            (folder / name).write_text(name)
            os.utime(folder / name, (0, 0))
        found.add(fingerprint(folder).removeprefix(str(folder)))
    assert len(found) == 1
