"""What a texture network learns from: nothing but noise."""

import numpy as np
import torch

from stylize.train.frame_pair import FramePair

__all__ = ["NoisePairs"]


class NoisePairs:
    """Pairs of independent noise pictures, uniform in [0, 1]; no pixel of one is to be seen in the other.

    Args:
        crop_px: side of the pictures.
    """

    description = "noise"

    def __init__(self, *, crop_px: int) -> None:
        self._crop_px = crop_px

    def pair(self, rng: np.random.Generator) -> FramePair:
        """One pair, drawn from `rng`."""
        side = self._crop_px
        first, second = torch.from_numpy(rng.random((2, 3, side, side), np.float32))
        return FramePair(first, second, first, second, torch.zeros(2, side, side), torch.zeros(1, side, side))
