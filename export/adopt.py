"""A given ONNX graph as one of the project's own kind.

Names, layout, range and clamp go into the graph, so that a foreign file (0..255, NHWC, opset 9) needs nothing said
about it any more. The original's nodes stay as they are; `rewrite` then folds the new scale into its first convolution.
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper, version_converter
from onnx.compose import add_prefix

from stylize.runtime.contract import ModelContract
from stylize.runtime.errors import EngineBuildError

__all__ = ["OLDEST_OPSET", "adopted_graph"]

OLDEST_OPSET = 18  # what the project's own exports have
_FOREIGN = "foreign/"
_AXES = ("batch", "height", "width")


def adopted_graph(
    model: onnx.ModelProto, contract: ModelContract, *, fixed_size: tuple[int, int] | None
) -> onnx.ModelProto:
    """Input `frame`, output `stylized`, (N, 3, H, W) RGB in [0, 1], in the given element type.

    Args:
        model: the given graph; left as it is.
        contract: what it promises now.
        fixed_size: (width, height) in pixels to fix, or None to keep what it has.

    Raises:
        EngineBuildError: its operators are too old to be brought to opset 18.
    """
    own = ModelContract(network="", style="", size_multiple=1)
    adopted = onnx.ModelProto()
    adopted.CopyFrom(_modern(model))
    del adopted.metadata_props[:]
    del adopted.graph.value_info[:]
    _drop_initializers_from_inputs(adopted.graph)
    is_own = contract.input_name == own.input_name and contract.output_name == own.output_name
    if not (is_own and contract.value_range == own.value_range and contract.layout == own.layout):
        adopted = _wrapped(adopted, contract, own)
    if fixed_size is not None:
        for tensor in (*adopted.graph.input, *adopted.graph.output):
            dims = tensor.type.tensor_type.shape.dim
            for axis, side in ((0, 1), (2, fixed_size[1]), (3, fixed_size[0])) if len(dims) == 4 else ():
                dims[axis].dim_value = side
    onnx.checker.check_model(adopted, full_check=True)
    return adopted


def _modern(model: onnx.ModelProto) -> onnx.ModelProto:
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
    if opset >= OLDEST_OPSET:
        return model
    try:
        return version_converter.convert_version(model, OLDEST_OPSET)
    except (RuntimeError, version_converter.ConvertError) as error:
        reason = " ".join(str(error).split())
        raise EngineBuildError(
            f"the ONNX file has opset {opset} and cannot be brought to {OLDEST_OPSET}: {reason}"
        ) from error


def _drop_initializers_from_inputs(graph: onnx.GraphProto) -> None:
    """Files before IR version 4 list their weights as inputs with defaults, which nobody may replace."""
    weights = {tensor.name for tensor in graph.initializer}
    kept = [tensor for tensor in graph.input if tensor.name not in weights]
    del graph.input[:]
    graph.input.extend(kept)


def _wrapped(model: onnx.ModelProto, contract: ModelContract, own: ModelContract) -> onnx.ModelProto:
    """The graph between a scale of [0, 1] to its own range and the way back, clamped."""
    inner = add_prefix(model, _FOREIGN)
    graph = inner.graph
    elem_type = graph.input[0].type.tensor_type.elem_type
    dtype = helper.tensor_dtype_to_np_dtype(elem_type)
    black, white = contract.value_range
    is_last = contract.layout == "NHWC"
    picture, result = _FOREIGN + contract.input_name, _FOREIGN + contract.output_name
    before = [
        helper.make_node("Mul", [own.input_name, "range"], ["scaled"]),
        helper.make_node("Add", ["scaled", "black"], ["coded" if is_last else picture]),
    ]
    after = [
        helper.make_node("Sub", ["first" if is_last else result, "black"], ["from_black"]),
        helper.make_node("Div", ["from_black", "range"], ["open"]),
        helper.make_node("Clip", ["open", "zero", "one"], [own.output_name]),
    ]
    if is_last:
        before.append(helper.make_node("Transpose", ["coded"], [picture], perm=[0, 2, 3, 1]))
        after.insert(0, helper.make_node("Transpose", [result], ["first"], perm=[0, 3, 1, 2]))
    numbers = {"range": white - black, "black": black, "zero": 0.0, "one": 1.0}
    dims = graph.input[0].type.tensor_type.shape.dim
    sides = [
        dims[axis].dim_value or name for axis, name in zip((0, 1, 2) if is_last else (0, 2, 3), _AXES, strict=True)
    ]
    shape = [sides[0], 3, *sides[1:]]
    constants = [numpy_helper.from_array(np.array(value, dtype), name) for name, value in numbers.items()]
    body = helper.make_graph(
        [*before, *graph.node, *after],
        graph.name or "adopted",
        [helper.make_tensor_value_info(own.input_name, elem_type, shape)],
        [helper.make_tensor_value_info(own.output_name, elem_type, shape)],
        [*constants, *graph.initializer],
    )
    return helper.make_model(body, opset_imports=inner.opset_import, ir_version=max(inner.ir_version, 8))
