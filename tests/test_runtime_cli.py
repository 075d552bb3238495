"""`stylize-run` as a user calls it: output, errors, exit codes."""

import dataclasses
import inspect
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import av
import pytest
from rich.console import Console

from helpers.clips import ClipSpec, read_frames, write_clip
from helpers.commands import RunHere
from helpers.networks import write_affine
from stylize.runtime.cli_console import tell
from stylize.runtime.cli_options import OPTIONS
from stylize.runtime.encode import EncodeOptions
from stylize.runtime.finish import FinishOptions
from stylize.runtime.render import stylize_video
from stylize.runtime.resume import ResumeOptions
from stylize.runtime.selection import Selection
from stylize.runtime.stylizer import Stylizer

COMMAND = [sys.executable, "-c", "from stylize.runtime.cli import main; main()"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    write_affine(folder / "identity.onnx")
    write_affine(folder / "foreign.onnx", has_contract=False)
    write_clip(folder / "in.mp4", ClipSpec(sound_start_seconds=0.0))
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def test_video_with_report_on_stdout(folder: Path) -> None:
    result = run(folder, "identity.onnx", "in.mp4", "out.mp4", "--crf", "12", "--preset", "ultrafast", "--json", "-")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["num_frames"], report["width"], report["height"]) == (10, 64, 48)
    assert report["decoder"] == "h264, yuv420p"
    assert report["encoder"] == "libx264, yuv420p"
    assert report["backend"].startswith(("OpenVINO 20", "ONNX Runtime "))
    assert report["problems"] == []
    assert len(read_frames(folder / "out.mp4")) == 10
    assert "out.mp4: 10 frames, 64x48" in result.stderr


def test_quiet_run_says_nothing(folder: Path) -> None:
    result = run(folder, "identity.onnx", "in.mp4", "quiet.mp4", "-q", "--json", "report.json")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert json.loads((folder / "report.json").read_text())["num_frames"] == 10


def test_default_encoding_is_veryfast_at_17(folder: Path) -> None:
    assert run(folder, "identity.onnx", "in.mp4", "plain.mp4", "-q").returncode == 0
    assert run(folder, "identity.onnx", "in.mp4", "slow.mp4", "-q", "--preset", "slow").returncode == 0
    # x264 writes its settings into the file; subme tells its presets apart.
    plain, slow = ((folder / name).read_bytes() for name in ("plain.mp4", "slow.mp4"))
    assert all(text in plain for text in (b"crf=17.0", b"subme=2 "))
    assert all(text in slow for text in (b"crf=17.0", b"subme=8 "))


ERRORS = [
    (("nope", "in.mp4", "o.mp4"), "nope: no such file or style"),
    (("missing.onnx", "in.mp4", "o.mp4"), "missing.onnx: no such file"),
    (("in.mp4", "in.mp4", "o.mp4"), "in.mp4: is not a usable ONNX model"),
    (("identity.onnx", "missing.mp4", "o.mp4"), "missing.mp4: no such file"),
    (("identity.onnx", "identity.onnx", "o.mp4"), "identity.onnx: is not a video or picture"),
    (("identity.onnx", "in.mp4", "missing/o.mp4"), "missing/o.mp4: no such folder"),
    (("identity.onnx", "in.mp4", "in.mp4"), "in.mp4 is the input itself"),
    (("identity.onnx", "in.mp4", "o.png"), "in.mp4 is a video, o.png can hold one frame"),
    (("foreign.onnx", "in.mp4", "o.mp4"), "--input-range 0..255"),
    (("identity.onnx", "in.mp4", "o.mp4", "-q", "-v"), "--quiet and --verbose"),
]


@pytest.mark.parametrize(("arguments", "message"), ERRORS)
def test_errors_are_one_line_and_exit_code_1(
    arguments: tuple[str, ...], message: str, folder: Path, run_here: RunHere
) -> None:
    result = run_here(folder, *arguments)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("stylize-run: error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not list(folder.glob(".*.partial*"))


USAGE = [
    (),
    ("identity.onnx",),
    ("identity.onnx", "in.mp4", "o.mp4", "--strength", "2"),
    ("identity.onnx", "in.mp4", "o.mp4", "--input-range", "255"),
    ("a", "b", "c", "--nope"),
]


@pytest.mark.parametrize("arguments", USAGE)
def test_usage_errors_have_exit_code_2(arguments: tuple[str, ...], folder: Path, run_here: RunHere) -> None:
    result = run_here(folder, *arguments)
    assert result.returncode == 2
    assert "Usage: stylize-run" in result.stderr


def test_damaged_source_has_exit_code_3(folder: Path) -> None:
    whole = write_clip(folder / "whole.mkv", ClipSpec(pts=range(60)))
    (folder / "cut.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    result = run(folder, "identity.onnx", "cut.mkv", "rest.mp4")
    assert result.returncode == 3
    assert "stylize-run: warning: cut.mkv: ends after" in result.stderr
    assert 5 < len(read_frames(folder / "rest.mp4")) < 60


def test_foreign_model_with_its_range(folder: Path) -> None:
    result = run(folder, "foreign.onnx", "in.mp4", "foreign.mp4", "--input-range", "0..255")
    assert result.returncode == 0, result.stderr


def test_resumed_frames_are_told_from_new_ones(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = stylize_video(folder / "identity.onnx", folder / "in.mp4", folder / "tell.mp4")
    later = dataclasses.replace(report, num_resumed_frames=4)
    tell(later, report_path=None, console=Console(stderr=True), quiet=False)
    assert "tell.mp4: 10 frames (4 of them from before), 64x48" in capsys.readouterr().err


def test_rate_of_pictures_says_nothing_to_a_video(folder: Path) -> None:
    result = run(folder, "identity.onnx", "in.mp4", "rate.mp4", "--input-fps", "50", "--json", "-")
    assert any("--input-fps is for pictures" in note for note in json.loads(result.stdout)["notes"])


def test_folder_as_output_is_told_how_pictures_are_named(folder: Path, run_here: RunHere) -> None:
    (folder / "painted").mkdir(exist_ok=True)
    result = run_here(folder, "identity.onnx", "in.mp4", "painted")
    assert (result.returncode, len(result.stderr.splitlines())) == (1, 1)
    assert "for pictures painted/%04d.png" in result.stderr


def test_encoder_without_its_hardware_is_told_what_it_needs(folder: Path) -> None:
    if "h264_nvenc" not in av.codecs_available or shutil.which("nvidia-smi"):
        pytest.skip("an NVENC that may start")
    result = run(folder, "identity.onnx", "in.mp4", "nvenc.mp4", "--codec", "h264_nvenc")
    assert result.returncode == 1
    assert "h264_nvenc, yuv420p does not start, are its hardware and driver there?" in result.stderr


def test_without_arguments_it_shows_help_and_examples(folder: Path, run_here: RunHere) -> None:
    result = run_here(folder)
    assert result.returncode == 2
    assert "stylize-run starry-night demo out.mp4" in result.stderr


def test_verbose_says_what_is_read_in_words(folder: Path) -> None:
    result = run(folder, "identity.onnx", "in.mp4", "verbose.mp4", "--end", "0.2", "-v")
    assert "in.mp4: 64x48, 25 frames per second, 0.20 s, h264, yuv420p, BT." in result.stderr
    assert ", fp32, any size by " in result.stderr
    assert "Fraction(" not in result.stderr


def test_encoder_and_notes_keep_to_one_line_each(folder: Path) -> None:
    result = run(folder, "identity.onnx", "in.mp4", "out.webm", "--end", "0.2")
    lines = result.stderr.splitlines()
    assert lines[-1].startswith("out.webm: 5 frames, 64x48")
    assert len(lines) == 3  # untagged colour, sound transcoded
    assert all(line.startswith("note: ") for line in lines[:-1])


def test_openvino_reports_nothing_home(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    environment = {name: value for name, value in os.environ.items() if name != "CI"} | {"HOME": str(tmp_path)}
    arguments = [*COMMAND, "identity.onnx", "in.mp4", "home.mp4", "--backend", "openvino", "--end", "0.1"]
    result = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, timeout=300, check=False)
    assert result.returncode == 0
    assert not (tmp_path / "intel").exists()  # where its telemetry keeps who is asking


def test_list_styles_needs_no_arguments(folder: Path) -> None:
    result = run(folder, "--list-styles")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("STYLE")


def test_demo_needs_no_input_file(folder: Path) -> None:
    result = run(folder, "identity.onnx", "demo", "demo.mp4", "--preset", "ultrafast", "--end", "0.2", "--json", "-")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["num_frames"], report["width"], report["height"]) == (5, 640, 360)


def test_every_option_reaches_exactly_one_place() -> None:
    takers = (Selection, EncodeOptions, FinishOptions, ResumeOptions, Stylizer)
    taken = Counter(name for taker in takers for name in inspect.signature(taker).parameters)
    own = {
        "quality",
        "input_range",
        "gpus",
        "resume",
        "live",
        "noise_size",
        "report_path",
        "quiet",
        "verbose",
        "list_styles",
        "self_test",
    }
    for option in (option for options in OPTIONS.values() for option in options):
        names = ("width", "height") if option.name == "size" else (option.name,)
        assert all(taken[name] == (name not in own) for name in names), option.name
