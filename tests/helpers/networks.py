"""Tiny ONNX models whose result is known exactly."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from stylize.runtime.contract import CONTRACT_KEY, ModelContract


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
