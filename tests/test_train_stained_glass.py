from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from helpers.training import tiny_config
from stylize.train.checkpoint import load_checkpoint
from stylize.train.cli import main
from stylize.train.stained_glass import draw_stained_glass


def test_is_reproducible_and_seeded() -> None:
    picture = draw_stained_glass(96)
    assert picture.shape == (96, 96, 3) and picture.dtype == np.uint8
    assert np.array_equal(picture, draw_stained_glass(96))
    assert not np.array_equal(picture, draw_stained_glass(96, seed=1))


def test_has_dark_lead_round_saturated_panes() -> None:
    picture = draw_stained_glass(256).astype(int)
    brightest, darkest = picture.max(axis=2), picture.min(axis=2)
    is_lead = brightest < 60
    # A window is mostly glass: came on a fifth to two fifths of it, and most panes are strongly coloured.
    assert 0.2 < is_lead.mean() < 0.4
    assert (brightest - darkest > 100)[~is_lead].mean() > 0.6


def test_looks_the_same_at_every_size() -> None:
    small = draw_stained_glass(64).astype(float)
    large = draw_stained_glass(256).astype(float).reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))
    other = draw_stained_glass(64, seed=1).astype(float)
    # Texture noise and the rasterised borders differ; panes and colours do not, as in another window.
    assert np.abs(small - large).mean() < 0.4 * np.abs(small - other).mean()


def test_rejects_a_tiny_window() -> None:
    with pytest.raises(ValueError, match="size_px=32 must be at least 64"):
        draw_stained_glass(32)


def test_trains_without_a_style_picture(tmp_path: Path) -> None:
    weights = tiny_config(tmp_path).loss_weights
    arguments = f"--style stained-glass --loss-weights {weights} --style-layers relu1_1 --content-layer relu3_1 "
    arguments += "--num-scales 1 --crop-px 64 --width 32 --steps 1 --preview-every 0"
    result = CliRunner().invoke(main, [*arguments.split(), "-o", str(tmp_path / "a.pth")])
    assert result.exit_code == 0, result.output
    assert load_checkpoint(tmp_path / "a.pth").style == "stained-glass"
    written = cv2.imread(str(tmp_path / "stained-glass.png"))
    assert written is not None and np.array_equal(written[..., ::-1], draw_stained_glass())
