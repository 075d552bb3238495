"""Where a frame was in the one before: a small picture of each, and the motion between two of them.

The search is dense inverse search (Kroeger et al., "Fast optical flow using dense inverse search", ECCV 2016) on a
quarter of the picture's size, then two steps of Lucas and Kanade's method (IJCAI 1981) at twice that size, whose
sums are taken over cells of 2x2 pixels so that all but six operations are done on a quarter of the pixels. What was
measured to choose this stands in docs/steady.md.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stylize.runtime.color import LUMA_WEIGHTS_BT709
from stylize.runtime.frame import WHITE
from stylize.runtime.steady_constants import (
    CELL_SIDE_PX,
    DIFFERENCE_SIDE_CELLS,
    FLAT_CELLS,
    FLATNESS,
    FLOW_SIDE_CELLS,
    LARGEST_STEP_PX,
    MOTION_GAIN,
    MOTION_GAIN_OFFSET,
    NUM_REFINEMENTS,
    SEARCH_SIDE_PX,
    SUM_SIDE_CELLS,
    guide_size,
)

__all__ = ["Guide", "MotionSearch", "Picture"]

# Of 8x8 patches, 4 being the preset's own: a third less time, and refining makes up for the loss.
_PATCH_STRIDE_PX: Final = 6

Picture = NDArray[np.float32]


class Guide:
    """A source frame made small: what motion is searched on and differences are seen in.

    Attributes:
        rgby: (h, w, 4) float32, red, green, blue and luma in [0, 1] and above for highlights.
        luma: (h, w) float32, the last of them.
        cells: (ch, cw), how many cells of 2x2 pixels the picture has.
        luma_of_cells: (ch, cw) uint8.
    """

    def __init__(self, cv2: Any, source: Sequence[NDArray[np.uint16]]) -> None:  # noqa: ANN401 - cv2 is typed loosely
        """Shrink `source`: red, green and blue, each (H, W) with `WHITE` for white."""
        height, width = source[0].shape
        size = guide_size(width, height)
        planes = [cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in source]
        planes = [np.multiply(plane, np.float32(1 / WHITE), dtype=np.float32) for plane in planes]
        red, green, blue = (np.float32(weight) for weight in LUMA_WEIGHTS_BT709)
        self.luma: Picture = cv2.scaleAdd(planes[2], blue, cv2.addWeighted(planes[0], red, planes[1], green, 0))
        self.rgby: Picture = cv2.merge([*planes, self.luma])
        self._cv2 = cv2
        self.cells = -(-size[1] // CELL_SIDE_PX), -(-size[0] // CELL_SIDE_PX)
        self.luma_of_cells: NDArray[np.uint8] = cv2.convertScaleAbs(self.mean_of_cells(self.luma), alpha=255)

    def mean_of_cells(self, picture: Picture) -> Picture:
        """The mean of a picture of the guide's size in each cell."""
        mean: Picture = self._cv2.resize(picture, self.cells[::-1], interpolation=self._cv2.INTER_AREA)
        return mean

    def difference(self, other_rgby: Picture) -> Picture:
        """Mean absolute difference of the colours around each cell, (ch, cw)."""
        cv2 = self._cv2
        apart = self.mean_of_cells(cv2.absdiff(self.rgby, other_rgby))
        mean = cv2.cvtColor(apart, cv2.COLOR_RGBA2GRAY)  # by luma weights; a tenth of the time of equal ones
        blurred: Picture = cv2.blur(mean, (DIFFERENCE_SIDE_CELLS, DIFFERENCE_SIDE_CELLS))
        return blurred


class MotionSearch:
    """Searches motion between guides of one size; holds scratch memory, so it serves one thread."""

    def __init__(self, cv2: Any) -> None:  # noqa: ANN401
        self._cv2 = cv2
        self._search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._search.setFinestScale(0)
        self._search.setPatchStride(_PATCH_STRIDE_PX)
        self._grid: tuple[Picture, Picture] = np.empty((0, 0), np.float32), np.empty((0, 0), np.float32)

    def __call__(self, guide: Guide, earlier: Guide) -> tuple[Picture, Picture]:
        """Where each cell of the guide was in the earlier one, and what that looked like.

        Returns:
            (2, ch, cw) flow, x and y in cells, exactly 0 in what stands still; and (h, w, 4), the earlier guide where
            the flow points.
        """
        if min(guide.cells) < SEARCH_SIDE_PX:
            return np.zeros((2, *guide.cells), np.float32), earlier.rgby
        flow = np.stack(self._cv2.split(self._search.calc(guide.luma_of_cells, earlier.luma_of_cells, None)))
        flow = self._refined(guide, earlier, flow)
        expected = self._sampled(earlier.rgby, flow)
        limit = MOTION_GAIN * guide.difference(expected) + np.float32(MOTION_GAIN_OFFSET)
        is_moving = (guide.difference(earlier.rgby) > limit).view(np.uint8)
        cv2 = self._cv2
        # Single cells that seem to move are noise; flat ones between others that move, as of a car's roof, move too.
        is_moving = cv2.morphologyEx(is_moving, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        is_moving = cv2.morphologyEx(is_moving, cv2.MORPH_CLOSE, np.ones((FLAT_CELLS, FLAT_CELLS), np.uint8))
        flow *= is_moving
        stands = self._cv2.resize(1 - is_moving, guide.luma.shape[::-1], interpolation=self._cv2.INTER_NEAREST)
        self._cv2.copyTo(earlier.rgby, stands, expected)
        return flow, expected

    def _refined(self, guide: Guide, earlier: Guide, flow: Picture) -> Picture:
        """Move the flow to where the remaining difference says, by the guide's own gradients."""
        cv2 = self._cv2
        side, flow_side = (SUM_SIDE_CELLS,) * 2, (FLOW_SIDE_CELLS,) * 2
        # The sum of Scharr's weights is 32.
        x_slope = cv2.Scharr(guide.luma, cv2.CV_32F, 1, 0, scale=1 / 32)
        y_slope = cv2.Scharr(guide.luma, cv2.CV_32F, 0, 1, scale=1 / 32)

        def total(first: Picture, second: Picture) -> Picture:
            summed: Picture = cv2.blur(guide.mean_of_cells(cv2.multiply(first, second)), side)
            return summed

        xx, xy, yy = total(x_slope, x_slope), total(x_slope, y_slope), total(y_slope, y_slope)
        xx += np.float32(FLATNESS)
        yy += np.float32(FLATNESS)
        determinant = xx * yy - xy * xy
        for _ in range(NUM_REFINEMENTS):
            remainder = cv2.subtract(guide.luma, self._sampled(earlier.luma, flow))
            x, y = total(x_slope, remainder), total(y_slope, remainder)
            step_px = np.stack([(yy * x - xy * y) / determinant, (xx * y - xy * x) / determinant])
            np.clip(step_px, -LARGEST_STEP_PX, LARGEST_STEP_PX, out=step_px)
            flow += step_px * np.float32(1 / CELL_SIDE_PX)
            flow = np.stack([cv2.blur(axis, flow_side) for axis in flow])
        return flow

    def _sampled(self, picture: Picture, flow: Picture) -> Picture:
        """A picture of the guide's size where the flow points, bilinear."""
        cv2 = self._cv2
        height, width = picture.shape[:2]
        if self._grid[0].shape != (height, width):
            x_px, y_px = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
            self._grid = x_px, y_px
        x_px, y_px = (
            cv2.add(cv2.resize(axis * np.float32(CELL_SIDE_PX), (width, height)), grid)
            for axis, grid in zip(flow, self._grid, strict=True)
        )
        sampled: Picture = cv2.remap(picture, x_px, y_px, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)
        return sampled
