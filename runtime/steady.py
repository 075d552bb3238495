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

from stylize.runtime.errors import BackendUnavailableError, OptionError
from stylize.runtime.frame import WHITE
from stylize.runtime.steady_constants import (
    CUT_DEVIATION,
    CUT_RATIO,
    DARKNESS,
    DIFFERENCE,
    LARGEST_SHARE,
    LIGHT_CHANGE,
    LIGHT_SIDE_CELLS,
    REPAINTED,
    REPAINTED_SIDE_CELLS,
)
from stylize.runtime.steady_motion import Guide, MotionSearch, Picture

__all__ = ["Steadier", "num_warmup_frames"]

# Height of the bands in which what moves is warped.
_BAND_CELLS: Final = 8


def _opencv() -> Any:  # noqa: ANN401 - cv2 is typed loosely
    try:
        return importlib.import_module("cv2")
    except ImportError as error:
        raise BackendUnavailableError(
            "--steady searches motion with OpenCV, which is not installed: pip install 'stylize[steady]', or --steady 0"
        ) from error


def num_warmup_frames(amount: float) -> int:
    """After how many frames what was before the first of them shows by less than half an 8-bit code value.

    Args:
        amount: how strongly the last result holds on, in [0, 1]; 0 remembers nothing.
    """
    return math.ceil(math.log(1 / 512) / math.log(LARGEST_SHARE * amount)) if amount else 0


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
        self._share = np.float32(LARGEST_SHARE * amount)
        self._cv2 = _opencv()
        self._search = MotionSearch(self._cv2)
        self._guide: Guide | None = None
        self._allocate((3, 0, 0))

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
            guide = Guide(self._cv2, source)
            earlier, self._guide = self._guide, guide
            is_cut = False
            if earlier is None or self._history_CHW.shape != stylized_CHW.shape:
                self._allocate(stylized_CHW.shape)
            else:
                flow, expected = self._search(guide, earlier)
                is_cut = self._is_cut(guide, expected)
                if not is_cut:
                    self._set_gap(stylized_CHW, flow)
                    weight = self._source_weight(guide, expected, flow) * self._painting_weight(guide)
                    self._blend(stylized_CHW, weight)
            np.copyto(self._history_CHW, stylized_CHW)
            return is_cut

    def _allocate(self, shape: tuple[int, ...]) -> None:
        _, height, width = shape
        self._history_CHW = np.empty(shape, np.float32)
        self._gap_CHW = np.empty(shape, np.float32)
        self._scratch = np.empty((2, height, width), np.float32)
        x_px, y_px = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
        self._grid = x_px, y_px

    def _is_cut(self, guide: Guide, expected: Picture) -> bool:
        """Whether another scene begins. By standard deviations: a change of light alone is no cut."""
        cv2 = self._cv2
        change = cv2.subtract(guide.rgby, expected)
        remainder, contrast = (float(np.mean(cv2.meanStdDev(picture)[1][:3])) for picture in (change, guide.rgby))
        return remainder > max(CUT_DEVIATION, CUT_RATIO * contrast)

    def _source_weight(self, guide: Guide, expected: Picture, flow: Picture) -> Picture:
        """What the source says of a m, for every cell."""
        cv2 = self._cv2
        side = (LIGHT_SIDE_CELLS, LIGHT_SIDE_CELLS)
        light = guide.mean_of_cells(cv2.extractChannel(expected, 3))
        light_change = cv2.blur(guide.mean_of_cells(guide.luma) - light, side)
        light_change /= cv2.blur(light, side) + np.float32(DARKNESS)
        exponent = np.square(guide.difference(expected) * np.float32(1 / DIFFERENCE))
        exponent += np.square(light_change * np.float32(1 / LIGHT_CHANGE))
        weight: Picture = cv2.exp(-exponent)
        weight *= self._share
        weight[_leaves_the_picture(flow)] = 0
        return weight

    def _painting_weight(self, guide: Guide) -> Picture:
        """0 where the network paints something else than it did, 1 where the same, for every cell."""
        repainted = np.zeros(guide.cells, np.float32)
        for gap in self._gap_CHW:
            mean = self._cv2.resize(gap, guide.cells[::-1], interpolation=self._cv2.INTER_AREA)
            repainted += np.square(self._cv2.blur(mean, (REPAINTED_SIDE_CELLS, REPAINTED_SIDE_CELLS)))
        weight: Picture = self._cv2.exp(repainted * np.float32(-1 / (3 * (REPAINTED * WHITE) ** 2)))
        return weight

    def _set_gap(self, stylized_CHW: Picture, flow: Picture) -> None:
        """Keep W(S) - O, with W by cubic convolution where something moves."""
        cv2 = self._cv2
        for history, plane, gap in zip(self._history_CHW, stylized_CHW, self._gap_CHW, strict=True):
            cv2.subtract(history, plane, gap)
        if not flow.any():
            return
        height, width = stylized_CHW.shape[1:]
        for axis, scale, wide_px in zip(
            flow, (width / flow.shape[2], height / flow.shape[1]), self._scratch, strict=True
        ):
            cv2.resize(axis * np.float32(scale), (width, height), wide_px)
        for part in _moving_parts(flow, (height, width)):
            x_px, y_px = (cv2.add(wide[part], grid[part]) for wide, grid in zip(self._scratch, self._grid, strict=True))
            for history, plane, gap in zip(self._history_CHW, stylized_CHW, self._gap_CHW, strict=True):
                cv2.remap(history, x_px, y_px, cv2.INTER_CUBIC, gap[part], cv2.BORDER_REPLICATE)
                cv2.subtract(gap[part], plane[part], gap[part])

    def _blend(self, stylized_CHW: Picture, weight: Picture) -> None:
        """Write a m W(S) + (1 - a m) O over O."""
        cv2 = self._cv2
        wide_weight = cv2.resize(weight, stylized_CHW.shape[:0:-1], self._scratch[0])
        for plane, gap in zip(stylized_CHW, self._gap_CHW, strict=True):
            cv2.multiply(gap, wide_weight, gap)
            cv2.add(plane, gap, plane)
            # Cubic convolution overshoots at edges.
            np.clip(plane, 0, WHITE, out=plane)


def _leaves_the_picture(flow: Picture) -> NDArray[np.bool_]:
    """Where the flow points outside, (ch, cw)."""
    height, width = flow.shape[1:]
    x = flow[0] + np.arange(width, dtype=np.float32)
    y = flow[1] + np.arange(height, dtype=np.float32)[:, None]
    is_outside: NDArray[np.bool_] = (x < 0) | (x > width - 1) | (y < 0) | (y > height - 1)
    return is_outside


def _moving_parts(flow: Picture, size: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of a picture of `size`, (H, W), that hold all cells that move, and one more on each side.

    Interpolation draws those in. Each part is as wide as what moves in its band of rows.
    """
    is_moving: NDArray[np.bool_] = np.any(flow, axis=0)
    num_rows, num_columns = is_moving.shape
    row_px, column_px = size[0] / num_rows, size[1] / num_columns
    for top in range(0, num_rows, _BAND_CELLS):
        bottom = min(top + _BAND_CELLS, num_rows)
        places = np.flatnonzero(is_moving[max(top - 1, 0) : bottom + 1].any(axis=0))
        if places.size:
            left, right = max(int(places[0]) - 1, 0), min(int(places[-1]) + 2, num_columns)
            yield (
                slice(math.floor(top * row_px), math.ceil(bottom * row_px)),
                slice(math.floor(left * column_px), math.ceil(right * column_px)),
            )


@contextmanager
def _one_thread(cv2: Any) -> Iterator[None]:  # noqa: ANN401
    """OpenCV on the calling thread alone: the network has the others, and the search depends on their number."""
    num_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(num_threads)
