"""Building blocks that train well and export cleanly.

Shapes: N batch, C channels, H height, W width. Every block pads by reflection or by its edge
values, never with zeros, which would paint a border round the picture.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "NORMS",
    "Chain",
    "CircularPad",
    "ConditionalInstanceNorm",
    "ConvBlock",
    "DeconvUpsample",
    "FilterResponseNorm",
    "HalfSizeBlock",
    "InstanceNorm",
    "NormName",
    "PaddingName",
    "PhaseConv",
    "ReflectConv",
    "ResidualBlock",
    "ThresholdedLinearUnit",
    "UpsampleConv",
    "fold_upsampling",
    "make_conditional",
    "norm_and_activation",
]

NormName = Literal["instance", "frn"]
PaddingName = Literal["reflect", "circular"]


class InstanceNorm(nn.InstanceNorm2d):
    """Instance norm whose statistics are float32 whatever the input type.

    Variances of half-precision activations overflow: a known cause of black or wrong frames.
    Source: Ulyanov et al., "Instance Normalization", arXiv 1607.08022.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__(num_channels, affine=True)

    def forward(self, x_NCHW: Tensor, mix: None = None) -> Tensor:
        """Normalise each channel of each picture; the result has the input's shape and type.

        Args:
            x_NCHW: features.
            mix: for being called as a `ConditionalInstanceNorm` is; there is but one style.
        """
        assert self.weight is not None and self.bias is not None
        weight, bias = self.weight.float(), self.bias.float()
        return F.instance_norm(x_NCHW.float(), weight=weight, bias=bias, eps=self.eps).to(x_NCHW.dtype)


class ConditionalInstanceNorm(nn.Module):
    """Instance norm whose scale and offset are a mix of those of several styles.

    All that tells the styles of one network apart. Source: Dumoulin et al., "A Learned Representation For
    Artistic Style", arXiv 1610.07629, section 2.2.
    """

    def __init__(self, num_channels: int, num_styles: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_styles, num_channels))
        self.bias = nn.Parameter(torch.zeros(num_styles, num_channels))

    def forward(self, x_NCHW: Tensor, mix: Tensor) -> Tensor:
        """Normalise with float32 statistics; the result has the input's shape and type.

        Args:
            x_NCHW: features.
            mix: share of each style, (styles,) for all pictures or (N, styles).
        """
        # Not by way of instance_norm's own weights: TensorRT wants those constant.
        weight, bias = ((mix.float() @ table.float())[..., None, None] for table in (self.weight, self.bias))
        return (F.instance_norm(x_NCHW.float()) * weight + bias).to(x_NCHW.dtype)


class FilterResponseNorm(nn.Module):
    """Filter Response Normalization: divides by the root mean square without subtracting the mean.

    That removes the bubbles which instance norm can grow. It wants a `ThresholdedLinearUnit` after it.
    Source: Singh & Krishnan, arXiv 1911.09737, eq. 1 and 2.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))
        self.eps = 1e-6

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Normalise with float32 statistics; the result has the input's shape and type."""
        x = x_NCHW.float()
        mean_square_NC11 = x.square().mean(dim=(2, 3), keepdim=True)
        weight, bias = (p.float()[None, :, None, None] for p in (self.weight, self.bias))
        return (x * torch.rsqrt(mean_square_NC11 + self.eps) * weight + bias).to(x_NCHW.dtype)


NORMS = (InstanceNorm, ConditionalInstanceNorm, FilterResponseNorm)


class ThresholdedLinearUnit(nn.Module):
    """The maximum of the input and a learned threshold per channel.

    Source: Singh & Krishnan, arXiv 1911.09737, eq. 3.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.zeros(num_channels))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Same shape as the input."""
        return torch.maximum(x_NCHW, self.threshold[None, :, None, None])


def _activation(norm: NormName, num_channels: int) -> nn.Module:
    return ThresholdedLinearUnit(num_channels) if norm == "frn" else nn.ReLU()


class Chain(nn.Sequential):
    """Layers one after the other; those that know several styles are told the mix."""

    def forward(self, x_NCHW: Tensor, mix: Tensor | None = None) -> Tensor:
        """Through all layers; `mix` is None in networks of one style."""
        for layer in self:
            x_NCHW = layer(x_NCHW, mix) if isinstance(layer, _TAKES_MIX) else layer(x_NCHW)
        return x_NCHW


def norm_and_activation(norm: NormName, num_channels: int) -> Chain:
    """Instance norm with a ReLU, or FRN with its thresholded linear unit."""
    return Chain(_norm(norm, num_channels), _activation(norm, num_channels))


def _norm(norm: NormName, num_channels: int) -> nn.Module:
    return FilterResponseNorm(num_channels) if norm == "frn" else InstanceNorm(num_channels)


class CircularPad(nn.Module):
    """Padding by what comes in again at the opposite border: the result of such convolutions tiles."""

    def __init__(self, num_pixels: int) -> None:
        super().__init__()
        self.num_pixels = num_pixels

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H + 2 p, W + 2 p)."""
        # Slices and joins rather than F.pad(mode="circular"): every runtime has those.
        p = self.num_pixels
        rows = torch.cat([x_NCHW[..., -p:, :], x_NCHW, x_NCHW[..., :p, :]], dim=-2)
        return torch.cat([rows[..., -p:], rows, rows[..., :p]], dim=-1)


class ReflectConv(nn.Module):
    """Convolution over a reflection-padded map; output size is input size over `stride`.

    An even kernel goes with an even stride: 6x6 at stride 2 is a 3x3 convolution of the space-to-depth map.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the kernel.
        stride: of the convolution.
        padding: `circular` for output that tiles.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: PaddingName = "reflect",
    ) -> None:
        super().__init__()
        num_pixels = (kernel_size - stride + 1) // 2
        pad = CircularPad if padding == "circular" else nn.ReflectionPad2d
        self.pad = pad(num_pixels) if num_pixels else nn.Identity()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, in, H, W) to (N, out, H / stride, W / stride)."""
        y: Tensor = self.conv(self.pad(x_NCHW))
        return y


class ConvBlock(nn.Module):
    """Padded convolution, norm, activation."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        norm: NormName = "instance",
        padding: PaddingName = "reflect",
    ) -> None:
        super().__init__()
        self.conv = ReflectConv(in_channels, out_channels, kernel_size, stride=stride, padding=padding)
        self.norm = norm_and_activation(norm, out_channels)

    def forward(self, x_NCHW: Tensor, mix: Tensor | None = None) -> Tensor:
        """(N, in, H, W) to (N, out, H / stride, W / stride)."""
        y: Tensor = self.norm(self.conv(x_NCHW), mix)
        return y


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with norm, added to the input.

    Published ports of ReCoNet differ in whether an activation follows the sum; `activation_after_add` chooses.
    """

    def __init__(self, num_channels: int, *, norm: NormName = "instance", activation_after_add: bool = False) -> None:
        super().__init__()
        self.first = ConvBlock(num_channels, num_channels, 3, norm=norm)
        self.second = ReflectConv(num_channels, num_channels, 3)
        self.norm = Chain(_norm(norm, num_channels))
        self.activation = _activation(norm, num_channels) if activation_after_add else nn.Identity()

    def forward(self, x_NCHW: Tensor, mix: Tensor | None = None) -> Tensor:
        """(N, C, H, W) to the same shape."""
        y: Tensor = self.activation(x_NCHW + self.norm(self.second(self.first(x_NCHW, mix)), mix))
        return y


# Row p, column k is 1 where tap k of the kernel, laid over the upsampled row, reads low-resolution
# neighbour p. One matrix per phase: phase 0 makes the even outputs, phase 1 the odd ones.
_PHASES: dict[int, tuple[list[list[int]], list[list[int]]]] = {
    3: ([[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]),
    5: (
        [[1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]],
        [[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 1]],
    ),
}


def _phase_conv(x_NCHW: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The phase convolutions and their interleaving: (N, C, H, W) to (N, out, 2H, 2W)."""
    y = F.conv2d(F.pad(x_NCHW, (1, 1, 1, 1), mode="replicate"), weight, bias)
    if weight.shape[-1] == 3:  # (N, out x 4, H, W), the phases of each channel side by side
        return F.pixel_shuffle(y, 2)
    # 2x2 kernels: (N, 4 x out, H + 1, W + 1), phase after phase; an odd phase starts one pixel later.
    even, odd = slice(None, -1), slice(1, None)
    a, b, c, d = y.chunk(4, dim=1)
    phases = [a[..., even, even], b[..., even, odd], c[..., odd, even], d[..., odd, odd]]
    return F.pixel_shuffle(torch.stack(phases, dim=2).flatten(1, 2), 2)


class PhaseConv(nn.Module):
    """An `UpsampleConv` with its phase kernels computed once: what is exported."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)  # (4 out, in, 2, 2) or (4 out, in, 3, 3)
        self.bias = nn.Parameter(bias)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, in, H, W) to (N, out, 2H, 2W)."""
        return _phase_conv(x_NCHW, self.weight, self.bias)


class UpsampleConv(nn.Module):
    """Nearest x2, edge padding and a k x k convolution, without ever making the large map.

    The kernel laid over an upsampled map reads each low-resolution pixel more than once, so its
    taps can be summed beforehand: four small convolutions (one for each output parity) and a pixel
    shuffle give the same numbers for 4/9 (k = 3) or 9/25 (k = 5) of the work. Being a resize
    convolution by construction, it cannot draw the checkerboard of free pixel-shuffle weights
    (Odena et al., "Deconvolution and Checkerboard Artifacts", Distill 2016).
    For k = 3 edge padding of the large map equals reflection padding of it.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Literal[3, 5]) -> None:
        super().__init__()
        reference = nn.Conv2d(in_channels, out_channels, kernel_size)  # for its initialisation
        self.weight = reference.weight  # (out, in, k, k)
        assert reference.bias is not None
        self.bias = reference.bias
        self.phases: Tensor  # (parity, low-resolution neighbours, k)
        self.register_buffer("phases", torch.tensor(_PHASES[kernel_size], dtype=torch.float32), persistent=False)

    def _phase_kernels(self) -> tuple[Tensor, Tensor]:
        phase_major = self.weight.shape[-1] == 3
        order = "aboc" if phase_major else "oabc"
        kernels = torch.einsum(f"apy,bqx,ocyx->{order}pq", self.phases, self.phases, self.weight)
        return kernels.flatten(0, 2), self.bias.repeat(4) if phase_major else self.bias.repeat_interleave(4)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, in, H, W) to (N, out, 2H, 2W)."""
        return _phase_conv(x_NCHW, *self._phase_kernels())

    @torch.no_grad()
    def folded(self) -> PhaseConv:
        """The same layer with constant phase kernels."""
        weight, bias = self._phase_kernels()
        return PhaseConv(weight.contiguous(), bias)

    @torch.no_grad()
    def load_folded(self, weight: Tensor, bias: Tensor) -> None:
        """Take over the kernel and bias that `folded` made phase kernels of.

        Args:
            weight: (4 out, in, 2, 2) or (4 out, in, 3, 3), as in `PhaseConv`.
            bias: (4 out,).

        Raises:
            ValueError: the shapes are another layer's, or no kernel of this size has these phases.
        """
        out_channels, in_channels, size, _ = self.weight.shape
        if weight.shape != self._phase_kernels()[0].shape or bias.shape != (4 * out_channels,):
            raise ValueError(f"phase kernels {tuple(weight.shape)} do not belong to {tuple(self.weight.shape)}")
        phases = self.phases.double()
        taps = torch.einsum("apy,bqx->abpqyx", phases, phases).flatten(4).flatten(0, 3)  # (phases and taps, k k)
        if size == 3:
            kernels = weight.reshape(4, out_channels, in_channels, 2, 2).permute(0, 3, 4, 1, 2)
            own_bias = bias[:out_channels]
        else:
            kernels = weight.reshape(out_channels, 4, in_channels, 3, 3).permute(1, 3, 4, 0, 2)
            own_bias = bias[::4]
        wanted = kernels.double().flatten(3).flatten(0, 2)  # (phases and taps, out in)
        solution = torch.linalg.lstsq(taps, wanted).solution
        if (taps @ solution - wanted).abs().max() > 1e-3 * wanted.abs().max():  # half precision leaves 5e-4
            raise ValueError(f"no {size}x{size} kernel has these phase kernels")
        self.weight.copy_(solution.reshape(size, size, out_channels, in_channels).permute(2, 3, 0, 1))
        self.bias.copy_(own_bias)


class HalfSizeBlock(nn.Module):
    """Residual blocks with twice the channels at half the size, added to the input.

    As much work as the same blocks at full size with the channels as they were, half the values to normalise.
    """

    def __init__(self, num_channels: int, *, num_residuals: int) -> None:
        super().__init__()
        self.down = ConvBlock(num_channels, 2 * num_channels, 3, stride=2)
        self.residuals = Chain(*(ResidualBlock(2 * num_channels) for _ in range(num_residuals)))
        self.up = UpsampleConv(2 * num_channels, num_channels, 5)
        self.norm = InstanceNorm(num_channels)

    def forward(self, x_NCHW: Tensor, mix: Tensor | None = None) -> Tensor:
        """(N, C, H, W) to the same shape; H and W even."""
        y: Tensor = x_NCHW + self.norm(self.up(self.residuals(self.down(x_NCHW, mix), mix)), mix)
        return y


class DeconvUpsample(nn.ConvTranspose2d):
    """A transposed convolution to twice the size: the "fractionally strided convolution" of Johnson et al.

    Its kernel covers output pixels unevenly, which may show as a checkerboard; the border sees zeros beyond it.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride=2, padding=kernel_size // 2, output_padding=1)


_TAKES_MIX = (Chain, ConvBlock, HalfSizeBlock, ResidualBlock, InstanceNorm, ConditionalInstanceNorm)


def fold_upsampling(network: nn.Module) -> None:
    """Replace, in place, each `UpsampleConv` by its `PhaseConv`; outputs stay equal to rounding."""
    for name, child in network.named_children():
        if isinstance(child, UpsampleConv):
            setattr(network, name, child.folded())
        else:
            fold_upsampling(child)


def make_conditional(network: nn.Module, num_styles: int) -> None:
    """Replace, in place, each `InstanceNorm` by one with scale and offset for each style."""
    for name, child in network.named_children():
        if isinstance(child, InstanceNorm):
            setattr(network, name, ConditionalInstanceNorm(child.num_features, num_styles))
        else:
            make_conditional(child, num_styles)
