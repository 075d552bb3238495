"""Networks in their modes, from training to painting and to engines: what a mode changes about the graph is proved."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from helpers.training import tiny_config, write_picture
from stylize.export.adopt import adopted_graph
from stylize.export.onnx_from_checkpoint import export_checkpoint
from stylize.export.plan_from_onnx import PlanOptions, plan_from_onnx
from stylize.export.precision import half_from_float
from stylize.export.rewrite import rewrite
from stylize.runtime import Backend, ComputePrecision, Stylizer, noise_picture, open_artifact
from stylize.runtime.engine_from_onnx import BuildOptions, engine_from_onnx
from stylize.runtime.plan import EngineProfile
from stylize.train.loop import train

BACKENDS = (Backend.ONNXRUNTIME, Backend.OPENVINO)
SIZE = (90, 70)
TARGETS = ("8.6", "8.9", "12.0")


@pytest.fixture(autouse=True)
def _few_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports are proven on one small frame here; on which ones else is proven for each network elsewhere."""

    def frames(size: tuple[int, int] | None) -> dict[str, np.ndarray]:
        width, height = size or SIZE
        return {"noise": np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)}

    for module in ("onnx_from_checkpoint", "onnx_from_onnx"):
        monkeypatch.setattr(f"stylize.export.{module}.verification_frames", frames)


def _exported(folder: Path, *, size: tuple[int, int] | None = None, **options: Any) -> Path:  # noqa: ANN401 - of a config
    """A model after a step or a few of training."""
    style = tiny_config(folder).style
    if options.get("conditional"):
        style = (*style, write_picture(folder / "other.png", seed=7))
    config = tiny_config(folder, **({"steps": 1, "style": style} | options))
    train(config, folder / "x.pth", resume=False, on_step=lambda _: None, device="cpu")
    export_checkpoint(folder / "x.pth", folder / "x.onnx", size=size)
    return folder / "x.onnx"


def _check_engines(model: Path) -> None:
    """TensorRT-RTX builds the model in half precision, of open size where it has one and of one, for three cards."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    artifact = open_artifact(model)
    if artifact.contract.fixed_size is None:
        typed = half_from_float(rewrite(adopted_graph(onnx.load(model), artifact.contract, fixed_size=None))[0])
        profile = EngineProfile(min=(1, 3, 64, 64), opt=(1, 3, 384, 640), max=(1, 3, 1088, 1920))
        engine = engine_from_onnx(
            typed.SerializeToString(),
            builder="tensorrt_rtx",
            options=BuildOptions(profile=profile, compute_capabilities=TARGETS),
            gpu=None,
        )
        assert engine.data[:4] == b"vtrt"
    options = PlanOptions(builder="tensorrt_rtx", static=artifact.contract.fixed_size or SIZE, targets=TARGETS)
    plan_from_onnx(artifact, model.with_suffix(".plan"), options=options)
    plan = open_artifact(model.with_suffix(".plan")).plan
    assert plan is not None
    header = plan.header
    assert (header.compute_capabilities, header.profile.is_static) == (TARGETS, True)
    for name in ("network", "style_names", "takes_noise", "makes_textures"):
        assert getattr(header.contract, name) == getattr(artifact.contract, name)
    assert header.verification["onnx"]["min_psnr_db"] > 45
    assert plan.read_engine()[:4] == b"vtrt"


@pytest.mark.parametrize(
    "options",
    [
        {"network": "johnson", "upsampling": "deconv", "size": SIZE},  # its engines are in test_export_engine.py
        {"network": "fast", "conditional": True},
        {"network": "texture", "conditional": True, "size": (96, 64)},  # of open size it is traced for a minute
    ],
    ids=["johnson-deconv", "fast-conditional", "texture-conditional"],
)
def test_network_trains_exports_paints_and_builds(tmp_path: Path, options: dict[str, Any]) -> None:
    model = _exported(tmp_path, **options)
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
        assert np.abs(results[0].astype(int) - results[1]).max() <= 2
    if is_conditional:
        _check_engines(model)


def test_texture_tiles_at_any_size_and_is_the_same_again(tmp_path: Path) -> None:
    model = _exported(tmp_path, network="texture", mode="texture", steps=5, learning_rate=1e-2)
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
