"""Which small-map pixels and which kernel taps make each output of a convolution that doubles the size.

Along one axis, output 2q + a (phase a = 0 or 1) is a sum over taps t of the kernel, each times the pixel q + d of
the small map. The tables here list d for every phase and tap; whatever doubles the size is one of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Phases", "phase_kernels", "phases_of_resize", "phases_of_transposed"]


@dataclass(frozen=True, kw_only=True)
class Phases:
    """The two phases along one axis."""

    taps: tuple[Mapping[int, int], Mapping[int, int]]
    """For each phase, kernel tap -> offset of the small map's pixel it is multiplied with."""
    excess: int
    """Output length minus twice the input length."""

    @property
    def first(self) -> tuple[int, int]:
        """Where each phase's window of `width` pixels begins: at the same pixel if one window can hold both."""
        starts = [min(phase.values()) for phase in self.taps]
        lowest = min(starts)
        if max(max(phase.values()) for phase in self.taps) - lowest < self.width:
            return lowest, lowest
        return starts[0], starts[1]

    @property
    def width(self) -> int:
        """Pixels of the small map that a phase reads, the wider of the two."""
        return max(max(phase.values()) - min(phase.values()) for phase in self.taps) + 1

    @property
    def pads(self) -> tuple[int, int]:
        """Pixels to add before and after the small map; negative ones would be cut off."""
        length = (self.excess + 1) // 2  # of the outputs of one phase, minus the input length
        return -min(self.first), max(self.first) + self.width - 1 + length

    @property
    def is_shifted(self) -> bool:
        """Whether the phases' windows begin at different pixels, one apart."""
        return self.first[0] != self.first[1]


def phases_of_resize(kernel: int) -> Phases:
    """Nearest x2, (kernel - 1) / 2 pixels on either side, a convolution of odd size at stride 1."""
    pad = (kernel - 1) // 2
    even, odd = ({tap: (phase + tap - pad) // 2 for tap in range(kernel)} for phase in (0, 1))
    return Phases(taps=(even, odd), excess=0)


def phases_of_transposed(kernel: int, *, pads: tuple[int, int], output_padding: int) -> Phases | None:
    """A transposed convolution at stride 2; None where a phase has no tap, as with a kernel of 1.

    Output 2q + a gets tap t of pixel q + (a + pad - t) / 2, where that is whole.
    """
    even, odd = (
        {tap: (phase + pads[0] - tap) // 2 for tap in range(kernel) if (phase + pads[0] - tap) % 2 == 0}
        for phase in (0, 1)
    )
    if not even or not odd:
        return None
    return Phases(taps=(even, odd), excess=kernel + output_padding - sum(pads) - 2)


def phase_kernels(weight: NDArray[np.floating], rows: Phases, columns: Phases) -> NDArray[np.floating]:
    """The kernels (4 out, in, rows.width, columns.width) of all phases, phase after phase, rows' first.

    Taps that meet the same pixel are summed beforehand, in float64.

    Args:
        weight: (out, in, height, width).
        rows: phases along the height.
        columns: phases along the width.
    """
    out, num_in = weight.shape[:2]
    kernels = np.zeros((2, 2, out, num_in, rows.width, columns.width))
    for a in (0, 1):
        for b in (0, 1):
            for tap_y, y in rows.taps[a].items():
                for tap_x, x in columns.taps[b].items():
                    kernels[a, b, :, :, y - rows.first[a], x - columns.first[b]] += weight[:, :, tap_y, tap_x]
    return kernels.reshape(4 * out, num_in, rows.width, columns.width).astype(weight.dtype)
