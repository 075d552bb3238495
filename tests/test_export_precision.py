"""Half precision: what computes a norm's statistics stays float32, nothing else does, and pictures stay equal."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from helpers.exported import exported_network
from stylize.export.precision import half_from_float
from stylize.runtime.errors import EngineBuildError
from stylize.train.scenes import draw_scene

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def float_graph(nodes: list[onnx.NodeProto], constants: dict[str, float | np.ndarray] | None = None) -> onnx.ModelProto:
    picture = helper.make_tensor_value_info("x", FLOAT, ("N", 3, "H", "W"))
    result = helper.make_tensor_value_info("y", FLOAT, ("n", 3, "h", "w"))
    initializers = [numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in (constants or {}).items()]
    body = helper.make_graph(nodes, "test", [picture], [result], initializers)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def operators_in_float(model: onnx.ModelProto) -> Counter[str]:
    """Operators other than Cast whose result is float32."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    values = (*inferred.graph.value_info, *inferred.graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    nodes = (node for node in model.graph.node if node.op_type != "Cast")
    return Counter(node.op_type for node in nodes if types[node.output[0]] == FLOAT)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # more of them spin, for minutes where cores are busy
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    picture = session.get_inputs()[0]
    dtype = np.float16 if picture.type == "tensor(float16)" else np.float32
    return session.run(None, {picture.name: x.astype(dtype)})[0]


def psnr_db(first: np.ndarray, second: np.ndarray) -> float:
    return float(-10 * np.log10(np.square(first.astype(np.float64) - second).mean()))


@pytest.mark.parametrize(
    ("network", "in_float"),
    [
        ("fast", {"InstanceNormalization": 11}),
        ("johnson", {"InstanceNormalization": 15}),
        ("reconet", {"InstanceNormalization": 13}),
        ("reconet-frn", dict.fromkeys(("Pow", "ReduceMean", "Add", "Sqrt", "Reciprocal"), 13)),
    ],
)
def test_networks_keep_statistics_and_nothing_else_in_float(network: str, in_float: dict[str, int]) -> None:
    model = exported_network(network)
    half = half_from_float(model)
    assert operators_in_float(half) == in_float
    ends = {tensor.type.tensor_type.elem_type for tensor in (*half.graph.input, *half.graph.output)}
    assert ends == {HALF}
    assert [half.graph.input[0].name, half.graph.output[0].name] == ["frame", "stylized"]
    weights = {tensor.data_type for tensor in half.graph.initializer if len(tensor.dims) == 4 and tensor.dims[-1] > 1}
    assert weights == {HALF}
    frame = draw_scene(0, height=48, width=64).transpose(2, 0, 1)[None] / np.float32(255)
    got, expected = run(half, frame), run(model, frame)
    # Eleven bits of mantissa in some thirty layers; below 45 dB a model is refused, equal would not be half.
    assert 60 < psnr_db(expected, got) < 100


def instance_norm_by_hand() -> list[onnx.NodeProto]:
    """As exporters write it that do not know the operator: mean, deviations, mean of their squares."""
    mean = {"axes": [2, 3], "keepdims": 1}
    return [
        helper.make_node("ReduceMean", ["x"], ["mean"], **mean),
        helper.make_node("Sub", ["x", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "centred"], ["squares"]),
        helper.make_node("ReduceMean", ["squares"], ["variance"], **mean),
        helper.make_node("Add", ["variance", "eps"], ["positive"]),
        helper.make_node("Sqrt", ["positive"], ["deviation"]),
        helper.make_node("Div", ["centred", "deviation"], ["normal"]),
        helper.make_node("Tanh", ["normal"], ["y"]),
    ]


def test_decomposed_norm_survives_values_whose_squares_do_not_fit() -> None:
    model = float_graph(instance_norm_by_hand(), {"eps": 1e-5})
    half = half_from_float(model)
    assert operators_in_float(half) == {"ReduceMean": 2, "Sub": 1, "Mul": 1, "Add": 1, "Sqrt": 1}
    x = (
        np.random.default_rng(0).normal(0, 2000, (1, 3, 16, 16)).astype(np.float32)
    )  # squares up to 4e7, half ends at 65504
    assert psnr_db(run(model, x), run(half, x)) > 60


def test_values_beyond_half_precision_stay_float() -> None:
    nodes = [
        helper.make_node("Mul", ["x", "huge"], ["large"]),
        helper.make_node("Add", ["large", "small"], ["shifted"]),
        helper.make_node("Div", ["shifted", "huge"], ["y"]),
    ]
    half = half_from_float(float_graph(nodes, {"huge": 1e6, "small": 1e-9}))
    assert operators_in_float(half) == {"Mul": 1, "Add": 1, "Div": 1}
    x = np.random.default_rng(0).random((1, 3, 4, 4), np.float32)
    assert psnr_db(x, run(half, x)) > 60


def test_scales_of_a_resize_stay_float_as_the_operator_wants() -> None:
    resize = helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="nearest")
    model = float_graph([resize], {"scales": np.array([1, 1, 2, 2])})
    x = np.random.default_rng(0).random((1, 3, 4, 4), np.float32)
    assert run(half_from_float(model), x).shape == (1, 3, 8, 8)


def test_constants_and_casts_inside_the_graph_follow() -> None:
    nodes = [
        helper.make_node("Constant", [], ["half"], value_float=0.5),
        helper.make_node("Cast", ["x"], ["whole"], to=TensorProto.INT32),
        helper.make_node("Cast", ["whole"], ["back"], to=FLOAT),
        helper.make_node("Mul", ["back", "half"], ["y"]),
    ]
    half = half_from_float(float_graph(nodes))
    assert not operators_in_float(half)
    assert run(half, np.full((1, 3, 2, 2), 7.0, np.float32)).tolist() == np.full((1, 3, 2, 2), 3.5).tolist()


def test_rejects_a_graph_that_branches() -> None:
    output = helper.make_tensor_value_info("z", FLOAT, None)
    branch = helper.make_graph([helper.make_node("Identity", ["x"], ["z"])], "branch", [], [output])
    nodes = [
        helper.make_node("Constant", [], ["yes"], value=helper.make_tensor("yes", TensorProto.BOOL, [], [True])),
        helper.make_node("If", ["yes"], ["y"], name="choice", then_branch=branch, else_branch=branch),
    ]
    with pytest.raises(EngineBuildError, match="branches or loops in If 'choice'"):
        half_from_float(float_graph(nodes))
