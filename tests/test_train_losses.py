"""Losses against NumPy, hand-computed values and finite differences."""

import numpy as np
import pytest
import torch
from torch import Tensor

from stylize.train.config import LossForm
from stylize.train.losses import (
    content_loss,
    feature_temporal_loss,
    frame_difference_loss,
    gram_matrix,
    image_pyramid,
    output_temporal_loss,
    style_loss,
    total_variation_loss,
)


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=torch.double, generator=torch.Generator().manual_seed(seed))


def test_gram_equals_numpy() -> None:
    features = _random(2, 3, 4, 5)
    flat = features.numpy().reshape(2, 3, 20)
    np.testing.assert_allclose(gram_matrix(features).numpy(), np.einsum("ncp,ndp->ncd", flat, flat) / 20, rtol=1e-12)


def test_gram_does_not_depend_on_the_size_of_a_periodic_picture() -> None:
    tile = _random(1, 3, 6, 6)
    torch.testing.assert_close(gram_matrix(tile), gram_matrix(tile.repeat(1, 1, 2, 3)))


def test_style_loss_is_one_for_black_features_and_zero_for_the_style() -> None:
    style = _random(1, 4, 6, 6)
    assert style_loss(torch.zeros_like(style), gram_matrix(style)).item() == pytest.approx(1.0)
    assert style_loss(style, gram_matrix(style)).item() == 0.0


def test_content_loss_is_relative_to_the_energy_of_the_content() -> None:
    content = _random(1, 4, 6, 6)
    assert content_loss(1.5 * content, content).item() == pytest.approx(0.25)
    assert content_loss(150 * content, 100 * content).item() == pytest.approx(0.25)
    energy = content.square().mean().item()
    assert content_loss(1.5 * content, content, least_energy=10 * energy).item() == pytest.approx(0.025)


def test_total_variation_of_a_slope() -> None:
    slope = torch.arange(5.0).expand(1, 3, 4, 5)
    assert total_variation_loss(slope).item() == 1.0


def test_output_temporal_loss_lets_a_change_of_light_pass() -> None:
    frame, output = _random(1, 3, 4, 4), _random(1, 3, 4, 4, seed=1)
    visible = torch.ones(1, 1, 4, 4, dtype=torch.double)
    brighter = output_temporal_loss(output + 0.1, output, frame + 0.1, frame, visible)
    assert brighter.item() == pytest.approx(0, abs=1e-20)
    flicker = output_temporal_loss(output + 0.1, output, frame, frame, visible)
    assert flicker.item() == pytest.approx(0.1**2 / 0.05**2)


def test_output_temporal_loss_weighs_channels_by_luminance() -> None:
    frame = torch.zeros(1, 3, 2, 2, dtype=torch.double)
    greener = frame.clone()
    greener[:, 1] = 1.0
    visible = torch.ones(1, 1, 2, 2, dtype=torch.double)
    # A still output under a change of Y by 0.7152 misses it in all three channels.
    error = output_temporal_loss(frame, frame, greener, frame, visible).item()
    assert error == pytest.approx(0.7152**2 / 0.05**2)


def test_masked_pixels_cost_nothing() -> None:
    visible = torch.zeros(1, 1, 4, 4, dtype=torch.double)
    a, b = _random(1, 3, 4, 4), _random(1, 3, 4, 4, seed=1)
    assert output_temporal_loss(a, b, b, a, visible).item() == 0
    assert feature_temporal_loss(a, b, visible).item() == 0


def test_feature_temporal_loss_cannot_be_lowered_by_shrinking() -> None:
    a, b = _random(1, 5, 4, 4), _random(1, 5, 4, 4, seed=1)
    visible = torch.ones(1, 1, 4, 4, dtype=torch.double)
    torch.testing.assert_close(feature_temporal_loss(a, b, visible), feature_temporal_loss(0.01 * a, 0.01 * b, visible))


def test_feature_temporal_loss_takes_the_energy_for_a_constant() -> None:
    a, b = _random(1, 5, 4, 4).requires_grad_(), _random(1, 5, 4, 4, seed=1)
    visible = torch.ones(1, 1, 4, 4, dtype=torch.double)
    feature_temporal_loss(a, b, visible).backward()
    with torch.no_grad():
        torch.testing.assert_close(a.grad, 2 * (a - b) / a.numel() / a.square().mean())


def test_frame_difference_counts_where_the_source_stays() -> None:
    frame, output = _random(1, 3, 4, 4), _random(1, 3, 4, 4, seed=1)
    assert frame_difference_loss(output + 0.05, output, frame, frame).item() == pytest.approx(1.0)
    changed = frame.clone()
    changed[..., 2:] += 0.5
    assert frame_difference_loss(output + 0.05, output, changed, frame).item() == pytest.approx(0.5)
    # Codec noise of 0.02 counts with exp(-1/2).
    noisy = frame_difference_loss(output + 0.05, output, frame + 0.02, frame).item()
    assert noisy == pytest.approx(np.exp(-0.5))


def test_summed_form_is_that_of_pytorch_reconet() -> None:
    """Sums and norms of its train.py and utils.py in NumPy, luminance corrected, for one pair."""
    a, b, mask = _random(1, 3, 4, 5), _random(1, 3, 4, 5, seed=1), _random(1, 1, 4, 5, seed=2).round()
    light, before = _random(1, 3, 4, 5, seed=3), _random(1, 3, 4, 5, seed=4)
    x, y, m = (tensor.numpy()[0] for tensor in (a, b, mask))
    gram, other = (np.einsum("chw,dhw->cd", z, z) / z.size for z in (x, y))
    assert style_loss(a, gram_matrix(b), form="summed").item() == pytest.approx(((gram - other) ** 2).sum())
    assert content_loss(a, b, form="summed").item() == pytest.approx(((x - y) ** 2).sum() / x.size)
    wide = 2 * x - 1  # its network works in [-1, 1]
    variation = np.abs(np.diff(wide, axis=2)).sum() + np.abs(np.diff(wide, axis=1)).sum()
    assert total_variation_loss(a, form="summed").item() == pytest.approx(variation)
    change = 2 * (light - before).numpy()[0]
    luminance = 0.2126 * change[0] + 0.7152 * change[1] + 0.0722 * change[2]
    temporal = ((m * (2 * (x - y) - luminance)) ** 2).sum() / 20
    assert output_temporal_loss(a, b, light, before, mask, form="summed").item() == pytest.approx(temporal)
    features = ((m * (x - y)) ** 2).sum() / x.size
    assert feature_temporal_loss(a, b, mask, form="summed").item() == pytest.approx(features)


def test_mean_form_is_that_of_fast_neural_style() -> None:
    """`mse_loss` of features, and of Gram matrices over C H W."""
    a, b = _random(1, 3, 4, 5), _random(1, 3, 4, 5, seed=1)
    x, y = a.numpy()[0], b.numpy()[0]
    gram, other = (np.einsum("chw,dhw->cd", z, z) / z.size for z in (x, y))
    assert style_loss(a, gram_matrix(b), form="mean").item() == pytest.approx(((gram - other) ** 2).mean())
    assert content_loss(a, b, form="mean").item() == pytest.approx(((x - y) ** 2).mean())


@pytest.mark.parametrize("form", ["relative", "summed", "mean"])
def test_a_batch_weighs_as_much_as_one_picture(form: LossForm) -> None:
    a, b = _random(1, 3, 4, 5), _random(1, 3, 4, 5, seed=1)
    mask = torch.ones(1, 1, 4, 5, dtype=torch.double)
    for loss in (
        lambda x, y, m: content_loss(x, y, form=form),
        lambda x, y, m: style_loss(x, gram_matrix(y[:1]), form=form),
        lambda x, y, m: total_variation_loss(x, form=form),
        lambda x, y, m: output_temporal_loss(x, y, y, x, m, form=form),
        lambda x, y, m: feature_temporal_loss(x, y, m, form=form),
    ):
        twice = loss(a.repeat(2, 1, 1, 1), b.repeat(2, 1, 1, 1), mask.repeat(2, 1, 1, 1))
        torch.testing.assert_close(twice, loss(a, b, mask))


def test_pyramid_halves() -> None:
    levels = image_pyramid(torch.ones(1, 3, 16, 24), 3)
    assert [tuple(level.shape[-2:]) for level in levels] == [(16, 24), (8, 12), (4, 6)]


_OTHER = _random(2, 3, 4, 5, seed=7)
_MASK = (_random(2, 1, 4, 5, seed=8) > 0.3).double()
_GRADIENT_CASES = {
    "gram": lambda x: gram_matrix(x).sin().sum(),
    "style": lambda x: style_loss(x, gram_matrix(_OTHER[:1])),
    "content": lambda x: content_loss(x, _OTHER),
    "variation": total_variation_loss,
    "output temporal, current": lambda x: output_temporal_loss(x, _OTHER, _OTHER, _OTHER.flip(3), _MASK),
    "output temporal, previous": lambda x: output_temporal_loss(_OTHER, x, _OTHER, _OTHER.flip(3), _MASK),
    # The energy it divides by is a constant on purpose, so only the previous frame's gradient is a plain one.
    "feature temporal, previous": lambda x: feature_temporal_loss(_OTHER, x, _MASK),
}


@pytest.mark.parametrize("name", _GRADIENT_CASES)
def test_gradient_equals_finite_differences(name: str) -> None:
    x = _random(2, 3, 4, 5, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(_GRADIENT_CASES[name], (x,))
