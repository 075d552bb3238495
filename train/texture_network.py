"""The network of "Texture Networks": a picture grown out of noise, from coarse to fine.

Source: Ulyanov et al., ICML 2016, arXiv 1603.03417, section 3.2 and figure 2.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylize.train.blocks import Chain, ConvBlock, PaddingName, ReflectConv, norm_and_activation
from stylize.train.losses import image_pyramid
from stylize.train.style_network import NetworkFacts, StyleNetwork

__all__ = ["Texture", "noise_pyramid"]

_NUM_SCALES = 6
_NUM_CHANNELS = 8  # of each scale
_RECEPTIVE_FIELD_PX = {"stylize": 288, "texture": 257}
_FLOP_PER_PIXEL = {"stylize": 108_710, "texture": 108_134}


class Texture(StyleNetwork):
    """Six scales of noise, each through three convolutions, joined from the coarsest to the finest.

    As published but for instance norm in place of batch norm, as the authors have it in arXiv 1607.08022,
    and ReLU in place of leaky ReLU.

    Args:
        mode: `stylize` paints the frame, with noise beside it at each scale; `texture` takes noise in
            place of the frame and paints the style's texture from it.
        padding: `circular`, as published, makes textures that tile; `reflect` keeps the borders of a frame apart.
    """

    name = "texture"

    def __init__(self, *, mode: Literal["stylize", "texture"] = "stylize", padding: PaddingName = "circular") -> None:
        super().__init__()
        if mode not in ("stylize", "texture") or padding not in ("reflect", "circular"):
            raise ValueError(f"mode={mode!r} must be stylize or texture, padding={padding!r} reflect or circular")
        self.options = {"mode": mode, "padding": padding}
        self.facts = NetworkFacts(
            flop_per_pixel=_FLOP_PER_PIXEL[mode],
            size_multiple=2 ** (_NUM_SCALES - 1),
            receptive_field_px=_RECEPTIVE_FIELD_PX[mode],
        )
        num_inputs = 3 if mode == "texture" else 6
        self.branches = nn.ModuleList(_three(num_inputs, _NUM_CHANNELS, padding) for _ in range(_NUM_SCALES))
        self.joins = nn.ModuleList(_Join(_NUM_CHANNELS * k, padding) for k in range(1, _NUM_SCALES))
        self.decoder = Chain(ReflectConv(_NUM_CHANNELS * _NUM_SCALES, 3, 1))

    @property
    def makes_textures(self) -> bool:
        """The input is noise, not a frame."""
        return self.options["mode"] == "texture"

    @property
    def takes_noise(self) -> bool:
        """A stylizing one takes noise beside the frame."""
        return not self.makes_textures

    def encode(self, frames_NCHW: Tensor, mix: Tensor | None = None, noise_1CHW: Tensor | None = None) -> Tensor:
        """RGB in [0, 1], or noise, to features (N, 48, H, W)."""
        mix = self._mix(frames_NCHW, mix)
        levels = image_pyramid(frames_NCHW * 2 - 1, _NUM_SCALES)
        if self.makes_textures:
            levels = noise_pyramid(frames_NCHW * 2 - 1)
        else:
            noise = noise_pyramid((_fixed_noise(frames_NCHW) if noise_1CHW is None else noise_1CHW) * 2 - 1)
            pairs = zip(levels, noise, strict=True)
            levels = [torch.cat([level, grain.expand(level.shape[0], -1, -1, -1)], dim=1) for level, grain in pairs]
        finer, coarsest = levels[-2::-1], levels[-1]
        x: Tensor = self.branches[0](coarsest, mix)
        for branch, join, level in zip(list(self.branches)[1:], self.joins, finer, strict=True):
            x = join(x, branch(level, mix), mix)
        return x


class _Join(nn.Module):
    """Coarse features enlarged, set beside those of the next finer scale, both brought to one level."""

    def __init__(self, num_coarse: int, padding: PaddingName) -> None:
        super().__init__()
        self.coarse = norm_and_activation("instance", num_coarse)
        self.fine = norm_and_activation("instance", _NUM_CHANNELS)
        self.blocks = _three(num_coarse + _NUM_CHANNELS, num_coarse + _NUM_CHANNELS, padding)

    def forward(self, coarse_NCHW: Tensor, fine_NCHW: Tensor, mix: Tensor | None = None) -> Tensor:
        """(N, C, H, W) and (N, 8, 2H, 2W) to (N, C + 8, 2H, 2W)."""
        enlarged = F.interpolate(coarse_NCHW, scale_factor=2, mode="nearest")
        joined = torch.cat([self.coarse(enlarged, mix), self.fine(fine_NCHW, mix)], dim=1)
        y: Tensor = self.blocks(joined, mix)
        return y


def _three(in_channels: int, out_channels: int, padding: PaddingName) -> Chain:
    return Chain(
        ConvBlock(in_channels, out_channels, 3, padding=padding),
        ConvBlock(out_channels, out_channels, 3, padding=padding),
        ConvBlock(out_channels, out_channels, 1),
    )


def noise_pyramid(noise_NCHW: Tensor) -> list[Tensor]:
    """Noise at scale 1, 1/2, ... 1/32 out of one picture of noise whose pixels are independent.

    Scale 2^-k takes the pixels in the middle of each square of 2^k: no two of the coarser scales share a
    pixel, and noise that goes round at the borders does so at each scale.
    """
    steps = [2**k for k in range(_NUM_SCALES)]
    return [noise_NCHW[..., step // 2 :: step, step // 2 :: step] for step in steps]


def _fixed_noise(like_NCHW: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(1, *like_NCHW.shape[1:], generator=generator).to(like_NCHW)
