"""The frozen VGG network whose features measure content and style.

Shapes: N batch, C channels, H height, W width.
"""

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Literal
from urllib.error import URLError
from urllib.request import Request, urlopen

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["LossNetwork", "available_layers", "loss_weights_from_file", "loss_weights_from_hub", "usable_layers"]

logger = logging.getLogger(__name__)

# ImageNet statistics the weights were trained with (torchvision `VGG19_Weights.IMAGENET1K_V1`).
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)

# Convolutions in each of the five blocks; Simonyan & Zisserman, arXiv 1409.1556, table 1, D and E.
_BLOCKS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}

# torchvision's own addresses; the tail of each name is the start of the file's SHA-256.
_URLS = {
    "vgg16": "https://download.pytorch.org/models/vgg16-397923af.pth",
    "vgg19": "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
}
_PATIENCE_SECONDS = 10


def _conv_names(architecture: str) -> dict[str, int]:
    """Layer name (`conv3_1`) to its index in torchvision's `features`."""
    names: dict[str, int] = {}
    index = 0
    for block, num_convs in enumerate(_BLOCKS[architecture], start=1):
        for conv in range(1, num_convs + 1):
            names[f"conv{block}_{conv}"] = index
            index += 2  # each convolution is followed by its ReLU
        index += 1  # each block ends with a pooling layer
    return names


def loss_weights_from_file(path: Path) -> dict[str, Tensor]:
    """Read VGG-16 or VGG-19 weights with torchvision's key names (`features.0.weight` ...).

    Args:
        path: `.safetensors`, or a state dict in a `.pth`; a file cut after some layer is fine.

    Raises:
        ValueError: the file is missing, damaged, holds no VGG convolution, or lacks one between two others.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file with loss weights")
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, UnpicklingError, SafetensorError) as error:
        # torch's own text advises to load it unsafely
        raise ValueError(
            f"{path}: cannot be read as loss weights; expected .safetensors, or a .pth with a state dict"
        ) from error
    if not isinstance(state, dict) or "features.0.weight" not in state:
        raise ValueError(
            f"{path}: holds no VGG weights; expected torchvision's keys (features.0.weight, features.0.bias, ...)"
        )
    # With gaps between them they are another network's, such as one with batch norm.
    available, names = available_layers(state), _conv_names(_architecture(state))
    if available != tuple(name.replace("conv", "relu") for name in names)[: len(available)]:
        raise ValueError(
            f"{path}: is not VGG-16 nor VGG-19 as published: give torchvision's vgg16 or vgg19, not vgg19_bn"
        )
    return state


def loss_weights_from_hub(architecture: Literal["vgg16", "vgg19"] = "vgg19") -> dict[str, Tensor]:
    """Weights from torch's cache, downloaded from PyTorch's model host the first time (528 or 548 MB).

    Raises:
        ValueError: damaged, or not in the cache and the host cannot be reached.
    """
    url = _URLS[architecture]
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if not cached.is_file():
        logger.info("downloading the loss weights from %s to %s, once", url, cached)
        try:
            _check_reachable(url)
            cached.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(cached), hash_prefix=cached.stem.rpartition("-")[2])
        except (OSError, RuntimeError) as error:  # the latter for another hash
            raise ValueError(
                f"cannot download the loss weights from {url} ({error}): "
                f"give a file with --loss-weights, or put that file at {cached}"
            ) from error
    return loss_weights_from_file(cached)


def _check_reachable(url: str) -> None:
    """Ask for the file's headers: without a network, looking up the name alone may take minutes, and cannot be stopped.

    Raises:
        OSError: the host cannot be reached, or does not answer.
    """
    failures: list[OSError] = [URLError(f"no answer within {_PATIENCE_SECONDS} s")]

    def ask() -> None:
        try:
            urlopen(Request(url, method="HEAD"), timeout=_PATIENCE_SECONDS).close()
            failures.clear()
        except OSError as error:
            failures[:] = [error]

    asking = threading.Thread(target=ask, daemon=True)  # looked up in vain, the name does not keep the process
    asking.start()
    asking.join(_PATIENCE_SECONDS)
    if failures:
        raise failures[0]


def _architecture(weights: Mapping[str, Tensor]) -> str:
    """Index 17 is conv4_1 in VGG-16 and a pooling layer in VGG-19; up to conv3_3 the two are laid out alike."""
    return "vgg16" if "features.17.weight" in weights else "vgg19"


def available_layers(weights: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Names of the features these weights give, shallow to deep."""
    names = _conv_names(_architecture(weights))
    return tuple(name.replace("conv", "relu") for name, index in names.items() if f"features.{index}.weight" in weights)


def usable_layers(weights: Mapping[str, Tensor], wanted: Sequence[str]) -> tuple[str, ...]:
    """Those of `wanted` that the weights reach; what is left out is logged.

    Raises:
        ValueError: a name is not a VGG layer, or none is left.
    """
    known = {name.replace("conv", "relu") for kind in _BLOCKS for name in _conv_names(kind)}
    unknown = [layer for layer in wanted if layer not in known]
    if unknown:
        raise ValueError(f"{', '.join(unknown)} is no VGG layer: they are relu1_1 ... relu5_4")
    available = available_layers(weights)
    usable = tuple(layer for layer in wanted if layer in available)
    if not usable:
        raise ValueError(
            f"the loss weights have none of {', '.join(wanted)}: they reach {available[0]} ... {available[-1]}; "
            "choose among those, or give complete weights"
        )
    if len(usable) < len(wanted):
        left_out = ", ".join(layer for layer in wanted if layer not in available)
        logger.warning("the loss weights end at %s: %s is not used", available[-1], left_out)
    return usable


class LossNetwork(nn.Module):
    """VGG features up to the deepest layer asked for; frozen, reflection-padded.

    Zero padding would make every border look like an edge, and the trained style then answers with
    a coloured frame round the picture.

    Args:
        weights: torchvision keys, as `loss_weights_from_file` returns them.
        layers: names such as `relu3_1`.

    Raises:
        ValueError: the weights end before one of `layers`, or a name is not a VGG layer.
    """

    def __init__(self, weights: Mapping[str, Tensor], layers: Iterable[str]) -> None:
        super().__init__()
        self.architecture = _architecture(weights)
        indices = _conv_names(self.architecture)
        self.layers = tuple(sorted(set(layers)))
        available = available_layers(weights)
        missing = [layer for layer in self.layers if layer not in available]
        if missing:
            raise ValueError(
                f"the loss weights have no {', '.join(missing)}: they reach {available[0]} ... {available[-1]}; "
                "choose among those, or give complete weights"
            )
        deepest = max(available.index(layer) for layer in self.layers)
        self.convs = nn.ModuleDict()
        for layer in available[: deepest + 1]:
            name = layer.replace("relu", "conv")
            index = indices[name]
            weight, bias = weights[f"features.{index}.weight"], weights[f"features.{index}.bias"]
            conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3)
            conv.load_state_dict({"weight": weight, "bias": bias})
            self.convs[name] = conv
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(_MEAN)[None, :, None, None])
        self.register_buffer("std", torch.tensor(_STD)[None, :, None, None])
        self.requires_grad_(False).eval()

    def forward(self, pictures_NCHW: Tensor) -> dict[str, Tensor]:
        """Features of RGB pictures in [0, 1].

        Returns:
            One entry per layer asked for, (N, C, H / 2^(block - 1), W / 2^(block - 1)).
        """
        x = (pictures_NCHW - self.mean) / self.std
        features: dict[str, Tensor] = {}
        for name, conv in self.convs.items():
            if name.endswith("_1") and name != "conv1_1":
                x = F.max_pool2d(x, 2)
            x = F.relu(conv(F.pad(x, (1, 1, 1, 1), mode="reflect")))
            layer = name.replace("conv", "relu")
            if layer in self.layers:
                features[layer] = x
        return features
