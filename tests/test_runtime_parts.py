"""One video by several processes: real ones, on the CPU here; what comes out is what one alone makes."""

import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from helpers.clips import ClipSpec, frame_times, packets_of, read_frames, write_clip
from helpers.networks import write_affine
from stylize.runtime import Backend, EncodeOptions, FinishOptions, Selection, Stylizer, open_artifact, stylize_video
from stylize.runtime.errors import BackendError, BackendUnavailableError, InputMediaError, OptionError, StylizeError
from stylize.runtime.gpu import Gpu
from stylize.runtime.parts import Worker, gpu_workers, stylize_in_parts
from stylize.runtime.report import RunReport
from stylize.runtime.resume import ResumeOptions

WORKERS = [Worker(f"process {number}", {"backend": Backend.ONNXRUNTIME, "num_threads": 1}) for number in range(2)]
LOSSLESS = EncodeOptions(codec="ffv1")
UNEVEN = tuple(index * 1000 + index * 7919 % 600 for index in range(44))
B_FRAMES = (("preset", "veryfast"), ("bf", "3"), ("g", "10"))
LONG = ClipSpec(pts=range(0, 25 * 44, 25), options=B_FRAMES)  # a frame a second: far enough to seek


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_affine(tmp_path / "invert.onnx", scale=-1.0, offset=1.0)


def in_parts(
    model: Path, source: Path, target: Path, *, on_progress: Callable[[int, int | None], None] = lambda *_: None
) -> RunReport:
    return stylize_in_parts(
        open_artifact(model),
        source,
        target,
        workers=WORKERS,
        encode=LOSSLESS,
        resume=ResumeOptions(segment_frames=8),
        on_progress=on_progress,
    )


@pytest.mark.parametrize(
    ("name", "spec", "selection", "finish"),
    [
        (
            "in.mp4",
            ClipSpec(
                pts=UNEVEN,
                time_base=Fraction(1, 25000),
                options=B_FRAMES,
                sound_start_seconds=0.2,
                sound_seconds=1.5,
            ),
            Selection(),
            FinishOptions(),
        ),
        ("in.mp4", LONG, Selection(start_seconds=Fraction(5), frame_rate=Fraction(2)), FinishOptions()),
        ("in.mkv", LONG, Selection(), FinishOptions(fade_in_seconds=20, fade_out_seconds=20)),
        ("in.ts", ClipSpec(pts=range(44), options=B_FRAMES), Selection(), FinishOptions(steady=0.9)),
    ],
    ids=["variable rate and sound", "sought and resampled", "fades", "steadied"],
)
def test_two_processes_write_what_one_writes(
    name: str, spec: ClipSpec, selection: Selection, finish: FinishOptions, model: Path, tmp_path: Path
) -> None:
    source = write_clip(tmp_path / name, spec)
    options = {"selection": selection, "encode": LOSSLESS, "finish": finish}
    with Stylizer(model, backend=Backend.ONNXRUNTIME) as stylizer:
        alone = stylize_video(stylizer, source, tmp_path / "alone.mkv", **options)  # type: ignore[arg-type]
    seen: list[int] = []
    report = stylize_in_parts(
        open_artifact(model),
        source,
        tmp_path / "parts.mkv",
        workers=WORKERS,
        resume=ResumeOptions(segment_frames=8),
        on_progress=lambda done, _total: seen.append(done),
        **options,  # type: ignore[arg-type]
    )
    assert report.num_frames == alone.num_frames
    assert report.backend.startswith("process 0: ONNX Runtime")
    assert ", process 1: ONNX Runtime" in report.backend
    assert seen == sorted(seen)
    assert seen[-1] == report.num_frames
    alone_frames, parts_frames = (read_frames(tmp_path / f"{kind}.mkv") for kind in ("alone", "parts"))
    difference = np.abs(np.stack(alone_frames).astype(int) - np.stack(parts_frames))
    assert difference.max() <= (1 if finish.steady else 0)  # what steadying remembers fades, it does not end
    assert frame_times(tmp_path / "alone.mkv") == frame_times(tmp_path / "parts.mkv")
    if spec.sound_start_seconds is not None:
        sounds = [packets_of(tmp_path / f"{kind}.mkv", "audio") for kind in ("alone", "parts")]
        assert sounds[0] == sounds[1]
        assert sounds[0]
    assert not list(tmp_path.glob(".*"))


class Stopped(Exception):  # noqa: N818 - not an error
    """What ends a render in mid-video."""


def test_what_is_finished_is_kept_when_it_is_stopped(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, target = write_clip(tmp_path / "in.mp4", ClipSpec(pts=range(200))), tmp_path / "out.mkv"

    def stop(done: int, _total: int | None) -> None:
        if done >= 120:
            raise Stopped

    with pytest.raises(Stopped):
        in_parts(model, source, target, on_progress=stop)
    assert not multiprocessing.active_children()
    assert "frames are kept in" in caplog.text
    assert not target.exists()
    report = in_parts(model, source, target)
    assert report.num_frames == 200
    assert 90 <= report.num_resumed_frames <= 200  # 120 less what each of the two had begun
    with Stylizer(model, backend=Backend.ONNXRUNTIME) as stylizer:
        stylize_video(stylizer, source, tmp_path / "alone.mkv", encode=LOSSLESS)
    assert np.array_equal(np.stack(read_frames(target)), np.stack(read_frames(tmp_path / "alone.mkv")))


def test_parts_that_are_complete_are_only_joined(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, seen = write_clip(tmp_path / "in.mp4", ClipSpec(pts=range(40))), list[int]()

    def stop(*_arguments: object, **_options: object) -> None:
        raise Stopped

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr("stylize.runtime.parts.join", stop)
        in_parts(model, source, tmp_path / "out.mkv")
    report = in_parts(model, source, tmp_path / "out.mkv", on_progress=lambda done, _total: seen.append(done))
    assert report.num_frames == report.num_resumed_frames == seen[-1] == 40
    assert len(read_frames(tmp_path / "out.mkv")) == 40


def test_a_process_that_dies_is_one_line(model: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", ClipSpec(pts=range(300)))

    def kill(_done: int, _total: int | None) -> None:
        min(multiprocessing.active_children(), key=lambda process: process.name).kill()

    with pytest.raises(BackendError, match=r"^process \d: its process ended with code -9$"):
        in_parts(model, source, tmp_path / "out.mkv", on_progress=kill)
    assert not multiprocessing.active_children()


def test_what_one_process_cannot_do_ends_all_in_one_line(model: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", ClipSpec(pts=range(40)))
    workers = [WORKERS[0], Worker("GPU 7", {"backend": Backend.ONNXRUNTIME, "style_scale": 9.0})]
    with pytest.raises(StylizeError, match=r"^GPU 7: style scale 9\.0 is outside 0\.\.4, 0 excluded$"):
        stylize_in_parts(open_artifact(model), source, tmp_path / "out.mkv", workers=workers)
    assert not multiprocessing.active_children()


def test_damage_before_the_last_part_is_said(model: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", ClipSpec(pts=range(44), options=(("g", "5"), ("bf", "0"))))
    packets = packets_of(source, "video")
    data = bytearray(source.read_bytes())
    start = data.find(packets[7][-1][-40:])
    data[start - 60 : start + 30] = bytes(90)
    source.write_bytes(data)
    with pytest.raises(InputMediaError, match="is damaged or lacks times, so parts of it do not fit together"):
        in_parts(model, source, tmp_path / "out.mkv")


def test_more_processes_than_frames(model: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", ClipSpec(pts=range(2)))
    assert in_parts(model, source, tmp_path / "out.mkv").num_frames == 2


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("in.mp4", "out.png", "--resume: .*out.png is no video file"),
        ("in.mp4", "in.mp4", "is the input itself"),
        ("-", "out.mp4", "- cannot be read a second time; give a file"),
    ],
)
def test_what_cannot_be_divided_is_one_line(
    source: str, target: str, message: str, model: Path, tmp_path: Path
) -> None:
    write_clip(tmp_path / "in.mp4", ClipSpec())
    path = source if source == "-" else tmp_path / source
    with pytest.raises(OptionError, match=message):
        stylize_in_parts(open_artifact(model), path, tmp_path / target, workers=WORKERS)


def test_each_gpu_is_looked_for_before_anything_begins(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = open_artifact(model)
    monkeypatch.setattr("stylize.runtime.gpu._LIBRARY", "libno-such-driver.so")
    with pytest.raises(BackendUnavailableError, match="this machine has no NVIDIA driver"):
        gpu_workers(artifact, (0, 1), {})
    gpu = Gpu(index=0, name="NVIDIA L4", compute_capability="8.9")
    monkeypatch.setattr("stylize.runtime.parts.find_gpu", lambda _index: gpu)
    with pytest.raises(
        OptionError, match=r"^--gpus: openvino runs on the CPU; choose one of onnxruntime-cuda, tensorrt"
    ):
        gpu_workers(artifact, (0, 1), {"backend": Backend.OPENVINO})
    workers = gpu_workers(artifact, (0, 3), {"backend": Backend.TENSORRT, "seed": 4})
    assert [worker.name for worker in workers] == ["GPU 0", "GPU 3"]
    assert [dict(worker.options) for worker in workers] == [
        {"backend": Backend.TENSORRT, "seed": 4, "gpu": number} for number in (0, 3)
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("in.mp4", "out.mp4", "--gpus", "0,1", "--backend", "onnxruntime"), "no NVIDIA driver"),
        (("in.mp4", "out.mp4", "--gpus", "0,1", "--gpu", "2"), "--gpus divides a file among several: drop --gpu"),
        (("in.mp4", "out.mp4", "--gpus", "0,0"), "is not of the form 0,1: different numbers"),
        (("demo", "out.mp4", "--gpus", "0,1"), "--gpus: `demo` is drawn anew each time; give a file"),
    ],
)
def test_command_without_gpus_is_one_line(
    arguments: tuple[str, ...], message: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has a GPU")
    write_clip(tmp_path / "in.mp4", ClipSpec())
    command = [sys.executable, "-c", "from stylize.runtime.cli import main; main()", str(model), *arguments]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode in (1, 2)
    assert message in result.stderr
    assert not (tmp_path / "out.mp4").exists()
