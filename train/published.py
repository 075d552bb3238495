"""Weights of other projects, brought into this project's networks.

Recognised by their keys alone. Nothing is approximated: scales of 0..255 are folded into the first
and the last convolution.
"""

import re
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor

from stylize.train.networks import Johnson, ReCoNet
from stylize.train.style_network import StyleNetwork

__all__ = ["network_from_published"]

NetworkT = TypeVar("NetworkT", bound=StyleNetwork)

# State-dict keys of pytorch-reconet (github.com/EmptySamurai/pytorch-reconet), with and without FRN,
# and of fast_neural_style (github.com/pytorch/examples): pattern and our name for it.
_RECONET_KEYS = (
    (r"encoder\.layers\.(\d)\.layers\.0\.layers\.1\.", r"encoder.\1.conv.conv."),
    (r"encoder\.layers\.(\d)\.layers\.1\.", r"encoder.\1.norm.0."),
    (r"encoder\.layers\.(\d)\.layers\.2\.tau", r"encoder.\1.norm.1.threshold"),
    (r"encoder\.layers\.(\d)\.branch\.0\.layers\.0\.layers\.1\.", r"encoder.\1.first.conv.conv."),
    (r"encoder\.layers\.(\d)\.branch\.0\.layers\.1\.", r"encoder.\1.first.norm.0."),
    (r"encoder\.layers\.(\d)\.branch\.0\.layers\.2\.tau", r"encoder.\1.first.norm.1.threshold"),
    (r"encoder\.layers\.(\d)\.branch\.1\.layers\.0\.layers\.1\.", r"encoder.\1.second.conv."),
    (r"encoder\.layers\.(\d)\.branch\.1\.layers\.1\.", r"encoder.\1.norm.0."),
    (r"encoder\.layers\.(\d)\.activation\.tau", r"encoder.\1.activation.threshold"),
    (r"decoder\.layers\.1\.layers\.0\.layers\.1\.", r"decoder.0."),
    (r"decoder\.layers\.1\.layers\.1\.", r"decoder.1.0."),
    (r"decoder\.layers\.1\.layers\.2\.tau", r"decoder.1.1.threshold"),
    (r"decoder\.layers\.3\.layers\.0\.layers\.1\.", r"decoder.2."),
    (r"decoder\.layers\.3\.layers\.1\.", r"decoder.3.0."),
    (r"decoder\.layers\.3\.layers\.2\.tau", r"decoder.3.1.threshold"),
    (r"decoder\.layers\.4\.layers\.0\.layers\.1\.", r"decoder.4.conv."),
)
_JOHNSON_KEYS = (
    *((rf"conv{i}\.conv2d\.", rf"encoder.{i - 1}.conv.conv.") for i in (1, 2, 3)),
    *((rf"in{i}\.", rf"encoder.{i - 1}.norm.0.") for i in (1, 2, 3)),
    *((rf"res{i}\.conv1\.conv2d\.", rf"encoder.{i + 2}.first.conv.conv.") for i in range(1, 6)),
    *((rf"res{i}\.in1\.", rf"encoder.{i + 2}.first.norm.0.") for i in range(1, 6)),
    *((rf"res{i}\.conv2\.conv2d\.", rf"encoder.{i + 2}.second.conv.") for i in range(1, 6)),
    *((rf"res{i}\.in2\.", rf"encoder.{i + 2}.norm.0.") for i in range(1, 6)),
    (r"deconv1\.conv2d\.", "decoder.0."),
    (r"in4\.", "decoder.1.0."),
    (r"deconv2\.conv2d\.", "decoder.2."),
    (r"in5\.", "decoder.3.0."),
    (r"deconv3\.conv2d\.", "decoder.4.conv."),
)
# Instance norm never used these, but old versions of PyTorch saved them.
_UNUSED = re.compile(r".*\.(running_mean|running_var|num_batches_tracked)$")
_FRN_EPS = re.compile(r".*\.eps$")


def network_from_published(state: Mapping[str, Tensor]) -> StyleNetwork | None:
    """The network these weights belong to, in evaluation mode; None when the keys are of no known project.

    Raises:
        ValueError: the keys are known, but a tensor is missing, unexpected or of another shape.
    """
    if "encoder.layers.0.layers.0.layers.1.weight" in state:
        return _reconet(state)
    if "deconv1.conv2d.weight" in state and "res5.conv2.conv2d.weight" in state:
        return _johnson(state)
    return None


def _reconet(state: Mapping[str, Tensor]) -> ReCoNet:
    """pytorch-reconet takes and gives RGB in [-1, 1], as our halves do inside."""
    has_frn = "encoder.layers.0.layers.2.tau" in state
    eps = [value for name, value in state.items() if _FRN_EPS.fullmatch(name)]
    if any(abs(value.abs().item() - 1e-6) > 1e-9 for value in eps):
        raise ValueError("these pytorch-reconet weights have a learned FRN epsilon, which this network does not have")
    network = ReCoNet(norm="frn" if has_frn else "instance", activation_after_add=True)
    kept = {name: value for name, value in state.items() if not _FRN_EPS.fullmatch(name)}
    renamed = _renamed(kept, _RECONET_KEYS)
    for name, value in renamed.items():
        if value.ndim == 4 and value.shape[0] == 1:
            renamed[name] = value.flatten()  # FRN vectors are stored as (1, C, 1, 1)
    return _filled(network, renamed)


def _johnson(state: Mapping[str, Tensor]) -> Johnson:
    """fast_neural_style takes RGB in 0..255 and gives it unbounded, to be clamped."""
    weights = _renamed(state, _JOHNSON_KEYS)
    first, last = "encoder.0.conv.conv", "decoder.4.conv"
    # Ours feeds z in [-1, 1] for their 127.5 z + 127.5, and shows d as their 127.5 d + 127.5.
    weights[f"{first}.bias"] = weights[f"{first}.bias"] + 127.5 * weights[f"{first}.weight"].sum(dim=(1, 2, 3))
    weights[f"{first}.weight"] = weights[f"{first}.weight"] * 127.5
    weights[f"{last}.bias"] = weights[f"{last}.bias"] / 127.5 - 1
    weights[f"{last}.weight"] = weights[f"{last}.weight"] / 127.5
    return _filled(Johnson(output="clamp"), weights)


def _renamed(state: Mapping[str, Tensor], keys: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    patterns = [(re.compile(pattern), name) for pattern, name in keys]
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        if _UNUSED.fullmatch(key):
            continue
        match = next(((pattern, name) for pattern, name in patterns if pattern.match(key)), None)
        if match is None:
            raise ValueError(f"the weights hold an unexpected tensor {key!r}")
        renamed[match[0].sub(match[1], key, count=1)] = value
    return renamed


def _filled(network: NetworkT, weights: Mapping[str, Tensor]) -> NetworkT:
    try:
        network.load_state_dict({name: value.to(torch.float32) for name, value in weights.items()})
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"the weights do not fit {network.name!r}: {reason}") from error
    return network.eval()
