"""Real time: the newest frame wins, the rest is counted.

Cameras and streams wait for nobody. One thread always reads; the network takes the newest frame when it is
ready for one, and what came in between is left out. Nothing piles up, so the result stays a fixed time behind.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import Final

import numpy as np

from stylize.runtime.decode import Decoder
from stylize.runtime.frame import TimedPicture
from stylize.runtime.pipeline import PACKET_BYTES, Channel
from stylize.runtime.selection import Item

__all__ = ["LiveRun", "NewestFrame", "paced"]

_NUM_LATENCIES: Final = 1 << 16  # of the latest 40 minutes of 25 frames per second


class NewestFrame(Channel):
    """A slot for one frame, which the next one replaces, and for the packets around it; `put` never waits."""

    def __init__(self, on_drop: Callable[[TimedPicture], None]) -> None:
        """Report each frame that nobody took in time to `on_drop`, from the putting thread."""
        super().__init__()
        self.num_dropped_packets = 0
        """Sound and subtitle packets that nobody took in time."""
        self._on_drop = on_drop

    def put(self, item: Item) -> bool:
        """Add `item` in place of an older frame, or of packets where too many wait; False when aborted."""
        with self._changed:
            if self._is_aborted:
                return False
            waiting = next((other for other in self._items if isinstance(other, TimedPicture)), None)
            if isinstance(item, TimedPicture) and waiting is not None:
                self._remove(waiting)
                self._on_drop(waiting)
            packets = [other for other in self._items if not isinstance(other, TimedPicture)]
            while packets and sum(packet.size for packet in packets) > PACKET_BYTES:  # half a minute of usual sound
                self._remove(packets.pop(0))
                self.num_dropped_packets += 1
            self._add(item)
            return True


class LiveRun:
    """The slot between the decoder and the network, and the times of the frames that pass it."""

    def __init__(self, decoder: Decoder) -> None:
        """Prepare to run what `decoder` yields."""
        self.num_dropped = 0
        """Frames left out because a newer one had come, counted as the decoder counts."""
        self.handover = NewestFrame(self._drop)
        self._decoder = decoder
        self._arrivals: dict[int, float] = {}
        self._latencies: deque[float] = deque(maxlen=_NUM_LATENCIES)

    def stamped(self, items: Iterable[Item]) -> Iterator[Item]:
        """`items` of the decoder as they are; the moment of their arrival is remembered."""
        for item in items:
            if isinstance(item, TimedPicture):
                self._arrivals[item.pts] = self._decoder.arrivals.last
            yield item

    def timed(self, sink: Callable[[Item], None]) -> Callable[[Item], None]:
        """`sink`, with a look at the clock after each frame."""

        def write(item: Item) -> None:
            sink(item)
            if isinstance(item, TimedPicture):
                self._latencies.append(time.perf_counter() - self._arrivals.pop(item.pts))

        return write

    def latency_ms(self, percent: float) -> float | None:
        """The time within which `percent` of the frames went from the arrival of their last packet to encoded."""
        return float(np.percentile(self._latencies, percent)) * 1000 if self._latencies else None

    @property
    def notes(self) -> list[str]:
        """What was left out beside frames, in sentences."""
        num_packets = self.handover.num_dropped_packets
        return [f"{num_packets} packets of sound or subtitles were dropped: the output takes too long"] * bool(
            num_packets
        )

    def _drop(self, frame: TimedPicture) -> None:
        self._arrivals.pop(frame.pts, None)
        self.num_dropped += frame.duration if self._decoder.info.is_resampled else 1


def paced(sink: Callable[[Item], None]) -> Callable[[Item], None]:
    """`sink` at the speed at which the frames are to be shown, for receivers of streams, who keep none in store."""
    started: tuple[float, Fraction] | None = None

    def write(item: Item) -> None:
        nonlocal started
        if isinstance(item, TimedPicture):
            shown, now = item.pts * item.time_base, time.perf_counter()
            started = started or (now, shown)
            time.sleep(max(0.0, started[0] + float(shown - started[1]) - now))
        sink(item)

    return write
