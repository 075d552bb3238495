"""A checkpoint from one of the project's own ONNX files, to go on training from it."""

from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from stylize.runtime.artifact import Artifact
from stylize.runtime.errors import ArtifactError
from stylize.train.blocks import UpsampleConv
from stylize.train.checkpoint import Checkpoint, checkpoint_of_weights
from stylize.train.networks import network_from_signature
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
        network = network_from_signature(contract.network)
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
    return checkpoint_of_weights(
        network,
        style=contract.style,
        style_sha256=contract.hashes.get("style_picture", ""),
        style_names=contract.style_names,
    )


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
