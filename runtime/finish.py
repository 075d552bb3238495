"""The artist's controls: how much of the style is seen where and when, applied as the result is stored."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final, Self

import av
import numpy as np
from numpy.typing import NDArray

from stylize.runtime.color import LUMA_WEIGHTS_BT709, ColorConverter
from stylize.runtime.decode import Decoder, VideoInfo
from stylize.runtime.errors import BackendError, OptionError
from stylize.runtime.frame import WHITE, Frame, TimedPicture
from stylize.runtime.picture_filter import build_graph
from stylize.runtime.steady import Steadier, num_warmup_frames

__all__ = ["Finish", "FinishOptions", "Mask"]

# A Gaussian edge rises from 10 to 90 % within 2.563 standard deviations.
_SIGMAS_PER_EDGE: Final = 2.563

Weight = float | NDArray[np.float32]
"""How much of the style is seen: one number, or (H, W) float32, both in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class FinishOptions:
    """Where, when and how the style shows; the defaults show all of it everywhere."""

    keep_colors: bool = False
    """Take only the brightness from the style and the chroma from the source."""
    mask: Path | None = None
    """A picture or video of which white is stylized and black left alone."""
    mask_feather_px: float = 0.0
    """Pixels over which the edges of the mask are softened, from 10 to 90 %."""
    fade_in_seconds: float = 0.0
    """The style comes up from nothing over this time from the first frame on."""
    fade_out_seconds: float = 0.0
    """The style goes down to nothing over this time up to the end of the last frame."""
    steady: float = 0.0
    """How strongly strokes are held in place from frame to frame, in [0, 1]; 0 leaves them as the network paints."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.steady <= 1.0:
            raise OptionError(f"steady {self.steady} is outside 0..1")
        for name in ("mask_feather_px", "fade_in_seconds", "fade_out_seconds"):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise OptionError(f"{name} {getattr(self, name)} must be 0 or more")
        if self.mask_feather_px and self.mask is None:
            raise OptionError("a feather softens the edges of a mask: give --mask as well")


class Finish:
    """Blends stylized pictures into their sources, by frame time and place, steadied on request.

    A context manager when there is a mask, which is a file; frames in order. One thread may call `weight` and
    `store`, another one `settle`.
    """

    def __init__(
        self,
        options: FinishOptions | None = None,
        *,
        strength: float = 1.0,
        info: VideoInfo | None = None,
        first_seconds: Fraction = Fraction(0),
        mask_offset_seconds: Fraction = Fraction(0),
    ) -> None:
        """Open what `options` need.

        Args:
            options: the controls; None for none.
            strength: 0 shows the source, 1 the style, in between a blend.
            info: size, colour and length of the video; None for single pictures.
            first_seconds: time of the video's first frame, from which fades and mask count.
            mask_offset_seconds: where in the mask the first frame lies, for a video cut at its start.

        Raises:
            OptionError: strength outside [0, 1], or a fade-out of a video whose length is unknown.
            InputMediaError: the mask cannot be read.
        """
        if not 0.0 <= strength <= 1.0:
            raise OptionError(f"strength {strength} is outside 0..1")
        self.notes: list[str] = []
        """What was changed about the mask, one sentence each."""
        self.cut_seconds: list[float] = []
        """Where new scenes begin, in seconds from the first frame; found only while steadying."""
        self._options = options or FinishOptions()
        self._steadier: Steadier | None = None  # made for the first picture that is not steadied on a GPU
        self._unsettled: deque[_Unsettled] = deque()
        self._spare_CHW: deque[NDArray[np.float32]] = deque()
        self._strength = strength
        self._luma_weights = info.color.luma_weights if info is not None else LUMA_WEIGHTS_BT709
        self._duration_seconds = info.duration_seconds if info is not None else None
        self._mask_offset_seconds = mask_offset_seconds
        self._first_seconds = first_seconds
        if self._options.fade_out_seconds and self._duration_seconds is None:
            raise OptionError("--fade-out: the length of this input is unknown; give --end, or a file that states it")
        self._mask: Mask | None = None
        if self._options.mask is not None:
            if info is None:
                raise OptionError("a mask needs the size of the video it lies on")
            self._mask = Mask(
                self._options.mask, width=info.width, height=info.height, feather_px=self._options.mask_feather_px
            )
            self.notes += self._mask.notes

    def seconds(self, frame: TimedPicture) -> float:
        """Time of `frame` since the first one; 0 for a picture without a time."""
        return 0.0 if frame.picture.pts is None else float(self._seconds(frame))

    @property
    def keeps_colors(self) -> bool:
        """Whether only brightness comes from the style."""
        return self._options.keep_colors

    def weight(self, frame: Frame) -> Weight:
        """How much of the style `frame` shows."""
        strength, mask = self.strength_and_mask(frame)
        return strength if mask is None else mask * np.float32(strength)

    def strength_and_mask(self, picture: TimedPicture) -> tuple[float, NDArray[np.float32] | None]:
        """The two factors of `weight`; the mask, where there is one, is the same array until its picture changes."""
        strength = self._strength
        if self._options.fade_in_seconds or self._options.fade_out_seconds:
            strength *= self._fade(float(self._seconds(picture)))
        if self._mask is None or not strength:
            return strength, None
        return strength, self._mask.at(self._seconds(picture) + self._mask_offset_seconds)

    @property
    def steady(self) -> float:
        """How strongly strokes are held in place, in [0, 1]; above 0 every frame must pass `settle` in the end."""
        return self._options.steady

    @property
    def num_warmup_frames(self) -> int:
        """How many earlier frames must pass before one comes out as in mid-video; 0 where none is remembered."""
        return num_warmup_frames(self.steady)

    def store(self, result_CHW: NDArray[np.float32], frame: Frame, *, weight: Weight) -> None:
        """Write a stylized picture over its source, in one pass over the planes; when steadied, note it for `settle`.

        Args:
            result_CHW: (3, H, W) RGB, `WHITE` is white, values outside are clipped; spoiled.
            frame: the source, replaced in place; its time and alpha stay.
            weight: from `weight(frame)`.

        Raises:
            BackendError: `result_CHW` holds values that are not numbers.
        """
        np.clip(result_CHW, 0, WHITE, out=result_CHW)
        if not self.steady:
            self._write(result_CHW, frame, weight)
            return
        kept_CHW = self._spare_CHW.pop() if self._spare_CHW else np.empty_like(result_CHW)
        if kept_CHW.shape != result_CHW.shape:
            kept_CHW = np.empty_like(result_CHW)
        np.copyto(kept_CHW, result_CHW)
        self._unsettled.append(_Unsettled(frame, kept_CHW, weight))

    def settle(self, frame: Frame) -> None:
        """Steady what was stored for `frame` and write it over the source; frames in order, those left alone too.

        Raises:
            BackendError: as `store`.
            BackendUnavailableError: what steadies is not installed.
        """
        self._steadier = self._steadier or Steadier(self.steady)
        if not self._unsettled or self._unsettled[0].frame is not frame:
            self._steadier.reset()  # shown without style: what was before it has nothing to hold on to
            return
        unsettled = self._unsettled.popleft()
        if self._steadier.push(frame.planes, unsettled.result_CHW):
            self.note_cut(frame)
        self._write(unsettled.result_CHW, frame, unsettled.weight)
        self._spare_CHW.append(unsettled.result_CHW)

    def note_cut(self, picture: TimedPicture) -> None:
        """Note that a new scene begins with `picture`."""
        self.cut_seconds.append(round(float(self._seconds(picture)), 3))

    def _write(self, result_CHW: NDArray[np.float32], frame: Frame, weight: Weight) -> None:
        """Blend the picture, which is spoiled, with the source it replaces."""
        planes = frame.planes
        if self._options.keep_colors:
            # Equal steps in R, G and B change luma and leave both colour differences as they are.
            step = np.zeros(result_CHW.shape[1:], np.float32)
            for plane, result, share in zip(planes, result_CHW, self._luma_weights, strict=True):
                result -= plane
                result *= np.float32(share)
                step += result
            step *= weight
            for plane, result in zip(planes, result_CHW, strict=True):
                np.add(plane, step, out=result, dtype=np.float32)
            np.clip(result_CHW, 0, WHITE, out=result_CHW)
        elif isinstance(weight, np.ndarray) or weight < 1.0:
            for plane, result in zip(planes, result_CHW, strict=True):
                result -= plane
                result *= weight
                result += plane
        try:
            with np.errstate(invalid="raise"):
                for plane, result in zip(planes, result_CHW, strict=True):
                    np.copyto(plane, result, casting="unsafe")
        except FloatingPointError as error:
            raise BackendError("the network returned values that are not numbers (NaN)") from error

    def close(self) -> None:
        """Close the mask; calling it again is harmless."""
        if self._mask is not None:
            self._mask.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _seconds(self, frame: TimedPicture) -> Fraction:
        return frame.pts * frame.time_base - self._first_seconds

    def _fade(self, seconds: float) -> float:
        fade = 1.0
        if self._options.fade_in_seconds:
            fade = min(fade, seconds / self._options.fade_in_seconds)
        if self._options.fade_out_seconds and self._duration_seconds is not None:
            fade = min(fade, (self._duration_seconds - seconds) / self._options.fade_out_seconds)
        return max(fade, 0.0)


@dataclass(frozen=True)
class _Unsettled:
    """A stylized picture on its way from `store` to `settle`."""

    frame: Frame
    result_CHW: NDArray[np.float32]
    weight: Weight


class Mask:
    """Weights from a picture or video, scaled to the video they lie on.

    Where the mask is transparent it counts as black; a video shorter than the other holds its last frame.
    """

    def __init__(self, path: Path, *, width: int, height: int, feather_px: float) -> None:
        """Open `path` for frames of `width` x `height` pixels.

        Raises:
            InputMediaError: it cannot be read.
        """
        self.notes: list[str] = []
        """What was changed about the mask, one sentence each."""
        self._decoder = Decoder(path)
        self._width, self._height = width, height
        self._sigma_px = feather_px / _SIGMAS_PER_EDGE
        self._converter = ColorConverter()
        own = self._decoder.info
        # More than a pixel off in proportion is no rounding.
        if abs(own.width * height - own.height * width) > max(own.width, width):
            self.notes.append(f"the mask of {own.width}x{own.height} is stretched to {width}x{height}")
        self._frames: Iterator[Frame] = (item for item in self._decoder if isinstance(item, Frame))
        first = next(self._frames)
        self._start = first.pts * first.time_base
        self._weights = self._weights_of(first)
        self._next = next(self._frames, None)

    def at(self, seconds: Fraction) -> NDArray[np.float32]:
        """Weights (H, W) in [0, 1] at `seconds` from the mask's start, which must not go back; not to be changed."""
        latest: Frame | None = None
        while self._next is not None and self._next.pts * self._next.time_base - self._start <= seconds:
            latest, self._next = self._next, next(self._frames, None)
        if latest is not None:
            self._weights = self._weights_of(latest)
        return self._weights

    def close(self) -> None:
        """Close the file; calling it again is harmless."""
        self._decoder.close()

    def _weights_of(self, frame: Frame) -> NDArray[np.float32]:
        if (frame.width, frame.height) != (self._width, self._height):
            frame = self._converter.resized_frame(frame, width=self._width, height=self._height)
        weights = np.zeros((self._height, self._width), np.float32)
        for plane, share in zip(frame.planes, LUMA_WEIGHTS_BT709, strict=True):
            weights += plane * np.float32(share / WHITE)
        if frame.alpha is not None:
            weights *= frame.alpha * np.float32(1 / WHITE)
        np.clip(weights, 0, 1, out=weights)
        return _blurred(weights, self._sigma_px) if self._sigma_px else weights


def _blurred(weights: NDArray[np.float32], sigma_px: float) -> NDArray[np.float32]:
    """`weights` (H, W) in [0, 1] under a Gaussian of `sigma_px`, by FFmpeg's recursive filter."""
    picture = av.VideoFrame.from_ndarray(np.rint(weights * 65535).astype(np.uint16), "gray16le")
    picture.time_base = Fraction(1)
    graph = build_graph(picture, (("gblur", f"sigma={sigma_px}:steps=3"),))
    graph.vpush(picture)
    blurred: NDArray[np.float32] = graph.vpull().to_ndarray() * np.float32(1 / 65535)
    return blurred
