"""Three stages at once: order, bounds, errors."""

import gc
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import pytest

from helpers.clips import ClipSpec, write_clip
from helpers.networks import write_affine
from stylize.runtime import stylize_video
from stylize.runtime.frame import Frame
from stylize.runtime.pipeline import PACKET_BYTES, Channel, run_pipeline
from stylize.runtime.selection import Item


def frames(count: int, made: list[int] | None = None) -> Iterator[Item]:
    for index in range(count):
        frame = Frame.blank(512, 512)
        frame.set_time(index, duration=1, time_base=Fraction(1, 25))
        if made is not None:
            made.append(index)
        yield frame


def packet(size: int) -> av.Packet:
    return av.Packet(bytes(size))


def no_stage_threads() -> bool:
    return not {thread.name for thread in threading.enumerate()} & {"decode", "stylize", "encode"}


def test_items_keep_their_order() -> None:
    items = [item for frame in frames(20) for item in (frame, packet(10), packet(20))]
    got: list[Item] = []
    run_pipeline(iter(items), network=lambda frame: None, sink=got.append)
    assert got == items
    assert no_stage_threads()


def test_every_frame_passes_the_network_once() -> None:
    seen: list[int] = []
    seconds = run_pipeline(frames(10), network=lambda frame: seen.append(frame.pts), sink=lambda item: None)
    assert seen == list(range(10))
    assert min(seconds.decode, seconds.network, seconds.encode) > 0


def test_a_slow_sink_holds_the_decoder_back() -> None:
    made: list[int] = []
    ahead: list[int] = []

    def sink(item: Item) -> None:
        threading.Event().wait(0.01)
        ahead.append(len(made) - len(ahead))

    run_pipeline(frames(60, made), network=lambda frame: None, sink=sink)
    # Two queues of 3 frames, and one in each stage's hand. The packets' room is less than a frame here.
    assert max(ahead) <= 2 * 3 + 3


def test_queued_bytes_do_not_grow_with_packets() -> None:
    made: list[int] = []
    ahead: list[int] = []

    def packets() -> Iterator[Item]:
        for _ in range(300):
            made.append(1 << 16)
            yield packet(1 << 16)

    def sink(item: Item) -> None:
        ahead.append(sum(made) - len(ahead) * (1 << 16))

    run_pipeline(packets(), network=lambda frame: None, sink=sink)
    assert max(ahead) <= 2 * PACKET_BYTES + 4 * (1 << 16)


def test_channel_takes_one_item_larger_than_itself() -> None:
    channel = Channel()
    assert channel.put(packet(2 * PACKET_BYTES))
    channel.close()
    assert [item.size for item in channel] == [2 * PACKET_BYTES]


def test_no_picture_waits_for_the_garbage_collector(tmp_path: Path) -> None:
    model, source = write_affine(tmp_path / "identity.onnx"), write_clip(tmp_path / "in.mp4", ClipSpec(pts=range(60)))
    num_pictures: list[int] = []

    def count(done: int, _total: int | None) -> None:
        if done == 50:
            # By type(): isinstance asks proxies of other libraries for their class, and some warn.
            num_pictures.append(sum(issubclass(type(thing), av.VideoFrame) for thing in gc.get_objects()))

    gc.collect()
    gc.disable()
    try:
        stylize_video(model, source, tmp_path / "out.mp4", on_progress=count)
    finally:
        gc.enable()
    assert num_pictures[0] < 20  # what the stages hold; nothing that they are done with


@pytest.mark.parametrize("stage", ["decode", "network", "encode"])
def test_error_of_any_stage_is_raised_in_the_caller(stage: str) -> None:
    def fail(index: int, name: str) -> None:
        if stage == name and index == 5:
            raise OSError(f"{name} broke")

    def source() -> Iterator[Item]:
        for index, frame in enumerate(frames(1000)):
            fail(index, "decode")
            yield frame

    done: list[int] = []
    with pytest.raises(OSError, match=f"{stage} broke"):
        run_pipeline(
            source(),
            network=lambda frame: fail(frame.pts, "network"),
            sink=lambda item: (fail(len(done), "encode"), done.append(1)),
        )
    assert len(done) < 100
    assert no_stage_threads()


def test_frames_in_flight_keep_their_order_and_are_all_completed() -> None:
    items = [item for frame in frames(20) for item in (packet(10), frame, packet(20))]
    begun: list[int] = []
    completed: list[int] = []
    got: list[Item] = []

    def network(frame: Frame) -> Callable[[], None]:
        begun.append(frame.pts)
        assert len(begun) - len(completed) <= 3
        return lambda: completed.append(frame.pts)

    run_pipeline(iter(items), network=network, sink=got.append, num_in_flight=3)
    assert got == items
    assert begun == completed == list(range(20))


@pytest.mark.parametrize("fails_in_sink", [True, False])
def test_frames_in_flight_are_completed_after_an_error(fails_in_sink: bool) -> None:
    begun: list[int] = []
    completed: list[int] = []

    def network(frame: Frame) -> Callable[[], None]:
        begun.append(frame.pts)
        return lambda: completed.append(frame.pts)

    def source() -> Iterator[Item]:
        yield from frames(5)
        raise OSError("source broke")

    def sink(_item: Item) -> None:
        if fails_in_sink:
            raise OSError("sink broke")

    with pytest.raises(OSError, match="broke"):
        run_pipeline(source(), network=network, sink=sink, num_in_flight=2)
    assert begun == completed
    assert no_stage_threads()
