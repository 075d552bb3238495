"""Every network in every mode: trains a step, exports, is proved, and runs."""

from pathlib import Path

import numpy as np
import pytest

from helpers.training import tiny_config, write_picture
from stylize.export.onnx_from_checkpoint import export_checkpoint
from stylize.runtime import Backend, Stylizer, open_artifact
from stylize.runtime.extra_inputs import noise_picture
from stylize.train.loop import train

_OPEN_SIZE = {"network": "texture", "conditional": True}
BACKENDS = (Backend.ONNXRUNTIME, Backend.OPENVINO)


@pytest.mark.parametrize(
    "options",
    [
        {"network": "fastest"},
        {"network": "johnson", "upsampling": "deconv"},
        {"network": "texture"},
        {"network": "fast", "conditional": True},
        {"network": "reconet", "conditional": True},
        _OPEN_SIZE,
        {"network": "fast", "style_weights": (0.3, 0.7)},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_network_trains_exports_and_paints(tmp_path: Path, options: dict[str, object]) -> None:
    model, num_styles = _trained_and_exported(tmp_path, options)
    frames = np.random.default_rng(0).integers(0, 256, (2, 70, 90, 3), np.uint8)
    mixes = [None] if num_styles == 1 else [None, "other", (0.25, 0.75)]
    for mix in mixes:
        results = []
        for backend in BACKENDS:
            with Stylizer(model, backend=backend, style_mix=mix) as stylizer:
                results.append(stylizer.run(frames))
        assert results[0].shape == frames.shape
        assert results[0].std() > 1
        # OpenVINO computes in bf16 where the CPU has it.
        assert np.abs(results[0].astype(int) - results[1]).mean() < 2


def _trained_and_exported(folder: Path, options: dict[str, object]) -> tuple[Path, int]:
    style = (*tiny_config(folder).style, write_picture(folder / "other.png", seed=7))
    several = bool({"conditional", "style_weights"} & set(options))
    config = tiny_config(folder, steps=1, **({"style": style} if several else {}), **options)
    train(config, folder / "x.pth", resume=False, on_step=lambda _: None, device="cpu")
    # One case at any size, the others at one: tracing open sizes takes most of an export's time.
    size = None if options == _OPEN_SIZE else (90, 70)
    export_checkpoint(folder / "x.pth", folder / "x.onnx", size=size)
    contract = open_artifact(folder / "x.onnx").contract
    assert contract.style_names == (("style", "other") if "conditional" in options else ())
    assert contract.takes_noise == (options["network"] == "texture")
    return folder / "x.onnx", max(1, len(contract.style_names))


def test_half_precision_mixes_styles_and_takes_noise(tmp_path: Path) -> None:
    model, _ = _trained_and_exported(tmp_path, {"network": "texture", "conditional": True, "padding": "reflect"})
    export_checkpoint(tmp_path / "x.pth", tmp_path / "half.onnx", precision="fp16", size=(90, 70))
    frames = np.random.default_rng(0).integers(0, 256, (1, 70, 90, 3), np.uint8)
    results = []
    for path in (model, tmp_path / "half.onnx"):
        with Stylizer(path, backend=Backend.ONNXRUNTIME, style_mix=(0.5, 0.5), seed=3) as stylizer:
            results.append(stylizer.run(frames).astype(int))
    assert np.abs(results[0] - results[1]).mean() < 1


@pytest.mark.parametrize("padding", ["circular", "reflect"])
def test_texture_tiles_by_circular_padding(tmp_path: Path, padding: str) -> None:
    config = tiny_config(tmp_path, network="texture", mode="texture", padding=padding, steps=5, learning_rate=1e-2)
    train(config, tmp_path / "t.pth", resume=False, on_step=lambda _: None, device="cpu")
    export_checkpoint(tmp_path / "t.pth", tmp_path / "t.onnx", size=(160, 128))
    assert open_artifact(tmp_path / "t.onnx").contract.makes_textures
    noise = noise_picture(width=160, height=128, seed=7)
    moved = np.roll(noise, (32, 64), axis=(0, 1))
    with Stylizer(tmp_path / "t.onnx", backend=Backend.ONNXRUNTIME) as stylizer:
        texture, again, shifted = stylizer.run(np.stack([noise, noise, moved])).astype(float)
    assert np.array_equal(texture, again)
    difference = np.abs(np.roll(texture, (32, 64), axis=(0, 1)) - shifted)
    if padding == "reflect":
        assert difference.max() > 10
        return
    assert difference.max() <= 1  # no place is a border: rounding of sums
    for axis in (0, 1):
        steps = np.abs(np.diff(texture, axis=axis)).mean(axis=(1 - axis, 2))
        seam = np.abs(texture.take(0, axis) - texture.take(-1, axis)).mean()
        assert seam <= steps.max()  # the step over the seam is like one of those inside
