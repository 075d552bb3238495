"""What the stages after the decoder need to know about a video."""

from dataclasses import dataclass
from fractions import Fraction

from stylize.runtime.color import Color

__all__ = ["VideoInfo"]


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a video looks like once decoded: upright, progressive, gaps in its tags filled."""

    width: int
    """Pixels, after rotation."""
    height: int
    """Pixels, after rotation."""
    time_base: Fraction
    """Seconds per tick of the frames' times."""
    frame_rate: Fraction
    """Average frames per second; paces the encoder's rate control, never a frame's time."""
    color: Color
    sample_aspect_ratio: Fraction = Fraction(1)
    """Width of a pixel divided by its height, after rotation."""
    pix_fmt: str = "yuv420p"
    """Pixel format of the source."""
    num_frames: int | None = None
    """As the container declares, an estimate for a part of it, None when unknown."""
    duration_seconds: float | None = None
    """From the first frame's start to the last one's end as the container declares, None when it does not."""
    decoder: str = ""
    """FFmpeg's decoder in use."""
    hdr_metadata: str = ""
    """Of HDR that is kept: what it says about its display, in the words of x265's parameters."""
    is_resampled: bool = False
    """Whether frames are put on an even grid: each is to be written once for every tick of its duration."""

    def __str__(self) -> str:
        length = "" if self.duration_seconds is None else f", {self.duration_seconds:.2f} s"
        return (
            f"{self.width}x{self.height}, {float(self.frame_rate):.4g} frames per second{length}, "
            f"{self.decoder}, {self.pix_fmt}, {self.color.description}"
        )
