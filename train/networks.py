"""Every style network whole in one file, with its paper, its cost and its limits.

All take frames (N, 3, H, W), RGB in [0, 1], H and W multiples of `size_multiple`, and return
stylized frames of the same shape and range. `encode` and `decode` are the two halves between which
the feature-level temporal loss is taken.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from stylize.train.blocks import (
    ConvBlock,
    HalfSizeBlock,
    NormName,
    ReflectConv,
    ResidualBlock,
    UpsampleConv,
    norm_and_activation,
)

__all__ = ["NETWORKS", "Fast", "Fastest", "Johnson", "NetworkFacts", "ReCoNet", "StyleNetwork", "build_network"]


@dataclass(frozen=True, kw_only=True)
class NetworkFacts:
    """What one forward pass costs and needs; the tests measure these figures on the network itself."""

    paper: str
    flop_per_pixel: float
    """Convolution work per picture pixel, 2 FLOP per multiply-add."""
    size_multiple: int
    receptive_field_px: int
    """Side of the square of input pixels that the convolutions of one output pixel can see.

    Instance norm adds whole-picture statistics to that.
    """


class StyleNetwork(nn.Module):
    """A feed-forward style network in two halves.

    `name` and `options` rebuild the same architecture through `build_network`.
    """

    name: ClassVar[str]
    facts: NetworkFacts
    options: dict[str, str | int | bool]
    encoder: nn.Sequential
    decoder: nn.Sequential

    def encode(self, frames_NCHW: Tensor) -> Tensor:
        """RGB in [0, 1] to features (N, C, H / 4, W / 4)."""
        features: Tensor = self.encoder(frames_NCHW * 2 - 1)
        return features

    def decode(self, features_NCHW: Tensor) -> Tensor:
        """Features to RGB in [0, 1]."""
        return torch.tanh(self.decoder(features_NCHW)) * 0.5 + 0.5

    def forward(self, frames_NCHW: Tensor) -> Tensor:
        """RGB frames in [0, 1] to stylized RGB frames in [0, 1], same shape."""
        return self.decode(self.encode(frames_NCHW))


class ReCoNet(StyleNetwork):
    """The network of "ReCoNet: Real-time Coherent Video Style Transfer", with resize convolutions.

    Channels 48/96/192, four residual blocks at a quarter of the size, 9x9 convolutions at both ends.
    Source: Gao et al., ACCV 2018, arXiv 1807.01197; layer sizes as in the author's `ReCoNet2`.

    Args:
        norm: `instance` as published, or `frn` (no bubbles; see `FilterResponseNorm`).
        activation_after_add: an activation after each residual sum, as some published ports have it.
    """

    name = "reconet"

    def __init__(self, *, norm: NormName = "instance", activation_after_add: bool = False) -> None:
        super().__init__()
        self.options = {"norm": norm, "activation_after_add": activation_after_add}
        self.facts = NetworkFacts(
            paper="Gao et al., ACCV 2018, arXiv 1807.01197",
            flop_per_pixel=493_632,
            size_multiple=4,
            receptive_field_px=95,
        )
        self.encoder = nn.Sequential(
            ConvBlock(3, 48, 9, norm=norm),
            ConvBlock(48, 96, 3, stride=2, norm=norm),
            ConvBlock(96, 192, 3, stride=2, norm=norm),
            *(ResidualBlock(192, norm=norm, activation_after_add=activation_after_add) for _ in range(4)),
        )
        self.decoder = nn.Sequential(
            UpsampleConv(192, 96, 3),
            norm_and_activation(norm, 96),
            UpsampleConv(96, 48, 3),
            norm_and_activation(norm, 48),
            ReflectConv(48, 3, 9),
        )


class Johnson(StyleNetwork):
    """The network of "Perceptual Losses for Real-Time Style Transfer", with resize convolutions.

    Channels 32/64/128, five residual blocks at a quarter of the size, 9x9 convolutions at both ends;
    instance norm and reflection padding throughout, as later implementations have it.
    Source: Johnson et al., ECCV 2016, arXiv 1603.08155, supplementary material.

    Args:
        output: `tanh`, as published; `clamp` for weights trained without a bound on the output.
    """

    name = "johnson"

    def __init__(self, *, output: Literal["tanh", "clamp"] = "tanh") -> None:
        super().__init__()
        if output not in ("tanh", "clamp"):
            raise ValueError(f"output={output!r} must be tanh or clamp")
        self.options = {"output": output}
        self.facts = NetworkFacts(
            paper="Johnson et al., ECCV 2016, arXiv 1603.08155",
            flop_per_pixel=266_624,
            size_multiple=4,
            receptive_field_px=111,
        )
        self.encoder = nn.Sequential(
            ConvBlock(3, 32, 9),
            ConvBlock(32, 64, 3, stride=2),
            ConvBlock(64, 128, 3, stride=2),
            *(ResidualBlock(128) for _ in range(5)),
        )
        self.decoder = nn.Sequential(
            UpsampleConv(128, 64, 3),
            norm_and_activation("instance", 64),
            UpsampleConv(64, 32, 3),
            norm_and_activation("instance", 32),
            ReflectConv(32, 3, 9),
        )

    def decode(self, features_NCHW: Tensor) -> Tensor:
        """Features to RGB in [0, 1]."""
        if self.options["output"] == "tanh":
            return super().decode(features_NCHW)
        picture: Tensor = self.decoder(features_NCHW)
        return (picture * 0.5 + 0.5).clamp(0, 1)


class Fast(StyleNetwork):
    """A network for CPUs and for thousands of frames per second: every wide layer at a quarter of the size.

    A space-to-depth stem (2x2 pixels to channels, then 3x3: written as one 6x6 convolution at
    stride 2) replaces the full-size convolutions, four narrow residual blocks paint the strokes, and
    two resize convolutions, computed by their phases, bring the size back.
    Layout after Johnson et al., ECCV 2016, arXiv 1603.08155; space-to-depth is the inverse of the
    sub-pixel shuffle of Shi et al., arXiv 1609.05158.

    Args:
        width: channels of the trunk: 96 (26.3 GFLOP per 640x360 frame), 64 (11.9), 48 (6.9) or 32 (3.2).
    """

    name = "fast"
    WIDTHS: ClassVar[tuple[int, ...]] = (32, 48, 64, 96)

    def __init__(self, *, width: int = 48) -> None:
        super().__init__()
        if width not in self.WIDTHS:
            raise ValueError(f"width={width} must be one of {sorted(self.WIDTHS)}")
        self.options = {"width": width}
        self.facts = NetworkFacts(
            paper="after Johnson et al., ECCV 2016, arXiv 1603.08155",
            flop_per_pixel=54 * width + 11.8125 * width**2,
            size_multiple=4,
            receptive_field_px=86,
        )
        half = width // 2
        self.encoder = nn.Sequential(
            ConvBlock(3, half, 6, stride=2),  # the space-to-depth stem
            ConvBlock(half, width, 3, stride=2),
            *(ResidualBlock(width) for _ in range(4)),
        )
        self.decoder = nn.Sequential(
            UpsampleConv(width, half, 5),
            norm_and_activation("instance", half),
            UpsampleConv(half, 3, 5),
        )


class Fastest(StyleNetwork):
    """Half the time of `Fast`: the trunk has twice the channels at a half of its size, an eighth of the frame's.

    The stem goes to a quarter at once (8x8 at stride 4, overlapping by half). From there a detour paints
    the large strokes at an eighth; edges and texture pass beside it. What is left at a half has
    16 channels and no norm. That is 3.2 GFLOP per 640x360 frame, as much as `Fast` of width 32, but
    wider, seeing farther, and with a third less of what is not convolution: norms, padding, shuffling.
    Source: measured layer by layer, see docs/performance.md; the detour is one level of Ronneberger et
    al., "U-Net", arXiv 1505.04597, with a sum in place of the concatenation.
    """

    name = "fastest"

    def __init__(self) -> None:
        super().__init__()
        self.options = {}
        self.facts = NetworkFacts(
            paper="after Johnson et al., ECCV 2016, arXiv 1603.08155",
            flop_per_pixel=13_728,
            size_multiple=8,
            receptive_field_px=144,
        )
        self.encoder = nn.Sequential(ConvBlock(3, 32, 8, stride=4), HalfSizeBlock(32, num_residuals=3), nn.ReLU())
        self.decoder = nn.Sequential(UpsampleConv(32, 16, 5), nn.ReLU(), UpsampleConv(16, 3, 5))


NETWORKS: Mapping[str, Callable[..., StyleNetwork]] = {
    network.name: network for network in (Fast, Fastest, ReCoNet, Johnson)
}


def build_network(name: str, options: Mapping[str, str | int | bool]) -> StyleNetwork:
    """A freshly initialised network.

    Raises:
        ValueError: unknown name, unknown option, or an option value the network does not have.
    """
    if name not in NETWORKS:
        raise ValueError(f"network {name!r} is unknown: choose one of {', '.join(NETWORKS)}")
    try:
        return NETWORKS[name](**options)
    except TypeError as error:
        raise ValueError(f"network {name!r} does not take these options {dict(options)}: {error}") from error
