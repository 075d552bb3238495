"""Checkpoints: plain dicts and tensors, written whole or not at all."""

import io
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from stylize.train.networks import build_network
from stylize.train.published import network_from_published
from stylize.train.style_network import StyleNetwork
from stylize.train.whole_file import write_whole

__all__ = ["Checkpoint", "checkpoint_of_weights", "load_checkpoint", "network_from_checkpoint", "save_checkpoint"]

_FORMAT = "stylize-checkpoint"
_FORMAT_VERSION = 1
# What torch's unpickler was seen to raise for damaged files: it trusts the order of the bytes it reads.
_DAMAGED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    UnpicklingError,
    ValueError,
    struct.error,
)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """All that is needed to export a style, or to go on training it."""

    network: str
    options: dict[str, str | int | bool]
    weights: dict[str, Tensor]
    style: str
    """Name of the style: stem of the style picture; of several, joined by a plus."""
    style_sha256: str
    """Of the style picture, or of the digests of several; empty where it is not known."""
    config: dict[str, Any]
    """The whole training config in plain values; empty for weights alone, see `checkpoint_of_weights`."""
    step: int
    elapsed_seconds: float
    losses: dict[str, float]
    """Mean of each loss term over the latest steps."""
    optimizer: dict[str, Any]
    random_state: Tensor
    style_names: tuple[str, ...] = ()
    """Names of the styles, in the order of the mix, when the network holds several."""


def checkpoint_of_weights(
    network: StyleNetwork, *, style: str, style_sha256: str = "", style_names: tuple[str, ...] = ()
) -> Checkpoint:
    """A checkpoint of a network whose training is not known: to export or to start from, not to resume."""
    return Checkpoint(
        network=network.name,
        options=network.options,
        weights=network.state_dict(),
        style=style,
        style_sha256=style_sha256,
        style_names=style_names,
        config={},
        step=0,
        elapsed_seconds=0.0,
        losses={},
        optimizer={},
        random_state=torch.get_rng_state(),
    )


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint whole, or leave the old one.

    Raises:
        OSError: the folder is missing or the disk is full.
    """
    buffer = io.BytesIO()  # torch hides what is wrong with a file behind a RuntimeError of its own
    torch.save({"format": _FORMAT, "format_version": _FORMAT_VERSION, **vars(checkpoint)}, buffer)
    write_whole(path, buffer.getbuffer())


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint onto the CPU, without running any code from it.

    Also read, for export only: bare state dicts of the projects that `network_from_published` knows.

    Raises:
        ValueError: missing, damaged, not a checkpoint of this project, or of a later version.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such checkpoint")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of torch about a damaged file, before it raises
            state = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGED as error:
        # torch's own text advises to load it unsafely
        raise ValueError(f"{path}: not a checkpoint, or damaged; expected a .pth that stylize-train wrote") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path}: not a checkpoint, but a {type(state).__name__}")
    if "format" not in state:
        return _from_published(state, path)
    if state.pop("format") != _FORMAT:
        raise ValueError(f"{path}: not a checkpoint of stylize-train")
    version = state.pop("format_version", None)
    if version != _FORMAT_VERSION:
        raise ValueError(f"{path}: checkpoint version {version}, this stylize reads {_FORMAT_VERSION}")
    try:
        return Checkpoint(**state)
    except TypeError as error:
        raise ValueError(f"{path}: incomplete checkpoint ({error})") from error


def _from_published(state: dict[str, Any], path: Path) -> Checkpoint:
    """A bare state dict of another project; its style is named after the file."""
    try:
        network = network_from_published(state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if network is None:
        raise ValueError(
            f"{path}: not a checkpoint of stylize-train, nor weights of pytorch-reconet or fast_neural_style"
        )
    return checkpoint_of_weights(network, style=path.stem)


def network_from_checkpoint(checkpoint: Checkpoint) -> StyleNetwork:
    """The trained network, in evaluation mode on the CPU.

    Raises:
        ValueError: unknown network, or weights that do not fit it.
    """
    network = build_network(checkpoint.network, checkpoint.options)
    try:
        network.load_state_dict(checkpoint.weights)
    except RuntimeError as error:
        text = " ".join(str(error).split())  # torch's has a line for each weight
        raise ValueError(f"the checkpoint's weights do not fit network {checkpoint.network!r}: {text}") from error
    return network.eval()
