"""Live sources: the newest frame wins, nothing piles up, and every end is a proper end."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from fractions import Fraction
from functools import partial
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
from av.packet import Packet

from helpers.clips import ClipSpec, frame_times, numbered_frame, write_clip
from helpers.sockets import free_port
from stylize.runtime import Stylizer, stylize_video
from stylize.runtime.decode import Decoder
from stylize.runtime.errors import InputMediaError, OptionError, OutputMediaError
from stylize.runtime.frame import Frame, TimedPicture
from stylize.runtime.live import NewestFrame
from stylize.runtime.resume import ResumeOptions
from stylize.runtime.selection import Selection
from stylize.runtime.source import is_live

PATIENT = "import stylize.runtime.source as s; s._LIVE_TIMEOUT_SECONDS = (60, 60)"
COMMAND = [sys.executable, "-c", f"{PATIENT}; from stylize.runtime.cli import main; main()"]
RATE_HZ = 100
PATIENCE_SECONDS = 120
MATROSKA_CLUSTER = b"\x1f\x43\xb6\x75"
SILENCE_SECONDS = 60.0
"""After which a live source has ended, in tests of those that are silent: longer than a busy machine is slow."""


class SlowStylizer(Stylizer):
    """Takes eight times as long for a frame as the source does, unless told otherwise."""

    seconds_per_frame = 8 / RATE_HZ

    def begin(self, frame: TimedPicture, **options: object) -> Callable[[], None]:
        time.sleep(self.seconds_per_frame)
        return super().begin(frame, **options)  # type: ignore[arg-type] # passed on as they are


class Wire:
    """A connection as a file."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.is_broken = False

    def write(self, data: bytes) -> int:
        try:
            self._connection.sendall(data)
        except OSError:
            self.is_broken = True
        return len(data)


def send(connection: socket.socket, num_frames: int, *, has_sound: bool = False) -> None:
    """Numbered frames as a transport stream, each when it is due; ends early when nobody listens any more."""
    wire = Wire(connection)
    with av.open(wire, "w", format="mpegts") as container:
        container.options["flush_packets"] = "1"
        options = {"preset": "ultrafast", "tune": "zerolatency", "g": "10"}
        video = container.add_stream("libx264", rate=RATE_HZ, options=options)
        audio = container.add_stream("aac", rate=48_000, layout="mono") if has_sound else None
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        started = time.monotonic()
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(numbered_frame(index, 64, 48), "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index + 1000 * RATE_HZ, Fraction(1, RATE_HZ)  # it has been on air for long
            if audio is not None:
                num_samples = 48_000 // RATE_HZ
                sound = av.AudioFrame.from_ndarray(np.zeros((1, num_samples), np.float32), format="fltp", layout="mono")
                sound.sample_rate, sound.time_base = 48_000, Fraction(1, 48_000)
                sound.pts = (index + 1000 * RATE_HZ) * num_samples
                container.mux(audio.encode(sound))
            container.mux(video.encode(frame))
            if wire.is_broken:
                return
            time.sleep(max(0.0, started + index / RATE_HZ - time.monotonic()))
        container.mux([*video.encode(None), *(audio.encode(None) if audio is not None else [])])


@contextmanager
def sender(serve: Callable[[socket.socket], None], *, falls_silent: bool = False) -> Iterator[str]:
    """The address of a stream that `serve` writes to who connects.

    One that falls silent keeps the connection to the end of the block.
    """
    is_over = threading.Event()

    def accept() -> None:
        connection = server.accept()[0]
        with connection, suppress(OSError):
            serve(connection)
            if falls_silent:
                is_over.wait(PATIENCE_SECONDS)

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE_SECONDS)
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        finally:
            is_over.set()
            thread.join()


def test_newest_frame_wins_and_latency_stays_bounded(identity: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.mkv"
    with SlowStylizer(identity) as stylizer, sender(partial(send, num_frames=75, has_sound=True)) as address:
        report = stylize_video(stylizer, address, target)
    assert report.num_dropped_frames > 5
    assert report.num_frames + report.num_dropped_frames == 75
    # The last in a queue waits for 74 others; in a slot for the one in work and the one in the slot.
    assert report.latency_p95_ms is not None
    assert report.latency_p50_ms is not None
    ms_per_frame = 1000 * report.wall_seconds / report.num_frames
    assert 80 < report.latency_p50_ms <= report.latency_p95_ms < 10 * ms_per_frame
    times = frame_times(target)
    assert len(times) == report.num_frames
    assert times == sorted(set(times))
    # However long it has been on air; the newest of those that came while it was opened is the first.
    assert 0 <= times[0] < 0.7
    assert times[-1] == pytest.approx(74 / RATE_HZ, abs=0.05)
    with av.open(str(target)) as container:
        assert len(container.streams.audio) == 1


def test_frames_dropped_at_another_rate_are_counted_as_they_would_be_shown(identity: Path, tmp_path: Path) -> None:
    double = Selection(frame_rate=Fraction(2 * RATE_HZ))
    with SlowStylizer(identity) as stylizer, sender(partial(send, num_frames=40)) as address:
        report = stylize_video(stylizer, address, tmp_path / "out.mkv", selection=double)
    assert report.num_dropped_frames > 20
    assert report.num_frames + report.num_dropped_frames == pytest.approx(80, abs=4)  # both ends are rounded


def test_all_frames_of_a_stream_on_request(identity: Path, tmp_path: Path) -> None:
    with SlowStylizer(identity) as stylizer, sender(partial(send, num_frames=10)) as address:
        report = stylize_video(stylizer, address, tmp_path / "out.mp4", live=False)
    assert (report.num_frames, report.num_dropped_frames, report.latency_p50_ms) == (10, 0, None)


def test_files_lose_nothing(identity: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", ClipSpec(pts=range(12)))
    with SlowStylizer(identity) as stylizer:
        stylizer.seconds_per_frame = 0.02
        report = stylize_video(stylizer, source, tmp_path / "out.mp4")
    assert (report.num_frames, report.num_dropped_frames) == (12, 0)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source may be silent for `SILENCE_SECONDS`."""
    monkeypatch.setattr("stylize.runtime.source._LIVE_TIMEOUT_SECONDS", (SILENCE_SECONDS, SILENCE_SECONDS))


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("live", [True, False])
def test_ctrl_c_waits_for_no_stream_that_fell_silent(live: bool, identity: Path, tmp_path: Path) -> None:
    stopped: list[float] = []

    def stop(num_done: int, _total: int | None) -> None:
        if num_done == 1:
            stopped.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

    target = tmp_path / "out.mkv"
    with SlowStylizer(identity) as stylizer, sender(partial(send, num_frames=40), falls_silent=True) as address:
        with nullcontext() if live else pytest.raises(KeyboardInterrupt):
            stylize_video(stylizer, address, target, live=live, on_progress=stop)
        assert time.monotonic() - stopped[0] < SILENCE_SECONDS / 2
        waiting = [thread for thread in threading.enumerate() if thread.name == "decode"]
    for thread in waiting:  # for the silent one; now the connection is closed
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()
    assert len(frame_times(target if live else tmp_path / ".out.mkv.partial.mkv")) >= 1


@pytest.mark.usefixtures("patient")
def test_ctrl_c_waits_for_no_stream_that_never_began(identity: Path, tmp_path: Path) -> None:
    def serve(connection: socket.socket) -> None:
        stopped.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    stopped: list[float] = []
    with sender(serve, falls_silent=True) as address:
        with pytest.raises(KeyboardInterrupt):
            stylize_video(identity, address, tmp_path / "out.mkv")
        assert time.monotonic() - stopped[0] < SILENCE_SECONDS / 2
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_before_the_first_frame_writes_no_file(identity: Path, tmp_path: Path) -> None:
    class Stopped(Stylizer):
        @property
        def num_in_flight(self) -> int:  # asked for when everything is open and nothing has begun
            raise KeyboardInterrupt

    with Stopped(identity) as stylizer, pytest.raises(KeyboardInterrupt):
        stylize_video(stylizer, write_clip(tmp_path / "in.mp4"), tmp_path / "out.mkv", live=True)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_command_ends_by_ctrl_c_though_its_source_is_silent(identity: Path) -> None:
    with sender(partial(send, num_frames=40), falls_silent=True) as address:
        command = [*COMMAND, str(identity), address, "-"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            begun = b""
            while MATROSKA_CLUSTER not in begun and (data := process.stdout.read1()):
                begun += data  # up to the first frame
            process.send_signal(signal.SIGINT)
            started = time.monotonic()
            stdout, stderr = process.communicate(timeout=PATIENCE_SECONDS)
            assert time.monotonic() - started < SILENCE_SECONDS / 2
    assert process.returncode == 0, stderr
    assert b"live: " in stderr
    with av.open(BytesIO(begun + stdout)) as container:
        assert len([*container.decode(video=0)]) > 0


def test_rejects_what_cannot_be_reached(identity: Path, tmp_path: Path) -> None:
    with pytest.raises(InputMediaError, match=r"srt://127.0.0.1:9: the FFmpeg inside PyAV has no srt://"):
        stylize_video(identity, "srt://127.0.0.1:9", tmp_path / "out.mp4")
    source = write_clip(tmp_path / "in.mp4")
    with pytest.raises(OutputMediaError, match=r"srt:// cannot be written: the FFmpeg inside PyAV sends to rtmp://"):
        stylize_video(identity, source, "srt://127.0.0.1:9")
    with pytest.raises(OutputMediaError, match=r"rtmp://127.0.0.1:9/live/key: Connection refused"):
        stylize_video(identity, source, "rtmp://127.0.0.1:9/live/key")
    with pytest.raises(OptionError, match=r"--resume: tcp://127.0.0.1:9 is live"):
        stylize_video(identity, "tcp://127.0.0.1:9", tmp_path / "out.mp4", resume=ResumeOptions())


@pytest.mark.skipif(sys.platform != "linux", reason="cameras have other names there")
def test_missing_camera_is_one_line(identity: Path, tmp_path: Path) -> None:
    with pytest.raises(InputMediaError, match=r"camera:99: no such camera \(/dev/video99\); there is "):
        stylize_video(identity, "camera:99", tmp_path / "out.mp4")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("camera:0", True),
        ("rtsp://host/x", True),
        ("udp://239.0.0.1:5000", True),
        ("rtmp://host/app", True),
        ("https://host/film.mp4", False),
        ("film.mp4", False),
        ("camera:front.mp4", False),
        ("-", False),
        (Path("camera:0"), False),
    ],
)
def test_live_is_known_by_the_address(source: str | Path, expected: bool) -> None:
    assert is_live(source) == expected


def frame_at(pts: int) -> Frame:
    frame = Frame.blank(4, 4)
    frame.set_time(pts, duration=1, time_base=Fraction(1, 25))
    return frame


def test_slot_never_makes_the_source_wait() -> None:
    dropped: list[int] = []
    slot = NewestFrame(lambda frame: dropped.append(frame.pts))
    for pts in range(5):
        assert slot.put(frame_at(pts))
        assert slot.put(Packet(300_000))
    slot.close()
    items = list(slot)
    assert dropped == [0, 1, 2, 3]
    assert [item.pts for item in items if isinstance(item, TimedPicture)] == [4]
    assert slot.num_dropped_packets == 1  # more than 1 MiB waited
    assert not slot._is_aborted
    slot.abort()
    assert not slot.put(frame_at(9))


def test_stream_without_times_gets_those_of_arrival(identity: Path, tmp_path: Path) -> None:
    source, target = write_clip(tmp_path / "in.h264", ClipSpec(pts=range(200))), tmp_path / "out.mkv"

    def serve(connection: socket.socket) -> None:  # 8 s by its header
        data, num_bursts = source.read_bytes(), 6
        for step in range(num_bursts):
            connection.sendall(data[len(data) * step // num_bursts : len(data) * (step + 1) // num_bursts])
            time.sleep(0.02)

    started = time.monotonic()
    with sender(serve) as address:
        stylize_video(identity, address, target)
    wall_seconds = time.monotonic() - started
    times = frame_times(target)
    assert times == sorted(set(times))
    assert times[-1] < wall_seconds + 200 / 1000  # those that come at once are a millisecond apart


SEND_RTSP = """
import sys, time, av
from fractions import Fraction
deadline = time.monotonic() + 60
while True:
    container = av.open(sys.argv[1], "w", format="rtsp")
    container.options["rtsp_transport"] = "tcp"
    video = container.add_stream("libx264", rate=50, options={"preset": "ultrafast", "tune": "zerolatency"})
    video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
    try:
        container.start_encoding()
        break
    except ConnectionRefusedError:  # until it listens
        assert time.monotonic() < deadline
        time.sleep(0.05)
for index in range(50):
    frame = av.VideoFrame(64, 48, "yuv420p")
    frame.pts, frame.time_base = index, Fraction(1, 50)
    container.mux(video.encode(frame))
    time.sleep(0.01)
container.mux(video.encode(None))
container.close()
"""


def test_rtsp_keeps_the_times_of_its_sender(identity: Path, tmp_path: Path) -> None:
    target, address = tmp_path / "out.mkv", f"rtsp://127.0.0.1:{free_port()}/live"
    selection = Selection(input_options=(("rtsp_flags", "listen"),))
    with subprocess.Popen([sys.executable, "-c", SEND_RTSP, address]) as process:
        report = stylize_video(identity, address, target, selection=selection, live=True)
    assert process.returncode == 0
    # The first pictures come before the sender's report, without a time.
    assert 45 <= report.num_frames + report.num_dropped_frames <= 50
    assert not [note for note in report.notes if "repaired" in note]
    times = frame_times(target)
    assert 0 <= times[0] <= times[-1] <= 1
    assert min(np.diff(times), default=1) > 0.015


def test_times_of_arrival_are_all_different(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.h264", ClipSpec(pts=range(50)))
    with Decoder(source, is_live=True) as decoder:
        milliseconds = [round(1000 * item.pts * item.time_base) for item in decoder if isinstance(item, TimedPicture)]
    assert len(milliseconds) == 50
    assert milliseconds == sorted(set(milliseconds))
