"""FLOP counts of graphs small enough to count by hand."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from stylize.benchmarks.graph_cost import gflop_per_frame
from stylize.runtime import open_artifact


def weights(name: str, *sizes: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.zeros(sizes, np.float32), name)


def save(path: Path, nodes: list[onnx.NodeProto], initializers: list[onnx.TensorProto]) -> Path:
    frame = helper.make_tensor_value_info("frame", TensorProto.FLOAT, ["N", 3, "H", "W"])
    result = helper.make_tensor_value_info("stylized", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "counted", [frame], [result], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_strided_and_grouped_convolutions(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["frame", "w1"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["stylized"], group=8),
    ]
    path = save(tmp_path / "m.onnx", nodes, [weights("w1", 8, 3, 3, 3), weights("w2", 8, 1, 1, 1)])
    # Output 8 x 10 x 16: each element takes 3 * 3 * 3, then 1 multiply-add.
    by_hand = 2 * (8 * 10 * 16 * 27 + 8 * 10 * 16) / 1e9
    assert gflop_per_frame(path, width_px=32, height_px=20) == pytest.approx(by_hand)


def test_transposed_convolution_counts_its_input(tmp_path: Path) -> None:
    nodes = [helper.make_node("ConvTranspose", ["frame", "w"], ["stylized"], strides=[2, 2])]
    path = save(tmp_path / "m.onnx", nodes, [weights("w", 3, 5, 2, 2)])
    # Each of 3 x 20 x 32 input elements is spread over 5 x 2 x 2.
    assert gflop_per_frame(path, width_px=32, height_px=20) == pytest.approx(2 * 3 * 20 * 32 * 20 / 1e9)


def test_shapes_that_the_graph_computes_are_followed(tmp_path: Path) -> None:
    """A picture reshaped by its own size, as exporters write pixel shuffles, then a matrix product."""
    nodes = [
        helper.make_node("Shape", ["frame"], ["sizes"]),
        helper.make_node("Slice", ["sizes", "two", "four"], ["plane"]),
        helper.make_node("ReduceProd", ["plane"], ["pixels"], keepdims=1),
        helper.make_node("Concat", ["one_by_three", "pixels"], ["target"], axis=0),
        helper.make_node("Reshape", ["frame", "target"], ["columns"]),
        helper.make_node("MatMul", ["w", "columns"], ["stylized"]),
    ]
    constants = [
        numpy_helper.from_array(np.array(values, np.int64), name)
        for name, values in (("two", [2]), ("four", [4]), ("one_by_three", [1, 3]))
    ]
    path = save(tmp_path / "m.onnx", nodes, [*constants, weights("w", 1, 7, 3)])
    assert gflop_per_frame(path, width_px=32, height_px=20) == pytest.approx(2 * 7 * 3 * 640 / 1e9)


def test_a_graph_without_convolutions_costs_nothing(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [helper.make_node("Relu", ["frame"], ["stylized"])], [])
    assert gflop_per_frame(path, width_px=32, height_px=20) == 0.0


def test_a_network_of_several_styles_is_counted_too() -> None:
    single, several = (open_artifact(name).path for name in ("starry-night", "four-paintings"))
    cost = gflop_per_frame(single, width_px=64, height_px=48)
    # The same architecture; scales and offsets of the norms are mixed by products of (styles) x (styles, channels).
    assert cost < gflop_per_frame(several, width_px=64, height_px=48) < 1.001 * cost
