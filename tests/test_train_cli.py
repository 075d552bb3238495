"""`stylize-train` as typed."""

import dataclasses
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from helpers.training import run_tiny, tiny_config
from stylize.train.checkpoint import load_checkpoint
from stylize.train.cli import main
from stylize.train.config import TrainConfig
from stylize.train.console import _StopBetweenSteps


def _run(folder: Path, *arguments: str) -> Result:
    return run_tiny(folder, "-o", str(folder / "x.pth"), *arguments)


def test_trains_and_says_what_comes_next(tmp_path: Path) -> None:
    result = _run(tmp_path, "--steps", "2")
    assert result.exit_code == 0, result.output
    assert "step 1 (50.0%, " in result.stderr  # where no bar can be drawn, a line at once and every half minute
    assert "x.pth: fast in the style 'style' after 2 steps: content " in result.stdout
    assert f"stylize-export {tmp_path / 'x.pth'} -o {tmp_path / 'x.onnx'}" in result.stdout
    assert load_checkpoint(tmp_path / "x.pth").config["style_layers"] == ["relu1_1", "relu2_1"]


def test_existing_output_needs_a_word(tmp_path: Path) -> None:
    assert _run(tmp_path, "--steps", "1").exit_code == 0
    before = (tmp_path / "x.pth").read_bytes()
    refused = _run(tmp_path, "--steps", "1")
    assert refused.exit_code == 1
    assert "add --resume to go on with it or --overwrite to replace it" in refused.stderr
    assert (tmp_path / "x.pth").read_bytes() == before
    resumed = _run(tmp_path, "--steps", "2", "--resume")
    assert resumed.exit_code == 0
    assert "going on after step 1" in " ".join(resumed.stderr.split())
    assert load_checkpoint(tmp_path / "x.pth").step == 2
    assert _run(tmp_path, "--steps", "1", "--overwrite").exit_code == 0
    assert load_checkpoint(tmp_path / "x.pth").step == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--style", "nowhere.jpg"), "nowhere.jpg: no such style picture"),
        (("--data", "nowhere", "--loss-weights", "absent.pth"), "nowhere: no such folder or file to train on"),
        (("--loss-weights", "nowhere.pth"), "nowhere.pth: no such file with loss weights"),
        (("-o", "nowhere/x.pth"), "nowhere/x.pth: its folder does not exist"),
        (("--crop-px", "1"), "crop_px=1 must be in [64, 4096]"),
        (("--content-layer", "relu9_9"), "relu9_9 is no VGG layer: they are relu1_1 ... relu5_4"),
        (("--device", "abacus"), "device 'abacus' cannot be used here"),
        (("--norm", "frn"), "--norm is for --network reconet, which is not given: drop it"),
        (("--against", "a.pth"), "--against is for --optimize"),
        (("--resume", "--overwrite"), "--resume goes on with the output file and --overwrite replaces it"),
        (("-o", "x" * 300 + ".pth"), "x.pth: File name too long"),
        (("--optimize", "a.jpg"), "x.pth: this writes a picture; give a name ending in .png or .jpg"),
    ],
)
def test_bad_input_is_one_line_and_no_file(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    result = _run(tmp_path, "--steps", "1", *arguments)
    assert result.exit_code == 1
    errors = [line for line in result.stderr.splitlines() if "error" in line]
    assert len(errors) == 1
    assert errors[0].startswith("stylize-train: error:")
    assert message in errors[0]
    assert "Traceback" not in result.output
    assert not (tmp_path / "x.pth").exists()


def test_style_that_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "fake.jpg").write_text("words")
    result = _run(tmp_path, "--steps", "1", "--style", str(tmp_path / "fake.jpg"))
    assert result.exit_code == 1
    assert (
        result.stderr.splitlines()[-1]
        == f"stylize-train: error: {tmp_path / 'fake.jpg'}: not a picture that can be read"
    )


def test_messages_are_one_line_each_and_once(tmp_path: Path) -> None:
    tiny_config(tmp_path)
    cut = tmp_path / "photos" / "cut.png"
    cut.write_bytes((tmp_path / "photos" / "a.png").read_bytes()[:500])
    result = _run(tmp_path, "--steps", "3")
    assert result.exit_code == 0
    said = [line for line in result.stderr.splitlines() if "cut.png" in line]
    assert said == [f"stylize-train: warning: skipped: {cut}: not a picture that can be read"]


def test_ctrl_c_stops_at_once_before_the_first_step_and_between_two_after_it() -> None:
    with _StopBetweenSteps() as stop:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        stop.between_steps()
        signal.raise_signal(signal.SIGTERM)  # within a step
        with pytest.raises(KeyboardInterrupt):
            stop.between_steps()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_every_setting_is_a_flag_with_help() -> None:
    text = "".join(CliRunner().invoke(main, ["--help"]).output.split())  # lines break at hyphens too
    for field in dataclasses.fields(TrainConfig):
        assert f"--{field.name.replace('_', '-')}" in text
        assert "".join(field.metadata["help"].split()) in text
