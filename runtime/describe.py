"""What the first picture and the headers say about a video."""

from fractions import Fraction

import av

from stylize.runtime.choose_video import announced_seconds
from stylize.runtime.demux import Demuxer
from stylize.runtime.frame_maker import FrameMaker
from stylize.runtime.hdr_metadata import hdr_metadata
from stylize.runtime.picture_reader import PictureReader
from stylize.runtime.selection import Selection
from stylize.runtime.surface import is_on_device, samples_pix_fmt
from stylize.runtime.video_info import VideoInfo

__all__ = ["describe"]


def describe(
    picture: av.VideoFrame, demuxer: Demuxer, selection: Selection, *, frame_maker: FrameMaker, pictures: PictureReader
) -> VideoInfo:
    """What the frames of a video will be.

    Args:
        picture: the first one, upright.
        demuxer: of the video.
        selection: the part, rate and size asked for.
        frame_maker: has begun with `picture`.
        pictures: gave the first one.
    """
    stream = demuxer.video_stream
    aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or Fraction(1)
    if pictures.filter.is_transposing:
        aspect = 1 / aspect
    seconds = selection.seconds_of(announced_seconds(demuxer.container, stream))
    width, height = frame_maker.size
    by_nvdec = " by NVDEC" if is_on_device(picture) else ""
    return VideoInfo(
        width=width,
        height=height,
        time_base=demuxer.time_base if selection.frame_rate is None else 1 / selection.frame_rate,
        frame_rate=selection.frame_rate or demuxer.frame_rate,
        color=frame_maker.color,
        sample_aspect_ratio=selection.sample_aspect_ratio_of(aspect, width=picture.width, height=picture.height),
        pix_fmt=samples_pix_fmt(picture),
        num_frames=_num_frames(demuxer, selection, seconds),
        duration_seconds=seconds,
        decoder=f"{pictures.decoder_name}{by_nvdec}",
        is_resampled=selection.frame_rate is not None,
        hdr_metadata=hdr_metadata(picture) if frame_maker.color.hdr else "",
    )


def _num_frames(demuxer: Demuxer, selection: Selection, seconds: float | None) -> int | None:
    """Frames in a part that lasts `seconds`; None when unknown."""
    if not selection.is_cut and selection.frame_rate is None:
        return demuxer.video_stream.frames or None
    if seconds is None:
        return None
    rate = demuxer.frame_rate
    return round(seconds * min(rate, selection.frame_rate or rate))
