"""Stopping at any moment: nothing under the asked name, what is done plays, nothing hangs."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.clips import ClipSpec, read_frames, write_clip
from helpers.networks import write_affine

COMMAND = [sys.executable, "-c", "from stylize.runtime.cli import main; main()"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interrupt")
    write_affine(folder / "identity.onnx")
    write_clip(folder / "in.mp4", ClipSpec(width=320, height=240, pts=range(600)))
    return folder


def stopped_run(folder: Path, target: Path, stop: signal.Signals) -> subprocess.CompletedProcess[str]:
    """Start a run that takes many seconds and send `stop` soon after its file is opened."""
    arguments = [str(folder / "identity.onnx"), str(folder / "in.mp4"), str(target), "--preset", "veryslow"]
    partial = target.with_name(f".{target.name}.partial{target.suffix}")
    with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 30
        while not (partial.exists() and partial.stat().st_size > 0) and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.05)
        time.sleep(0.5)  # the header is written, now some frames
        process.send_signal(stop)
        stdout, stderr = process.communicate(timeout=30)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_run_leaves_a_playable_partial_file(
    stop: signal.Signals, code: int, folder: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out.mp4"
    result = stopped_run(folder, target, stop)
    assert result.returncode == code, result.stderr
    assert not target.exists()
    assert "Traceback" not in result.stderr
    assert f"what is done is kept in {tmp_path / '.out.mp4.partial.mp4'}" in result.stderr
    frames = read_frames(tmp_path / ".out.mp4.partial.mp4")
    assert 0 < len(frames) < 600


def test_killed_run_leaves_nothing_under_the_asked_name(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    target.write_bytes(b"older film")
    result = stopped_run(folder, target, signal.SIGKILL)
    assert result.returncode == -signal.SIGKILL
    assert target.read_bytes() == b"older film"
