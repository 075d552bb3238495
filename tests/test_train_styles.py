"""Several styles in one training: mixed, told apart, or taught by trained networks; and textures out of noise."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.training import tiny_config, write_picture
from stylize.train.checkpoint import Checkpoint, load_checkpoint, network_from_checkpoint, save_checkpoint
from stylize.train.config import TrainConfig, config_to_dict
from stylize.train.frame_pair import FramePair
from stylize.train.loop import Progress, train
from stylize.train.losses import diversity_loss, gram_matrix, style_loss
from stylize.train.networks import build_network
from stylize.train.noise_pairs import NoisePairs
from stylize.train.objective import Objective
from stylize.train.preview import preview_sheet
from stylize.train.texture_network import noise_pyramid


def _two_styles(folder: Path, **changes: object) -> TrainConfig:
    config = tiny_config(folder)
    other = write_picture(folder / "other.png", seed=5)
    return tiny_config(folder, style=(*config.style, other), **changes)


def _train(config: TrainConfig, output: Path, *, resume: bool = False) -> Checkpoint:
    return train(config, output, resume=resume, on_step=lambda _: None, device="cpu")


def _pairs(*, num_pairs: int = 2, side: int = 64) -> FramePair:
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(4, num_pairs, 3, side, side, generator=generator)
    return FramePair(*frames, torch.zeros(num_pairs, 2, side, side), torch.ones(num_pairs, 1, side, side))


def test_mixed_style_loss_is_the_weighted_sum_of_the_single_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(2, 5, 8, 8, generator=generator)
    grams = gram_matrix(torch.rand(3, 5, 8, 8, generator=generator))
    single = torch.stack([style_loss(features[i : i + 1], grams[s : s + 1]) for i in range(2) for s in range(3)])
    mix = torch.tensor([[0.5, 0.2, 0.3], [0.0, 1.0, 0.0]])
    torch.testing.assert_close(style_loss(features, grams, mix), (single.view(2, 3) * mix).sum(1).mean())


def test_style_weights_decide_what_the_mixed_loss_asks_for(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_network("fast", {"width": 32})
    style = {}
    for weights in ((1.0, 0.0), (0.0, 1.0), (1.0, 3.0)):
        objective = Objective(_two_styles(tmp_path, style_weights=weights), torch.device("cpu"))
        style[weights] = objective.terms(network, _pairs(), 0)["style"].item()
    assert style[1.0, 0.0] != style[0.0, 1.0]
    expected = 0.25 * style[1.0, 0.0] + 0.75 * style[0.0, 1.0]
    assert style[1.0, 3.0] == pytest.approx(expected, rel=1e-3)  # Gram matrices may be bfloat16


@pytest.mark.parametrize("name", ["fast", "fastest", "reconet", "johnson", "texture"])
def test_a_conditional_network_of_equal_styles_is_the_single_network(name: str) -> None:
    torch.manual_seed(0)
    single = build_network(name, {})
    several = build_network(name, {"num_styles": 3})
    weights = single.state_dict()
    several.load_state_dict({key: weights[key].expand(value.shape) for key, value in several.state_dict().items()})
    frames = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = single(frames)
        for mix in (None, torch.tensor([0.2, 0.3, 0.5]), torch.eye(3)[:2]):
            torch.testing.assert_close(several(frames, mix), expected, rtol=0, atol=1e-5)


def test_the_mix_is_linear_in_scale_and_offset_and_for_each_picture_its_own() -> None:
    torch.manual_seed(0)
    network = build_network("fastest", {"num_styles": 2})
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    frames = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        first, second = (network(frames, torch.eye(2)[style]) for style in (0, 1))
        assert (first - second).abs().max() > 0.01
        torch.testing.assert_close(network(frames), first)
        torch.testing.assert_close(network(frames, torch.eye(2)), torch.stack([first[0], second[1]]))
        # A third of one and two thirds of the other are the norms' own values, mixed.
        blended = network(frames, torch.tensor([1 / 3, 2 / 3]))
        for name, parameter in network.named_parameters():
            if name.endswith(("norm.0.weight", "norm.0.bias", "norm.weight", "norm.bias")):
                parameter[0] = parameter[0] / 3 + parameter[1] * 2 / 3
        torch.testing.assert_close(network(frames), blended, rtol=0, atol=1e-5)


def test_each_style_of_a_conditional_training_has_its_turn_on_both_frames(tmp_path: Path) -> None:
    objective = Objective(_two_styles(tmp_path, conditional=True), torch.device("cpu"))
    turns = [objective._mix(step, 1).argmax().item() for step in range(8)]
    assert turns == [0, 0, 1, 1, 0, 0, 1, 1]
    assert objective._mix(0, 3).argmax(dim=1).tolist() == [0, 1, 0]


def test_teacher_loss_is_nothing_for_the_teacher_itself(tmp_path: Path) -> None:
    taught = _train(tiny_config(tmp_path, steps=1), tmp_path / "teacher.pth")
    network = network_from_checkpoint(taught)
    teacher = (tmp_path / "teacher.pth",)
    config = tiny_config(tmp_path, style=(), teacher=teacher, teacher_feature_weight=1.0, precision="fp32")
    objective = Objective(config, torch.device("cpu"))
    terms = objective.terms(network, _same_seen_and_clean(_pairs()), 0)
    # Batches of another size are summed in another order.
    assert max(terms["teacher"].item(), terms["teacher_features"].item()) < 1e-6
    assert not {"style", "content"} & set(terms)
    with torch.no_grad():
        network.decoder[-1].bias.add_(0.5)  # type: ignore[union-attr, operator]
    terms = objective.terms(network, _same_seen_and_clean(_pairs()), 0)
    assert terms["teacher"].item() > 1
    assert terms["teacher_features"].item() > 0


def _same_seen_and_clean(pairs: FramePair) -> FramePair:
    return pairs._replace(previous_clean=pairs.previous, current_clean=pairs.current)


@pytest.mark.parametrize("teacher", ["reconet", "johnson"])
def test_a_large_network_teaches_a_small_one(tmp_path: Path, teacher: str) -> None:
    _train(tiny_config(tmp_path, network=teacher, steps=1), tmp_path / "large.pth")
    config = tiny_config(tmp_path, style=(), teacher=(tmp_path / "large.pth",), loss_weights=None, steps=2)
    small = _train(config, tmp_path / "small.pth")
    assert (small.network, small.style) == ("fast", "style")
    assert small.losses["teacher"] > 0


def test_teachers_of_several_styles_make_a_conditional_network(tmp_path: Path) -> None:
    _train(tiny_config(tmp_path, steps=1), tmp_path / "a.pth")
    _train(tiny_config(tmp_path, style=(write_picture(tmp_path / "b.png", seed=9),), steps=1), tmp_path / "b.pth")
    teachers = (tmp_path / "a.pth", tmp_path / "b.pth")
    checkpoint = _train(tiny_config(tmp_path, style=(), teacher=teachers, conditional=True), tmp_path / "c.pth")
    assert checkpoint.style_names == ("style", "b")
    assert checkpoint.options == {"width": 32, "num_styles": 2}
    with pytest.raises(ValueError, match=r"c.pth: holds 2 styles, a teacher must hold one"):
        _train(tiny_config(tmp_path, style=(), teacher=(tmp_path / "c.pth",)), tmp_path / "d.pth")


def test_a_conditional_training_starts_from_a_network_of_one_style(tmp_path: Path) -> None:
    single = _train(tiny_config(tmp_path, steps=2), tmp_path / "single.pth")
    config = _two_styles(
        tmp_path, conditional=True, steps=1, start_from=tmp_path / "single.pth", learning_rate=1e-8, preview_every=1
    )
    several = _train(config, tmp_path / "several.pth")
    assert several.style_names == ("style", "other")
    for name, weight in several.weights.items():
        torch.testing.assert_close(weight, single.weights[name].expand(weight.shape), rtol=0, atol=1e-7)
    assert (tmp_path / "several-preview.jpg").is_file()


@pytest.mark.parametrize(
    "changes",
    [
        {"conditional": True},
        {"style_weights": (0.3, 0.7)},
        {"network": "texture"},
        {"network": "texture", "mode": "texture"},
    ],
)
def test_resumed_training_equals_an_unbroken_one_in_every_mode(tmp_path: Path, changes: dict[str, object]) -> None:
    config = _two_styles(tmp_path, **changes)
    whole = _train(config, tmp_path / "whole.pth")

    def interrupt(progress: Progress) -> None:
        if progress.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "part.pth", resume=False, on_step=interrupt, device="cpu")
    resumed = _train(config, tmp_path / "part.pth", resume=True)
    assert all(torch.equal(resumed.weights[name], whole.weights[name]) for name in whole.weights)
    assert load_checkpoint(tmp_path / "part.pth").config == config_to_dict(config)


def test_texture_training_compares_no_content_and_asks_for_diversity(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, network="texture", mode="texture", steps=2, preview_every=1, data=("nowhere",))
    checkpoint = _train(config, tmp_path / "t.pth")
    assert set(checkpoint.losses) == {"style", "diversity", "variation", "total"}
    assert (tmp_path / "t-preview.jpg").is_file()


def test_diversity_loss_is_the_logarithm_of_the_distance_to_the_nearest() -> None:
    flat = torch.tensor([0.1, 0.2, 0.6])[:, None, None, None].expand(3, 3, 8, 8)
    expected = -(torch.tensor([0.1, 0.1, 0.4]).log()).mean()
    torch.testing.assert_close(diversity_loss(flat), expected)
    alike = torch.zeros(2, 3, 8, 8, requires_grad=True)
    loss = diversity_loss(alike)
    loss.backward()
    assert loss.item() == pytest.approx(-torch.tensor(1e-3).log().item())
    assert alike.grad is not None and alike.grad.isfinite().all()


def test_noise_scales_share_no_pixel_and_shift_with_the_noise() -> None:
    noise = torch.arange(64 * 64).float().view(1, 1, 64, 64).expand(1, 3, 64, 64)
    levels = noise_pyramid(noise)
    assert [level.shape[-1] for level in levels] == [64, 32, 16, 8, 4, 2]
    coarse = torch.cat([level[0, 0].flatten() for level in levels[1:]])
    assert len(coarse.unique()) == len(coarse)
    rolled = noise_pyramid(noise.roll((32, 32), dims=(2, 3)))
    for k, (level, moved) in enumerate(zip(levels, rolled, strict=True)):
        assert torch.equal(moved, level.roll((32 >> k, 32 >> k), dims=(2, 3)))


def test_textures_tile_exactly_with_circular_padding() -> None:
    """Noise that is shifted round gives the texture shifted round: no place is a border."""
    torch.manual_seed(0)
    noise = torch.rand(1, 3, 96, 64)
    for padding, is_equal in (("circular", True), ("reflect", False)):
        network = build_network("texture", {"mode": "texture", "padding": padding})
        with torch.no_grad():
            shifted = network(noise.roll((32, 32), dims=(2, 3)))
            difference: Tensor = shifted - network(noise).roll((32, 32), dims=(2, 3))
        assert (difference.abs().max() < 1e-4) == is_equal


def test_stylizing_texture_network_takes_noise_and_is_steady_without() -> None:
    torch.manual_seed(0)
    network = build_network("texture", {})
    frames = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(network(frames), network(frames))
        assert not torch.equal(network(frames, None, torch.rand(1, 3, 64, 64)), network(frames))


def test_noise_pairs_are_repeatable_and_independent() -> None:
    first, again, other = (NoisePairs(crop_px=32).pair(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.previous, again.previous)
    assert not torch.equal(first.previous, other.previous)
    assert not torch.equal(first.previous, first.current)
    assert first.previous.mean().item() == pytest.approx(0.5, abs=0.05)
    assert not first.visible.any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"style": ()}, "nothing to learn: give --style picture.jpg, or --teacher network.pth"),
        ({"teacher": (Path("a.pth"),)}, "give one --style or several, or one --teacher or several, not both"),
        ({"style_weights": (0.5, 0.5)}, r"style_weights=\(0.5, 0.5\) for 1 styles, one for each"),
        ({"style": (Path("a"), Path("b")), "style_weights": (1.0, 0.0), "conditional": True}, "mixed at run time"),
        ({"style_weights": (-1.0,)}, "must be positive or zero"),
        ({"style_weights": (0.0,)}, "not all zero"),
        ({"conditional": True}, "takes 2 to 32 styles, got 1"),
        ({"mode": "texture"}, "mode='texture' takes network='texture' and --style, got network='fast'"),
    ],
)
def test_rejects_combinations_that_mean_nothing(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_config(tmp_path, **changes)


def test_rejects_conditional_styles_of_one_name(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    style = (tiny_config(tmp_path).style[0], write_picture(tmp_path / "again" / "style.png", seed=3))
    with pytest.raises(ValueError, match="style, style are called by these names at run time"):
        _train(tiny_config(tmp_path, style=style, conditional=True), tmp_path / "x.pth")


def test_checkpoints_of_before_several_styles_are_read(tmp_path: Path) -> None:
    checkpoint = _train(tiny_config(tmp_path, steps=1), tmp_path / "x.pth")
    old = {key: value for key, value in vars(checkpoint).items() if key != "style_names"}
    torch.save({"format": "stylize-checkpoint", "format_version": 1, **old}, tmp_path / "old.pth")
    assert load_checkpoint(tmp_path / "old.pth").style_names == ()
    save_checkpoint(load_checkpoint(tmp_path / "old.pth"), tmp_path / "new.pth")


def test_preview_shows_the_styles_in_turn() -> None:
    network = build_network("fast", {"width": 32, "num_styles": 2})
    with torch.no_grad():
        network.decoder[-2][0].bias[1] = 5.0  # type: ignore[index, union-attr]
    pairs = _pairs(num_pairs=4)
    pairs = FramePair(*(column[:1].expand(4, *column.shape[1:]) for column in pairs))
    rows = preview_sheet(network, pairs)[:, :, 64:128].reshape(3, 4, 64, 64)
    # Convolutions of several pictures at once may round differently for each.
    assert (rows[:, 0] - rows[:, 2]).abs().max() < 1e-5
    assert (rows[:, 0] - rows[:, 1]).abs().max() > 0.04
