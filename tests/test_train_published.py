"""Weights of other projects: recognised by their keys, equal to their own arithmetic."""

import re
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor
from torch.nn import functional as F

from stylize.export.cli import main
from stylize.runtime import open_artifact
from stylize.train.checkpoint import load_checkpoint, network_from_checkpoint
from stylize.train.published import network_from_published

State = dict[str, Tensor]


def _random_state(shapes: dict[str, tuple[int, ...]]) -> State:
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in shapes.items():
        fan_in = max(1, int(torch.tensor(shape[1:]).prod())) if len(shape) == 4 else 1
        state[name] = torch.randn(shape, generator=generator) / fan_in**0.5
    return state


def _conv(state: State, name: str, x: Tensor, *, stride: int = 1, scale: int = 1) -> Tensor:
    weight = state[f"{name}.weight"]
    enlarged = F.interpolate(x, scale_factor=scale, mode="nearest") if scale > 1 else x
    return F.conv2d(
        F.pad(enlarged, (weight.shape[-1] // 2,) * 4, mode="reflect"), weight, state[f"{name}.bias"], stride
    )


def _johnson_shapes() -> dict[str, tuple[int, ...]]:
    """The layout of fast_neural_style: 32/64/128 channels and five residual blocks."""
    shapes: dict[str, tuple[int, ...]] = {}
    convs = [("conv1", 3, 32, 9), ("conv2", 32, 64, 3), ("conv3", 64, 128, 3)]
    convs += [(f"res{i}.conv{j}", 128, 128, 3) for i in range(1, 6) for j in (1, 2)]
    convs += [("deconv1", 128, 64, 3), ("deconv2", 64, 32, 3), ("deconv3", 32, 3, 9)]
    for name, num_in, num_out, size in convs:
        shapes |= {f"{name}.conv2d.weight": (num_out, num_in, size, size), f"{name}.conv2d.bias": (num_out,)}
    norms = [("in1", 32), ("in2", 64), ("in3", 128), ("in4", 64), ("in5", 32)]
    norms += [(f"res{i}.in{j}", 128) for i in range(1, 6) for j in (1, 2)]
    for name, num in norms:
        shapes |= {f"{name}.weight": (num,), f"{name}.bias": (num,)}
    return shapes


def _johnson_reference(state: State, picture_255: Tensor) -> Tensor:
    def norm(name: str, x: Tensor) -> Tensor:
        return F.instance_norm(x, weight=state[f"{name}.weight"], bias=state[f"{name}.bias"])

    x = norm("in1", _conv(state, "conv1.conv2d", picture_255)).relu()
    x = norm("in2", _conv(state, "conv2.conv2d", x, stride=2)).relu()
    x = norm("in3", _conv(state, "conv3.conv2d", x, stride=2)).relu()
    for i in range(1, 6):
        y = norm(f"res{i}.in1", _conv(state, f"res{i}.conv1.conv2d", x)).relu()
        x = x + norm(f"res{i}.in2", _conv(state, f"res{i}.conv2.conv2d", y))
    x = norm("in4", _conv(state, "deconv1.conv2d", x, scale=2)).relu()
    x = norm("in5", _conv(state, "deconv2.conv2d", x, scale=2)).relu()
    return _conv(state, "deconv3.conv2d", x)


def _reconet_shapes(*, frn: bool) -> dict[str, tuple[int, ...]]:
    """The layout of pytorch-reconet: 48/96/192 channels and four residual blocks."""
    shapes: dict[str, tuple[int, ...]] = {}
    layers = [("encoder.layers.0", 3, 48, 9), ("encoder.layers.1", 48, 96, 3), ("encoder.layers.2", 96, 192, 3)]
    layers += [(f"encoder.layers.{i}.branch.{j}", 192, 192, 3) for i in range(3, 7) for j in (0, 1)]
    layers += [("decoder.layers.1", 192, 96, 3), ("decoder.layers.3", 96, 48, 3)]
    for name, num_in, num_out, size in layers:
        vector = (1, num_out, 1, 1) if frn else (num_out,)
        shapes |= {f"{name}.layers.0.layers.1.weight": (num_out, num_in, size, size)}
        shapes |= {f"{name}.layers.0.layers.1.bias": (num_out,)}
        shapes |= {f"{name}.layers.1.weight": vector, f"{name}.layers.1.bias": vector}
        if frn and ".branch.1" not in name:
            shapes[f"{name}.layers.2.tau"] = vector
    shapes |= {f"encoder.layers.{i}.activation.tau": (1, 192, 1, 1) for i in range(3, 7) if frn}
    last = "decoder.layers.4.layers.0.layers.1"
    return shapes | {f"{last}.weight": (3, 48, 9, 9), f"{last}.bias": (3,)}


def _reconet_reference(state: State, picture: Tensor, *, frn: bool) -> Tensor:
    """RGB in [-1, 1] to [-1, 1]."""

    def norm(name: str, x: Tensor) -> Tensor:
        weight, bias = state[f"{name}.layers.1.weight"], state[f"{name}.layers.1.bias"]
        if not frn:
            return F.instance_norm(x, weight=weight, bias=bias)
        return weight * x * torch.rsqrt(x.pow(2).mean(dim=(2, 3), keepdim=True) + 1e-6) + bias

    def activation(name: str, x: Tensor) -> Tensor:
        return torch.maximum(x, state[f"{name}.tau"]) if frn else x.relu()

    def block(name: str, x: Tensor, *, stride: int = 1, scale: int = 1) -> Tensor:
        y = norm(name, _conv(state, f"{name}.layers.0.layers.1", x, stride=stride, scale=scale))
        return activation(f"{name}.layers.2", y)

    x = block("encoder.layers.0", picture)
    x = block("encoder.layers.1", x, stride=2)
    x = block("encoder.layers.2", x, stride=2)
    for i in range(3, 7):
        branch = f"encoder.layers.{i}.branch"
        y = norm(f"{branch}.1", _conv(state, f"{branch}.1.layers.0.layers.1", block(f"{branch}.0", x)))
        x = activation(f"encoder.layers.{i}.activation", x + y)
    x = block("decoder.layers.1", x, scale=2)
    x = block("decoder.layers.3", x, scale=2)
    return torch.tanh(_conv(state, "decoder.layers.4.layers.0.layers.1", x))


@pytest.fixture
def picture() -> Tensor:
    return torch.rand(1, 3, 32, 40, generator=torch.Generator().manual_seed(1))


def test_fast_neural_style_weights_paint_the_same(picture: Tensor) -> None:
    state = _random_state(_johnson_shapes())
    network = network_from_published(state)
    assert network is not None
    assert network.name == "johnson"
    with torch.no_grad():
        expected = (_johnson_reference(state, picture * 255) / 255).clamp(0, 1)
        # Scales folded into the weights: equal to float32 rounding.
        torch.testing.assert_close(network(picture), expected, rtol=0, atol=1e-5)


def test_old_running_statistics_are_left_out(picture: Tensor) -> None:
    state = _random_state(_johnson_shapes())
    old = state | {"in1.running_mean": torch.ones(32), "in1.running_var": torch.ones(32)}
    network, plain = network_from_published(old), network_from_published(state)
    assert network is not None
    assert plain is not None
    with torch.no_grad():
        assert torch.equal(network(picture), plain(picture))


@pytest.mark.parametrize("frn", [False, True])
def test_pytorch_reconet_weights_paint_the_same(picture: Tensor, frn: bool) -> None:
    state = _random_state(_reconet_shapes(frn=frn))
    eps = {"encoder.layers.0.layers.1.eps": torch.tensor([1e-6])} if frn else {}
    network = network_from_published(state | eps)
    assert network is not None
    assert network.options == {"norm": "frn" if frn else "instance", "activation_after_add": True}
    with torch.no_grad():
        expected = _reconet_reference(state, picture * 2 - 1, frn=frn) * 0.5 + 0.5
        torch.testing.assert_close(network(picture), expected, rtol=0, atol=1e-5)


def test_unknown_keys_are_no_published_weights() -> None:
    assert network_from_published({"layer.weight": torch.zeros(1)}) is None


def test_rejects_incomplete_and_foreign_tensors() -> None:
    state = _random_state(_reconet_shapes(frn=False))
    with pytest.raises(ValueError, match=re.escape("unexpected tensor 'extra.weight'")):
        network_from_published(state | {"extra.weight": torch.zeros(1)})
    del state["decoder.layers.3.layers.1.bias"]
    with pytest.raises(ValueError, match=r"do not fit 'reconet'.*decoder\.3\.0\.bias"):
        network_from_published(state)
    frn = _random_state(_reconet_shapes(frn=True))
    with pytest.raises(ValueError, match="a learned FRN epsilon"):
        network_from_published(frn | {"encoder.layers.0.layers.1.eps": torch.tensor([1e-3])})


def test_published_weights_export_straight_away(tmp_path: Path) -> None:
    torch.save(_random_state(_johnson_shapes()), tmp_path / "candy.pth")
    assert network_from_checkpoint(load_checkpoint(tmp_path / "candy.pth")).options == {
        "output": "clamp",
        "upsampling": "resize",
    }
    result = CliRunner().invoke(main, [str(tmp_path / "candy.pth"), "--size", "64x48"])
    assert result.exit_code == 0, result.output
    contract = open_artifact(tmp_path / "candy.onnx").contract
    assert (contract.style, contract.network) == ("candy", "johnson(output=clamp, upsampling=resize)")
    assert contract.training_size_px is None
    assert set(contract.hashes) == {"weights"}


def test_rejects_weights_of_nothing_known(tmp_path: Path) -> None:
    torch.save({"layer.weight": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="nor weights of pytorch-reconet or fast_neural_style"):
        load_checkpoint(tmp_path / "x.pth")
