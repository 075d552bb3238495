"""A frame of any size through a network with its own ideas about size, range and layout."""

import numpy as np
from numpy.typing import NDArray

from stylize.runtime.color import ColorConverter
from stylize.runtime.contract import ModelContract
from stylize.runtime.errors import OptionError
from stylize.runtime.frame import WHITE, Frame
from stylize.runtime.runner import HostArray, HostRunner

__all__ = ["MIN_SIDE_PX", "NetworkPass", "reflect_pad"]

# Style networks mirror the border inside too, up to 4 px at their widest kernel and 1 px at a quarter of
# the size; a plane of fewer than 5 or 8 px has nothing to mirror. 32 covers eighths as well.
MIN_SIDE_PX = 32


class NetworkPass:
    """Stylizes frames in place with one runner.

    Keeps the network's input and output for the last frame size, so equal sizes cost no allocation.
    Not thread-safe.
    """

    def __init__(self, runner: HostRunner, *, strength: float = 1.0) -> None:
        """Use `runner`, which is active and stays the caller's.

        Args:
            runner: the network.
            strength: 0 shows the source, 1 the network's picture, in between a blend.

        Raises:
            OptionError: strength outside [0, 1].
        """
        if not 0.0 <= strength <= 1.0:
            raise OptionError(f"strength {strength} is outside 0..1")
        self._runner = runner
        self._strength = np.float32(strength)
        self._is_foreign = runner.artifact.origin == "foreign"
        self._converter = ColorConverter()
        self._source = self._target = _buffer(runner.contract, 0, 0)

    def stylize(self, frame: Frame) -> None:
        """Replace the pixels of `frame` by their stylized version; its time and alpha stay.

        Raises:
            BackendError: the network failed.
        """
        if self._strength == 0.0:
            return
        fixed = self._runner.contract.fixed_size
        if fixed is None or fixed == (frame.width, frame.height):
            self._blend(frame, self._infer(frame))
            return
        # A network of one size only: shrink or enlarge to fit inside, fill the rest with the mirrored border.
        scale = min(fixed[0] / frame.width, fixed[1] / frame.height)
        width, height = (max(1, round(side * scale)) for side in (frame.width, frame.height))
        if (width, height) == (frame.width, frame.height):
            self._blend(frame, self._infer(frame))
            return
        fitted = self._converter.resized_frame(frame, width=width, height=height)
        for plane, result in zip(fitted.planes, self._infer(fitted), strict=True):
            np.copyto(plane, result, casting="same_kind")
        restored = self._converter.resized_frame(fitted, width=frame.width, height=frame.height)
        self._blend(frame, np.stack(restored.planes))

    def _infer(self, frame: Frame) -> HostArray:
        """Run the network; the (3, H, W) float result in [0, WHITE] is valid until the next call."""
        contract = self._runner.contract
        width, height = frame.width, frame.height
        padded_width, padded_height = contract.fixed_size or (
            _round_up(max(side, MIN_SIDE_PX), contract.size_multiple) for side in (width, height)
        )
        if _as_CHW(self._source, contract).shape[1:] != (padded_height, padded_width):
            self._source = _buffer(contract, padded_width, padded_height)
            self._target = np.empty_like(self._source)
        black, white = contract.value_range
        source_CHW = _as_CHW(self._source, contract)
        for channel, plane in enumerate(frame.planes):
            inside = source_CHW[channel, :height, :width]
            np.multiply(plane, np.float32((white - black) / WHITE), out=inside, casting="same_kind")
            if black != 0.0:
                inside += black
        reflect_pad(source_CHW, width=width, height=height)
        self._runner.enqueue(self._source, target=self._target, cuda_stream=None)
        result_CHW = _as_CHW(self._target, contract)[:, :height, :width]
        if black != 0.0:
            result_CHW -= black
        result_CHW *= WHITE / (white - black)
        if self._is_foreign:
            # Our own graphs clamp inside, a foreign one leaves that to its caller.
            np.clip(result_CHW, 0, WHITE, out=result_CHW)
        return result_CHW

    def _blend(self, frame: Frame, result_CHW: HostArray) -> None:
        for plane, result in zip(frame.planes, result_CHW, strict=True):
            if self._strength == 1.0:
                np.copyto(plane, result, casting="same_kind")
            else:
                plane += self._strength * (result - plane)


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
