"""Decoding, network and encoding at the same time, in a thread each with bounded queues between them."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from stylize.runtime.frame import Frame, TimedPicture
from stylize.runtime.selection import Item

__all__ = ["PACKET_BYTES", "Channel", "StageSeconds", "run_pipeline"]

Complete: TypeAlias = Callable[[], None]
"""Finishes a frame that was begun."""

# Three frames let a stage run ahead over the other's hiccups; more only costs memory. The extra holds
# several seconds of sound packets, which must not take the frames' room.
_FRAMES_PER_CHANNEL = 3
PACKET_BYTES = 1 << 20
_SOURCE_SECONDS = 0.5  # within which a source that has not fallen silent gives its next item, and sees the end
_MAX_FRAME_BYTES = 1 << 28  # three frames of up to 14 megapixels, one of 8K


@dataclass
class StageSeconds:
    """Time each stage spent working, without waiting for the others."""

    decode: float = 0.0
    network: float = 0.0
    settle: float = 0.0
    encode: float = 0.0


class Channel:
    """A queue from one thread to another: a few frames, some packets, and one item of any size always."""

    def __init__(self, num_frames: int = _FRAMES_PER_CHANNEL) -> None:
        """Hold as much as `num_frames` of the latest size take, fewer of large ones, and `PACKET_BYTES` beside."""
        self._num_frames = num_frames
        self._max_bytes = PACKET_BYTES
        self._items: deque[Item] = deque()
        self._num_bytes = 0
        self._is_closed = self._is_aborted = False
        self._changed = threading.Condition()

    def put(self, item: Item) -> bool:
        """Wait for room and add `item`; False when the channel was aborted and the item is dropped."""
        num_bytes = _size_bytes(item)
        with self._changed:
            if isinstance(item, TimedPicture):
                self._max_bytes = PACKET_BYTES + min(self._num_frames * num_bytes, max(num_bytes, _MAX_FRAME_BYTES))
            self._changed.wait_for(
                lambda: self._is_aborted or not self._items or self._num_bytes + num_bytes <= self._max_bytes
            )
            if self._is_aborted:
                return False
            self._add(item)
            return True

    def _add(self, item: Item) -> None:
        """Append `item`; to be called with the lock held, as `_remove`."""
        self._items.append(item)
        self._num_bytes += _size_bytes(item)
        self._changed.notify_all()

    def _remove(self, item: Item) -> None:
        """Take `item` out of the middle."""
        self._items.remove(item)
        self._num_bytes -= _size_bytes(item)

    def __iter__(self) -> Iterator[Item]:
        """Items in order, until the channel is closed and empty, or aborted."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._is_closed or self._is_aborted)
                if self._is_aborted or not self._items:
                    return
                item = self._items.popleft()
                self._num_bytes -= _size_bytes(item)
                self._changed.notify_all()
            yield item

    def close(self) -> None:
        """Say that nothing more will be put; what is inside can still be taken."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def abort(self) -> None:
        """Drop what is inside and let both ends go."""
        with self._changed:
            self._is_aborted = True
            self._items.clear()
            self._changed.notify_all()


def run_pipeline(
    source: Iterable[Item],
    *,
    network: Callable[[TimedPicture], Complete | None],
    sink: Callable[[Item], None],
    settle: Callable[[Frame], None] | None = None,
    num_in_flight: int = 1,
    on_frame: Callable[[], None] = lambda: None,
    handover: Channel | None = None,
    sink_seconds: float | None = None,
) -> StageSeconds:
    """Pass every item of `source` to `sink` in order, frames by way of `network`, then `settle`.

    Each of them runs in a thread of its own; memory does not grow with the number of items. The
    first error of any of them stops all and is raised here. Ctrl-C ends `source` early, lets `sink`
    have what the network finished, and is raised here too. Both leave no thread behind but one that waits
    inside `source`, which ends when that comes back or with the process.

    Args:
        source: frames and packets, from the decode thread.
        network: changes a frame in place, in the network thread, or begins to and returns what completes it.
        sink: takes frames and packets, in the encode thread.
        settle: changes a frame once more, in order, in the settle thread; None for no such thread.
        num_in_flight: how many frames the network may have begun before the first is completed.
        on_frame: called by the encode thread after each frame.
        handover: from the source, which runs in real time, to the network. Frames are then handed on as soon as
            they can be, and once there was one Ctrl-C or SIGTERM is how such a run ends: nothing is raised.
        sink_seconds: how long `sink` may be with one item after Ctrl-C, before its thread is left behind, which may
            be inside it as long as the process lives; None for any time.
    """
    pipeline = _Pipeline(source, network, settle, sink, num_in_flight, on_frame, handover)
    stages = (pipeline.decode, pipeline.stylize, *([pipeline.settle] if settle else []), pipeline.encode)
    may_be_left = {pipeline.decode} if sink_seconds is None else {pipeline.decode, pipeline.encode}
    decode, *others = [
        threading.Thread(target=pipeline.guard, args=(stage,), name=stage.__name__, daemon=stage in may_be_left)
        for stage in stages
    ]
    try:
        for thread in (decode, *others):
            thread.start()
        for thread in others:
            thread.join()
    except BaseException as error:
        pipeline.decoded.abort()
        if others[-1].ident is None:  # interrupted between two starts: nobody would empty what others fill
            pipeline.abort()
        if sink_seconds is not None and not pipeline.has_ended(others[-1], sink_seconds):
            pipeline.abort()
            del others[-1]
        for thread in others:
            if thread.ident is not None:
                thread.join()
        is_end = handover is not None and pipeline.num_done > 0 and len(others) == len(stages) - 1
        if not (is_end and isinstance(error, KeyboardInterrupt | SystemExit)):
            raise
    finally:
        if decode.ident is not None:
            decode.join(_SOURCE_SECONDS)
    if pipeline.error is not None:
        raise pipeline.error
    return pipeline.seconds


@dataclass
class _Pipeline:
    """The stages and what they share; see `run_pipeline`."""

    _source: Iterable[Item]
    _network: Callable[[TimedPicture], Complete | None]
    _settle: Callable[[Frame], None] | None
    _sink: Callable[[Item], None]
    _num_in_flight: int
    _on_frame: Callable[[], None]
    _handover: Channel | None

    def __post_init__(self) -> None:
        num_frames = _FRAMES_PER_CHANNEL if self._handover is None else 1
        self.decoded, self.stylized = self._handover or Channel(num_frames), Channel(num_frames)
        self.settled = Channel(num_frames) if self._settle else self.stylized
        self.seconds = StageSeconds()
        self.error: BaseException | None = None
        self.num_done = self.num_taken = 0

    def guard(self, stage: Callable[[], None]) -> None:
        """Run one stage; its error is the caller's, unless another came first."""
        try:
            stage()
        except BaseException as error:  # noqa: BLE001 - the thread boundary: raised again by run_pipeline
            self.error = self.error or error
            self.abort()

    def abort(self) -> None:
        """Let all stages end, and drop what is between them."""
        for channel in (self.decoded, self.stylized, self.settled):
            channel.abort()

    def has_ended(self, encode: threading.Thread, seconds: float) -> bool:
        """Wait for the encode thread as long as none of its items takes it longer than that."""
        num_taken = -1
        while encode.is_alive() and num_taken != self.num_taken:
            num_taken = self.num_taken
            encode.join(seconds)
        return not encode.is_alive()

    def decode(self) -> None:
        items = iter(self._source)
        while True:
            started = time.perf_counter()
            item = next(items, None)
            self.seconds.decode += time.perf_counter() - started
            if item is None:
                break
            if not self.decoded.put(item):
                return
        self.decoded.close()

    def stylize(self) -> None:
        begun: deque[tuple[Item, Complete | None]] = deque()
        try:
            for item in self.decoded:
                begun.append((item, self._begin(item)))
                # Packets behind a frame wait for it: order is kept.
                while begun and (
                    not isinstance(begun[0][0], TimedPicture) or _num_frames(begun) >= self._num_in_flight
                ):
                    if not self._hand_on(*begun.popleft()):
                        return
            while begun:
                if not self._hand_on(*begun.popleft()):
                    return
        finally:
            # Until it is completed the network writes where its next frame will be.
            for _, complete in begun:
                if complete is not None:
                    complete()
        self.stylized.close()

    def _begin(self, item: Item) -> Complete | None:
        started = time.perf_counter()
        complete = self._network(item) if isinstance(item, TimedPicture) else None
        self.seconds.network += time.perf_counter() - started
        return complete

    def _hand_on(self, item: Item, complete: Complete | None) -> bool:
        """Complete `item` and queue it; False when the queue was aborted."""
        started = time.perf_counter()
        if complete is not None:
            complete()
        self.seconds.network += time.perf_counter() - started
        return self.stylized.put(item)

    def settle(self) -> None:
        assert self._settle is not None, "this stage runs only when there is something to do"
        for item in self.stylized:
            if isinstance(item, Frame):
                started = time.perf_counter()
                self._settle(item)
                self.seconds.settle += time.perf_counter() - started
            if not self.settled.put(item):
                return
        self.settled.close()

    def encode(self) -> None:
        for item in self.settled:
            started = time.perf_counter()
            self._sink(item)
            self.num_taken += 1
            self.seconds.encode += time.perf_counter() - started
            if isinstance(item, TimedPicture):
                self.num_done += 1
                self._on_frame()


def _num_frames(begun: Iterable[tuple[Item, Complete | None]]) -> int:
    return sum(isinstance(item, TimedPicture) for item, _ in begun)


def _size_bytes(item: Item) -> int:
    return item.size_bytes if isinstance(item, TimedPicture) else item.size
