"""Which pictures of a video go to the GPU as they are, and what becomes of the others."""

import av
from av.codec.context import CodecContext
from av.codec.hwaccel import HWAccel
from av.video.codeccontext import VideoCodecContext

from stylize.runtime.hardware_video import nvdec, nvdec_refusal
from stylize.runtime.picture_filter import PictureFilter
from stylize.runtime.surface import is_on_device, samples_pix_fmt, surface_pix_fmt

__all__ = ["SurfaceSource", "downloaded", "filterable"]


class SurfaceSource:
    """Decides once, by the first picture, whether a video is a run of surfaces."""

    def __init__(self, gpu: int) -> None:
        """Surfaces for GPU number `gpu`."""
        self.gpu = gpu
        self.pix_fmt = ""
        """Format of all surfaces; empty where the video is not one of them, or before the first picture."""
        self._refusal = nvdec_refusal(gpu)
        self._size = (0, 0)

    @property
    def hwaccel(self) -> HWAccel | None:
        """What decodes, None for the CPU."""
        return None if self._refusal else nvdec(self.gpu)

    def configure(self, context: CodecContext) -> list[str]:
        """Prepare a decoder that was opened with `hwaccel`; returns what is to be noted."""
        if not self._refusal and not context.is_hwaccel:
            self._refusal = f"NVDEC does not take part in {context.codec.name}"
        if self._refusal:
            return [f"decoded on the CPU: {self._refusal}"]
        context.thread_count = 1  # the GPU has threads of its own, and frames waiting in ours would hold its memory
        return []

    def refuse(self, picture: av.VideoFrame, context: VideoCodecContext) -> str:
        """By the first picture as it was decoded: why `hwaccel` is None from now on; empty where it was or stays."""
        size = picture.width, picture.height
        if self._refusal:
            return ""
        if not is_on_device(picture):
            # In the one thread of which there must not be more for a GPU.
            self._refusal = f"NVDEC refuses {picture.format.name} of {size[0]}x{size[1]}"
        elif size != (context.width, context.height):
            # FFmpeg cuts surfaces off at their right and lower border only (av_frame_apply_cropping).
            shown = f"{context.width}x{context.height} of {size[0]}x{size[1]}"
            self._refusal = f"NVDEC leaves the border that the stream hides, {shown} are to be shown"
        return self._refusal

    def begin(self, picture: av.VideoFrame, reasons: list[str]) -> list[str]:
        """Decide by the first picture; `reasons` are what is done to it on the CPU. Returns what is to be noted."""
        try:
            pix_fmt = surface_pix_fmt(picture)
        except ValueError as error:
            reasons = [*reasons, str(error)]
        if reasons:
            return [f"pictures pass through the CPU: {', '.join(reasons)}"]
        self.pix_fmt, self._size = pix_fmt, (picture.width, picture.height)
        return []

    def takes(self, picture: av.VideoFrame, *, size: tuple[int, int]) -> bool:
        """Whether this picture is like the first one and needs nothing done on the CPU."""
        return bool(self.pix_fmt) and (
            (picture.width, picture.height) == self._size == size and samples_pix_fmt(picture) == self.pix_fmt
        )


def downloaded(picture: av.VideoFrame) -> av.VideoFrame:
    """The picture in host memory; the same object where it is."""
    return picture.reformat(format=samples_pix_fmt(picture)) if is_on_device(picture) else picture


def filterable(picture: av.VideoFrame, picture_filter: PictureFilter) -> av.VideoFrame:
    """The picture where `picture_filter` can have it: on the host when it has anything to do."""
    is_busy = picture_filter.is_deinterlacing or picture.interlaced_frame or bool(picture_filter.turns_of(picture))
    return downloaded(picture) if is_busy else picture
