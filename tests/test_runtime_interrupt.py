"""Stopping at any moment: nothing under the asked name, what is done plays, nothing hangs."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.clips import ClipSpec, read_frames, write_clip
from helpers.networks import write_affine

NUM_FRAMES = 100
HEADER_BYTES = 1000  # more than it has
COMMAND = [sys.executable, "-c", "from stylize.runtime.cli import main; main()"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interrupt")
    write_affine(folder / "identity.onnx")
    write_clip(folder / "in.ts", ClipSpec(width=160, height=120, pts=range(NUM_FRAMES)))
    return folder


def stopped_run(folder: Path, target: Path, stop: signal.Signals) -> subprocess.CompletedProcess[str]:
    """Start a run whose input goes on and on, and send `stop` as soon as there are pictures in its file."""
    options = ["--preset", "ultrafast", "--crf", "1"]
    command = [*COMMAND, str(folder / "identity.onnx"), "-", str(target), *options]
    partial = target.with_name(f".{target.name}.partial{target.suffix}")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write((folder / "in.ts").read_bytes())
        process.stdin.flush()  # but not closed
        while not (partial.exists() and partial.stat().st_size > HEADER_BYTES):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        process.send_signal(stop)
        process.wait(120)
        stdout, stderr = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, stdout.decode(), stderr.decode())


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
    assert 0 < len(frames) <= NUM_FRAMES


def test_killed_run_leaves_nothing_under_the_asked_name(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    target.write_bytes(b"older film")
    result = stopped_run(folder, target, signal.SIGKILL)
    assert result.returncode == -signal.SIGKILL
    assert target.read_bytes() == b"older film"
