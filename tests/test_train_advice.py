"""What a training says about itself, what is tried before it, and the reference it is held against."""

import dataclasses
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from helpers.training import run_tiny, tiny_config
from stylize.train import gatys, preflight
from stylize.train.checkpoint import load_checkpoint, save_checkpoint
from stylize.train.diagnosis import diagnosis
from stylize.train.loop import train
from stylize.train.pictures import read_picture
from stylize.train.preflight import Trial, suggestion


def _losses(*, content: float = 0.5, style: float = 0.1, temporal: float = 0.5) -> dict[str, float]:
    """Weighted terms, as the default weights make them of relative errors."""
    return {"content": content, "style": 10 * style, "temporal": temporal, "total": content + 10 * style + temporal}


def test_dominating_term_is_named_with_its_share(tmp_path: Path) -> None:
    lines = diagnosis(tiny_config(tmp_path), _losses())
    assert lines == ["style makes up 50% of the loss (temporal 25%, content 25%)"]


@pytest.mark.parametrize(
    ("losses", "advice"),
    [
        (_losses(style=0.4), "the style is still faint .*raise --style-weight"),
        (_losses(content=0.95), "the content is being lost .*raise --content-weight .* or lower --style-weight"),
        (_losses(content=0.95, style=0.4), "neither style .* nor content .* is learned yet: train longer"),
        (_losses(temporal=1.6), "it flickers .*raise --temporal-weight"),
    ],
)
def test_what_is_lost_is_told_with_the_knob(tmp_path: Path, losses: dict[str, float], advice: str) -> None:
    lines = diagnosis(tiny_config(tmp_path), losses)
    assert len(lines) == 2
    assert re.search(advice, lines[1])


def test_other_loss_forms_have_no_thresholds(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, loss_form="summed")
    assert diagnosis(config, _losses(style=90, content=90)) == diagnosis(config, _losses(style=90, content=90))[:1]


def test_training_that_is_too_short_is_told_so_in_the_command(tmp_path: Path) -> None:
    result = run_tiny(tmp_path, "-o", str(tmp_path / "x.pth"), "--steps", "2")
    assert result.exit_code == 0, result.output
    assert "makes up" in result.stdout
    assert "style is still faint" in result.stdout
    assert "at 50%: " in result.stderr


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A preflight and an optimisation of seconds."""
    monkeypatch.setattr(preflight, "_FIRST_STEPS", 2)
    monkeypatch.setattr(preflight, "_TRIAL_STEPS", 1)
    monkeypatch.setattr(preflight, "_CROP_PX", 64)
    monkeypatch.setattr(preflight, "_SHOWN_PX", 64)
    monkeypatch.setattr(gatys, "REPORTED_ITERATIONS", (10, 20))


@pytest.mark.usefixtures("quick")
def test_preflight_writes_a_sheet_and_suggests_settings(tmp_path: Path) -> None:
    result = run_tiny(tmp_path, "--preflight", "-o", str(tmp_path / "sheet.png"), "--style-size-px", "128")
    assert result.exit_code == 0, result.output
    assert "suggested: --style-weight" in result.stdout
    # Content and style, then three strengths; two sizes across; two pictures in each cell.
    cell_height, cell_width = 64 + 22 + 6, 2 * 64 + 6 + 6
    assert read_picture(tmp_path / "sheet.png").shape == (4 * cell_height, 2 * cell_width, 3)
    assert [path.name for path in tmp_path.glob("*.pth")] == ["vgg.pth"]


@pytest.mark.usefixtures("quick")
def test_preflight_crops_no_smaller_than_the_scales_allow(tmp_path: Path) -> None:
    def stop(_fraction: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # after the first step
        preflight.preflight(tiny_config(tmp_path, num_scales=3, crop_px=256), device="cpu", on_progress=stop)


def _trial(style: float, content: float, *, size: int = 512) -> Trial:
    pictures = np.zeros((1, 1, 3), np.uint8)
    return Trial(
        style_weight=1, style_size_px=size, style_error=style, content_error=content, pictures=pictures
    )  # fmt: skip


def test_suggestion_is_the_strongest_style_with_the_content_left() -> None:
    faint, good, lost = _trial(0.6, 0.3), _trial(0.2, 0.7), _trial(0.05, 0.95)
    assert suggestion([faint, good, lost]) is good
    assert suggestion([lost, _trial(0.1, 1.2)]) is lost
    fine, coarse = _trial(0.21, 0.6, size=256), _trial(0.23, 0.6, size=512)
    assert suggestion([fine, coarse]) is coarse


@pytest.mark.usefixtures("quick")
def test_optimisation_comes_nearer_to_the_style_than_the_photo(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    checkpoint = tmp_path / "x.pth"
    train(dataclasses.replace(config, steps=1), checkpoint, resume=False, on_step=lambda _: None, device="cpu")
    output = tmp_path / "painted.png"
    content = tmp_path / "photos" / "a.png"
    result = run_tiny(
        tmp_path, "--optimize", str(content), "-o", str(output), "--against", str(checkpoint), "--content-size-px", "64"
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"{output}: 10 iterations: content ")
    assert lines[1].startswith(f"{output}: 20 iterations: content ")
    assert lines[2].startswith(f"{checkpoint}: content ")
    totals = [float(line.split()[-1]) for line in lines]
    assert totals[1] <= totals[0] < totals[2]
    painted = read_picture(output)
    assert painted.shape[0] == 64
    source = cv2.resize(read_picture(content), painted.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(painted.astype(int) - source).mean() > 2


def test_a_network_of_several_styles_is_judged_in_the_style_of_the_picture(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, steps=1)
    other = config.style[0].with_name("other.png")
    shutil.copy(config.style[0], other)
    both = dataclasses.replace(config, style=(config.style[0], other), conditional=True)
    train(both, tmp_path / "both.pth", resume=False, on_step=lambda _: None)
    checkpoint = load_checkpoint(tmp_path / "both.pth")
    for name, table in checkpoint.weights.items():
        if table.ndim == 2 and name.endswith("bias"):
            table[1] += 1  # the second style paints otherwise
    save_checkpoint(checkpoint, tmp_path / "both.pth")
    content = tmp_path / "photos" / "a.png"
    content_errors = {
        style.stem: gatys.losses_of_network(
            tmp_path / "both.pth", content, dataclasses.replace(config, style=(style,))
        ).terms["content"]
        for style in both.style
    }
    assert content_errors[config.style[0].stem] != pytest.approx(content_errors["other"], rel=0.01)
    with pytest.raises(ValueError, match=r"holds the styles .*, other; give one style picture called like one of them"):
        gatys.losses_of_network(tmp_path / "both.pth", content, both)


def test_optimisation_finds_a_bad_network_before_it_begins(tmp_path: Path) -> None:
    content = tmp_path / "photos" / "a.png"
    tiny_config(tmp_path)
    result = run_tiny(
        tmp_path, "--optimize", str(content), "-o", str(tmp_path / "painted.png"), "--against", str(content)
    )  # fmt: skip
    assert result.exit_code == 1
    assert "iteration" not in result.output
    assert not (tmp_path / "painted.png").exists()


def test_optimisation_begins_at_the_photo_and_falls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gatys, "REPORTED_ITERATIONS", (30,))
    config = tiny_config(tmp_path, content_size_px=64)
    seen: list[float] = []
    gatys.optimize_picture(
        tmp_path / "photos" / "a.png",
        config,
        tmp_path / "painted.png",
        device="cpu",
        on_report=lambda losses: seen.append(losses.terms["total"]),
    )
    assert len(seen) == 3
    assert seen == sorted(seen, reverse=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--preflight", "-o", "sheet.pth"), "sheet.pth: this writes a picture; give a name ending in .png or .jpg"),
        (("-o", "x.jpg", "--steps", "1"), "x.jpg: a training writes a checkpoint; give a name ending in .pth"),
        (("--optimize", "nowhere.jpg", "-o", "x.png"), "nowhere.jpg: no such content picture"),
        (
            ("--preflight", "--preset", "johnson", "--network", "fast", "-o", "s.png"),
            "use --preset balanced and --style",
        ),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run_tiny(tmp_path, *arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_style_pictures_that_train_badly_are_named_before_training(tmp_path: Path) -> None:
    tiny_config(tmp_path)
    flat = np.full((300, 300, 3), 90, np.uint8)
    cv2.imwrite(str(tmp_path / "flat.png"), flat)
    result = run_tiny(tmp_path, "--style", str(tmp_path / "flat.png"), "-o", str(tmp_path / "x.pth"), "--steps", "1")
    assert "has little texture" in " ".join(result.stderr.split())
    assert torch.load(tmp_path / "x.pth", weights_only=True)["step"] == 1
