"""The way back: a checkpoint from an exported model."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from helpers.networks import write_convolutions
from helpers.training import tiny_config, write_picture
from stylize.export.checkpoint_from_onnx import checkpoint_from_onnx
from stylize.export.cli import main
from stylize.export.onnx_from_checkpoint import export_checkpoint
from stylize.runtime import open_artifact
from stylize.runtime.errors import ArtifactError
from stylize.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from stylize.train.loop import train


def _train(folder: Path, **changes: object) -> Checkpoint:
    config = tiny_config(folder, steps=1, **changes)
    return train(config, folder / "a.pth", resume=False, on_step=lambda _: None, device="cpu")


@pytest.mark.parametrize("network", ["fast", "fastest", "reconet"])
def test_exported_weights_come_back(tmp_path: Path, network: str) -> None:
    trained = _train(tmp_path, network=network)
    export_checkpoint(tmp_path / "a.pth", tmp_path / "a.onnx")
    restored = checkpoint_from_onnx(open_artifact(tmp_path / "a.onnx"))
    assert (restored.network, restored.options) == (trained.network, trained.options)
    assert restored.style_sha256 == trained.style_sha256
    assert restored.weights.keys() == trained.weights.keys()
    for name, weight in trained.weights.items():  # least squares in float64, stored in float32
        torch.testing.assert_close(restored.weights[name], weight, rtol=0, atol=1e-6, msg=name)


def test_half_precision_comes_back_rounded(tmp_path: Path) -> None:
    trained = _train(tmp_path)
    export_checkpoint(tmp_path / "a.pth", tmp_path / "a.onnx", precision="fp16")
    recovered = checkpoint_from_onnx(open_artifact(tmp_path / "a.onnx"))
    for name, weight in trained.weights.items():
        torch.testing.assert_close(recovered.weights[name], weight, rtol=2**-10, atol=1e-3, msg=name)


def test_several_styles_come_back_with_their_names(tmp_path: Path) -> None:
    styles = (write_picture(tmp_path / "red.png", seed=3), write_picture(tmp_path / "blue.png", seed=4))
    _train(tmp_path, style=styles, conditional=True)
    export_checkpoint(tmp_path / "a.pth", tmp_path / "a.onnx")
    save_checkpoint(checkpoint_from_onnx(open_artifact(tmp_path / "a.onnx")), tmp_path / "b.pth")
    export_checkpoint(tmp_path / "b.pth", tmp_path / "b.onnx")
    assert open_artifact(tmp_path / "b.onnx").contract.style_names == ("red", "blue")


def test_what_came_back_starts_a_training_and_resumes_none(tmp_path: Path) -> None:
    _train(tmp_path)
    export_checkpoint(tmp_path / "a.pth", tmp_path / "a.onnx")
    save_checkpoint(checkpoint_from_onnx(open_artifact(tmp_path / "a.onnx")), tmp_path / "b.pth")
    with pytest.raises(ValueError, match="holds weights alone: give it as --start-from"):
        train(tiny_config(tmp_path), tmp_path / "b.pth", resume=True, on_step=lambda _: None, device="cpu")


def test_training_goes_on_from_a_builtin_style(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["starry-night", "-o", str(tmp_path / "starry.pth")])
    assert result.exit_code == 0, result.output
    config = tiny_config(tmp_path, steps=1, width=48, start_from=tmp_path / "starry.pth", learning_rate=1e-8)
    after = train(config, tmp_path / "b.pth", resume=False, on_step=lambda _: None, device="cpu")
    for name, weight in load_checkpoint(tmp_path / "starry.pth").weights.items():
        torch.testing.assert_close(after.weights[name], weight, rtol=0, atol=1e-6, msg=name)


def test_rejects_a_foreign_model(tmp_path: Path) -> None:
    write_convolutions(tmp_path / "foreign.onnx")
    with pytest.raises(ArtifactError, match=r"foreign\.onnx.*'convolutions'.*only of what stylize-export wrote"):
        checkpoint_from_onnx(open_artifact(tmp_path / "foreign.onnx"))


def test_never_replaces_a_checkpoint_nor_drops_an_option(tmp_path: Path) -> None:
    target = tmp_path / "a.pth"
    result = CliRunner().invoke(main, ["starry-night", "--fp16", "-o", str(target)])
    assert result.exit_code == 1 and "fp16 was given: drop it" in result.output
    target.write_bytes(b"hours of training")
    result = CliRunner().invoke(main, ["starry-night", "-o", str(target)])
    assert result.exit_code == 1 and "exists; choose another name" in result.output
    assert target.read_bytes() == b"hours of training"
