"""Live in, live out: the newest frame wins, nothing piles up, and every end is a proper end."""

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
from av.packet import Packet

from helpers.clips import ClipSpec, frame_times, numbered_frame, write_clip
from helpers.networks import write_affine
from stylize.runtime import EncodeOptions, Stylizer, stylize_video
from stylize.runtime.clock import Continuity
from stylize.runtime.decode import Decoder
from stylize.runtime.errors import InputMediaError, OptionError, OutputMediaError
from stylize.runtime.frame import Frame, TimedPicture
from stylize.runtime.live import NewestFrame
from stylize.runtime.resume import ResumeOptions
from stylize.runtime.source import is_live

COMMAND = [sys.executable, "-c", "from stylize.runtime.cli import main; main()"]
RATE_HZ = 50


class SlowStylizer(Stylizer):
    """Takes four times as long for a frame as the source does."""

    def begin(self, frame: TimedPicture, **options: object) -> Callable[[], None]:
        time.sleep(4 / RATE_HZ)
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


def send(connection: socket.socket, num_frames: int, *, has_sound: bool) -> None:
    """Numbered frames as a transport stream, each when it is due; ends early when nobody listens any more."""
    wire = Wire(connection)
    with connection, av.open(wire, "w", format="mpegts") as container:
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
                sound = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.float32), format="fltp", layout="mono")
                sound.sample_rate, sound.pts, sound.time_base = 48_000, index * 960 + 48_000_000, Fraction(1, 48_000)
                container.mux(audio.encode(sound))
            container.mux(video.encode(frame))
            if wire.is_broken:
                return
            time.sleep(max(0.0, started + index / RATE_HZ - time.monotonic()))
        container.mux([*video.encode(None), *(audio.encode(None) if audio is not None else [])])


@contextmanager
def sender(num_frames: int, *, has_sound: bool = False) -> Iterator[str]:
    """The address of a stream that starts when somebody connects."""

    def serve() -> None:
        with suppress(OSError):
            send(server.accept()[0], num_frames, has_sound=has_sound)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        thread.join()


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_affine(tmp_path_factory.mktemp("model") / "identity.onnx")


def test_newest_frame_wins_and_latency_stays_bounded(identity: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.mkv"
    with SlowStylizer(identity) as stylizer, sender(75, has_sound=True) as address:
        report = stylize_video(stylizer, address, target)
    assert report.num_dropped_frames > 5
    assert report.num_frames + report.num_dropped_frames == 75
    # A queue would end (75 frames x 60 ms) 4.5 s late; a slot is late by the frame in work and the one in the slot.
    assert report.latency_p95_ms is not None
    assert report.latency_p50_ms is not None
    assert 80 < report.latency_p50_ms <= report.latency_p95_ms < 1500
    times = frame_times(target)
    assert len(times) == report.num_frames
    assert times == sorted(set(times))
    # However long it has been on air; the newest of those that came while it was opened is the first.
    assert 0 <= times[0] < 1
    assert times[-1] == pytest.approx(74 / RATE_HZ, abs=0.1)
    with av.open(str(target)) as container:
        assert len(container.streams.audio) == 1


def test_all_frames_of_a_stream_on_request(identity: Path, tmp_path: Path) -> None:
    with SlowStylizer(identity) as stylizer, sender(20) as address:
        report = stylize_video(stylizer, address, tmp_path / "out.mp4", live=False)
    assert (report.num_frames, report.num_dropped_frames, report.latency_p50_ms) == (20, 0, None)


def test_files_lose_nothing(identity: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", ClipSpec(pts=range(12)))
    with SlowStylizer(identity) as stylizer:
        report = stylize_video(stylizer, source, tmp_path / "out.mp4")
    assert (report.num_frames, report.num_dropped_frames) == (12, 0)


def test_ctrl_c_completes_the_file(identity: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    with (
        sender(2000) as address,
        subprocess.Popen([*COMMAND, str(identity), address, str(target)], stderr=subprocess.PIPE, text=True) as process,
    ):
        partial = tmp_path / ".out.mp4.partial.mp4"
        deadline = time.monotonic() + 30
        while not (partial.exists() and partial.stat().st_size > 0) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        stderr = process.communicate(timeout=30)[1]
    assert process.returncode == 0, stderr
    assert "live: " in stderr
    assert len(frame_times(target)) > 5
    assert not partial.exists()


def free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


RECEIVE = """
import sys, av
print("ready", flush=True)
with av.open(sys.argv[1], options=dict(pair.split("=") for pair in sys.argv[2:]), timeout=(20, 2)) as container:
    video = container.streams.video[0]
    try:
        for packet in container.demux(video):
            if packet.size:
                print(float(packet.pts * packet.time_base), int(packet.is_keyframe), packet.pts == packet.dts)
    except av.FFmpegError:
        pass  # nobody says goodbye
"""


@pytest.mark.parametrize(("scheme", "path", "options"), [("udp", "", []), ("rtmp", "/live/key", ["listen=1"])])
def test_stream_goes_out_at_its_own_speed(
    scheme: str, path: str, options: list[str], identity: Path, tmp_path: Path
) -> None:
    source = write_clip(tmp_path / "in.mp4", ClipSpec(pts=range(0, 60, 2)))  # 2.4 s at 12.5 frames per second
    port = free_port(socket.SOCK_DGRAM if scheme == "udp" else socket.SOCK_STREAM)
    address = f"{scheme}://127.0.0.1:{port}{path}"
    command = [sys.executable, "-c", RECEIVE, address, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as receiver:
        assert receiver.stdout is not None
        assert receiver.stdout.readline() == "ready\n"
        time.sleep(0.5)  # until it listens
        started = time.monotonic()
        encode = EncodeOptions(encoder_options=(("sc_threshold", "0"),))  # no key frames of x264's own
        report = stylize_video(identity, source, address, encode=encode)
        assert time.monotonic() - started > 2.2
        lines = [line.split() for line in receiver.communicate(timeout=30)[0].splitlines()]
    assert report.num_frames == len(lines) == 30
    times = [float(line[0]) for line in lines]
    assert np.diff(times) == pytest.approx(0.08, abs=0.002)
    keys = [time for time, line in zip(times, lines, strict=True) if line[1] == "1"]
    assert np.diff(keys) == pytest.approx([2.0], abs=0.09)  # whoever joins waits no longer
    assert all(line[2] == "True" for line in lines)  # no frame waits for a later one


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
    source, target = write_clip(tmp_path / "in.h264", ClipSpec(pts=range(100))), tmp_path / "out.mkv"

    def serve() -> None:
        connection, data = server.accept()[0], source.read_bytes()
        with connection:
            for step in range(6):  # bursts, in 1.2 s, of what lasts 4 s by its header
                connection.sendall(data[len(data) * step // 6 : len(data) * (step + 1) // 6])
                time.sleep(0.2)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        stylize_video(identity, f"tcp://127.0.0.1:{server.getsockname()[1]}", target)
        thread.join()
    times = frame_times(target)
    assert times == sorted(set(times))
    assert times[-1] < 3


def test_times_of_arrival_are_all_different(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.h264", ClipSpec(pts=range(50)))
    with Decoder(source, is_live=True) as decoder:
        milliseconds = [round(1000 * item.pts * item.time_base) for item in decoder if isinstance(item, TimedPicture)]
    assert len(milliseconds) == 50
    assert milliseconds == sorted(set(milliseconds))


def test_times_go_on_where_a_sender_starts_anew() -> None:
    continuity = Continuity()

    stream = av.open(BytesIO(), "w", format="mpegts").add_stream("libx264", rate=25)
    times = []
    for ticks in (50_000, 50_040, 50_080, 0, 40, 80, 7_000_000, 7_000_040):
        packet = Packet(1)
        packet.stream = stream
        packet.time_base, packet.pts, packet.dts = Fraction(1, 1000), ticks, ticks
        continuity.mend(packet)
        times.append(packet.pts)
    assert continuity.num_jumps == 2
    assert times == sorted(times)
    assert times[-1] - times[0] < 1000
