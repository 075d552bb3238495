"""Rewrites change the operations of a graph, not what it computes: equal in float64 to 1e-9."""

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from stylize.export.rewrite import RewriteCounts, rewrite

EXACT = 1e-9  # float64 sums of a few hundred products of order 1, in another order
RNG = np.random.default_rng(0)


def graph(
    nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], *, shape: tuple[Any, ...] = ("N", 3, "H", "W")
) -> onnx.ModelProto:
    """A float64 graph from `x` to `y`."""
    picture = helper.make_tensor_value_info("x", TensorProto.DOUBLE, shape)
    result = helper.make_tensor_value_info("y", TensorProto.DOUBLE, ("n", "c", "h", "w"))
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    body = helper.make_graph(nodes, "test", [picture], [result], initializers)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    return ReferenceEvaluator(model).run(None, {"x": x})[0]


def assert_equal_and(model: onnx.ModelProto, *, counts: RewriteCounts, height: int = 5, width: int = 7) -> Counter[str]:
    """Rewrite, check what was applied and that the result is equal; returns the operators left."""
    rewritten, found = rewrite(model)
    assert found == counts
    for shape in ((1, 3, height, width), (2, 3, 3, 4)):
        x = RNG.normal(size=shape)
        expected, got = run(model, x), run(rewritten, x)
        assert got.shape == expected.shape
        assert np.abs(got - expected).max() <= EXACT
        assert np.abs(expected).max() > 0.1
    return Counter(node.op_type for node in rewritten.graph.node)


def doubling(**attributes: str) -> onnx.NodeProto:
    plain = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return helper.make_node("Resize", ["x", "", "scales"], ["large"], **(plain | attributes))


def pad(mode: str, source: str = "large") -> onnx.NodeProto:
    return helper.make_node("Pad", [source, "pads"], ["padded"], mode=mode)


def constants(kernel: int, *, num_in: int = 3, num_out: int = 4) -> dict[str, np.ndarray]:
    border = (kernel - 1) // 2
    return {
        "weight": RNG.normal(size=(num_out, num_in, kernel, kernel)),
        "bias": RNG.normal(size=num_out),
        "scales": np.array([1, 1, 2, 2], np.float32),
        "pads": np.array([0, 0, border, border] * 2, np.int64),
    }


@pytest.mark.parametrize("kernel", [3, 5, 7, 9])
@pytest.mark.parametrize("border", ["edge", "constant", "of the conv", "reflect"])
def test_resize_convolution_becomes_phases(kernel: int, border: str) -> None:
    if border == "of the conv":
        side = (kernel - 1) // 2
        nodes = [doubling(), helper.make_node("Conv", ["large", "weight", "bias"], ["y"], pads=[side] * 4)]
    else:
        nodes = [doubling(), pad(border), helper.make_node("Conv", ["padded", "weight", "bias"], ["y"])]
    model = graph(nodes, constants(kernel))
    # Two mirrored pixels of a doubled map are two different pixels of the small one.
    is_exact = border != "reflect" or kernel == 3
    operators = assert_equal_and(model, counts=RewriteCounts(resize_convs=int(is_exact)), height=6)
    assert ("Resize" in operators) != is_exact
    assert ("DepthToSpace" in operators) == is_exact


@pytest.mark.parametrize("kernel", [3, 5])
def test_phases_have_fewer_multiplications(kernel: int) -> None:
    nodes = [doubling(), pad("edge"), helper.make_node("Conv", ["padded", "weight"], ["y"])]
    rewritten, _ = rewrite(graph(nodes, constants(kernel)))
    weight = next(numpy_helper.to_array(t) for t in rewritten.graph.initializer if t.dims[:1] == [16])
    # Four maps of a quarter of the pixels each: taps per small pixel, against four times the kernel's.
    assert 4 * weight[0, 0].size / (4 * kernel**2) == {3: 4 / 9, 5: 9 / 25}[kernel]


@pytest.mark.parametrize(
    ("coordinates", "rounding", "is_doubling"),
    [
        ("asymmetric", "floor", True),
        ("asymmetric", "round_prefer_floor", True),
        ("asymmetric", "ceil", False),
        ("half_pixel", "round_prefer_floor", True),
        ("half_pixel", "round_prefer_ceil", True),
        ("half_pixel", "floor", False),
        ("align_corners", "round_prefer_floor", False),
    ],
)
def test_only_resizes_that_double_every_pixel(coordinates: str, rounding: str, is_doubling: bool) -> None:
    resize = doubling(coordinate_transformation_mode=coordinates, nearest_mode=rounding)
    model = graph([resize, pad("edge"), helper.make_node("Conv", ["padded", "weight"], ["y"])], constants(3))
    assert_equal_and(model, counts=RewriteCounts(resize_convs=int(is_doubling)))


@pytest.mark.parametrize(
    ("shape", "sizes", "is_known"),
    [
        ((1, 3, 4, 6), [1, 3, 8, 12], True),
        ((1, 3, 4, 6), [1, 3, 8, 18], False),
        (("N", 3, "H", "W"), [1, 3, 8, 12], False),
    ],
)
def test_sizes_in_place_of_scales(shape: tuple[Any, ...], sizes: list[int], is_known: bool) -> None:
    resize = helper.make_node(
        "Resize", ["x", "", "", "sizes"], ["large"], coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    )
    model = graph(
        [resize, pad("edge"), helper.make_node("Conv", ["padded", "weight"], ["y"])],
        constants(3) | {"sizes": np.array(sizes, np.int64)},
        shape=shape,
    )
    rewritten, counts = rewrite(model)
    assert counts.resize_convs == int(is_known)
    x = RNG.normal(size=(1, 3, 4, 6))
    assert np.abs(run(rewritten, x) - run(model, x)).max() <= EXACT


@pytest.mark.parametrize("scales", [[1, 1, 3, 3], [1, 1, 2, 1], [1, 2, 2, 2]])
def test_other_scales_are_left(scales: list[int]) -> None:
    model = graph(
        [doubling(), pad("edge"), helper.make_node("Conv", ["padded", "weight"], ["y"])],
        constants(3, num_in=3 * scales[1]) | {"scales": np.array(scales, np.float32)},
    )
    assert_equal_and(model, counts=RewriteCounts())


@pytest.mark.parametrize("attributes", [{"strides": [2, 2]}, {"dilations": [2, 2]}, {"group": 3}])
def test_other_convolutions_are_left(attributes: dict[str, Any]) -> None:
    arrays = constants(3, num_in=1 if "group" in attributes else 3, num_out=6)
    model = graph(
        [doubling(), pad("edge"), helper.make_node("Conv", ["padded", "weight"], ["y"], **attributes)], arrays
    )
    assert_equal_and(model, counts=RewriteCounts())


def test_map_that_something_else_needs_is_left() -> None:
    nodes = [
        doubling(),
        pad("edge"),
        helper.make_node("Conv", ["padded", "weight"], ["convolved"]),
        helper.make_node("Add", ["convolved", "large"], ["y"]),
    ]
    assert_equal_and(graph(nodes, constants(3, num_out=3)), counts=RewriteCounts())


@pytest.mark.parametrize(
    ("kernel", "pads", "output_padding"),
    [
        (3, [1, 1, 1, 1], [1, 1]),  # fast_neural_style before it had resize convolutions, CycleGAN
        (4, [1, 1, 1, 1], [0, 0]),  # DCGAN, pix2pix
        (2, [0, 0, 0, 0], [0, 0]),
        (5, [2, 2, 2, 2], [1, 1]),
        (6, [2, 2, 2, 2], [0, 0]),
        (9, [4, 4, 4, 4], [1, 1]),
        (3, [0, 0, 0, 0], [0, 0]),  # odd results
        (3, [1, 1, 1, 1], [0, 0]),
        (3, [0, 1, 1, 0], [0, 1]),  # unequal sides and axes
    ],
)
@pytest.mark.parametrize("has_bias", [True, False])
def test_transposed_convolution_becomes_phases(
    kernel: int, pads: list[int], output_padding: list[int], has_bias: bool
) -> None:
    node = helper.make_node(
        "ConvTranspose",
        ["x", "weight", *(["bias"] if has_bias else [])],
        ["y"],
        strides=[2, 2],
        pads=pads,
        output_padding=output_padding,
    )
    arrays = {"weight": RNG.normal(size=(3, 4, kernel, kernel)), "bias": RNG.normal(size=4)}
    operators = assert_equal_and(graph([node], arrays), counts=RewriteCounts(transposed_convs=1))
    assert "ConvTranspose" not in operators


@pytest.mark.parametrize(
    "attributes", [{"strides": [1, 1]}, {"strides": [2, 2], "dilations": [2, 2]}, {"strides": [2, 1]}]
)
def test_other_transposed_convolutions_are_left(attributes: dict[str, Any]) -> None:
    node = helper.make_node("ConvTranspose", ["x", "weight"], ["y"], **attributes)
    arrays = {"weight": RNG.normal(size=(3, 4, 3, 3))}
    assert_equal_and(graph([node], arrays), counts=RewriteCounts())


@pytest.mark.parametrize(
    "steps",
    [
        [("Mul", "two", False), ("Sub", "one", False)],
        [("Mul", "two", True)],
        [("Div", "two", False), ("Add", "mean", False)],
        [("Sub", "mean", False), ("Div", "deviation", False)],
        [("Sub", "mean", True), ("Mul", "deviation", True), ("Identity", "", False)],
    ],
)
@pytest.mark.parametrize("mode", ["reflect", "edge", "none"])
def test_scale_and_offset_go_into_the_convolution(steps: list[tuple[str, str, bool]], mode: str) -> None:
    nodes, last = [], "x"
    for number, (op_type, operand, is_swapped) in enumerate(steps):
        inputs = [last] if op_type == "Identity" else [operand, last] if is_swapped else [last, operand]
        last = f"step{number}"
        nodes.append(helper.make_node(op_type, inputs, [last]))
    if mode != "none":
        nodes.append(pad(mode, source=last))
        last = "padded"
    nodes.append(helper.make_node("Conv", [last, "weight"], ["y"], kernel_shape=[3, 3]))
    arrays = constants(3) | {
        "two": np.array(2.0),
        "one": np.array([1.0]),
        "mean": np.array([0.4, 0.5, 0.6]).reshape(1, 3, 1, 1),
        "deviation": np.array([0.2, 0.3, 0.4]).reshape(3, 1, 1),
    }
    operators = assert_equal_and(graph(nodes, arrays), counts=RewriteCounts(folded_scales=1), height=6)
    assert set(operators) == ({"Pad", "Conv"} if mode != "none" else {"Conv"})


@pytest.mark.parametrize(
    ("op_type", "border", "is_exact"),
    [
        ("Mul", "of the conv", True),
        ("Mul", "constant", True),
        ("Add", "of the conv", False),
        ("Add", "constant", False),
    ],
)
def test_offset_is_not_moved_past_zeros(op_type: str, border: str, is_exact: bool) -> None:
    nodes = [helper.make_node(op_type, ["x", "two"], ["scaled"])]
    if border == "constant":
        nodes += [pad("constant", source="scaled"), helper.make_node("Conv", ["padded", "weight", "bias"], ["y"])]
    else:
        nodes += [helper.make_node("Conv", ["scaled", "weight", "bias"], ["y"], pads=[1] * 4)]
    model = graph(nodes, constants(3) | {"two": np.array(2.0)})
    assert_equal_and(model, counts=RewriteCounts(folded_scales=int(is_exact)))


def test_scale_that_something_else_needs_is_left() -> None:
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["scaled"]),
        helper.make_node("Conv", ["scaled", "weight"], ["convolved"], pads=[1] * 4),
        helper.make_node("Add", ["convolved", "scaled"], ["y"]),
    ]
    model = graph(nodes, constants(3, num_out=3) | {"two": np.array(2.0)})
    assert_equal_and(model, counts=RewriteCounts())


def test_shared_weight_is_scaled_for_one_convolution_only() -> None:
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["scaled"]),
        helper.make_node("Conv", ["scaled", "weight"], ["first"], pads=[1] * 4),
        helper.make_node("Conv", ["first", "weight"], ["y"], pads=[1] * 4),
    ]
    model = graph(nodes, constants(3, num_out=3) | {"two": np.array(2.0)})
    assert_equal_and(model, counts=RewriteCounts(folded_scales=1))


def test_all_of_them_in_one_graph() -> None:
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["scaled"]),
        helper.make_node("Pad", ["scaled", "pads"], ["first_padded"], mode="reflect"),
        helper.make_node("Conv", ["first_padded", "weight"], ["first"]),
        helper.make_node("Resize", ["first", "", "scales"], ["large"], coordinate_transformation_mode="asymmetric"),
        pad("reflect"),
        helper.make_node("Conv", ["padded", "weight"], ["second"]),
        helper.make_node("ConvTranspose", ["second", "weight"], ["y"], strides=[2, 2], pads=[1] * 4),
    ]
    model = graph(nodes, constants(3, num_out=3) | {"two": np.array(2.0)})
    counts = RewriteCounts(resize_convs=1, transposed_convs=1, folded_scales=1)
    assert_equal_and(model, counts=counts)
    assert str(counts) == "1 resize convs, 1 transposed convs, 1 folded scales"
