"""Stopping at any moment: nothing under the asked name, what is done plays, nothing hangs."""

import fcntl
import os
import signal
import stat
import subprocess
import sys
import termios
import threading
import time
from array import array
from io import BytesIO
from pathlib import Path

import av
import pytest

from helpers.clips import SAMPLE_RATE_HZ, ClipSpec, read_frames, write_clip
from helpers.networks import write_affine
from stylize.runtime import stylize_video
from stylize.runtime.errors import OutputMediaError
from stylize.runtime.stream_output import RECEIVER_SECONDS

NUM_FRAMES = 100
PIPE_BYTES = 1 << 16  # what Linux gives one
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


def test_ctrl_c_waits_for_no_reader_who_has_stopped_reading(folder: Path) -> None:
    command = [
        *COMMAND,
        str(folder / "identity.onnx"),
        str(folder / "in.ts"),
        "-",
        "--codec",
        "ffv1",
        "--scale=640x480",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        num_waiting = [0, 0]
        while num_waiting[-1] < PIPE_BYTES // 2 or num_waiting[-2] != num_waiting[-1]:  # until it is full
            assert process.poll() is None
            time.sleep(0.5)
            num_waiting.append(bytes_waiting(process.stdout.fileno()))
        process.send_signal(signal.SIGINT)
        process.wait(RECEIVER_SECONDS + 40)  # on a busy machine
        assert process.stderr is not None
        assert process.stderr.read().decode().splitlines()[-1] == "stylize-run: interrupted"
    assert process.returncode == 130


def bytes_waiting(descriptor: int) -> int:
    size = array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, size)
    return size[0]


@pytest.mark.parametrize("name", ["pipe", "pipe.mp4", "pipe.ts"])
def test_named_pipes_are_read_and_written(name: str, folder: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "in.ts", ClipSpec(sound_start_seconds=0.0))
    source, target = tmp_path / "source", tmp_path / name
    os.mkfifo(source)
    os.mkfifo(target)
    received: list[bytes] = []
    threading.Thread(target=lambda: source.write_bytes(clip.read_bytes()), daemon=True).start()
    reader = threading.Thread(target=lambda: received.append(target.read_bytes()), daemon=True)
    reader.start()
    report = stylize_video(folder / "identity.onnx", source, target)
    reader.join(60)
    assert report.num_frames == 10
    assert stat.S_ISFIFO(target.stat().st_mode)
    with av.open(BytesIO(received[0])) as container:
        assert len([*container.decode(video=0)]) == 10
        assert container.streams.audio[0].rate == SAMPLE_RATE_HZ  # told by the packets of the source alone
        assert {".mp4": "mov", ".ts": "mpegts"}.get(target.suffix, "matroska") in container.format.name
    assert sorted(tmp_path.iterdir()) == sorted({clip, source, target})


def test_devices_are_written_not_replaced(folder: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4")
    stylize_video(folder / "identity.onnx", source, "/dev/null")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    with pytest.raises(OutputMediaError, match="/dev/full: No space left on device"):
        stylize_video(folder / "identity.onnx", source, "/dev/full")
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)
