"""A frame of any size through a network with its own ideas about size, range and layout."""

import numpy as np
from numpy.typing import NDArray

from stylize.runtime.color import ColorConverter
from stylize.runtime.contract import ModelContract
from stylize.runtime.errors import OptionError
from stylize.runtime.finish import Finish
from stylize.runtime.frame import WHITE, Frame
from stylize.runtime.runner import HostArray, HostRunner

__all__ = ["MIN_SIDE_PX", "NetworkPass", "reflect_pad"]

# Style networks mirror the border inside too, up to 4 px at their widest kernel and 1 px at a quarter of
# the size; a plane of fewer than 5 or 8 px has nothing to mirror. 32 covers eighths as well.
MIN_SIDE_PX = 32
# Sixteen times the pixels; above, strokes are finer than the frame can show.
_MAX_STYLE_SCALE = 4.0


class NetworkPass:
    """Stylizes frames in place with one runner.

    Keeps the network's input and output for the last frame size, so equal sizes cost no allocation.
    Not thread-safe.
    """

    def __init__(self, runner: HostRunner, *, style_scale: float = 1.0) -> None:
        """Use `runner`, which is active and stays the caller's.

        Args:
            runner: the network.
            style_scale: size of the picture the network sees over that of the frame. The network's strokes
                have a size of their own in pixels: at 0.5 they come out twice as large, at 2 half as large.

        Raises:
            OptionError: a style scale that is not above 0, or that a network of one fixed size cannot have.
        """
        if not 0.0 < style_scale <= _MAX_STYLE_SCALE:
            raise OptionError(f"style scale {style_scale} is outside 0..{_MAX_STYLE_SCALE:g}, 0 excluded")
        if style_scale != 1.0 and runner.contract.fixed_size is not None:
            width, height = runner.contract.fixed_size
            raise OptionError(f"--style-scale: this model runs at {width}x{height} only; drop the option")
        self._runner = runner
        self._style_scale = style_scale
        self._converter = ColorConverter()
        self._source = self._target = _buffer(runner.contract, 0, 0)
        self._result_CHW = np.empty((3, 0, 0), np.float32)

    def stylize(self, frame: Frame, *, finish: Finish) -> None:
        """Replace the pixels of `frame` by their stylized version as `finish` shows it; its time and alpha stay.

        Raises:
            BackendError: the network failed, or returned values that are not numbers.
        """
        weight = finish.weight(frame)
        if not np.any(weight):
            return
        size = self._working_size(frame)
        if size == (frame.width, frame.height):
            self._infer(frame)
            finish.store(self._result_CHW, frame, weight=weight)
            return
        fitted = self._converter.resized_frame(frame, width=size[0], height=size[1])
        self._infer(fitted)
        Finish().store(self._result_CHW, fitted, weight=1.0)
        restored = self._converter.resized_frame(fitted, width=frame.width, height=frame.height)
        finish.store(np.stack(restored.planes).astype(np.float32), frame, weight=weight)

    def _working_size(self, frame: Frame) -> tuple[int, int]:
        """Width and height in pixels at which the network sees `frame`."""
        fixed = self._runner.contract.fixed_size
        if fixed is not None:
            return _fitting(frame, fixed)
        return max(1, round(frame.width * self._style_scale)), max(1, round(frame.height * self._style_scale))

    def _infer(self, frame: Frame) -> None:
        """Run the network; `self._result_CHW` holds the result in [0, WHITE], not clipped."""
        self._allocate(frame.width, frame.height)
        contract = self._runner.contract
        black, white = contract.value_range
        source_CHW = _as_CHW(self._source, contract)
        for channel, plane in enumerate(frame.planes):
            inside = source_CHW[channel, : frame.height, : frame.width]
            np.multiply(plane, np.float32((white - black) / WHITE), out=inside, casting="unsafe")
            if black != 0.0:
                inside += black
        reflect_pad(source_CHW, width=frame.width, height=frame.height)
        self._runner.enqueue(self._source, target=self._target, cuda_stream=None)
        cropped_CHW = _as_CHW(self._target, contract)[:, : frame.height, : frame.width]
        scale = np.float32(WHITE / (white - black))
        np.multiply(cropped_CHW, scale, out=self._result_CHW, dtype=np.float32)
        if black != 0.0:
            self._result_CHW -= black * scale

    def _allocate(self, width: int, height: int) -> None:
        """Make buffers for frames of this size, unless they are there from the last one."""
        contract = self._runner.contract
        if contract.fixed_size is not None:
            padded_width, padded_height = contract.fixed_size
        else:
            padded_width = _round_up(max(width, MIN_SIDE_PX), contract.size_multiple)
            padded_height = _round_up(max(height, MIN_SIDE_PX), contract.size_multiple)
        if _as_CHW(self._source, contract).shape[1:] != (padded_height, padded_width):
            self._source = _buffer(contract, padded_width, padded_height)
            self._target = np.empty_like(self._source)
        if self._result_CHW.shape[1:] != (height, width):
            self._result_CHW = np.empty((3, height, width), np.float32)


def _fitting(frame: Frame, fixed: tuple[int, int]) -> tuple[int, int]:
    """The largest (width, height) of the frame's proportions inside `fixed`."""
    scale = min(fixed[0] / frame.width, fixed[1] / frame.height)
    return max(1, round(frame.width * scale)), max(1, round(frame.height * scale))


def reflect_pad(planes_CHW: HostArray, *, width: int, height: int) -> None:
    """Fill everything right of `width` and below `height` with the mirrored picture, in place.

    The border pixel is not repeated, as in PyTorch's ReflectionPad2d; where the picture is smaller than
    its padding the mirroring goes on to and fro, and a single pixel is repeated.

    Args:
        planes_CHW: (C, H, W) whose first `height` x `width` pixels are set.
        width: columns that hold the picture, at least 1.
        height: rows that hold the picture, at least 1.
    """
    padded_height, padded_width = planes_CHW.shape[1:]
    if padded_width > width:
        columns = _mirrored(np.arange(width, padded_width), width)
        planes_CHW[:, :height, width:] = planes_CHW[:, :height, columns]
    if padded_height > height:
        planes_CHW[:, height:] = planes_CHW[:, _mirrored(np.arange(height, padded_height), height)]


def _mirrored(positions: NDArray[np.int_], size: int) -> NDArray[np.int_]:
    """Positions outside [0, size) folded back into it by mirroring at its first and last pixel."""
    if size == 1:
        return np.zeros_like(positions)
    period = 2 * (size - 1)
    folded = positions % period
    return np.minimum(folded, period - folded)


def _buffer(contract: ModelContract, width: int, height: int) -> HostArray:
    shape = (1, 3, height, width) if contract.layout == "NCHW" else (1, height, width, 3)
    if contract.precision == "fp16":
        return np.zeros(shape, np.float16)
    return np.zeros(shape, np.float32)


def _as_CHW(batch: HostArray, contract: ModelContract) -> HostArray:  # noqa: N802 - a shape suffix
    picture: HostArray = batch[0]
    return picture if contract.layout == "NCHW" else picture.transpose(2, 0, 1)


def _round_up(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple
