"""The numbers of steadying, the same on the CPU and on a GPU; docs/steady.md has what was measured to choose them."""

from typing import Final

__all__ = [
    "CELL_SIDE_PX",
    "CUT_DEVIATION",
    "CUT_RATIO",
    "DARKNESS",
    "DIFFERENCE",
    "DIFFERENCE_SIDE_CELLS",
    "FLATNESS",
    "FLAT_CELLS",
    "FLOW_SIDE_CELLS",
    "LARGEST_SHARE",
    "LARGEST_STEP_PX",
    "LIGHT_CHANGE",
    "LIGHT_SIDE_CELLS",
    "MOTION_GAIN",
    "MOTION_GAIN_OFFSET",
    "NUM_REFINEMENTS",
    "REPAINTED",
    "REPAINTED_SIDE_CELLS",
    "SEARCH_SIDE_PX",
    "SUM_SIDE_CELLS",
    "guide_size",
]

# ---- the guide, on which motion is searched ----

# The small picture has at most this width and height: 640x360 and 1920x1080 become 320x180 and 480x270.
_GUIDE_SIDE_PX: Final = 480
# What is smaller than this serves as it is. At half the size 640x360 takes a quarter of the time.
_WHOLE_SIDE_PX: Final = 320
CELL_SIDE_PX: Final = 2
# No smaller picture is searched.
SEARCH_SIDE_PX: Final = 16

# ---- motion ----

# On a GPU, of every level of the pyramid.
NUM_REFINEMENTS: Final = 2
# Per refinement and direction, in pixels of the guide: more is a failure of the linear model.
LARGEST_STEP_PX: Final = 1.0
# Added to the squared gradients, on [0, 1]: two code values of noise. Less lets noise steer the flow in flat parts.
FLATNESS: Final = (2 / 255) ** 2
# Side in cells over which the sums of a refinement are taken, and over which its result is averaged.
SUM_SIDE_CELLS: Final = 3
FLOW_SIDE_CELLS: Final = 3
# A difference of pictures is averaged over this many cells.
DIFFERENCE_SIDE_CELLS: Final = 3
# Motion must explain the source this much better than standing still, else nothing moves: still parts are then not
# resampled, and noise is not mistaken for motion.
MOTION_GAIN: Final = 1.2
MOTION_GAIN_OFFSET: Final = 0.002
# Flat parts up to this many cells wide move with what is around them.
FLAT_CELLS: Final = 25

# ---- the blend ----

# The history's share at --steady 1. More would outlast the strokes' own life and blur.
LARGEST_SHARE: Final = 0.9
# On [0, 1]. Three times the difference that 8-bit video at low bitrates leaves in what stands still.
DIFFERENCE: Final = 0.05
# Of the light that was there; a fade over one second at 25 Hz changes 0.04 a frame.
LIGHT_CHANGE: Final = 0.03
# Added to the luma by which a change of light is divided: the noise of black is no change of light.
DARKNESS: Final = 0.1
# Side in cells over which a change of light is averaged.
LIGHT_SIDE_CELLS: Final = 5
# On [0, 1], of the mean colour around a pixel: the network paints something else there, as its halos around what
# passes by do. Flicker of single strokes, even of 0.05, stays below a third of this.
REPAINTED: Final = 0.06
REPAINTED_SIDE_CELLS: Final = 7
# A cut: what the motion leaves of the source, over the source's own contrast, and in itself. Neighbouring frames of
# three clips stay below 0.14, pairs of different photographs above 0.67.
CUT_RATIO: Final = 0.5
CUT_DEVIATION: Final = 0.06


def guide_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of the small picture for a frame of that size, in pixels."""
    step = max(-(-max(height, width) // _GUIDE_SIDE_PX), 2 if max(height, width) > _WHOLE_SIDE_PX else 1)
    return -(-width // step), -(-height // step)
