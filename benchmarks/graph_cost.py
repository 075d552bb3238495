"""Work of a model, counted from its ONNX graph: 2 FLOP per multiply-add."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

__all__ = ["gflop_per_frame"]

_COUNTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_SHAPE_PREFIX = "stylize_shape_of_"


def _shapes_by_running(model: onnx.ModelProto, names: list[str], frame_sizes: list[int]) -> dict[str, list[int]]:
    """Shape of each named tensor, found by running the graph once with a Shape node on each.

    Shape inference alone loses the sizes behind the Slice, Reshape and Pad nodes that exporters write
    for dynamic pictures.
    """
    del model.graph.output[:]
    for name in names:
        model.graph.node.append(onnx.helper.make_node("Shape", [name], [_SHAPE_PREFIX + name]))
        model.graph.output.append(
            onnx.helper.make_tensor_value_info(_SHAPE_PREFIX + name, onnx.TensorProto.INT64, None)
        )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {}
    for given in session.get_inputs():
        # Pictures and noise have the frame's sizes; a mix of styles says its own.
        sizes = frame_sizes if len(given.shape) == len(frame_sizes) else given.shape
        feed[given.name] = np.full(sizes, 0.5, np.float16 if given.type == "tensor(float16)" else np.float32)
    shapes = session.run(None, feed)
    return {name: shape.tolist() for name, shape in zip(names, shapes, strict=True)}


def _multiply_adds(node: onnx.NodeProto, shapes: Mapping[str, list[int]]) -> int:
    source, weights, result = shapes[node.input[0]], shapes[node.input[1]], shapes[node.output[0]]
    match node.op_type:
        case "Conv":  # weights (out, in / groups, kernel...)
            return math.prod(result) * math.prod(weights[1:])
        case "ConvTranspose":  # weights (in, out / groups, kernel...): each input element is spread
            return math.prod(source) * math.prod(weights[1:])
        case "Gemm":
            is_transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
            return math.prod(result) * source[0 if is_transposed else 1]
        case _:  # MatMul
            return math.prod(result) * source[-1]


def gflop_per_frame(source: Path | bytes, *, width_px: int, height_px: int) -> float:
    """Convolutions and matrix products of one frame, in units of 1e9 operations.

    Normalisation, activation and resampling are left out, as everywhere in the literature. Borders
    count as if every tap fell inside. The graph is run once, on the CPU.

    Args:
        source: an ONNX file, or its bytes, with one picture as its first input.
        width_px: width the network runs at, one the graph accepts.
        height_px: height likewise.
    """
    model = onnx.load_from_string(source) if isinstance(source, bytes) else onnx.load(source)
    counted = [node for node in model.graph.node if node.op_type in _COUNTED]
    if not counted:
        return 0.0
    names = sorted({name for node in counted for name in (node.input[0], node.input[1], node.output[0])})
    is_channels_last = model.graph.input[0].type.tensor_type.shape.dim[-1].dim_value == 3
    frame_sizes = [1, height_px, width_px, 3] if is_channels_last else [1, 3, height_px, width_px]
    shapes = _shapes_by_running(model, names, frame_sizes)
    return 2 * sum(_multiply_adds(node, shapes) for node in counted) / 1e9
