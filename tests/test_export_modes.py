"""Networks in their modes, from training to painting; what a mode changes about the graph is proved on each."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.training import tiny_config, write_picture
from stylize.export.onnx_from_checkpoint import export_checkpoint
from stylize.runtime import Backend, ComputePrecision, Stylizer, noise_picture, open_artifact
from stylize.train.loop import train

BACKENDS = (Backend.ONNXRUNTIME, Backend.OPENVINO)
SIZE = (90, 70)  # tracing open sizes takes most of an export's time


def _exported(folder: Path, export: dict[str, Any], **options: Any) -> Path:  # noqa: ANN401 - of a config
    """A model after a step or a few of training."""
    style = tiny_config(folder).style
    if options.get("conditional"):
        style = (*style, write_picture(folder / "other.png", seed=7))
    config = tiny_config(folder, **({"steps": 1, "style": style} | options))
    train(config, folder / "x.pth", resume=False, on_step=lambda _: None, device="cpu")
    export_checkpoint(folder / "x.pth", folder / "x.onnx", **export)
    return folder / "x.onnx"


@pytest.mark.parametrize(
    ("options", "export"),
    [
        ({"network": "johnson", "upsampling": "deconv"}, {"size": SIZE}),
        ({"network": "fast", "conditional": True}, {}),
        ({"network": "texture", "conditional": True}, {"size": SIZE, "precision": "fp16"}),
    ],
    ids=["johnson-deconv", "fast-conditional", "texture-conditional-fp16"],
)
def test_network_trains_exports_and_paints(tmp_path: Path, options: dict[str, Any], export: dict[str, Any]) -> None:
    model = _exported(tmp_path, export, **options)
    contract = open_artifact(model).contract
    is_conditional = "conditional" in options
    assert contract.style_names == (("style", "other") if is_conditional else ())
    assert contract.takes_noise == (options["network"] == "texture")
    frames = np.random.default_rng(0).integers(0, 256, (2, 70, 90, 3), np.uint8)
    for mix in (None, "other", (0.25, 0.75)) if is_conditional else (None,):
        results = []
        for backend in BACKENDS:
            with Stylizer(model, backend=backend, style_mix=mix, precision=ComputePrecision.FP32) as stylizer:
                results.append(stylizer.run(frames))
        assert results[0].shape == frames.shape
        assert results[0].std() > 1
        # ONNX Runtime computes half-precision files in half precision, OpenVINO in float32.
        assert np.abs(results[0].astype(int) - results[1]).mean() < 1


def test_texture_tiles_at_any_size_and_is_the_same_again(tmp_path: Path) -> None:
    model = _exported(tmp_path, {}, network="texture", mode="texture", steps=5, learning_rate=1e-2)
    assert open_artifact(model).contract.makes_textures
    noise = noise_picture(width=160, height=128, seed=7)
    moved = np.roll(noise, (32, 64), axis=(0, 1))
    with Stylizer(model, backend=Backend.ONNXRUNTIME) as stylizer:
        texture, again, shifted = stylizer.run(np.stack([noise, noise, moved])).astype(float)
        assert stylizer.run(noise_picture(width=75, height=40, seed=0)[None]).shape == (1, 40, 75, 3)
    assert np.array_equal(texture, again)
    # No place is a border: all but the rounding of sums moves with the noise.
    assert np.abs(np.roll(texture, (32, 64), axis=(0, 1)) - shifted).max() <= 1
    for axis in (0, 1):
        steps = np.abs(np.diff(texture, axis=axis)).mean(axis=(1 - axis, 2))
        seam = np.abs(texture.take(0, axis) - texture.take(-1, axis)).mean()
        assert seam <= steps.max()  # the step over the seam is like one of those inside
