"""Streams that go out: at their own speed, with a key frame every two seconds, in forms that receivers know."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest

from helpers.clips import ClipSpec, write_clip
from helpers.sockets import free_port
from stylize.runtime import EncodeOptions, Stylizer, stylize_video
from stylize.runtime.decode import Decoder
from stylize.runtime.encode import Encoder
from stylize.runtime.errors import OutputMediaError
from stylize.runtime.partial_file import PartialFile
from stylize.runtime.video_encoder import VideoEncoder

PATIENCE_SECONDS = 120


def packets_received(source: str | BytesIO, **options: str) -> list[tuple[Fraction, bool]]:
    """(time in seconds, whether it waits for no other) of every packet of the video."""
    packets: list[av.Packet] = []
    with av.open(source, options=options) as container:
        with suppress(av.FFmpegError):  # nobody says goodbye
            packets.extend(packet for packet in container.demux(video=0) if packet.size)
        return [(packet.pts * packet.time_base, packet.pts == packet.dts) for packet in packets]


def check_stream(packets: list[tuple[Fraction, bool]]) -> None:
    """Those of the clip of `test_stream_goes_out_at_its_own_speed_*`."""
    assert np.diff([float(seconds) for seconds, _ in packets]) == pytest.approx([0.08] * 9, abs=0.002)
    assert all(is_alone for _, is_alone in packets)


def test_stream_goes_out_at_its_own_speed_over_udp(identity: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", ClipSpec(pts=range(0, 20, 2)))  # 0.8 s at 12.5 frames per second
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        address = f"udp://127.0.0.1:{receiver.getsockname()[1]}"
        started = time.monotonic()
        report = stylize_video(identity, source, address)
        assert time.monotonic() - started > 0.7
        received = []
        with suppress(BlockingIOError):
            while True:
                received.append(receiver.recv(1 << 16, socket.MSG_DONTWAIT))
    assert report.num_frames == 10
    assert max(map(len, received)) == 1316
    check_stream(packets_received(BytesIO(b"".join(received))))


def test_stream_goes_out_at_its_own_speed_over_rtmp(identity: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", ClipSpec(pts=range(0, 20, 2)))
    address = f"rtmp://127.0.0.1:{free_port()}/live/key"
    with ThreadPoolExecutor(1) as executor, Stylizer(identity) as stylizer:
        received = executor.submit(packets_received, address, listen="1")
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                started = time.monotonic()
                report = stylize_video(stylizer, source, address)
                break
            except OutputMediaError as error:  # until it listens
                assert "Connection refused" in str(error)
                assert time.monotonic() < deadline
        assert time.monotonic() - started > 0.7
        assert report.num_frames == 10
        check_stream(received.result(PATIENCE_SECONDS))


def test_whoever_joins_waits_two_seconds_for_a_key_frame(tmp_path: Path) -> None:
    source, target = write_clip(tmp_path / "in.mp4", ClipSpec(pts=range(0, 150, 2))), tmp_path / "out.mkv"
    options = EncodeOptions(is_live=True, encoder_options=(("sc_threshold", "0"),))  # no key frames of x264's own
    with Decoder(source) as decoder, PartialFile(target) as output:
        with Encoder(output, info=decoder.info, options=options, source=decoder) as encoder:
            for item in decoder:
                encoder.write(item)
        output.commit()
    with av.open(str(target)) as container:
        keys = [packet.pts * packet.time_base for packet in container.demux(video=0) if packet.is_keyframe]
    assert keys == [0, 2, 4]


def test_a_file_that_somebody_watches_can_be_asked_for(identity: Path, tmp_path: Path) -> None:
    source, target = write_clip(tmp_path / "in.mp4", ClipSpec(pts=range(110))), tmp_path / "out.mp4"
    keys = {}
    for is_watched in (False, True):
        stylize_video(identity, source, target, encode=EncodeOptions(is_live=is_watched))
        with av.open(str(target)) as container:
            packets = [packet for packet in container.demux(video=0) if packet.is_keyframe]
            keys[is_watched] = {packet.pts * packet.time_base for packet in packets}
    assert keys[True] >= {0, 2, 4}
    assert not keys[False] & {2, 4}


@pytest.mark.parametrize(("container", "address"), [("rtsp", "rtsp://h/x"), ("rtp_mpegts", "rtp://127.0.0.1:9")])
def test_streams_that_do_not_tell_what_they_hold_get_h264(container: str, address: str, tmp_path: Path) -> None:
    with Decoder(write_clip(tmp_path / "in.mp4")) as decoder:
        encoder = VideoEncoder(
            av.open(address, "w", format=container), info=decoder.info, options=EncodeOptions(), target=address
        )
    assert encoder.description == "libx264, yuv420p"
