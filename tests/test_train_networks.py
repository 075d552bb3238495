"""Blocks and networks: exactness, cost, and what they promise."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylize.train.blocks import (
    FilterResponseNorm,
    InstanceNorm,
    ReflectConv,
    ThresholdedLinearUnit,
    UpsampleConv,
    fold_upsampling,
)
from stylize.train.networks import build_network
from stylize.train.style_network import StyleNetwork

VARIANTS = [
    ("fast", {"width": 48}),
    ("fast", {"width": 96}),
    ("fastest", {}),
    ("reconet", {}),
    ("johnson", {}),
    ("johnson", {"upsampling": "deconv"}),
    ("texture", {"padding": "reflect"}),
    ("texture", {"mode": "texture"}),
    ("johnson", {"output": "clamp"}),
    ("reconet", {"norm": "frn"}),
    ("reconet", {"activation_after_add": True}),
    ("fastest", {"num_styles": 3}),
]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_upsample_conv_equals_a_convolution_of_the_enlarged_map(kernel_size: int) -> None:
    layer = UpsampleConv(6, 5, kernel_size).double()  # type: ignore[arg-type]
    x = torch.randn(2, 6, 7, 9, dtype=torch.double)
    enlarged = F.interpolate(x, scale_factor=2, mode="nearest")
    padded = F.pad(enlarged, (kernel_size // 2,) * 4, mode="replicate")
    expected = F.conv2d(padded, layer.weight, layer.bias)
    # Same products summed in another order.
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(layer.folded()(x), expected, rtol=0, atol=1e-13)


def test_upsample_conv_of_three_taps_pads_like_reflection() -> None:
    layer = UpsampleConv(2, 3, 3).double()
    x = torch.randn(1, 2, 4, 5, dtype=torch.double)
    padded = F.pad(F.interpolate(x, scale_factor=2, mode="nearest"), (1, 1, 1, 1), mode="reflect")
    torch.testing.assert_close(layer(x), F.conv2d(padded, layer.weight, layer.bias), rtol=0, atol=1e-13)


def test_stem_is_a_convolution_of_the_space_to_depth_map() -> None:
    stem = ReflectConv(3, 4, 6, stride=2).double()
    x = torch.randn(1, 3, 8, 10, dtype=torch.double)
    depth_map = F.pixel_unshuffle(F.pad(x, (2, 2, 2, 2), mode="reflect"), 2)
    kernel = F.pixel_unshuffle(stem.conv.weight, 2)  # (4, 12, 3, 3)
    torch.testing.assert_close(stem(x), F.conv2d(depth_map, kernel, stem.conv.bias), rtol=0, atol=1e-13)


def test_instance_norm_keeps_half_precision_finite_where_its_square_overflows() -> None:
    x = (torch.rand(1, 2, 16, 16) * 2000).half()  # variance about 3e5, half ends at 65504
    y = InstanceNorm(2).half()(x)
    assert y.dtype == torch.half
    torch.testing.assert_close(y.float(), F.instance_norm(x.float()), rtol=0, atol=2e-3)  # half has 11 bits


def test_filter_response_norm_matches_the_paper_in_numpy() -> None:
    layer, unit = FilterResponseNorm(3), ThresholdedLinearUnit(3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 2.0, 0.5]))
        layer.bias.copy_(torch.tensor([0.1, -0.2, 0.0]))
        unit.threshold.copy_(torch.tensor([0.0, -0.5, 0.3]))
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    nu2 = (x**2).mean(axis=(2, 3), keepdims=True)
    weight, bias, tau = (p.detach().numpy()[None, :, None, None] for p in (layer.weight, layer.bias, unit.threshold))
    expected = np.maximum(x / np.sqrt(nu2 + 1e-6) * weight + bias, tau)
    np.testing.assert_allclose(unit(layer(torch.from_numpy(x))).detach().numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_network_keeps_shape_and_range(name: str, options: dict[str, str | int | bool]) -> None:
    network = build_network(name, options).eval()
    multiple = network.facts.size_multiple
    frames = torch.rand(2, 3, 2 * multiple, 3 * multiple)
    with torch.no_grad():
        stylized = network(frames)
        features = network.encode(frames)
        again = network.decode(features)
    assert stylized.shape == frames.shape
    # Features are compared from frame to frame on a grid whose pixels the frame's size divides into.
    assert frames.shape[-1] % features.shape[-1] == 0
    assert stylized.min() >= 0
    assert stylized.max() <= 1
    assert torch.equal(stylized, again)
    assert network.options.items() >= options.items()


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_folding_changes_no_output(name: str, options: dict[str, str | int | bool]) -> None:
    network = build_network(name, options).double().eval()
    multiple = network.facts.size_multiple
    frames = torch.rand(1, 3, 2 * multiple, 3 * multiple, dtype=torch.double)
    with torch.no_grad():
        before = network(frames)
        fold_upsampling(network)
        # The norms compute in float32, and a last bit there may differ.
        torch.testing.assert_close(network(frames), before, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "options"), VARIANTS[:8])
def test_stated_cost_is_what_the_convolutions_do(name: str, options: dict[str, str | int | bool]) -> None:
    network = build_network(name, options)
    height, width = 64, 96
    with _counted_flop() as flop:
        network(torch.zeros(1, 3, height, width))
    # 2x2 phase convolutions compute one row and column more, which fades with the size.
    assert flop[0] / (height * width) == pytest.approx(network.facts.flop_per_pixel, rel=0.02)


def test_the_points_of_the_curve_cost_what_the_documentation_says() -> None:
    points = [("fastest", {}), ("fast", {"width": 48}), ("fast", {"width": 96})]
    costs = [build_network(name, options).facts.flop_per_pixel * 640 * 360 for name, options in points]
    assert [round(cost / 1e9, 1) for cost in costs] == [3.2, 6.9, 26.3]


@pytest.mark.parametrize(("name", "options"), VARIANTS[:8])
def test_stated_receptive_field_is_what_gradients_reach(name: str, options: dict[str, str | int | bool]) -> None:
    network = _without_norms(build_network(name, options)).double()
    sides = []
    # Output pixels see different windows, depending on their place on the coarse grid.
    multiple = network.facts.size_multiple
    height, width = (192, 16) if multiple <= 8 else (512, 64)
    for phase in range(multiple) if multiple <= 8 else (0, 15, 16):  # 15 and 16 see most; not all, for time
        frames = torch.rand(1, 3, height, width, dtype=torch.double, requires_grad=True)
        network(frames)[0, :, height // 2 + phase, width // 2].sum().backward()
        assert frames.grad is not None
        rows = frames.grad.abs().sum(dim=(0, 1, 3)).nonzero()
        sides.append(int(rows.max() - rows.min()) + 1)
    assert max(sides) == network.facts.receptive_field_px


def test_rejects_unknown_network_and_options() -> None:
    with pytest.raises(ValueError, match=r"'faster' is unknown: choose one of fast, fastest, reconet, johnson"):
        build_network("faster", {})
    with pytest.raises(ValueError, match=r"'fast' does not take these options.*depth"):
        build_network("fast", {"depth": 3})
    with pytest.raises(ValueError, match=r"width=40 must be one of \[32, 48, 64, 96\]"):
        build_network("fast", {"width": 40})
    with pytest.raises(ValueError, match=r"output='linear' must be tanh or clamp"):
        build_network("johnson", {"output": "linear"})
    with pytest.raises(ValueError, match=r"upsampling='shuffle' must be resize or deconv"):
        build_network("johnson", {"upsampling": "shuffle"})
    with pytest.raises(ValueError, match=r"mode='paint' must be stylize or texture"):
        build_network("texture", {"mode": "paint"})
    with pytest.raises(ValueError, match=r"num_styles=33 must be in \[2, 32\]"):
        build_network("fast", {"num_styles": 33})
    with pytest.raises(ValueError, match="several styles in one network need instance norm"):
        build_network("reconet", {"norm": "frn", "num_styles": 2})


@contextmanager
def _counted_flop() -> Iterator[list[float]]:
    """Adds up 2 x multiply-adds of every convolution run inside."""
    total = [0.0]
    originals = {"conv2d": F.conv2d, "conv_transpose2d": F.conv_transpose2d}

    def counted(name: str, x: Tensor, weight: Tensor, *args: object, **kwargs: object) -> Tensor:
        y: Tensor = originals[name](x, weight, *args, **kwargs)  # type: ignore[call-overload]
        # A transposed convolution uses each tap of its kernel once per input position.
        at = x if name == "conv_transpose2d" else y
        total[0] += 2 * at.shape[0] * at.shape[2] * at.shape[3] * weight.numel()
        return y

    with pytest.MonkeyPatch.context() as patch:
        for name in originals:
            patch.setattr(F, name, partial(counted, name))
        yield total


def _without_norms(network: StyleNetwork) -> StyleNetwork:
    """Instance norm sees the whole picture and ReLU hides paths: both out."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, InstanceNorm | nn.ReLU):
                setattr(module, name, _Skip())
    return network


class _Skip(nn.Module):
    def forward(self, x_NCHW: Tensor, mix: None = None) -> Tensor:
        return x_NCHW
