"""Untrained networks as ONNX graphs, traced once in a process since that takes seconds."""

from functools import cache

import onnx
import torch

from stylize.export.onnx_from_network import onnx_from_network
from stylize.train.networks import build_network

# Architectures with every norm and upsampling they know; those with further inputs are in test_export_modes.py.
NETWORKS: dict[str, tuple[str, dict[str, str | int | bool]]] = {
    "fast": ("fast", {"width": 32}),
    "fastest": ("fastest", {}),
    "johnson": ("johnson", {}),
    "johnson-deconv": ("johnson", {"upsampling": "deconv"}),
    "reconet": ("reconet", {"norm": "instance"}),
    "reconet-frn": ("reconet", {"norm": "frn"}),
}


@cache
def exported_network(key: str) -> onnx.ModelProto:
    """The float32 graph of one of `NETWORKS`, any size; not to be changed."""
    name, options = NETWORKS[key]
    torch.manual_seed(0)
    return onnx_from_network(build_network(name, options), precision="fp32")
