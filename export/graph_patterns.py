"""What stands before a node of an ONNX graph: constants, padding, doubling, scales; found, never guessed."""

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

__all__ = ["affine_step", "constant", "doubled_by", "has_constant_bias", "is_plain_conv", "through_pad"]

# Coordinates of Resize that make output i of pixel floor(i / 2) when the size doubles: transformation, rounding.
_PLAIN_DOUBLING = {
    ("asymmetric", "floor"),
    ("asymmetric", "round_prefer_floor"),
    ("half_pixel", "round_prefer_floor"),
    ("half_pixel", "round_prefer_ceil"),
    ("pytorch_half_pixel", "round_prefer_floor"),
    ("pytorch_half_pixel", "round_prefer_ceil"),
}


def through_pad(conv: ir.Node) -> tuple[ir.Value | None, str | None, tuple[int, ...]]:
    """What is convolved before padding, how it is padded (`none`, a mode, or None for unclear), and by how much.

    The amount is (top, left, bottom, right) in pixels, of a Pad node or of the convolution itself.
    """
    source = conv.inputs[0]
    own = tuple(conv.attributes.get_ints("pads", [0, 0, 0, 0]))
    pad = source.producer() if source is not None else None
    if source is None or pad is None or pad.op_type != "Pad" or len(source.uses()) != 1 or source.is_graph_output():
        return source, "constant" if any(own) else "none", own
    amounts = _pad_amounts(pad)
    mode = pad.attributes.get_string("mode", "constant")
    if any(own) or amounts is None:
        return source, None, own
    if mode == "constant" and (constant(pad.inputs[2]) if len(pad.inputs) > 2 and pad.inputs[2] else np.zeros(1)) != 0:
        return source, None, own
    return pad.inputs[0], mode, amounts


def _pad_amounts(pad: ir.Node) -> tuple[int, ...] | None:
    """(top, left, bottom, right) of a Pad that leaves batch and channels alone."""
    pads = constant(pad.inputs[1])
    axes = constant(pad.inputs[3]) if len(pad.inputs) > 3 and pad.inputs[3] is not None else np.arange(4)
    if pads is None or axes is None or pads.size != 2 * axes.size:
        return None
    full = np.zeros((2, 4), np.int64)
    full[:, axes] = pads.reshape(2, -1)
    return None if full[:, :2].any() or (full < 0).any() else tuple(full[:, 2:].ravel().tolist())


def doubled_by(value: ir.Value | None) -> ir.Value | None:
    """The map of which `value` is a copy with every pixel doubled in height and width, and used once."""
    node = value.producer() if value is not None else None
    if value is None or node is None or len(value.uses()) != 1 or value.is_graph_output():
        return None
    if node.op_type != "Resize" or node.attributes.get_string("mode", "nearest") != "nearest":
        return None
    coordinates = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    rounding = node.attributes.get_string("nearest_mode", "round_prefer_floor")
    if (coordinates, rounding) not in _PLAIN_DOUBLING:
        return None
    source = node.inputs[0]
    factors = _resize_factors(node)
    axes = node.attributes.get_ints("axes", [0, 1, 2, 3])
    if source is None or factors is None or len(factors) != len(axes):
        return None
    full = dict(enumerate([1.0] * 4)) | dict(zip(axes, factors, strict=True))
    return source if [full[axis] for axis in range(4)] == [1.0, 1.0, 2.0, 2.0] else None


def _resize_factors(node: ir.Node) -> list[float] | None:
    """Factors of the axes that are resized, from scales or from sizes."""
    scales = constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else None
    if scales is not None and scales.size:
        return [float(factor) for factor in scales]
    sizes = constant(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else None
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if sizes is None or shape is None or node.attributes.get_string("keep_aspect_ratio_policy", "stretch") != "stretch":
        return None
    axes = node.attributes.get_ints("axes", range(len(shape)))
    sides = [shape[axis] for axis in axes]
    if len(sides) != sizes.size or not all(isinstance(side, int) for side in sides):
        return None
    return [float(size) / int(side) for size, side in zip(sizes, sides, strict=True)]  # type: ignore[arg-type]


def constant(value: ir.Value | None) -> NDArray[np.floating] | None:
    """The array of an initializer that no caller can replace, else None."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def affine_step(
    value: ir.Value | None, channels: int
) -> tuple[ir.Value, NDArray[np.float64], NDArray[np.float64]] | None:
    """(x, scale, offset) when `value` is scale * x + offset by one node and used once; vectors of `channels`."""
    node = value.producer() if value is not None else None
    if value is None or node is None or len(value.uses()) != 1 or value.is_graph_output():
        return None
    one, zero = np.ones(channels), np.zeros(channels)
    if node.op_type == "Identity" and node.inputs[0] is not None:
        return node.inputs[0], one, zero
    if node.op_type not in ("Mul", "Div", "Add", "Sub"):
        return None
    left, right = node.inputs
    number, other = _per_channel(right, channels), left
    is_swapped = number is None
    if is_swapped:
        number, other = _per_channel(left, channels), right
    if number is None or other is None:
        return None
    match node.op_type:
        case "Mul":
            return other, number, zero
        case "Add":
            return other, one, number
        case "Sub":
            return (other, -one, number) if is_swapped else (other, one, -number)
        case "Div" if not is_swapped and number.all():
            return other, 1 / number, zero
    return None


def _per_channel(value: ir.Value | None, channels: int) -> NDArray[np.float64] | None:
    """A constant that is one number, or one for each channel of an NCHW map."""
    number = constant(value)
    if number is None or not np.issubdtype(number.dtype, np.floating):
        return None
    if number.size == 1 and number.ndim <= 4:
        return np.full(channels, number.item(), np.float64)
    if number.ndim in (3, 4) and number.shape[-3] == channels == number.size:
        return number.reshape(channels).astype(np.float64)
    return None


def is_plain_conv(conv: ir.Node, weight: NDArray[np.floating]) -> bool:
    """Whether it is a 2-D convolution with stride, dilation and group 1 and a bias that is known."""
    attributes = conv.attributes
    return (
        weight.ndim == 4
        and list(attributes.get_ints("strides", [1, 1])) == [1, 1]
        and list(attributes.get_ints("dilations", [1, 1])) == [1, 1]
        and attributes.get_int("group", 1) == 1
        and attributes.get_string("auto_pad", "NOTSET") in ("NOTSET", "VALID")
        and has_constant_bias(conv)
    )


def has_constant_bias(conv: ir.Node) -> bool:
    """Whether the bias is known or there is none."""
    return len(conv.inputs) < 3 or conv.inputs[2] is None or constant(conv.inputs[2]) is not None
