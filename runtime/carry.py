"""Sound, subtitles and attachments on their way from the input to the output, unchanged where possible."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from fractions import Fraction
from io import BytesIO
from math import ceil
from typing import cast

import av
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer
from av.packet import Packet
from av.stream import AttachmentStream, Disposition, Stream
from av.subtitles.stream import SubtitleStream

__all__ = ["Carrier", "kept_tags", "open_carriers"]

# Tags that described the old file's bytes: Matroska's statistics and the muxer's own names; and its pictures.
_STALE_TAGS = ("_STATISTICS", "BPS", "NUMBER_OF_", "DURATION", "ENCODER", "VENDOR_ID", "HANDLER_NAME")
_STALE_VIDEO_TAGS = ("ROTATE", "ALPHA_MODE")

_ROUNDED_SECONDS = Fraction(1, 1000)  # by containers that count in milliseconds

# FFmpeg's muxer of QuickTime files takes these for a moment, and refuses them with the header.
_ONLY_IN_MP4 = {"flac", "opus", "libopus", "truehd"}

# FFmpeg's names where the input has no more than a number, as in WMA, and what encoders take for it.
_USUAL_LAYOUTS = {"1 channels": "mono", "2 channels": "stereo", "6 channels": "5.1", "8 channels": "7.1"}

_ADTS_BYTES = 7
_ADTS_FORMATS = {"mpegts", "rtp_mpegts"}
_LOW_COMPLEXITY = 2  # ISO/IEC 14496-3, table 1.17; and 1.18:
_AAC_RATES_HZ = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)

# Pictures that players show for a film, by FFmpeg's decoder.
_COVER_TYPES = {"mjpeg": ("jpg", "image/jpeg"), "png": ("png", "image/png")}

# What to transcode to, best first; the first one the container holds is taken.
_AUDIO_ENCODERS = ("aac", "libopus", "libmp3lame", "flac", "pcm_s16le")
_TEXT_ENCODERS = ("mov_text", "subrip", "webvtt", "ass")


class Carrier(ABC):
    """Takes packets of one input stream and returns those for the output."""

    target: Stream

    @abstractmethod
    def packets_from(self, packet: "Packet[Stream]") -> "list[Packet[Stream]]":
        """What to write for `packet`, which is consumed."""

    @abstractmethod
    def flush(self) -> "list[Packet[Stream]]":
        """What is left after the last packet."""


def open_carriers(
    container: OutputContainer,
    streams: Iterable[Stream],
    *,
    covers: "Iterable[Packet[Stream]]",
    first_packets: "Sequence[Packet[Stream]] | None",
    notes: list[str],
) -> dict[int, Carrier]:
    """Add an output stream for each input stream and cover picture that `container` can hold.

    A stream whose codec the container refuses is transcoded to the container's usual one; what cannot be
    carried at all is left out. Both are said in `notes`. To be called before the first packet is written.

    Args:
        container: what to write.
        streams: what to carry.
        covers: the cover pictures, each the packet of a stream of its own.
        first_packets: of `streams`, as far as they are known, where the header cannot be mended later, as on a pipe;
            else None.
        notes: where to say what is changed or left out.

    Returns:
        The carriers by input stream index.
    """
    carriers: dict[int, Carrier] = {}
    for cover in covers:
        carrier = _copy_cover(container, cover)
        if carrier is None:
            notes.append(f"the cover picture is left out: {_refusal(container)}")
        else:
            carriers[cover.stream.index] = carrier
    for stream in streams:
        carrier = None
        if stream.type == "attachment":
            carrier = _copy_attachment(container, cast(AttachmentStream, stream))
        elif stream.type == "data":
            carrier = _copy_data(container, stream)
        elif stream.codec_context is not None and _is_usable(stream):
            carrier = _copy(container, stream, first_packets) or _transcode(container, stream, notes)
        if carrier is None:
            why = _refusal(container) if _is_usable(stream) else "its header is damaged"
            notes.append(f"{stream.type} track {stream.index} ({_codec(stream)}) left out: {why}")
            continue
        carrier.target.metadata.update(kept_tags(stream))
        carrier.target.disposition = stream.disposition
        carriers[stream.index] = carrier
    return carriers


def kept_tags(stream: Stream) -> dict[str, str]:
    """The tags of a stream that are as true of its copy: language, title, but no statistics."""
    return {
        key: text
        for key, text in stream.metadata.items()
        if not key.upper().startswith(_STALE_TAGS + _STALE_VIDEO_TAGS)
    }


class _Copy(Carrier):
    """Writes the very bytes of the input at their own times."""

    def __init__(self, target: Stream) -> None:
        self.target = target
        self.bare: BitStreamFilterContext | None = None
        """Takes the headers off packets that have one each."""
        self._last_dts: int | None = None

    def packets_from(self, packet: "Packet[Stream]") -> "list[Packet[Stream]]":
        if self.bare is None:
            return self._timed(packet)
        return [timed for bare in self.bare.filter(packet) for timed in self._timed(bare)]

    def _timed(self, packet: "Packet[Stream]") -> "list[Packet[Stream]]":
        if packet.dts is None:
            packet.dts = packet.pts
        if packet.dts is None:
            return []  # without any time there is no place for it
        # Muxers refuse times that run backward, which damaged files have.
        if self._last_dts is not None and packet.dts <= self._last_dts:
            packet.dts = self._last_dts + self._tick(packet)
            packet.pts = max(packet.pts or packet.dts, packet.dts)
        # Matroska leaves durations out where it can, and MP4 does not play sound of none.
        if self._last_dts is not None and not packet.duration and self.target.type == "audio":
            packet.duration = packet.dts - self._last_dts
        self._last_dts = packet.dts
        packet.stream = self.target
        return [packet]

    def flush(self) -> "list[Packet[Stream]]":
        return []

    def _tick(self, packet: "Packet[Stream]") -> int:
        """The shortest time between two packets that the target can tell, which may count more coarsely."""
        return max(1, ceil((self.target.time_base or packet.time_base) / packet.time_base))


class _CopyCover(_Copy):
    """Writes the one packet of a cover picture, which has no time."""

    def packets_from(self, packet: "Packet[Stream]") -> "list[Packet[Stream]]":
        packet.stream = self.target
        return [packet]


class _InHeader(_Copy):
    """Of what the muxer writes with its header, so that packets are no more to be written."""

    def packets_from(self, packet: "Packet[Stream]") -> "list[Packet[Stream]]":
        return []


class _TranscodeAudio(Carrier):
    """Decodes and encodes sound; sample times are kept, but for what a coarse clock rounds them by."""

    def __init__(self, source: AudioStream, target: AudioStream) -> None:
        self.target: AudioStream = target
        self._source = source
        self._end: int | None = None  # of the last packet

    def packets_from(self, packet: "Packet[Stream]") -> "list[Packet[Stream]]":
        encoded: list[Packet[Stream]] = []
        try:
            frames = self._source.codec_context.decode(packet)
        except av.InvalidDataError:
            return []  # as in the video: what is damaged is skipped
        for frame in frames:
            encoded += self.target.encode(frame)
        return self._even(encoded)

    def flush(self) -> "list[Packet[Stream]]":
        encoded: list[Packet[Stream]] = []
        for frame in self._source.codec_context.decode(None):
            encoded += self.target.encode(frame)
        encoded += self.target.encode(None)
        return self._even(encoded)

    def _even(self, packets: "list[Packet[Stream]]") -> "list[Packet[Stream]]":
        """`packets`, each beginning where the one before ends unless its time says clearly otherwise, or nothing."""
        for packet in packets:
            nearest = _ROUNDED_SECONDS / packet.time_base
            if self._end is not None and (packet.pts is None or abs(packet.pts - self._end) <= nearest):
                packet.pts = packet.dts = self._end
            if packet.pts is not None:
                self._end = packet.pts + (packet.duration or 0)
        return packets


class _TranscodeSubtitle(Carrier):
    """Rewrites text subtitles in the container's own form; times are kept."""

    def __init__(self, source: SubtitleStream, target: SubtitleStream) -> None:
        self.target: SubtitleStream = target
        self._source = source

    def packets_from(self, packet: "Packet[Stream]") -> "list[Packet[Stream]]":
        subtitle = self._source.decode2(packet)
        if subtitle is None:
            return []
        encoded = self.target.codec_context.encode_subtitle(subtitle)
        encoded.stream = self.target
        encoded.time_base = packet.time_base
        encoded.pts, encoded.dts, encoded.duration = packet.pts, packet.pts, packet.duration
        return [encoded]

    def flush(self) -> "list[Packet[Stream]]":
        return []


def _copy(
    container: OutputContainer, stream: Stream, first_packets: "Sequence[Packet[Stream]] | None"
) -> Carrier | None:
    if container.format.name == "mov" and _codec(stream) in _ONLY_IN_MP4:
        return None
    try:
        carrier = _Copy(container.add_stream_from_template(stream))
    except ValueError:  # "format does not support codec"
        return None
    is_adts = _codec(stream) == "aac" and not stream.codec_context.extradata
    if first_packets is not None and is_adts and container.format.name not in _ADTS_FORMATS:
        first = next((bytes(packet) for packet in first_packets if packet.stream.index == stream.index), b"")
        carrier.target.codec_context.extradata = _config_of_adts(first) or _usual_config(cast(AudioStream, stream))
        carrier.bare = BitStreamFilterContext("aac_adtstoasc", stream)
    return carrier


def _usual_config(stream: AudioStream) -> bytes | None:
    """As `_config_of_adts`, by what was found on opening, where spectral band replication counts double."""
    context = stream.codec_context
    is_doubled = "HE-AAC" in (context.profile or "")
    rate_hz, num_channels = context.sample_rate // (1 + is_doubled), context.channels
    if context.profile == "HE-AACv2":
        num_channels = 1  # of which it makes two
    if rate_hz not in _AAC_RATES_HZ or num_channels not in range(1, 7):
        return None
    return _config(_LOW_COMPLEXITY, _AAC_RATES_HZ.index(rate_hz), num_channels)


def _config_of_adts(packet: bytes) -> bytes | None:
    """What stands once in the header of other containers, of the header that each packet has in transport streams.

    Source: ISO/IEC 14496-3, 1.A.2.2.1 (ADTS) and 1.6.2.1 (AudioSpecificConfig).
    """
    if len(packet) < _ADTS_BYTES or packet[0] != 0xFF or packet[1] & 0xF6 != 0xF0:
        return None
    profile, rate_index = packet[2] >> 6, packet[2] >> 2 & 0xF
    num_channels = (packet[2] & 1) << 2 | packet[3] >> 6
    return _config(profile + 1, rate_index, num_channels)


def _config(object_type: int, rate_index: int, num_channels: int) -> bytes:
    return (object_type << 11 | rate_index << 7 | num_channels << 3).to_bytes(2, "big")


def _copy_attachment(container: OutputContainer, stream: AttachmentStream) -> Carrier | None:
    if "matroska" not in container.format.name:
        return None
    return _InHeader(container.add_attachment(stream.name or "attachment", stream.mimetype or "", stream.data))


def _copy_cover(container: OutputContainer, cover: "Packet[Stream]") -> Carrier | None:
    """`cover` is the only packet of its stream."""
    kind = _codec(cover.stream)
    if container.format.name == "matroska" and kind in _COVER_TYPES:
        suffix, mimetype = _COVER_TYPES[kind]
        tags = cover.stream.metadata
        name = tags.get("filename", f"cover.{suffix}")
        return _InHeader(container.add_attachment(name, tags.get("mimetype", mimetype), bytes(cover)))
    is_in_fragments = "movflags" in container.options  # whose header is written before any packet
    if container.format.name == "mp4" and kind in _COVER_TYPES and not is_in_fragments:
        carrier = _CopyCover(container.add_stream_from_template(cover.stream, opaque=True))
        carrier.target.disposition = Disposition.attached_pic
        return carrier
    return None


def _copy_data(container: OutputContainer, stream: Stream) -> Carrier | None:
    """Of what nobody here knows the meaning, such as the telemetry of cameras; tried out, for no list tells."""
    try:
        with av.open(BytesIO(), "w", format=container.format.name) as trial:
            trial.add_stream_from_template(stream)
            trial.start_encoding()
    except (av.FFmpegError, ValueError):
        return None
    return _Copy(container.add_stream_from_template(stream))


def _transcode(container: OutputContainer, stream: Stream, notes: list[str]) -> Carrier | None:
    if isinstance(stream, AudioStream):
        codec = next((name for name in _AUDIO_ENCODERS if name in container.supported_codecs), None)
        if codec is None:
            return None
        rate_hz, offered = stream.codec_context.sample_rate, av.Codec(codec, "w").audio_rates or []
        if offered and rate_hz not in offered:
            rate_hz = max(offered)
        layout = _USUAL_LAYOUTS.get(stream.layout.name, stream.layout.name)
        audio = container.add_stream(codec, rate=rate_hz, layout=layout)
        notes.append(f"audio track {stream.index} transcoded from {_codec(stream)} to {codec}: {_refusal(container)}")
        return _TranscodeAudio(stream, cast(AudioStream, audio))
    if isinstance(stream, SubtitleStream):
        stream.codec_context.open(strict=False)
        # Subtitles that are pictures (DVD, Blu-ray) have no header of text styles and cannot become text.
        codec = next((name for name in _TEXT_ENCODERS if name in container.supported_codecs), None)
        if codec is None or stream.codec_context.subtitle_header is None:
            return None
        subtitle = cast(SubtitleStream, container.add_stream(codec))
        subtitle.codec_context.subtitle_header = stream.codec_context.subtitle_header
        notes.append(f"subtitle track {stream.index} rewritten from {_codec(stream)} to {codec}: {_refusal(container)}")
        return _TranscodeSubtitle(stream, subtitle)
    return None


def _is_usable(stream: Stream) -> bool:
    """Whether sound has a sample rate; one of 0 Hz is the trace of a damaged header."""
    if not isinstance(stream, AudioStream):
        return True
    return stream.codec_context is not None and stream.codec_context.sample_rate > 0


def _codec(stream: Stream) -> str:
    return stream.codec_context.name if stream.codec_context is not None else "unknown codec"


def _refusal(container: OutputContainer) -> str:
    return f"{container.format.name} cannot hold it"
