"""Finished segments into one file: their packets as they are, and everything else straight from the source."""

import dataclasses
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from av.packet import Packet
from av.stream import Stream

from stylize.runtime.decode import Decoder
from stylize.runtime.encode import EncodeOptions, Encoder
from stylize.runtime.errors import OutputMediaError
from stylize.runtime.output import Result
from stylize.runtime.partial_file import PartialFile
from stylize.runtime.resume import Segment
from stylize.runtime.segment_file import read_packets
from stylize.runtime.selection import Selection

__all__ = ["join"]


def join(
    segments: Sequence[Segment], source: str | Path, target: Path, *, selection: Selection, encode: EncodeOptions
) -> Result:
    """Write the target; it is on the disk when this returns, so that segments can be deleted.

    Args:
        segments: all of them, in order.
        source: what they were rendered from, of which no frame is read.
        target: the file.
        selection: of which part of the source they are.
        encode: how they were to be encoded.

    Raises:
        OutputMediaError: the file cannot be written; a segment is damaged, and is removed; or they were encoded under
            several headers.
    """
    records = [segment.record for segment in segments]
    encode = dataclasses.replace(encode, codec=records[0].encoder, pix_fmt=records[0].pix_fmt)  # as chosen for them
    with (
        Decoder(source, selection=selection) as decoder,
        PartialFile(target) as output,
        Encoder(output, info=decoder.info, options=encode, source=decoder) as encoder,
    ):
        misfits = sorted({record.encoder for record in records if record.header != encoder.header})
        if misfits:
            raise OutputMediaError(
                target,
                f"segments of {', '.join(misfits)} do not fit the header that {encoder.description} writes here, as "
                "with GPUs of several kinds; render with --codec libx264, or on GPUs of one kind",
            )
        _copy(segments, decoder, encoder, target)
        encoder.finish()
        encoder.check()
        output.commit(is_durable=True)
    return Result(
        num_frames=encoder.num_frames,
        size=encoder.size,
        encoder=encoder.description,
        notes=tuple(dict.fromkeys((*(note for record in records for note in record.notes), *encoder.notes))),
        problems=records[-1].problems,
    )


def _copy(segments: Sequence[Segment], source: Decoder, encoder: Encoder, target: Path) -> None:
    """Write the packets of all segments, in between those that are carried along.

    Decoding times are made anew: the times of showing, in order, `num_reordered` packets late, which is what
    encoders do and what one encoder after the other cannot do alone when frames come at uneven distances.
    """
    times = [time for segment in segments for time in segment.record.times]
    late = max(segment.record.num_reordered for segment in segments)
    others = source.carried_packets()
    other = next(others, None)
    index = 0
    for number, segment in enumerate(segments):
        try:
            for packet in read_packets(segment.path):
                packet.dts = times[index - late] if index >= late else times[index] - (times[late] - times[0])
                index += 1
                while other is not None and _seconds(other) <= packet.dts * source.info.time_base:
                    encoder.write(other)
                    other = next(others, None)
                encoder.copy(packet)
        except ValueError as error:
            segment.path.unlink()
            raise OutputMediaError(
                target, f"segment {number} was damaged on the disk; the same command renders it again"
            ) from error
    while other is not None:
        encoder.write(other)
        other = next(others, None)


def _seconds(packet: "Packet[Stream]") -> Fraction:
    ticks = packet.dts if packet.dts is not None else packet.pts
    return (ticks or 0) * packet.time_base
