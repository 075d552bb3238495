"""Plans: what `plan_from_onnx` writes is what was built and proven, and it says what was not."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, numpy_helper

from helpers.networks import write_colors, write_convolutions
from stylize.export.cli import main
from stylize.export.onnx_from_network import seal_contract
from stylize.export.plan_from_onnx import PlanOptions, engine_profile, plan_from_onnx
from stylize.runtime import Backend, ModelContract, Stylizer, open_artifact
from stylize.runtime.gpu import Gpu
from stylize.runtime.plan import EngineProfile, is_bare_engine

trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")

TARGETS = ("8.6", "8.9", "12.0")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_convolutions(tmp_path / "small.onnx")


def test_plan_holds_what_was_built_and_proven(small: Path, tmp_path: Path) -> None:
    phases: list[tuple[str, float]] = []
    exported = plan_from_onnx(
        open_artifact(small),
        tmp_path / "small.plan",
        options=PlanOptions(builder="tensorrt_rtx", targets=("8.9",), sizes=((64, 64), (320, 180), (641, 361))),
        on_progress=lambda phase, fraction: phases.append((phase, fraction)),
    )
    artifact = open_artifact(tmp_path / "small.plan")
    assert artifact.plan is not None
    header = artifact.plan.header
    assert header == exported.header
    assert (header.builder, header.builder_version, header.gpu) == ("tensorrt_rtx", trt.__version__, "")
    assert (header.compute_capabilities, header.precision) == (("8.9",), "fp16")
    # The sizes of frames as the runtime pads them to this model's multiple of 2.
    assert header.profile == EngineProfile(min=(1, 3, 64, 64), opt=(1, 3, 180, 320), max=(1, 3, 362, 642))
    assert artifact.contract.precision == "fp16"
    assert 45 <= header.verification["onnx"]["min_psnr_db"] < 100
    assert artifact.plan.read_engine()[:4] == b"vtrt"
    fractions = [fraction for _, fraction in phases]
    assert fractions == sorted(fractions)
    assert 0.5 < fractions[-1] <= 1


def test_unproven_engine_is_said_to_be(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stylize.runtime.gpu._LIBRARY", "libno-such-driver.so")
    arguments = [str(small), "--trt", "fp16", "--rtx", "--target", "8.9", "-o", str(tmp_path / "small.plan")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert (
        "proven: the typed ONNX, on the CPU; not proven: the engine, since this machine has no NVIDIA" in result.stdout
    )
    plan = open_artifact(tmp_path / "small.plan").plan
    assert plan is not None
    assert set(plan.header.verification) == {"onnx"}


def test_engine_that_does_not_fit_this_gpu_is_not_run(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = Gpu(index=0, name="NVIDIA H200", compute_capability="9.0")
    monkeypatch.setattr("stylize.export.plan_from_onnx.find_gpu", lambda: gpu)
    options = PlanOptions(builder="tensorrt_rtx", targets=("8.9",))
    exported = plan_from_onnx(open_artifact(small), tmp_path / "x.plan", options=options)
    assert exported.not_proven == "built for compute capability 8.9, NVIDIA H200 has 9.0"
    assert not exported.engine_results


def test_onnx_inside_paints_what_the_given_one_paints(small: Path, tmp_path: Path) -> None:
    plan_from_onnx(
        open_artifact(small), tmp_path / "x.plan", options=PlanOptions(builder="tensorrt_rtx", static=(63, 48))
    )
    assert open_artifact(tmp_path / "x.plan").contract.fixed_size == (64, 48)
    frames = np.random.default_rng(0).integers(0, 256, (1, 48, 64, 3), np.uint8)
    results = []
    for model in (small, tmp_path / "x.plan"):
        with Stylizer(model, backend=Backend.ONNXRUNTIME) as stylizer:
            results.append(stylizer.run(frames).astype(int))
    # Half precision is 1/2048 of a value: it can turn a rounding, not more.
    assert np.abs(results[0] - results[1]).max() <= 1


def test_raw_engine_carries_its_contract_in_its_name(small: Path, tmp_path: Path) -> None:
    path = tmp_path / "raw.plan"
    exported = plan_from_onnx(open_artifact(small), path, options=PlanOptions(builder="tensorrt_rtx", is_raw=True))
    assert is_bare_engine(path)
    assert open_artifact(path).is_bare_engine
    assert exported.header.contract.to_json().encode() in path.read_bytes()


@pytest.mark.parametrize("static", [None, (64, 48)], ids=["dynamic", "static"])
@pytest.mark.parametrize(
    "kind", [{"style_names": ("red", "green", "blue")}, {"takes_noise": True}], ids=["mix", "noise"]
)
def test_model_with_more_than_one_input_becomes_a_plan(
    kind: dict[str, Any], static: tuple[int, int] | None, tmp_path: Path
) -> None:
    model = write_colors(tmp_path / "colors.onnx", **kind)
    options = PlanOptions(
        builder="tensorrt_rtx", static=static, sizes=((64, 64), (64, 64), (640, 400)), targets=TARGETS
    )
    plan_from_onnx(open_artifact(model), tmp_path / "colors.plan", options=options)
    artifact = open_artifact(tmp_path / "colors.plan")
    assert artifact.plan is not None
    header = artifact.plan.header
    assert {name: getattr(header.contract, name) for name in kind} == kind
    assert header.profile.is_static == (static is not None)
    assert (header.compute_capabilities, header.precision) == (TARGETS, "fp16")
    assert artifact.plan.read_engine()[:4] == b"vtrt"
    inputs = {
        tensor.name: tensor.type.tensor_type for tensor in onnx.load_from_string(artifact.plan.read_onnx()).graph.input
    }
    # Pictures are in half precision, shares are not.
    wanted = {"frame": TensorProto.FLOAT16} | (
        {"noise": TensorProto.FLOAT16} if "takes_noise" in kind else {"style_weights": TensorProto.FLOAT}
    )
    assert {name: tensor.elem_type for name, tensor in inputs.items()} == wanted
    frames = np.zeros((1, 48, 64, 3), np.uint8)
    pictures = []
    for path in (model, tmp_path / "colors.plan"):
        mix = "0.25,0.75,0" if "style_names" in kind else None
        with Stylizer(path, backend=Backend.ONNXRUNTIME, style_mix=mix) as stylizer:
            pictures.append(stylizer.run(frames).astype(int))
    assert np.abs(pictures[0] - pictures[1]).max() <= 1  # half precision turns a rounding
    assert pictures[0].max() > 100


def test_float32_stays_float32(small: Path, tmp_path: Path) -> None:
    options = PlanOptions(builder="tensorrt_rtx", precision="fp32", targets=("8.9",))
    exported = plan_from_onnx(open_artifact(small), tmp_path / "x.plan", options=options)
    assert (exported.header.precision, exported.header.contract.precision) == ("fp32", "fp32")
    assert exported.header.verification["onnx"]["min_psnr_db"] > 100


def test_plan_is_made_anew_from_the_onnx_in_a_plan(small: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.plan", tmp_path / "second.plan"
    plan_from_onnx(open_artifact(small), first, options=PlanOptions(builder="tensorrt_rtx", targets=("8.9",)))
    options = PlanOptions(builder="tensorrt_rtx", targets=("12.0",))
    exported = plan_from_onnx(open_artifact(first), second, options=options)
    assert exported.header.compute_capabilities == ("12.0",)
    assert exported.header.contract.hashes == open_artifact(first).contract.hashes


def test_engine_that_paints_something_else_is_refused(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine whose GPU fits; the runner in its place paints by another model."""
    wrong = write_convolutions(tmp_path / "wrong.onnx")
    model = onnx.load(wrong)
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.zeros((3, 16, 3, 3), np.float32), "second"))
    wrong.write_bytes(seal_contract(model, ModelContract(network="wrong", style="wrong", size_multiple=2)))
    gpu = Gpu(index=0, name="NVIDIA L4", compute_capability="8.9")
    monkeypatch.setattr("stylize.export.plan_from_onnx.find_gpu", lambda: gpu)

    class WrongStylizer(Stylizer):
        def __init__(self, model: object, *, backend: Backend = Backend.AUTO, style_mix: None = None) -> None:
            super().__init__(wrong if backend == Backend.AUTO else model, backend=Backend.ONNXRUNTIME)  # type: ignore[arg-type]

    monkeypatch.setattr("stylize.export.verify_onnx.Stylizer", WrongStylizer)
    with pytest.raises(ValueError, match=r"PSNR .* dB \(at least 45\); nothing was written"):
        plan_from_onnx(
            open_artifact(small), tmp_path / "x.plan", options=PlanOptions(builder="tensorrt_rtx", targets=("8.9",))
        )
    assert not (tmp_path / "x.plan").exists()


def test_frame_sizes_are_padded_to_the_models_multiple() -> None:
    options = PlanOptions(builder="tensorrt_rtx", sizes=((1, 1), (1280, 720), (1921, 1080)))
    profile = engine_profile(ModelContract(network="x", style="x", size_multiple=16), options)
    # 32 is the least the runtime hands to a network.
    assert profile == EngineProfile(min=(1, 3, 32, 32), opt=(1, 3, 720, 1280), max=(1, 3, 1088, 1936))
