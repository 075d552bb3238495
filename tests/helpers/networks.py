"""Tiny ONNX models whose result is known exactly."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from stylize.runtime.contract import CONTRACT_KEY, NOISE_INPUT, STYLE_WEIGHTS_INPUT, ModelContract


def write_affine(
    path: Path,
    *,
    scale: float = 1.0,
    offset: float = 0.0,
    contract: ModelContract | None = None,
    shape: tuple[Any, ...] = ("N", 3, "H", "W"),
    has_contract: bool = True,
    elem_type: int = TensorProto.FLOAT,
) -> Path:
    """Write `stylized = frame * scale + offset`; scale 1 and offset 0 are the identity."""
    contract = contract or ModelContract(network="affine", style=path.stem, size_multiple=4)
    dtype = helper.tensor_dtype_to_np_dtype(elem_type)
    graph = helper.make_graph(
        [
            helper.make_node("Mul", [contract.input_name, "scale"], ["scaled"]),
            helper.make_node("Add", ["scaled", "offset"], [contract.output_name]),
        ],
        "affine",
        [helper.make_tensor_value_info(contract.input_name, elem_type, shape)],
        [helper.make_tensor_value_info(contract.output_name, elem_type, shape)],
        [
            numpy_helper.from_array(np.array(scale, dtype), "scale"),
            numpy_helper.from_array(np.array(offset, dtype), "offset"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if has_contract:
        helper.set_model_props(model, {CONTRACT_KEY: contract.to_json()})
    onnx.save(model, path)
    return path


def write_convolutions(path: Path, *, opset_domain: str = "", stride: int = 1) -> Path:
    """Write a small network of convolutions and an instance norm with random weights, output in [0, 1].

    Args:
        path: where to.
        opset_domain: of the last operator; any but "" makes the model one that no backend knows.
        stride: of the first convolution; 2 makes the output half the size of the input.
    """
    contract = ModelContract(network="convolutions", style=path.stem, size_multiple=2)
    rng = np.random.default_rng(0)
    width = 16
    weights = {
        "first": rng.normal(0, 0.2, (width, 3, 3, 3)),
        "second": rng.normal(0, 0.1, (3, width, 3, 3)),
        "scale": np.ones(width),
        "bias": np.zeros(width),
    }
    convolution = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["frame", "first"], ["features"], strides=[stride, stride], **convolution),
            helper.make_node("InstanceNormalization", ["features", "scale", "bias"], ["normal"]),
            helper.make_node("Relu", ["normal"], ["positive"]),
            helper.make_node("Conv", ["positive", "second"], ["open"], **convolution),
            helper.make_node("Sigmoid", ["open"], ["stylized"], domain=opset_domain),
        ],
        "convolutions",
        [helper.make_tensor_value_info("frame", TensorProto.FLOAT, ("N", 3, "H", "W"))],
        [helper.make_tensor_value_info("stylized", TensorProto.FLOAT, ("N", 3, "height", "width"))],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    domains = {"", opset_domain}
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid(name, 17) for name in domains], ir_version=9)
    helper.set_model_props(model, {CONTRACT_KEY: contract.to_json()})
    onnx.save(model, path)
    return path


def write_colors(path: Path, *, style_names: tuple[str, ...] = (), takes_noise: bool = False) -> Path:
    """Write a model whose styles are red, green and blue, in shares `style_weights`, or half grey and half noise."""
    contract = ModelContract(
        network="colors", style=path.stem, size_multiple=4, style_names=style_names, takes_noise=takes_noise
    )
    nodes = [helper.make_node("Mul", ["frame", "nothing"], ["black"])]
    inputs = [helper.make_tensor_value_info("frame", TensorProto.FLOAT, ("N", 3, "H", "W"))]
    weights = {"nothing": np.zeros(()), "half": np.array(0.5)}
    if style_names:
        weights |= {"colors": np.eye(len(style_names), 3), "shape": np.array([1, 3, 1, 1])}
        inputs.append(helper.make_tensor_value_info(STYLE_WEIGHTS_INPUT, TensorProto.FLOAT, (len(style_names),)))
        nodes += [
            helper.make_node("MatMul", [STYLE_WEIGHTS_INPUT, "colors"], ["color"]),
            helper.make_node("Reshape", ["color", "shape"], ["added"]),
        ]
    if takes_noise:
        inputs.append(helper.make_tensor_value_info(NOISE_INPUT, TensorProto.FLOAT, (1, 3, "H", "W")))
        nodes.append(helper.make_node("Mul", [NOISE_INPUT, "half"], ["added"]))
    nodes.append(helper.make_node("Add", ["black", "added"], ["stylized"]))
    constants = [
        numpy_helper.from_array(value.astype(np.int64 if name == "shape" else np.float32), name)
        for name, value in weights.items()
    ]
    output = helper.make_tensor_value_info("stylized", TensorProto.FLOAT, ("N", 3, "H", "W"))
    graph = helper.make_graph(nodes, "colors", inputs, [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, {CONTRACT_KEY: contract.to_json()})
    onnx.save(model, path)
    return path
