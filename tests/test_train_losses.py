"""Losses against NumPy, hand-computed values and finite differences."""

import numpy as np
import pytest
import torch
from torch import Tensor

from stylize.train.losses import (
    content_loss,
    feature_temporal_loss,
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


def test_total_variation_of_a_slope() -> None:
    slope = torch.arange(5.0).expand(1, 3, 4, 5)
    assert total_variation_loss(slope).item() == 1.0


def test_output_temporal_loss_lets_a_change_of_light_pass() -> None:
    frame, output = _random(1, 3, 4, 4), _random(1, 3, 4, 4, seed=1)
    visible = torch.ones(1, 1, 4, 4, dtype=torch.double)
    brighter = output_temporal_loss(output + 0.1, output, frame + 0.1, frame, visible)
    assert brighter.item() == pytest.approx(0, abs=1e-20)
    flicker = output_temporal_loss(output + 0.1, output, frame, frame, visible)
    assert flicker.item() == pytest.approx(0.01)


def test_output_temporal_loss_weighs_channels_by_luminance() -> None:
    frame = torch.zeros(1, 3, 2, 2, dtype=torch.double)
    greener = frame.clone()
    greener[:, 1] = 1.0
    visible = torch.ones(1, 1, 2, 2, dtype=torch.double)
    # A still output under a change of Y by 0.7152 misses it in all three channels.
    assert output_temporal_loss(frame, frame, greener, frame, visible).item() == pytest.approx(0.7152**2)


def test_masked_pixels_cost_nothing() -> None:
    visible = torch.zeros(1, 1, 4, 4, dtype=torch.double)
    a, b = _random(1, 3, 4, 4), _random(1, 3, 4, 4, seed=1)
    assert output_temporal_loss(a, b, b, a, visible).item() == 0
    assert feature_temporal_loss(a, b, visible).item() == 0


def test_feature_temporal_loss_cannot_be_lowered_by_shrinking() -> None:
    a, b = _random(1, 5, 4, 4), _random(1, 5, 4, 4, seed=1)
    visible = torch.ones(1, 1, 4, 4, dtype=torch.double)
    torch.testing.assert_close(feature_temporal_loss(a, b, visible), feature_temporal_loss(0.01 * a, 0.01 * b, visible))


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
