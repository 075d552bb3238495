"""A frame of any size through a network with its own ideas about size, range and layout."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stylize.runtime.color import ColorConverter
from stylize.runtime.contract import ModelContract
from stylize.runtime.errors import OptionError
from stylize.runtime.extra_inputs import NO_EXTRAS, ExtraInputs
from stylize.runtime.finish import Finish
from stylize.runtime.frame import WHITE, Frame
from stylize.runtime.runner import HostArray, HostRunner

__all__ = ["NetworkPass", "padded_size", "reflect_pad"]

# Style networks mirror the border inside too, up to 4 px at their widest kernel and 1 px at a quarter of
# the size; a plane of fewer than 5 or 8 px has nothing to mirror. 32 covers eighths as well.
MIN_SIDE_PX = 32
# Sixteen times the pixels; above, strokes are finer than the frame can show.
_MAX_STYLE_SCALE = 4.0


@dataclass(frozen=True)
class _Buffers:
    """Input and output of one pass, (1, 3, H, W) or (1, H, W, 3) as the contract says."""

    source: HostArray
    target: HostArray


class NetworkPass:
    """Stylizes frames in place with one runner.

    Keeps the network's inputs and outputs for the last frame size, so equal sizes cost no allocation.
    Not thread-safe.
    """

    def __init__(
        self, runner: HostRunner, *, style_scale: float = 1.0, extra_inputs: ExtraInputs | None = None
    ) -> None:
        """Use `runner`, which is active and stays the caller's.

        Args:
            runner: the network.
            style_scale: size of the picture the network sees over that of the frame. The network's strokes
                have a size of their own in pixels: at 0.5 they come out twice as large, at 2 half as large.
            extra_inputs: what the network takes beside frames; None for the first of its styles.

        Raises:
            OptionError: a style scale that is not above 0, or that a network of one fixed size cannot have.
        """
        if not 0.0 < style_scale <= _MAX_STYLE_SCALE:
            raise OptionError(f"style scale {style_scale} is outside 0..{_MAX_STYLE_SCALE:g}, 0 excluded")
        if style_scale != 1.0 and runner.contract.fixed_size is not None:
            width, height = runner.contract.fixed_size
            raise OptionError(f"--style-scale: this model runs at {width}x{height} only; drop the option")
        self._runner = runner
        self._extra_inputs = extra_inputs or ExtraInputs(runner.contract)
        self._style_scale = style_scale
        self._converter = ColorConverter()
        self._free_buffers: list[_Buffers] = []
        self._result_CHW = np.empty((3, 0, 0), np.float32)

    def begin(self, frame: Frame, *, finish: Finish, is_alone: bool = False) -> Callable[[], None]:
        """Start on `frame` and return what replaces its pixels as `finish` shows them; its time and alpha stay.

        At most `num_in_flight` of the runner may be begun; complete them once each and in order.

        Args:
            frame: what to stylize.
            finish: how the style shows.
            is_alone: whether this one has the runner to itself; the result differs by rounding.

        Raises:
            BackendError: the network failed, or returned values that are not numbers; completing raises it too.
        """
        seconds = finish.seconds(frame)
        weight = finish.weight(frame)
        if not np.any(weight):
            return _do_nothing
        size = self._working_size(frame)
        if size == (frame.width, frame.height):
            infer = self._begin_inference(frame, seconds, is_alone=is_alone)
            return lambda: finish.store(infer(), frame, weight=weight)
        fitted = self._converter.resized_frame(frame, width=size[0], height=size[1])
        infer_fitted = self._begin_inference(fitted, seconds, is_alone=is_alone)

        def complete() -> None:
            Finish().store(infer_fitted(), fitted, weight=1.0)
            restored = self._converter.resized_frame(fitted, width=frame.width, height=frame.height)
            finish.store(np.stack(restored.planes).astype(np.float32), frame, weight=weight)

        return complete

    def _working_size(self, frame: Frame) -> tuple[int, int]:
        """Width and height in pixels at which the network sees `frame`."""
        fixed = self._runner.contract.fixed_size
        if fixed is not None:
            return _fitting(frame, fixed)
        return max(1, round(frame.width * self._style_scale)), max(1, round(frame.height * self._style_scale))

    def _begin_inference(self, frame: Frame, seconds: float, *, is_alone: bool) -> Callable[[], NDArray[np.float32]]:
        """Start the network and return what waits for its picture: (3, H, W) in [0, WHITE], not clipped.

        The picture is valid until the next one.
        """
        buffers = self._take_buffers(frame.width, frame.height)
        contract = self._runner.contract
        black, white = contract.value_range
        source_CHW = _as_CHW(buffers.source, contract)
        for channel, plane in enumerate(frame.planes):
            inside = source_CHW[channel, : frame.height, : frame.width]
            np.multiply(plane, np.float32((white - black) / WHITE), out=inside, casting="unsafe")
            if black != 0.0:
                inside += black
        reflect_pad(source_CHW, width=frame.width, height=frame.height)
        height, width = source_CHW.shape[1:]
        extras = self._extra_inputs.at(seconds, height=height, width=width)
        wait = _do_nothing
        if is_alone:
            self._runner.enqueue(buffers.source, target=buffers.target, cuda_stream=None, extras=extras)
        else:
            wait = self._runner.start(buffers.source, target=buffers.target, extras=extras)

        def result() -> NDArray[np.float32]:
            nonlocal extras
            wait()
            extras = NO_EXTRAS  # had to live until here
            cropped_CHW = _as_CHW(buffers.target, contract)[:, : frame.height, : frame.width]
            if self._result_CHW.shape != cropped_CHW.shape:
                self._result_CHW = np.empty(cropped_CHW.shape, np.float32)
            scale = np.float32(WHITE / (white - black))
            np.multiply(cropped_CHW, scale, out=self._result_CHW, dtype=np.float32)
            if black != 0.0:
                self._result_CHW -= black * scale
            self._free_buffers.append(buffers)
            return self._result_CHW

        return result

    def _take_buffers(self, width: int, height: int) -> _Buffers:
        """Buffers for a frame of this size, those of an earlier one if they fit."""
        contract = self._runner.contract
        padded_width, padded_height = contract.fixed_size or padded_size(contract, width, height)
        while self._free_buffers:
            buffers = self._free_buffers.pop()
            if _as_CHW(buffers.source, contract).shape[1:] == (padded_height, padded_width):
                return buffers
        source = _buffer(contract, padded_width, padded_height)
        return _Buffers(source, np.empty_like(source))


def _do_nothing() -> None:
    """What completes a frame that is complete."""


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


def padded_size(contract: ModelContract, width: int, height: int) -> tuple[int, int]:
    """Width and height in pixels at which a network of open size sees a picture of `width` x `height`."""
    # Two pixels at its coarsest scale: one alone cannot be mirrored.
    least = max(MIN_SIDE_PX, 2 * contract.size_multiple)
    return (
        _round_up(max(width, least), contract.size_multiple),
        _round_up(max(height, least), contract.size_multiple),
    )


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
