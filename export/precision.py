"""Types a float32 ONNX graph in half precision, with the statistics of norms in float32.

TensorRT computes each tensor in the type the graph gives it, and so do ONNX Runtime and OpenVINO in what they
keep of it. Half precision has 11 bits and ends at 65,504: enough for convolutions that are normalised
afterwards, not for sums of squares over a picture. So what leads to a mean over the picture, and what follows
it until it meets a whole picture again, stays float32:

    InstanceNormalization                     Cast -> InstanceNormalization -> Cast
    x -> square -> mean -> + eps -> rsqrt     Cast -> all of it -> Cast -> times x

Nothing else does, but for values that half precision does not hold.
Source of the failure: NVIDIA/TensorRT #2691, microsoft/onnxruntime #10079.
"""

import numpy as np
import onnx
import onnx_ir as ir
from onnx import version_converter
from onnx_ir.passes.common import (
    LiftConstantsToInitializersPass,
    RemoveUnusedNodesPass,
    ShapeInferencePass,
)

from stylize.runtime.errors import EngineBuildError

__all__ = ["half_from_float"]

_NORMS = frozenset(
    {
        "InstanceNormalization",
        "GroupNormalization",
        "LayerNormalization",
        "BatchNormalization",
        "MeanVarianceNormalization",
        "LpNormalization",
    }
)
_MEANS = frozenset({"ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2", "ReduceLogSumExp", "GlobalAveragePool"})
# What leads from the picture into a mean of squares or of deviations.
_BEFORE_MEAN = frozenset({"Mul", "Pow", "Sub", "Abs"})
# What makes a factor of a mean, on one number per channel.
_AFTER_MEAN = frozenset({"Add", "Sub", "Mul", "Div", "Sqrt", "Reciprocal", "Pow", "Max", "Clip"})
# Inputs that stay float32 by the operator's definition: roi and scales.
_FLOAT_INPUTS = {"Resize": (1, 2), "Upsample": (1,)}
_HALF_MAX = float(np.finfo(np.float16).max)
_QUANTIZED_HALF_OPSET = 19  # the first whose QuantizeLinear takes half precision

# These take any type and say nothing of it in their result.
_TYPELESS = frozenset({"Shape", "Size"})


def half_from_float(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph computed in half precision, pictures in and out too; integers and the given graph stay as they are.

    Args:
        model: float32, without functions and control flow.

    Raises:
        EngineBuildError: the graph has parts this cannot type.
    """
    typed = ir.from_proto(_with_half_quantization(model))
    graph = typed.graph
    _reject_nesting(typed)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(typed)
    ShapeInferencePass()(typed)
    float_nodes = [node for node in graph if _is_float(node)]
    kept = _statistics(float_nodes) | {node for node in float_nodes if not _fits_half(node)}
    typing = _Typing(graph)
    for node in float_nodes:
        typing.set_type(node, ir.DataType.FLOAT if node in kept else ir.DataType.FLOAT16)
    typing.finish()
    RemoveUnusedNodesPass()(typed)
    result: onnx.ModelProto = ir.to_proto(typed)
    onnx.checker.check_model(result, full_check=True)
    return result


class _Typing:
    """Gives nodes their type one after the other, in the graph's order, with a Cast wherever two types meet."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._float_values = {
            value
            for value in (
                *graph.inputs,
                *graph.initializers.values(),
                *(value for node in graph for value in node.outputs),
            )
            if value.dtype == ir.DataType.FLOAT
        }
        self._casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        for value in graph.inputs:
            if value in self._float_values and value.shape is not None and len(value.shape) == 4:
                value.dtype = ir.DataType.FLOAT16  # pictures; the shares of a style mix stay float32

    def set_type(self, node: ir.Node, dtype: ir.DataType) -> None:
        """Make `node` compute in `dtype`."""
        for index, value in enumerate(node.inputs):
            if value in self._float_values:
                is_float_by_definition = index in _FLOAT_INPUTS.get(node.op_type, ())
                wanted = ir.DataType.FLOAT if is_float_by_definition else dtype
                node.replace_input_with(index, self._as_type(value, wanted, before=node))
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None  # inferred again by whoever reads the graph
            if value in self._float_values:
                value.dtype = dtype
        for name, attribute in list(node.attributes.items()):
            if name in ("to", "dtype") and attribute.value == ir.DataType.FLOAT:
                node.attributes[name] = ir.AttrInt64(name, dtype)
            elif attribute.type == ir.AttributeType.TENSOR and attribute.value.dtype == ir.DataType.FLOAT:
                node.attributes[name] = ir.AttrTensor(name, _tensor_as(attribute.value, dtype, ""))

    def finish(self) -> None:
        """Give the graph's outputs the type of its ends, under their own names."""
        for index, value in enumerate(self._graph.outputs):
            if value in self._float_values and value.dtype == ir.DataType.FLOAT:
                name, value.name = value.name, f"{value.name}_before_cast"
                producer = value.producer()
                assert producer is not None, "an output is no input"
                cast = self._as_type(value, ir.DataType.FLOAT16, after=producer)
                cast.name, cast.shape, value.shape = name, value.shape, None
                self._graph.outputs[index] = cast

    def _as_type(
        self, value: ir.Value, dtype: ir.DataType, *, before: ir.Node | None = None, after: ir.Node | None = None
    ) -> ir.Value:
        if value.dtype == dtype:
            return value
        key = (value, dtype)
        if key not in self._casts:
            name = f"{value.name}_{dtype.name.lower()}"
            if value.const_value is not None:
                self._casts[key] = ir.Value(
                    name=name,
                    const_value=_tensor_as(value.const_value, dtype, name),
                    type=ir.TensorType(dtype),
                    shape=value.shape,
                )
                self._graph.register_initializer(self._casts[key])
            else:
                cast = ir.node("Cast", [value], {"to": int(dtype)}, name=f"cast_{name}")
                cast.outputs[0].name = name
                cast.outputs[0].dtype = dtype
                if before is not None:
                    self._graph.insert_before(before, cast)
                else:
                    assert after is not None
                    self._graph.insert_after(after, cast)
                self._casts[key] = cast.outputs[0]
        return self._casts[key]


def _with_half_quantization(model: onnx.ModelProto) -> onnx.ModelProto:
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset >= _QUANTIZED_HALF_OPSET or all(node.op_type != "QuantizeLinear" for node in model.graph.node):
        return model
    return version_converter.convert_version(model, _QUANTIZED_HALF_OPSET)


def _reject_nesting(model: ir.Model) -> None:
    if model.functions:
        raise EngineBuildError("the graph has functions, which cannot be typed: export it without")
    for node in model.graph:
        if any(
            attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
            for attribute in node.attributes.values()
        ):
            raise EngineBuildError(
                f"the graph branches or loops in {node.op_type} {node.name!r}, which cannot be typed"
            )


def _is_float(node: ir.Node) -> bool:
    """Whether the node's type is ours to choose.

    Raises:
        EngineBuildError: types could not be inferred.
    """
    for value in node.outputs:
        if value.dtype is None:
            raise EngineBuildError(f"the type of {value.name!r}, made by {node.op_type} {node.name!r}, is not known")
    if node.op_type in _TYPELESS:
        return False
    results = [value.dtype == ir.DataType.FLOAT for value in node.outputs]
    if node.op_type == "Cast":
        return results[0]
    return any(results) or any(value is not None and value.dtype == ir.DataType.FLOAT for value in node.inputs)


def _statistics(nodes: list[ir.Node]) -> set[ir.Node]:
    """The nodes that compute a norm's statistics."""
    kept = {node for node in nodes if node.op_type in _NORMS | _MEANS}
    small = {value for node in kept if node.op_type in _MEANS for value in node.outputs}
    for node in reversed(nodes):
        if node.op_type in _BEFORE_MEAN and any(
            user in kept and user.op_type in _MEANS | _BEFORE_MEAN for user in node.outputs[0].consumers()
        ):
            kept.add(node)
    for node in nodes:
        sources = [value for value in node.inputs if value is not None and value.const_value is None]
        if node.op_type in _AFTER_MEAN and sources and all(value in small for value in sources):
            kept.add(node)
            small.update(node.outputs)
    return kept


def _fits_half(node: ir.Node) -> bool:
    """Whether half precision holds the node's constants: none beyond its range, no lone one rounded to zero."""
    for value in node.inputs:
        if value is None or value.const_value is None or value.dtype != ir.DataType.FLOAT:
            continue
        constant = value.const_value.numpy()
        if constant.size and np.abs(constant).max() > _HALF_MAX:
            return False
        if constant.size == 1 and constant.item() != 0 and np.float16(constant.item()) == 0:
            return False
    return True


def _tensor_as(tensor: ir.TensorProtocol, dtype: ir.DataType, name: str) -> ir.TensorProtocol:
    return ir.Tensor(tensor.numpy().astype(dtype.numpy()), name=name)
