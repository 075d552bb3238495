"""A checkpoint from one of the project's own ONNX files, to go on training from it."""

import ast
import re
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from stylize.runtime.artifact import Artifact
from stylize.runtime.errors import ArtifactError
from stylize.train.blocks import UpsampleConv
from stylize.train.checkpoint import Checkpoint
from stylize.train.networks import build_network
from stylize.train.style_network import StyleNetwork

__all__ = ["checkpoint_from_onnx"]


def checkpoint_from_onnx(artifact: Artifact) -> Checkpoint:
    """The weights of an exported model, as `stylize-train --start-from` reads them.

    Export stores resize convolutions as phase kernels; the kernels they were made of are recovered by
    least squares. Half-precision models give them rounded to 11 bits; int8 and FRN models do not hold them all.

    Raises:
        ArtifactError: not an ONNX file that `stylize-export` wrote from a network it knows.
    """
    contract = artifact.contract
    try:
        network = build_network(*_name_and_options(contract.network))
    except ValueError as error:
        raise ArtifactError(
            artifact.path,
            f"holds the network {contract.network!r}: a checkpoint can be made only of what stylize-export wrote",
        ) from error
    source = artifact.onnx_source()
    model = onnx.load(source) if isinstance(source, Path) else onnx.load_from_string(source)
    stored = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in model.graph.initializer}
    try:
        _load(network, stored)
    except KeyError as error:
        raise ArtifactError(
            artifact.path,
            f"holds {contract.network} in {contract.precision} without {error} as it was trained: "
            "a checkpoint can be made of float models with instance norm",
        ) from error
    except (RuntimeError, ValueError) as error:
        raise ArtifactError(artifact.path, f"does not hold the weights of {contract.network}: {error}") from error
    return Checkpoint(
        network=network.name,
        options=network.options,
        weights=network.state_dict(),
        style=contract.style,
        style_sha256=contract.hashes.get("style_picture", ""),
        config={},
        step=0,
        elapsed_seconds=0.0,
        losses={},
        optimizer={},
        random_state=torch.get_rng_state(),
    )


def _name_and_options(text: str) -> tuple[str, dict[str, str | int | bool]]:
    """`reconet(norm=frn, activation_after_add=False)` taken apart."""
    match = re.fullmatch(r"(\w+)\((.*)\)", text)
    if match is None:
        raise ValueError("no name(options)")
    pairs = (item.split("=", 1) for item in match[2].split(", ") if item)
    return match[1], {name: _plain(value) for name, value in pairs}


def _plain(text: str) -> str | int | bool:
    return ast.literal_eval(text) if text in ("True", "False") or text.isdigit() else text


def _load(network: StyleNetwork, stored: dict[str, Tensor]) -> None:
    """Copy `stored` into the network, phase kernels unfolded.

    Raises:
        KeyError: a weight is missing.
        RuntimeError, ValueError: a weight has another shape.
    """
    folded = {name: layer for name, layer in network.named_modules() if isinstance(layer, UpsampleConv)}
    for name, layer in folded.items():
        layer.load_folded(stored[f"{name}.weight"].float(), stored[f"{name}.bias"].float())
    state = network.state_dict()
    plain = {name: stored[name].float() for name in state if name.rpartition(".")[0] not in folded}
    network.load_state_dict(state | plain)
