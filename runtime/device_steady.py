"""Steadying on a device: the kernels of `steady_motion.cu` and `steady.cu`, their memory and their order.

What `steady.py` does, with a motion search of its own: Lucas and Kanade's method, by which the CPU refines what
OpenCV has found, here on every level of a pyramid. Every kernel is queued with an argument that was made beforehand;
nothing is allocated, and the host waits for nothing, neither for what moves nor for whether a new scene begins.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stylize.runtime.color import LUMA_WEIGHTS_BT709
from stylize.runtime.device import Device, Stream
from stylize.runtime.device_color import RgbTensors
from stylize.runtime.steady_constants import (
    CELL_SIDE_PX,
    CUT_DEVIATION,
    CUT_RATIO,
    DARKNESS,
    DIFFERENCE,
    DIFFERENCE_SIDE_CELLS,
    FLAT_CELLS,
    FLATNESS,
    FLOW_SIDE_CELLS,
    LARGEST_SHARE,
    LARGEST_STEP_PX,
    LIGHT_CHANGE,
    LIGHT_SIDE_CELLS,
    MOTION_GAIN,
    MOTION_GAIN_OFFSET,
    NUM_REFINEMENTS,
    REPAINTED,
    REPAINTED_SIDE_CELLS,
    SEARCH_SIDE_PX,
    SUM_SIDE_CELLS,
    guide_size,
)

__all__ = ["STEADY_DTYPE", "DeviceSteadier"]

LEVEL_DTYPE: Final = np.dtype(
    [
        *((name, np.uint64) for name in ("luma", "earlier_luma", "known", "found", "sums")),
        *((name, np.int32) for name in ("width", "height", "columns", "rows", "known_columns", "known_rows")),
        ("known_scale", np.float32),
        ("ignores_light", np.int32),
    ],
    align=True,
)
STEADY_DTYPE: Final = np.dtype(
    [
        ("level", LEVEL_DTYPE),
        *((name, np.uint64) for name in ("source", "painted", "history", "gap", "guide", "earlier", "expected")),
        *((name, np.uint64) for name in ("luma_of_cells", "flow", "seen", "mask", "spread_mask", "gap_of_cells")),
        *((name, np.uint64) for name in ("weight", "totals", "flags")),
        *((name, np.int32) for name in ("width", "height", "padded_width", "padded_height")),
        *((name, np.int32) for name in ("guide_width", "guide_height", "columns", "rows")),
        *((name, np.int32) for name in ("spread_x", "spread_y", "spread_value", "is_first")),
        *((name, np.float32) for name in ("black", "white", "share", "luma_red", "luma_green", "luma_blue")),
        *((name, np.float32) for name in ("grey_red", "grey_green", "grey_blue")),
        *((name, np.float32) for name in ("difference", "light_change", "darkness", "repainted")),
        *((name, np.int32) for name in ("difference_side", "light_side", "repainted_side", "sum_side", "flow_side")),
        *((name, np.float32) for name in ("cell_side", "largest_step", "flatness", "motion_gain")),
        *((name, np.float32) for name in ("motion_gain_offset", "cut_ratio", "cut_deviation")),
    ],
    align=True,
)
"""`Steady` of `steady.h`, field by field."""

# OpenCV's weights of a grey picture (BT.601), by which the CPU takes the mean of differences of colours.
_GREY_WEIGHTS: Final = (0.299, 0.587, 0.114)
# What `steady.cu` fixes: pixels of a column for each thread of `steady_measure`, and the totals those add to.
_RUN_PX: Final = 32
_NUM_TOTALS: Final = 12
_FLOAT_BYTES: Final = 4
_ALIGNMENT: Final = 256
# What is dropped as noise and what moves with its neighbours, as steps of (value that spreads, cells across, cells
# down): opened by a square of 3 cells, then closed by one of `FLAT_CELLS`. Two steps that spread the same are one.
_REACH: Final = FLAT_CELLS // 2
_SPREADS: Final = ((0, 1, 1), (1, 1 + _REACH, 0), (1, 0, 1 + _REACH), (0, _REACH, 0), (0, 0, _REACH))

_Size = tuple[int, int]
_Fields = Mapping[str, int | float]


class _Launch(NamedTuple):
    kernel: str
    argument: NDArray[np.void]
    num_columns: int
    num_rows: int


class DeviceSteadier:
    """Steadies the pictures of one network on a device, in order; see `Steadier`. For one thread at a time."""

    def __init__(self, device: Device, tensors: RgbTensors, *, size: _Size, amount: float, flags: int) -> None:
        """Take the memory.

        Args:
            device: where to work; stays the caller's.
            tensors: what the network reads and writes.
            size: width and height in pixels of the picture inside them.
            amount: how strongly the last result holds on, in (0, 1].
            flags: address of two int32. Each picture sets the first to 1 where the network wrote values that are no
                numbers, and the second to 1 where a new scene begins, else to 0.

        Raises:
            BackendError: the device has too little memory.
        """
        self._device = device
        self._size, self._levels = size, _level_sizes(*size)
        self._kind = f"f{8 * tensors.value_bytes}"
        self._buffers = _Buffers(device, _buffer_bytes(tensors, self._levels))
        self.addresses = self._buffers.addresses
        self._common = _common_fields(tensors, size, self._levels, amount) | {"flags": flags}
        self._common |= {
            name: address for name, address in self.addresses.items() if name in (STEADY_DTYPE.names or ())
        }
        # The guides of this picture and of the last change places every time.
        self._when_first = [list(self._first_picture(now)) for now in (0, 1)]
        self._when_next = [list(self._next_picture(now)) for now in (0, 1)]
        self._now = 0
        self._is_first = True

    @property
    def result(self) -> int:
        """Address of the steadied picture, shaped as the network's output; the next one is written over it."""
        return self.addresses["history"]

    def reset(self) -> None:
        """Forget what was before: the next picture comes out as it is."""
        self._is_first = True

    def enqueue(self, *, cuda_stream: Stream) -> None:
        """Queue what steadies the picture that the network was queued to write on the same stream.

        Raises:
            BackendError: the device refused the work.
        """
        for launch in (self._when_first if self._is_first else self._when_next)[self._now]:
            self._device.launch(*launch, cuda_stream=cuda_stream)
        self._now = 1 - self._now
        self._is_first = False

    def close(self) -> None:
        """Free the memory; nothing that is queued may still use it."""
        self._buffers.close()

    def _first_picture(self, now: int) -> Iterator[_Launch]:
        yield from self._make_guide(now)
        yield self._launch(f"blend_{self._kind}", self._size, {"is_first": 1})

    def _next_picture(self, now: int) -> Iterator[_Launch]:
        guide, cells = self._levels[:2]
        yield from self._make_guide(now)
        search, flow = self._search(now)
        yield from search
        seen = {
            "guide": self.addresses[f"guide {now}"],
            "earlier": self.addresses[f"guide {1 - now}"],
            "luma_of_cells": self.addresses[f"luma {now} 1"],
            "flow": flow,
        }
        yield self._launch("expect", guide, seen)
        yield self._launch("compare", cells, seen)
        masks = self.addresses["mask 0"], self.addresses["mask 1"]
        yield self._launch("move", cells, {"mask": masks[0]})
        for value, across, down in _SPREADS:
            reach = {"spread_value": value, "spread_x": across, "spread_y": down}
            yield self._launch("spread", cells, {"mask": masks[0], "spread_mask": masks[1]} | reach)
            masks = masks[1], masks[0]
        seen["mask"] = masks[0]
        yield self._launch("measure", (guide[0], -(-guide[1] // _RUN_PX)), seen)
        yield self._launch(f"gap_{self._kind}", self._size, seen)
        yield self._launch(f"shrink_gap_{self._kind}", (cells[0], 3 * cells[1]), {})
        yield self._launch("weigh", cells, seen)
        yield self._launch(f"blend_{self._kind}", self._size, {})

    def _make_guide(self, now: int) -> Iterator[_Launch]:
        """The source made small, and its luma ever smaller."""
        lumas = self._lumas(now)
        yield self._launch(
            f"guide_{self._kind}", self._levels[0], {"guide": self.addresses[f"guide {now}"]}, {"luma": lumas[0]}
        )
        for number, (luma, half) in enumerate(pairwise(lumas)):
            yield self._launch(
                "halve", self._levels[number + 1], {}, self._level(number) | {"luma": luma, "found": half}
            )

    def _search(self, now: int) -> tuple[list[_Launch], int]:
        """The motion from the coarsest level to the finest, and the address where it will lie."""
        lumas, earlier = self._lumas(now), self._lumas(1 - now)
        flows = self.addresses["flow 0"], self.addresses["flow 1"]
        known = {"known_columns": 0}
        launches = []
        for number in reversed(range(len(self._levels) - 1)):
            columns, rows = self._levels[number + 1]
            level = self._level(number) | {"luma": lumas[number], "earlier_luma": earlier[number]}
            level["ignores_light"] = number > 0  # far from the true motion a change of light would be taken for one
            for _ in range(NUM_REFINEMENTS):
                level |= known | {"known": flows[0], "found": flows[1], "sums": self.addresses["sums"]}
                launches += [self._launch(kernel, (columns, rows), {}, level) for kernel in ("products", "step")]
                known = {"known_columns": columns, "known_rows": rows, "known_scale": 1}
                flows = flows[1], flows[0]
            known["known_scale"] = 2
        return launches, flows[0]

    def _lumas(self, now: int) -> list[int]:
        """Addresses of the guide's luma and its smaller copies."""
        return [address for name, address in self.addresses.items() if name.startswith(f"luma {now}")]

    def _level(self, number: int) -> dict[str, int]:
        (width, height), (columns, rows) = self._levels[number : number + 2]
        return {"width": width, "height": height, "columns": columns, "rows": rows}

    def _launch(self, kernel: str, size: _Size, fields: _Fields, level: _Fields | None = None) -> _Launch:
        argument = np.zeros((), STEADY_DTYPE)
        for name, value in {**self._common, **fields}.items():
            argument[name] = value
        for name, value in (level or {}).items():
            argument["level"][name] = value
        return _Launch(f"steady_{kernel}", argument, *size)


class _Buffers:
    """Named parts of one piece of device memory."""

    def __init__(self, device: Device, num_bytes: Mapping[str, int]) -> None:
        offsets = list(accumulate((-(-size // _ALIGNMENT) * _ALIGNMENT for size in num_bytes.values()), initial=0))
        self._memory = device.allocate(offsets[-1])
        self.addresses = {
            name: self._memory.address + offset for name, offset in zip(num_bytes, offsets[:-1], strict=True)
        }

    def close(self) -> None:
        self._memory.close()


def _level_sizes(width: int, height: int) -> list[_Size]:
    """Sizes of the guide and of its cells, which are the picture of the next level, as long as they can be searched."""
    sizes = [guide_size(width, height)]
    while len(sizes) < 2 or min(sizes[-1]) >= SEARCH_SIDE_PX:
        width, height = (-(-side // CELL_SIDE_PX) for side in sizes[-1])
        sizes.append((width, height))
    return sizes


def _buffer_bytes(tensors: RgbTensors, levels: Sequence[_Size]) -> dict[str, int]:
    picture = 3 * tensors.padded_width * tensors.padded_height * tensors.value_bytes
    guide, cells = (width * height for width, height in levels[:2])
    lumas = levels[: max(len(levels) - 1, 2)]  # the last cells are no picture that is searched
    return {
        "history": picture,
        "gap": picture,
        **{f"guide {turn}": 4 * guide * _FLOAT_BYTES for turn in (0, 1)},
        "expected": 4 * guide * _FLOAT_BYTES,
        **{
            f"luma {turn} {number}": width * height * _FLOAT_BYTES
            for turn in (0, 1)
            for number, (width, height) in enumerate(lumas)
        },
        **{f"flow {turn}": 2 * cells * _FLOAT_BYTES for turn in (0, 1)},
        **{f"mask {turn}": cells for turn in (0, 1)},
        "sums": 8 * cells * _FLOAT_BYTES,
        "seen": 4 * cells * _FLOAT_BYTES,
        "gap_of_cells": 3 * cells * _FLOAT_BYTES,
        "weight": cells * _FLOAT_BYTES,
        "totals": _NUM_TOTALS * 8,
    }


def _common_fields(tensors: RgbTensors, size: _Size, levels: Sequence[_Size], amount: float) -> dict[str, int | float]:
    """What all kernels take alike."""
    (guide_width, guide_height), (columns, rows) = levels[:2]
    weights = {"luma": LUMA_WEIGHTS_BT709, "grey": _GREY_WEIGHTS}
    colours = ("red", "green", "blue")
    return {
        "source": tensors.source,
        "painted": tensors.styled,
        "width": size[0],
        "height": size[1],
        "padded_width": tensors.padded_width,
        "padded_height": tensors.padded_height,
        "guide_width": guide_width,
        "guide_height": guide_height,
        "columns": columns,
        "rows": rows,
        "black": tensors.value_range[0],
        "white": tensors.value_range[1],
        "share": LARGEST_SHARE * amount,
        **{
            f"{kind}_{name}": value
            for kind, all_three in weights.items()
            for name, value in zip(colours, all_three, strict=True)
        },
        "difference": DIFFERENCE,
        "light_change": LIGHT_CHANGE,
        "darkness": DARKNESS,
        "repainted": REPAINTED,
        "difference_side": DIFFERENCE_SIDE_CELLS,
        "light_side": LIGHT_SIDE_CELLS,
        "repainted_side": REPAINTED_SIDE_CELLS,
        "sum_side": SUM_SIDE_CELLS,
        "flow_side": FLOW_SIDE_CELLS,
        "cell_side": CELL_SIDE_PX,
        "largest_step": LARGEST_STEP_PX,
        "flatness": FLATNESS,
        "motion_gain": MOTION_GAIN,
        "motion_gain_offset": MOTION_GAIN_OFFSET,
        "cut_ratio": CUT_RATIO,
        "cut_deviation": CUT_DEVIATION,
    }
