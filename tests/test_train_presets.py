"""Presets: whole configs that any flag may change."""

import dataclasses
from pathlib import Path
from typing import get_args

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from helpers.training import tiny_config, tiny_vgg_weights, write_picture
from stylize.train.checkpoint import load_checkpoint
from stylize.train.cli import main
from stylize.train.config import Preset
from stylize.train.data import FramePairs, open_data
from stylize.train.frame_pair import Window
from stylize.train.loading import batch_of
from stylize.train.networks import build_network
from stylize.train.objective import Objective, picture_terms
from stylize.train.presets import PRESETS
from stylize.train.style_target import StyleTarget

# Indices of VGG-16's convolutions in torchvision, (channels in, out), with a few channels each.
_SMALL_VGG16 = {
    0: (3, 4), 2: (4, 4), 5: (4, 6), 7: (6, 6), 10: (6, 8), 12: (8, 8), 14: (8, 8),
    17: (8, 8), 19: (8, 8), 21: (8, 8), 24: (8, 8), 26: (8, 8), 28: (8, 8),
}  # fmt: skip
_SMALL_VGG19 = {
    0: (3, 4), 2: (4, 4), 5: (4, 6), 7: (6, 6), 10: (6, 8), 12: (8, 8), 14: (8, 8), 16: (8, 8),
    19: (8, 8), 21: (8, 8), 23: (8, 8), 25: (8, 8), 28: (8, 8), 30: (8, 8), 32: (8, 8), 34: (8, 8),
}  # fmt: skip


def _run(folder: Path, preset: str, weights: dict[str, Tensor], *arguments: str) -> Result:
    tiny_config(folder)  # writes the pictures
    torch.save(weights, folder / "vgg.pth")
    command = [
        *("--preset", preset, "--style", str(folder / "style.png"), "--data", str(folder / "photos"), "--steps", "1"),
        *("--loss-weights", str(folder / "vgg.pth"), "--style-size-px", "64", "--preview-every", "0"),
        *("--device", "cpu", "-o", str(folder / "x.pth"), *arguments),
    ]
    return CliRunner().invoke(main, command)


def test_there_is_a_function_for_every_preset() -> None:
    assert set(PRESETS) == set(get_args(Preset))
    for name, preset in PRESETS.items():
        assert preset((Path("x.jpg"),), ()).preset == name


def test_reconet_seed_has_the_published_weights() -> None:
    config = PRESETS["reconet-seed"]((Path("x.jpg"),), ())
    weights = (config.content_weight, config.style_weight, config.variation_weight)
    assert weights == (1e4, 1e5, 1e-5)
    assert (config.feature_temporal_weight, config.temporal_weight) == (1e5, 2e5)
    assert config.style_layers == ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
    assert (config.content_layer, config.loss_form, config.network) == ("relu3_3", "summed", "reconet")


def test_reconet_seed_adds_up_what_the_two_frames_score(tmp_path: Path) -> None:
    """`losses` of pytorch-reconet's train.py: both frames' content, style and total variation."""
    torch.save(tiny_vgg_weights(_SMALL_VGG16), tmp_path / "vgg.pth")
    config = dataclasses.replace(
        PRESETS["reconet-seed"]((write_picture(tmp_path / "style.png"),), ()),
        loss_weights=tmp_path / "vgg.pth", crop_px=64, style_size_px=64, precision="fp32",
    )  # fmt: skip
    pairs = batch_of(FramePairs(open_data((), Window(crop_px=64)), num_pairs=1, seed=0), 1, device=torch.device("cpu"))
    network = build_network("reconet", {})
    target = StyleTarget(config, torch.device("cpu"), torch.float32)
    with torch.no_grad():
        terms = Objective(config, torch.device("cpu")).terms(network, pairs, step=0)
        expected = dict.fromkeys(("content", "style", "variation"), 0.0)
        for seen, clean in ((pairs.previous, pairs.previous_clean), (pairs.current, pairs.current_clean)):
            for name, term in picture_terms(config, target, network(seen), clean).items():
                expected[name] += term.item()
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize(
    ("preset", "layout", "crop_px"),
    [("reconet-seed", _SMALL_VGG16, 64), ("johnson", _SMALL_VGG16, 64), ("texture", _SMALL_VGG19, 64)],
)
def test_preset_trains_with_complete_weights_and_flags_go_before_it(
    tmp_path: Path, preset: str, layout: dict[int, tuple[int, int]], crop_px: int
) -> None:
    size = ("--crop-px", str(crop_px), "--content-size-px", str(crop_px), "--batch-size", "1")
    result = _run(tmp_path, preset, tiny_vgg_weights(layout), *size, "--style-weight", "7")
    assert result.exit_code == 0, result.output
    checkpoint = load_checkpoint(tmp_path / "x.pth")
    assert checkpoint.config["preset"] == preset
    assert checkpoint.config["style_weight"] == 7.0
    assert checkpoint.config["crop_px"] == crop_px
    expected = PRESETS[preset]((Path("x.jpg"),), ())  # type: ignore[index]
    assert checkpoint.config["content_weight"] == expected.content_weight
    assert checkpoint.config["style_layers"] == list(expected.style_layers)


def test_preset_says_which_layers_cut_weights_lack(tmp_path: Path) -> None:
    result = _run(tmp_path, "johnson", tiny_vgg_weights())
    assert result.exit_code == 1
    assert "preset johnson compares relu3_3, relu4_3, but the loss weights end at relu3_1" in result.stderr
    assert "give complete VGG weights with --loss-weights, or other layers with --style-layers" in result.stderr
    shallow = ("--style-layers", "relu1_2", "--crop-px", "64", "--content-size-px", "64", "--batch-size", "1")
    assert _run(tmp_path, "johnson", tiny_vgg_weights(), *shallow).exit_code == 0
