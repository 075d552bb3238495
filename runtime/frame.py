"""One picture with its time: what travels from the decoder through the network to the encoder."""

from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

__all__ = ["ALPHA_PIX_FMT", "PIX_FMT", "WHITE", "Frame", "Plane", "TimedPicture"]

PIX_FMT = "gbrp16le"
ALPHA_PIX_FMT = "gbrap16le"

WHITE = 255 << 8
"""The value of white. swscale counts in 16 bits and puts 8-bit codes into the upper 8, so that white is not
65535; what lies above are highlights brighter than white, which video can hold."""

# FFmpeg stores planar RGB as G, B, R, A.
_RED, _GREEN, _BLUE, _ALPHA = 2, 0, 1, 3

Plane = NDArray[np.uint16]
"""(H, W) uint16, 0 is black and `WHITE` is white; rows may be padded, so never assume contiguity."""


class TimedPicture:
    """A picture of FFmpeg's with a presentation time; has one owner at a time."""

    def __init__(self, picture: av.VideoFrame) -> None:
        """Take ownership of `picture`."""
        self.picture = picture

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.picture.width

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self.picture.height

    @property
    def pts(self) -> int:
        """Presentation time in ticks of `time_base`.

        Raises:
            ValueError: the time was never set.
        """
        if self.picture.pts is None:
            raise ValueError("this frame has no presentation time")
        return self.picture.pts

    @property
    def time_base(self) -> Fraction:
        """Seconds per tick.

        Raises:
            ValueError: the time was never set.
        """
        if self.picture.time_base is None:
            raise ValueError("this frame has no time base")
        return self.picture.time_base

    @property
    def duration(self) -> int:
        """How long the picture stays, in ticks of `time_base`; 0 when the source does not say."""
        return self.picture.duration

    def set_time(self, pts: int, *, duration: int, time_base: Fraction) -> None:
        """Place the picture at `pts` for `duration`, both in ticks of `time_base` seconds."""
        self.picture.pts = pts
        self.picture.duration = duration
        self.picture.time_base = time_base

    def copy_time_from(self, other: "TimedPicture") -> None:
        """Take over the time of `other`."""
        self.set_time(other.pts, duration=other.duration, time_base=other.time_base)

    @property
    def size_bytes(self) -> int:
        """Memory the pixels take."""
        return sum(plane.buffer_size for plane in self.picture.planes)


class Frame(TimedPicture):
    """Planar 16-bit RGB with a presentation time.

    The pixels live in an FFmpeg frame. swscale writes there what the network reads, and later reads what
    the network wrote, so nothing is rounded to 8 bits in between and sources of 10 or 12 bits need no
    path of their own.
    """

    hdr_gains: NDArray[np.float32] | None = None
    """(H, W) what the light of each pixel was multiplied by, to be restored; None where nothing is."""

    def __init__(self, picture: av.VideoFrame) -> None:
        """Take ownership of `picture`, whose format is `PIX_FMT` or `ALPHA_PIX_FMT`."""
        if picture.format.name not in (PIX_FMT, ALPHA_PIX_FMT):
            raise ValueError(f"a frame holds {PIX_FMT} or {ALPHA_PIX_FMT}, got {picture.format.name}")
        super().__init__(picture)

    @classmethod
    def blank(cls, width: int, height: int, *, has_alpha: bool = False) -> "Frame":
        """A frame of `width` x `height` pixels whose content is undefined and whose time is unset."""
        return cls(av.VideoFrame(width, height, ALPHA_PIX_FMT if has_alpha else PIX_FMT))

    @classmethod
    def from_array(cls, rgb_HWC: NDArray[np.uint8]) -> "Frame":
        """A frame showing `rgb_HWC`: (H, W, 3) uint8 in [0, 255].

        Raises:
            ValueError: another shape or type, or no pixels.
        """
        if rgb_HWC.ndim != 3 or rgb_HWC.shape[2] != 3 or rgb_HWC.dtype != np.uint8:
            raise ValueError(f"expected (H, W, 3) uint8, got {rgb_HWC.shape} {rgb_HWC.dtype}")
        if 0 in rgb_HWC.shape:
            raise ValueError(f"expected at least one pixel, got {rgb_HWC.shape}")
        frame = cls.blank(rgb_HWC.shape[1], rgb_HWC.shape[0])
        for channel, plane in enumerate(frame.planes):
            np.left_shift(rgb_HWC[:, :, channel], 8, out=plane, dtype=np.uint16)
        return frame

    def to_array(self) -> NDArray[np.uint8]:
        """The picture as (H, W, 3) uint8 in [0, 255], rounded to nearest."""
        rgb_HWC = np.empty((self.height, self.width, 3), np.uint8)
        for channel, plane in enumerate(self.planes):
            rgb_HWC[:, :, channel] = (np.minimum(plane, WHITE) + 128) >> 8
        return rgb_HWC

    @property
    def planes(self) -> tuple[Plane, Plane, Plane]:
        """Red, green and blue as writable views; valid as long as this frame."""
        return self._plane(_RED), self._plane(_GREEN), self._plane(_BLUE)

    @property
    def alpha(self) -> Plane | None:
        """Opacity as a writable view, `WHITE` is opaque; None for a frame without."""
        return self._plane(_ALPHA) if self.picture.format.name == ALPHA_PIX_FMT else None

    @property
    def is_transparent(self) -> bool:
        """Whether any pixel is less than opaque by more than one of 255 steps."""
        return self.alpha is not None and int(self.alpha.min()) < WHITE - (1 << 8)

    def _plane(self, index: int) -> Plane:
        plane = self.picture.planes[index]
        rows: NDArray[Any] = np.frombuffer(memoryview(plane), np.uint16).reshape(self.height, plane.line_size // 2)
        return rows[:, : self.width]
