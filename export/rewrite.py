"""Exact rewrites of an ONNX graph: the same numbers from fewer operations.

    nearest x2 -> pad -> conv        one convolution of the small map, its phases interleaved
    transposed conv at stride 2      the same
    scale and offset -> conv         the conv with other weights

Each is an identity of the arithmetic, borders included; only the order of summation, and with it the last
bit, may change. A pattern that is not met exactly is left as it is.
"""

from dataclasses import dataclass, fields

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import (
    IdentityEliminationPass,
    LiftConstantsToInitializersPass,
    RemoveUnusedNodesPass,
    ShapeInferencePass,
)
from onnxscript.optimizer import fold_constants

from stylize.export.graph_patterns import (
    affine_step,
    constant,
    doubled_by,
    has_constant_bias,
    is_plain_conv,
    through_pad,
)
from stylize.export.phases import Phases, phase_kernels, phases_of_resize, phases_of_transposed

__all__ = ["RewriteCounts", "rewrite"]

_FAR_END = np.iinfo(np.int64).max


@dataclass(kw_only=True)
class RewriteCounts:
    """How often each rewrite was applied."""

    resize_convs: int = 0
    transposed_convs: int = 0
    folded_scales: int = 0

    def __str__(self) -> str:
        counts = [(getattr(self, field.name), field.name.replace("_", " ")) for field in fields(self)]
        return ", ".join(f"{count} {name}" for count, name in counts if count) or "nothing"


def rewrite(model: onnx.ModelProto) -> tuple[onnx.ModelProto, RewriteCounts]:
    """The graph with every rewrite that applies; the given one stays as it is.

    Args:
        model: opset 13 or later, of any float type.
    """
    rewritten = ir.from_proto(model)
    graph = rewritten.graph
    # Old exporters compute by a dozen nodes what is constant: the amounts of a Pad, the scales of a Resize.
    fold_constants(rewritten, should_fold=lambda node: True if node.op_type == "ConstantOfShape" else None)
    IdentityEliminationPass()(rewritten)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(rewritten)
    ShapeInferencePass()(rewritten)
    counts = RewriteCounts()
    for node in list(graph):
        match node.op_type:
            case "Conv":
                counts.folded_scales += _fold_affine(graph, node)
                counts.resize_convs += _resize_conv(graph, node)
            case "ConvTranspose":
                counts.transposed_convs += _transposed_conv(graph, node)
    RemoveUnusedNodesPass()(rewritten)
    result: onnx.ModelProto = ir.to_proto(rewritten)
    onnx.checker.check_model(result, full_check=True)
    return result, counts


def _resize_conv(graph: ir.Graph, conv: ir.Node) -> bool:
    """Nearest x2, padding and convolution of odd size, to one convolution of the small map."""
    weight = constant(conv.inputs[1])
    if weight is None or not is_plain_conv(conv, weight):
        return False
    kernel = weight.shape[2:]
    wanted = tuple((side - 1) // 2 for side in kernel)
    if min(wanted) < 1 or any(side % 2 == 0 for side in kernel):
        return False
    resized, mode, pads = through_pad(conv)
    source = doubled_by(resized)
    if source is None or pads != (*wanted, *wanted) or mode is None:
        return False
    if mode == "reflect":
        if max(wanted) > 1:  # two and more mirrored pixels are not what any padding of the small map doubles to
            return False
        mode = "edge"  # one mirrored pixel of a doubled map is its neighbour again
    _replace_by_phases(graph, conv, source, weight, [phases_of_resize(side) for side in kernel], mode)
    return True


def _transposed_conv(graph: ir.Graph, node: ir.Node) -> bool:
    """A transposed convolution at stride 2, to a convolution of the small map."""
    weight = constant(node.inputs[1])
    attributes = node.attributes
    if (
        weight is None
        or weight.ndim != 4
        or list(attributes.get_ints("strides", [1, 1])) != [2, 2]
        or any(side != 1 for side in attributes.get_ints("dilations", [1, 1]))
        or attributes.get_int("group", 1) != 1
        or attributes.get_string("auto_pad", "NOTSET") != "NOTSET"
        or "output_shape" in attributes
        or not has_constant_bias(node)
    ):
        return False
    pads = attributes.get_ints("pads", [0, 0, 0, 0])
    output_padding = attributes.get_ints("output_padding", [0, 0])
    phases = [
        phases_of_transposed(
            weight.shape[2 + axis], pads=(pads[axis], pads[2 + axis]), output_padding=output_padding[axis]
        )
        for axis in (0, 1)
    ]
    usable = [axis for axis in phases if axis is not None and min(axis.pads) >= 0]
    source = node.inputs[0]
    if len(usable) < 2 or source is None:
        return False
    _replace_by_phases(graph, node, source, weight.transpose(1, 0, 2, 3), usable, "constant")
    return True


def _replace_by_phases(
    graph: ir.Graph, node: ir.Node, source: ir.Value, weight: NDArray[np.floating], phases: list[Phases], mode: str
) -> None:
    """Put pad, one convolution for all phases, and their interleaving in the place of `node`."""
    rows, columns = phases
    num_out = weight.shape[0]
    emit = _Emitter(graph, node)
    kernels = emit.constant(phase_kernels(weight, rows, columns), "phase_weight")
    bias_value = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    bias = [] if bias_value is None else [emit.constant(np.tile(bias_value, 4), "phase_bias")]
    pads = [rows.pads[0], columns.pads[0], rows.pads[1], columns.pads[1]]
    if mode != "constant":
        full = np.array([0, 0, *pads[:2], 0, 0, *pads[2:]], np.int64)
        source, pads = emit("Pad", [source, emit.constant(full, "pads")], mode=mode), [0, 0, 0, 0]
    maps = emit("Conv", [source, kernels, *bias], kernel_shape=[rows.width, columns.width], pads=pads)
    if rows.is_shifted or columns.is_shifted:
        lowest = min(rows.first), min(columns.first)
        parts = []
        for a in (0, 1):
            for b in (0, 1):
                y = _span(rows.first[a] - lowest[0], is_cut=rows.is_shifted)
                x = _span(columns.first[b] - lowest[1], is_cut=columns.is_shifted)
                channels = ((2 * a + b) * num_out, (2 * a + b + 1) * num_out)
                parts.append(emit.slice(maps, [channels, y, x], axes=[1, 2, 3]))
        maps = emit("Concat", parts, axis=1)
    result = emit("DepthToSpace", [maps], blocksize=2, mode="DCR")  # phase after phase
    cut = [axis for axis, phase in ((2, rows), (3, columns)) if phase.excess % 2]
    if cut:
        result = emit.slice(result, [(0, -1)] * len(cut), axes=cut)
    emit.replace_node(result)


def _span(begin: int, *, is_cut: bool) -> tuple[int, int]:
    """All of an axis, or all but its last or its first pixel."""
    if not is_cut:
        return 0, _FAR_END
    return (0, -1) if begin == 0 else (1, _FAR_END)


def _fold_affine(graph: ir.Graph, conv: ir.Node) -> bool:
    """Scale and offset before a convolution, into its weights; padding in between moves values and is no hindrance.

    Zeros that the convolution or a Pad adds stay zeros only where there is no offset.
    """
    weight = constant(conv.inputs[1])
    bias = constant(conv.inputs[2]) if len(conv.inputs) > 2 and conv.inputs[2] is not None else None
    if weight is None or weight.ndim != 4 or conv.attributes.get_int("group", 1) != 1:
        return False
    if conv.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return False
    before, mode, _ = through_pad(conv)
    channels = weight.shape[1]
    scale, offset = np.ones(channels), np.zeros(channels)
    source = before
    while (step := affine_step(source, channels)) is not None:
        source, step_scale, step_offset = step
        # scale * (step_scale * x + step_offset) + offset
        offset = offset + scale * step_offset
        scale = scale * step_scale
    if source is before or source is None or (offset.any() and mode not in ("none", "reflect", "edge", "wrap")):
        return False
    emit = _Emitter(graph, conv)
    scaled = weight * scale[:, None, None]
    shift = np.einsum("ocyx,c->o", weight.astype(np.float64), offset) + (0.0 if bias is None else bias)
    emit.replace_constant(1, scaled.astype(weight.dtype), "scaled")
    if bias is not None or offset.any():
        conv.resize_inputs(3)
        emit.replace_constant(2, shift.astype(weight.dtype), "shift")
    pad = before.consumers()[0] if before is not None else conv
    pad.replace_input_with(0, source)
    return True


class _Emitter:
    """Adds nodes right before one that they are to replace."""

    def __init__(self, graph: ir.Graph, node: ir.Node) -> None:
        self._graph = graph
        self._node = node
        self._prefix = node.outputs[0].name
        self._count = 0

    def __call__(self, op_type: str, inputs: list[ir.Value], **attributes: int | str | list[int]) -> ir.Value:
        """Emit one node and return its result."""
        name = self._name(op_type.lower())
        node = ir.node(op_type, inputs, attributes, name=name)
        node.outputs[0].name = name
        node.outputs[0].type = self._node.outputs[0].type
        self._graph.insert_before(self._node, node)
        return node.outputs[0]

    def constant(self, array: NDArray[np.generic], name: str) -> ir.Value:
        """An initializer."""
        unique = self._name(name)
        value = ir.Value(
            name=unique,
            const_value=ir.Tensor(array, name=unique),
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
            shape=ir.Shape(array.shape),
        )
        self._graph.register_initializer(value)
        return value

    def replace_constant(self, index: int, array: NDArray[np.generic], name: str) -> None:
        """Give the node another constant, named as the old one if nothing else reads that: names tell layers."""
        old = self._node.inputs[index]
        if old is not None and old.name is not None and len(old.uses()) == 1:
            old.const_value = ir.Tensor(array, name=old.name)
        else:
            self._node.replace_input_with(index, self.constant(array, name))

    def slice(self, value: ir.Value, spans: list[tuple[int, int]], *, axes: list[int]) -> ir.Value:
        """Part of `value`, from first to before last along each axis."""
        starts, ends = zip(*spans, strict=True)
        arrays = [np.array(numbers, np.int64) for numbers in (starts, ends, axes)]
        return self("Slice", [value, *(self.constant(array, "slice") for array in arrays)])

    def replace_node(self, result: ir.Value) -> None:
        """Let `result` take the place, name and shape of what the replaced node made."""
        old = self._node.outputs[0]
        ir.convenience.replace_nodes_and_values(self._graph, self._node, [self._node], [], [old], [result])

    def _name(self, name: str) -> str:
        self._count += 1
        return f"{self._prefix}_{name}_{self._count}"
