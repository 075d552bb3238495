"""The style networks with their papers, costs and limits; `texture` is in a file of its own."""

import re
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

from torch import Tensor, nn

from stylize.train.blocks import (
    Chain,
    ConvBlock,
    DeconvUpsample,
    FilterResponseNorm,
    HalfSizeBlock,
    NormName,
    ReflectConv,
    ResidualBlock,
    UpsampleConv,
    make_conditional,
    norm_and_activation,
)
from stylize.train.style_network import NetworkFacts, StyleNetwork
from stylize.train.texture_network import Texture

__all__ = [
    "MAX_STYLES",
    "NETWORKS",
    "Fast",
    "Fastest",
    "Johnson",
    "ReCoNet",
    "Texture",
    "build_network",
    "network_from_signature",
]

MAX_STYLES = 32  # as many as Dumoulin et al., arXiv 1610.07629, trained into one network


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
            flop_per_pixel=493_632,
            size_multiple=4,
            receptive_field_px=95,
        )
        self.encoder = Chain(
            ConvBlock(3, 48, 9, norm=norm),
            ConvBlock(48, 96, 3, stride=2, norm=norm),
            ConvBlock(96, 192, 3, stride=2, norm=norm),
            *(ResidualBlock(192, norm=norm, activation_after_add=activation_after_add) for _ in range(4)),
        )
        self.decoder = Chain(
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
        upsampling: `deconv`, as published, may draw a faint grid; `resize` cannot.
    """

    name = "johnson"

    def __init__(
        self, *, output: Literal["tanh", "clamp"] = "tanh", upsampling: Literal["resize", "deconv"] = "resize"
    ) -> None:
        super().__init__()
        if output not in ("tanh", "clamp"):
            raise ValueError(f"output={output!r} must be tanh or clamp")
        if upsampling not in ("resize", "deconv"):
            raise ValueError(f"upsampling={upsampling!r} must be resize or deconv")
        self.options = {"output": output, "upsampling": upsampling}
        self.facts = NetworkFacts(
            flop_per_pixel=266_624 if upsampling == "resize" else 252_288,
            size_multiple=4,
            receptive_field_px=111 if upsampling == "resize" else 107,
        )
        upsample = UpsampleConv if upsampling == "resize" else DeconvUpsample
        self.encoder = Chain(
            ConvBlock(3, 32, 9),
            ConvBlock(32, 64, 3, stride=2),
            ConvBlock(64, 128, 3, stride=2),
            *(ResidualBlock(128) for _ in range(5)),
        )
        self.decoder = Chain(
            upsample(128, 64, 3),
            norm_and_activation("instance", 64),
            upsample(64, 32, 3),
            norm_and_activation("instance", 32),
            ReflectConv(32, 3, 9),
        )

    def decode(self, features_NCHW: Tensor, mix: Tensor | None = None) -> Tensor:
        """Features to RGB in [0, 1]."""
        if self.options["output"] == "tanh":
            return super().decode(features_NCHW, mix)
        picture: Tensor = self.decoder(features_NCHW, self._mix(features_NCHW, mix))
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
            flop_per_pixel=54 * width + 11.8125 * width**2,
            size_multiple=4,
            receptive_field_px=86,
        )
        half = width // 2
        self.encoder = Chain(
            ConvBlock(3, half, 6, stride=2),  # the space-to-depth stem
            ConvBlock(half, width, 3, stride=2),
            *(ResidualBlock(width) for _ in range(4)),
        )
        self.decoder = Chain(
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
            flop_per_pixel=13_728,
            size_multiple=8,
            receptive_field_px=144,
        )
        self.encoder = Chain(ConvBlock(3, 32, 8, stride=4), HalfSizeBlock(32, num_residuals=3), nn.ReLU())
        self.decoder = Chain(UpsampleConv(32, 16, 5), nn.ReLU(), UpsampleConv(16, 3, 5))


NETWORKS: Mapping[str, Callable[..., StyleNetwork]] = {
    network.name: network for network in (Fast, Fastest, ReCoNet, Johnson, Texture)
}


def build_network(name: str, options: Mapping[str, str | int | bool]) -> StyleNetwork:
    """A freshly initialised network.

    Args:
        name: key of `NETWORKS`.
        options: of that network; besides, any network with instance norm takes `num_styles`, 2 to
            `MAX_STYLES`.

    Raises:
        ValueError: unknown name, unknown option, or an option value the network does not have.
    """
    if name not in NETWORKS:
        raise ValueError(f"network {name!r} is unknown: choose one of {', '.join(NETWORKS)}")
    own = {key: value for key, value in options.items() if key != "num_styles"}
    try:
        network = NETWORKS[name](**own)
    except TypeError as error:
        raise ValueError(f"network {name!r} does not take these options {own}: {error}") from error
    num_styles = int(options.get("num_styles", 1))
    if num_styles == 1:
        return network
    if not 2 <= num_styles <= MAX_STYLES:
        raise ValueError(f"num_styles={num_styles} must be in [2, {MAX_STYLES}]")
    if any(isinstance(module, FilterResponseNorm) for module in network.modules()):
        raise ValueError("several styles in one network need instance norm: they differ in its scales and offsets")
    make_conditional(network, num_styles)
    network.options["num_styles"] = num_styles
    return network


def network_from_signature(text: str) -> StyleNetwork:
    """A freshly initialised network of the architecture that `StyleNetwork.signature` wrote down.

    Raises:
        ValueError: not of that form, or a network or option that there is not.
    """
    match = re.fullmatch(r"(\w+)\((.*)\)", text)
    if match is None:
        raise ValueError(f"network {text!r} is not of the form name(option=value, ...)")
    pairs = (item.partition("=") for item in match[2].split(", ") if item)
    return build_network(match[1], {name: _plain_value(value) for name, _, value in pairs})


def _plain_value(text: str) -> str | int | bool:
    if text in ("True", "False"):
        return text == "True"
    return int(text) if text.isdigit() else text
