"""Strokes that stay on what they were painted on: each frame is blended with the last result, moved along with it.

With O the stylized frame, I its source and W the warp by the source's motion from t to t-1,

    S_t = O_t + a m (W(S_{t-1}) - O_t),   m = exp(-(d / 0.05)^2 - (l / 0.03)^2 - (r / 0.06)^2)

where d is the mean absolute difference of I_t and W(I_{t-1}) around a pixel, l the relative change of light
there and r the difference of O_t and W(S_{t-1}) in their mean colour there. Where the source did not come from the
last frame (uncovered, too fast, another scene), its light changed or the network paints something else, m is 0 and
the new frame stands alone, so nothing wrong can stay behind.

The blend is that of Shekhar et al., "Interactive control over temporal consistency while stylizing video streams"
(EGSR 2023), and of temporal anti-aliasing (Yang, Liu, Salvi, Eurographics 2020). What was measured to choose the
constants stands in docs/steady.md.
"""

import importlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stylize.runtime.color import LUMA_WEIGHTS_BT709
from stylize.runtime.errors import BackendUnavailableError, OptionError
from stylize.runtime.frame import WHITE

__all__ = ["Steadier"]

# The history's share at --steady 1. More would outlast the strokes' own life and blur: docs/steady.md.
_LARGEST_SHARE: Final = 0.9
# Motion is searched on a picture of at most this width and height: 640x360 and 1920x1080 become 320x180 and 480x270.
_GUIDE_SIDE_PX: Final = 480
# What is smaller than this serves as it is. At half the size 640x360 takes a quarter of the time.
_WHOLE_SIDE_PX: Final = 320
# Dense inverse search takes no smaller picture; what is smaller counts as standing still.
_SEARCH_SIDE_PX: Final = 16
# The search stops at half the guide's size; OpenCV's own choice for this preset, a quarter, doubles the error.
_FINEST_SCALE: Final = 1
# On [0, 1]. Three times the difference that 8-bit video at low bitrates leaves in what stands still.
_DIFFERENCE: Final = 0.05
# Of the light that was there; a fade over one second at 25 Hz changes 0.04 a frame.
_LIGHT_CHANGE: Final = 0.03
# Added to the luma by which a change of light is divided: the noise of black is no change of light.
_DARKNESS: Final = 0.1
# On [0, 1], of the mean colour around a pixel: the network paints something else there, as its halos around what
# passes by do. Flicker of single strokes, even of 0.05, stays below a third of this.
_REPAINTED: Final = 0.06
_REPAINTED_SIDE_PX: Final = 15
# A difference is averaged over this side, a change of light over the other; pixels of the guide.
_DIFFERENCE_SIDE_PX: Final = 5
_LIGHT_SIDE_PX: Final = 9
# Motion must explain the source this much better than standing still, else nothing moves: still parts are then not
# resampled, and noise is not mistaken for motion.
_MOTION_GAIN: Final = 1.1
_MOTION_GAIN_OFFSET: Final = 0.001
# A cut: what the motion leaves of the source, over the source's own contrast, and in itself. Neighbouring frames of
# three clips stay below 0.14, pairs of different photographs above 0.67.
_CUT_RATIO: Final = 0.5
_CUT_DEVIATION: Final = 0.06

Picture = NDArray[np.float32]


def _opencv() -> Any:  # noqa: ANN401 - cv2 is typed loosely
    try:
        return importlib.import_module("cv2")
    except ImportError as error:
        raise BackendUnavailableError(
            "--steady searches motion with OpenCV, which is not installed: pip install 'stylize[steady]', or --steady 0"
        ) from error


class Steadier:
    """Steadies the frames of one video, in order; holds the last result and a small copy of its source.

    A resumed or cut video needs only `reset()` and then `push` from there on; frames pushed before the first
    one that is kept warm it up. The same frames give the same results bit for bit. For one thread at a time.
    """

    def __init__(self, amount: float) -> None:
        """Take `amount` in (0, 1]: how strongly the last result holds on; see docs/steady.md.

        Raises:
            OptionError: the amount is outside.
            BackendUnavailableError: OpenCV is not installed.
        """
        if not 0.0 < amount <= 1.0:
            raise OptionError(f"steady {amount} is outside 0..1; 0 is done by no steadier at all")
        self._share = np.float32(_LARGEST_SHARE * amount)
        self._cv2 = _opencv()
        self._search = self._cv2.DISOpticalFlow.create(self._cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._search.setFinestScale(_FINEST_SCALE)
        self._guide: _Guide | None = None
        self._history_CHW: Picture = np.empty((3, 0, 0), np.float32)
        self._warped_CHW: Picture = np.empty((3, 0, 0), np.float32)
        self._grid: tuple[Picture, Picture] = (np.empty((0, 0), np.float32), np.empty((0, 0), np.float32))

    @property
    def num_warmup_frames(self) -> int:
        """After how many frames what was before the first of them shows by less than half an 8-bit code value."""
        return math.ceil(math.log(1 / 512) / math.log(float(self._share)))

    def reset(self) -> None:
        """Forget what was before: the next frame comes out as it is."""
        self._guide = None

    def push(self, source: Sequence[NDArray[np.uint16]], stylized_CHW: Picture) -> bool:
        """Steady one frame.

        Args:
            source: red, green and blue of the frame before it was stylized, each (H, W) with `WHITE` for white.
            stylized_CHW: (3, H, W) RGB, C-contiguous, likewise in [0, WHITE]; replaced by the steadied picture.

        Returns:
            True where a new scene begins; the picture is then left as it is.
        """
        with _one_thread(self._cv2):
            guide = _Guide(self._cv2, source)
            earlier, self._guide = self._guide, guide
            is_cut = False
            if earlier is None or self._history_CHW.shape != stylized_CHW.shape:
                self._allocate(stylized_CHW.shape)
            else:
                flow_px, expected_rgb = self._motion(guide, earlier)
                weight, is_cut = self._weight(guide, expected_rgb, flow_px)
                if not is_cut:
                    self._blend(stylized_CHW, flow_px, weight)
            np.copyto(self._history_CHW, stylized_CHW)
            return is_cut

    def _allocate(self, shape: tuple[int, ...]) -> None:
        _, height, width = shape
        self._history_CHW = np.empty(shape, np.float32)
        self._warped_CHW = np.empty(shape, np.float32)
        x_px, y_px = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
        self._grid = x_px, y_px

    def _motion(self, guide: "_Guide", earlier: "_Guide") -> tuple[Picture, Picture]:
        """Where each pixel of the guide was in the earlier one, (h, w, 2), and what it looked like, (h, w, 3).

        What stands still has a flow of exactly 0.
        """
        if min(guide.luma.shape) < _SEARCH_SIDE_PX:
            return np.zeros((*guide.luma.shape, 2), np.float32), earlier.rgb
        flow_px: Picture = self._search.calc(guide.luma, earlier.luma, None)
        expected_rgb = earlier.warped(flow_px)
        limit = _MOTION_GAIN * guide.difference(expected_rgb) + np.float32(_MOTION_GAIN_OFFSET)
        moves = (guide.difference(earlier.rgb) > limit).view(np.uint8)
        flow_px *= moves[..., None]
        self._cv2.copyTo(earlier.rgb, 1 - moves, expected_rgb)
        return flow_px, expected_rgb

    def _weight(self, guide: "_Guide", expected_rgb: Picture, flow_px: Picture) -> tuple[Picture, bool]:
        """The product a m of every pixel of the guide, (h, w) in [0, 1], and whether another scene begins."""
        cv2 = self._cv2
        change = cv2.subtract(guide.rgb, expected_rgb)
        # Standard deviations: a change of light alone is no cut.
        remainder, contrast = (float(np.mean(cv2.meanStdDev(picture)[1])) for picture in (change, guide.rgb))
        is_cut = remainder > max(_CUT_DEVIATION, _CUT_RATIO * contrast)
        difference = guide.difference(expected_rgb)
        weights = np.array([LUMA_WEIGHTS_BT709], np.float32)
        light_change = cv2.blur(cv2.transform(change, weights), (_LIGHT_SIDE_PX, _LIGHT_SIDE_PX))
        light = cv2.blur(cv2.transform(expected_rgb, weights), (_LIGHT_SIDE_PX, _LIGHT_SIDE_PX))
        light_change /= light + np.float32(_DARKNESS)
        exponent = np.square(difference * np.float32(1 / _DIFFERENCE))
        exponent += np.square(light_change * np.float32(1 / _LIGHT_CHANGE))
        weight: Picture = cv2.exp(-exponent)
        weight *= self._share
        weight[_leaves_the_picture(flow_px)] = 0
        return weight, is_cut

    def _blend(self, stylized_CHW: Picture, flow_px: Picture, weight: Picture) -> None:
        """Write a m W(S) + (1 - a m) O over O."""
        cv2 = self._cv2
        height, width = stylized_CHW.shape[1:]
        self._warp(flow_px)
        repainted = np.zeros_like(weight)
        for plane, gap in zip(stylized_CHW, self._warped_CHW, strict=True):
            cv2.subtract(gap, plane, gap)
            small = cv2.resize(gap, weight.shape[::-1], interpolation=cv2.INTER_AREA)
            repainted += np.square(cv2.blur(small, (_REPAINTED_SIDE_PX, _REPAINTED_SIDE_PX)))
        weight = weight * cv2.exp(repainted * np.float32(-1 / (3 * (_REPAINTED * WHITE) ** 2)))
        weight = cv2.resize(weight, (width, height), interpolation=cv2.INTER_LINEAR)
        for plane, gap in zip(stylized_CHW, self._warped_CHW, strict=True):
            cv2.multiply(gap, weight, gap)
            cv2.add(plane, gap, plane)
            # Cubic convolution overshoots at edges.
            np.clip(plane, 0, WHITE, out=plane)

    def _warp(self, flow_px: Picture) -> None:
        """W(S): the history where the flow points, by cubic convolution, copied where nothing moves."""
        cv2 = self._cv2
        np.copyto(self._warped_CHW, self._history_CHW)
        window = _moving_window(flow_px)
        if window is None:
            return
        height, width = self._history_CHW.shape[1:]
        scale = np.array([width / flow_px.shape[1], height / flow_px.shape[0]], np.float32)
        flow_px = cv2.resize(flow_px * scale, (width, height), interpolation=cv2.INTER_LINEAR)
        rows, columns = (
            slice(math.floor(side.start * factor), math.ceil(side.stop * factor))
            for side, factor in zip(window, scale[::-1].tolist(), strict=True)
        )
        x_px, y_px = (grid[rows, columns] + flow_px[rows, columns, axis] for axis, grid in enumerate(self._grid))
        for earlier, warped in zip(self._history_CHW, self._warped_CHW, strict=True):
            cv2.remap(earlier, x_px, y_px, cv2.INTER_CUBIC, warped[rows, columns], cv2.BORDER_REPLICATE)


class _Guide:
    """A source frame made small: what motion is searched on and differences are seen in.

    Attributes:
        rgb: (h, w, 3) float32 in [0, 1] and above for highlights.
        luma: (h, w) uint8.
    """

    def __init__(self, cv2: Any, source: Sequence[NDArray[np.uint16]]) -> None:  # noqa: ANN401
        height, width = source[0].shape
        step = max(-(-max(height, width) // _GUIDE_SIDE_PX), 2 if max(height, width) > _WHOLE_SIDE_PX else 1)
        size = -(-width // step), -(-height // step)
        planes = [cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in source]
        self._cv2 = cv2
        self.rgb: Picture = np.multiply(cv2.merge(planes), np.float32(1 / WHITE), dtype=np.float32)
        luma = cv2.transform(self.rgb, np.array([LUMA_WEIGHTS_BT709], np.float32))
        self.luma: NDArray[np.uint8] = cv2.convertScaleAbs(luma, alpha=255)

    def warped(self, flow_px: Picture) -> Picture:
        """The colours where the flow points, (h, w, 3), bilinear."""
        height, width = self.luma.shape
        x_px = flow_px[..., 0] + np.arange(width, dtype=np.float32)
        y_px = flow_px[..., 1] + np.arange(height, dtype=np.float32)[:, None]
        cv2 = self._cv2
        picture: Picture = cv2.remap(self.rgb, x_px, y_px, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)
        return picture

    def difference(self, other_rgb: Picture) -> Picture:
        """Mean absolute difference of the colours around each pixel, (h, w)."""
        cv2 = self._cv2
        mean = cv2.transform(cv2.absdiff(self.rgb, other_rgb), np.full((1, 3), 1 / 3, np.float32))
        blurred: Picture = cv2.blur(mean, (_DIFFERENCE_SIDE_PX, _DIFFERENCE_SIDE_PX))
        return blurred


def _leaves_the_picture(flow_px: Picture) -> NDArray[np.bool_]:
    """Where the flow points outside, (h, w)."""
    height, width = flow_px.shape[:2]
    x_px = flow_px[..., 0] + np.arange(width, dtype=np.float32)
    y_px = flow_px[..., 1] + np.arange(height, dtype=np.float32)[:, None]
    is_outside: NDArray[np.bool_] = (x_px < 0) | (x_px > width - 1) | (y_px < 0) | (y_px > height - 1)
    return is_outside


def _moving_window(flow_px: Picture) -> tuple[slice, slice] | None:
    """Rows and columns around all that moves, with the pixel beside it that interpolation draws in."""
    is_moving: NDArray[np.bool_] = np.any(flow_px, axis=-1)
    sides = []
    for axis in (1, 0):
        places = np.flatnonzero(is_moving.any(axis=axis))
        if not places.size:
            return None
        sides.append(slice(max(int(places[0]) - 1, 0), min(int(places[-1]) + 2, is_moving.shape[1 - axis])))
    rows, columns = sides
    return rows, columns


@contextmanager
def _one_thread(cv2: Any) -> Iterator[None]:  # noqa: ANN401
    """OpenCV on the calling thread alone: the network has the others, and the search depends on their number."""
    num_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(num_threads)
