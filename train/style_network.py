"""What every style network is.

All take frames (N, 3, H, W), RGB in [0, 1], H and W multiples of `size_multiple`, and return
stylized frames of the same shape and range. `encode` and `decode` are the two halves between which
the feature-level temporal loss is taken.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from stylize.train.blocks import Chain

__all__ = ["NetworkFacts", "StyleNetwork"]


@dataclass(frozen=True, kw_only=True)
class NetworkFacts:
    """What one forward pass costs and needs; the tests measure these figures on the network itself."""

    flop_per_pixel: float
    """Convolution work per picture pixel, 2 FLOP per multiply-add."""
    size_multiple: int
    receptive_field_px: int
    """Side of the square of input pixels that the convolutions of one output pixel can see.

    Instance norm adds whole-picture statistics to that.
    """


class StyleNetwork(nn.Module):
    """A feed-forward style network in two halves.

    `name` and `options` rebuild the same architecture through `build_network`. A network of several styles
    takes their `mix`, the share of each, as (styles,) or (N, styles); None is the first style alone.
    """

    name: ClassVar[str]
    facts: NetworkFacts
    options: dict[str, str | int | bool]
    encoder: Chain
    decoder: Chain

    @property
    def signature(self) -> str:
        """Name and options in one line, `fast(width=48)`; `network_from_signature` reads it."""
        options = ", ".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.name}({options})"

    @property
    def num_styles(self) -> int:
        """How many styles are in it; only a network of several takes a mix."""
        return int(self.options.get("num_styles", 1))

    @property
    def makes_textures(self) -> bool:
        """The input is noise, uniform in [0, 1], in place of frames."""
        return False

    @property
    def takes_noise(self) -> bool:
        """`encode` and `forward` make use of noise, (1, 3, H, W) uniform in [0, 1]; None is always the same."""
        return False

    def encode(self, frames_NCHW: Tensor, mix: Tensor | None = None, noise_1CHW: Tensor | None = None) -> Tensor:
        """RGB in [0, 1] to features (N, C, H / 4, W / 4)."""
        features: Tensor = self.encoder(frames_NCHW * 2 - 1, self._mix(frames_NCHW, mix))
        return features

    def decode(self, features_NCHW: Tensor, mix: Tensor | None = None) -> Tensor:
        """Features to RGB in [0, 1]."""
        return torch.tanh(self.decoder(features_NCHW, self._mix(features_NCHW, mix))) * 0.5 + 0.5

    def forward(self, frames_NCHW: Tensor, mix: Tensor | None = None, noise_1CHW: Tensor | None = None) -> Tensor:
        """RGB frames in [0, 1] to stylized RGB frames in [0, 1], same shape."""
        return self.decode(self.encode(frames_NCHW, mix, noise_1CHW), mix)

    def _mix(self, like: Tensor, mix: Tensor | None) -> Tensor | None:
        if self.num_styles == 1 or mix is not None:
            return mix
        return like.new_tensor([1.0] + [0.0] * (self.num_styles - 1))
