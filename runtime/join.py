"""Finished segments into one file: their packets as they are, and everything else straight from the source."""

from fractions import Fraction

from av.packet import Packet
from av.stream import Stream

from stylize.runtime.decode import Decoder
from stylize.runtime.encode import Encoder
from stylize.runtime.errors import OutputMediaError
from stylize.runtime.resume import ResumeFolder
from stylize.runtime.segment_file import read_packets

__all__ = ["join_segments"]


def join_segments(folder: ResumeFolder, *, source: Decoder, encoder: Encoder) -> None:
    """Write the packets of a finished folder, in between those that are carried along.

    Decoding times are made anew: the times of showing, in order, `num_reordered` packets late, which is what
    encoders do and what one encoder after the other cannot do alone when frames come at uneven distances.

    Args:
        folder: with all its segments.
        source: the input, of which no frame is read.
        encoder: takes the packets.

    Raises:
        OutputMediaError: a segment is damaged, and is removed; or they were encoded under several headers.
    """
    misfits = sorted({record.encoder for record in folder.records if record.header != encoder.header})
    if misfits:
        raise OutputMediaError(
            folder.target,
            f"segments of {', '.join(misfits)} do not fit the header that {encoder.description} writes here, as with "
            "GPUs of several kinds; render with --codec libx264, or on GPUs of one kind",
        )
    times = [time for record in folder.records for time in record.times]
    late = max(record.num_reordered for record in folder.records)
    others = source.carried_packets()
    other = next(others, None)
    index = 0
    for number in range(len(folder.records)):
        try:
            for packet in read_packets(folder.path_of(number)):
                packet.dts = times[index - late] if index >= late else times[index] - (times[late] - times[0])
                index += 1
                while other is not None and _seconds(other) <= packet.dts * source.info.time_base:
                    encoder.write(other)
                    other = next(others, None)
                encoder.copy(packet)
        except ValueError as error:
            folder.path_of(number).unlink()
            del folder.records[number:]
            raise OutputMediaError(
                folder.target, f"segment {number} was damaged on the disk; the same command renders it again"
            ) from error
    while other is not None:
        encoder.write(other)
        other = next(others, None)


def _seconds(packet: "Packet[Stream]") -> Fraction:
    ticks = packet.dts if packet.dts is not None else packet.pts
    return (ticks or 0) * packet.time_base
