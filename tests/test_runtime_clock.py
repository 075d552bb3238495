"""Times of packets where a stream starts anew or pauses."""

from collections.abc import Sequence
from fractions import Fraction
from io import BytesIO

import av
import pytest
from av.packet import Packet

from stylize.runtime.clock import Continuity


def mended(continuity: Continuity, times_ms: Sequence[int]) -> list[int | None]:
    """Times of the packets of one video stream after joining."""
    stream = av.open(BytesIO(), "w", format="mpegts").add_stream("libx264", rate=25)
    times = []
    for ticks in times_ms:
        packet = Packet(1)
        packet.stream = stream
        packet.time_base, packet.pts, packet.dts = Fraction(1, 1000), ticks, ticks
        continuity.mend(packet)
        times.append(packet.pts)
    return times


def test_times_go_on_where_a_sender_starts_anew() -> None:
    continuity = Continuity()
    times = mended(continuity, (50_000, 50_040, 50_080, 0, 40, 80, 7_000_000, 7_000_040))
    assert continuity.num_jumps == 2
    assert times == sorted(times)  # type: ignore[type-var] # all have one
    assert times[-1] - times[0] < 1000  # type: ignore[operator]


@pytest.mark.parametrize(("pause_ms", "is_kept"), [(9_900, True), (10_100, False)])
def test_a_pause_of_up_to_ten_seconds_is_no_jump(pause_ms: int, is_kept: bool) -> None:
    continuity = Continuity()
    times = mended(continuity, (0, 40, 40 + pause_ms))
    assert (times == [0, 40, 40 + pause_ms], continuity.num_jumps == 0) == (is_kept, is_kept)
