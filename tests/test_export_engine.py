"""Engines: TensorRT-RTX really builds every network, for every target and shape mode, on a machine without a GPU."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from helpers.exported import NETWORKS, exported_network
from helpers.networks import write_affine, write_convolutions
from stylize.export.adopt import adopted_graph
from stylize.export.cli import main
from stylize.export.onnx_from_network import seal_contract
from stylize.export.onnx_from_onnx import onnx_from_onnx
from stylize.export.plan_from_onnx import PlanOptions, plan_from_onnx
from stylize.export.precision import half_from_float
from stylize.export.rewrite import rewrite
from stylize.runtime import Artifact, Backend, ModelContract, Stylizer, open_artifact
from stylize.runtime.engine_from_onnx import BuildOptions, engine_from_onnx
from stylize.runtime.errors import BackendUnavailableError, EngineBuildError, OptionError
from stylize.runtime.gpu import Gpu
from stylize.runtime.plan import EngineProfile

trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")

DYNAMIC = EngineProfile(
    min=(1, 3, 64, 64), opt=(1, 3, 360, 640), max=(1, 3, 1080, 1920)
)  # multiples of 8, as `fastest` wants
STATIC = EngineProfile(min=(1, 3, 360, 640), opt=(1, 3, 360, 640), max=(1, 3, 360, 640))
TARGETS = ("8.6", "8.9", "12.0")


def contract(network: str = "test", **changes: object) -> ModelContract:
    return ModelContract(**({"network": network, "style": network, "size_multiple": 4} | changes))  # type: ignore[arg-type]


def build(model: onnx.ModelProto, profile: EngineProfile, *targets: str, name: str = "") -> bytes:
    options = BuildOptions(profile=profile, compute_capabilities=targets or TARGETS)
    data = model.SerializeToString()
    return engine_from_onnx(data, builder="tensorrt_rtx", options=options, gpu=None, name=name).data


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_convolutions(tmp_path / "small.onnx")


@pytest.mark.parametrize("profile", [DYNAMIC, STATIC], ids=["dynamic", "static"])
@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_builds_in_half_precision(network: str, profile: EngineProfile) -> None:
    promise = contract(network)
    model = adopted_graph(exported_network(network), promise, fixed_size=(640, 360) if profile.is_static else None)
    half = half_from_float(rewrite(model)[0])
    engine = build(half, profile, name=promise.to_json())
    weights = sum(np.prod(tensor.dims) for tensor in half.graph.initializer if tensor.data_type == TensorProto.FLOAT16)
    assert len(engine) > 2 * weights  # they are inside, in half precision at least
    assert promise.to_json().encode() in engine


@pytest.mark.parametrize("target", ["7.5", "8.0", "12.1"])
def test_each_other_target_builds_too(target: str, small: Path) -> None:
    assert build(onnx.load(small), DYNAMIC, target)[:4] == b"vtrt"


def foreign(path: Path, *, opset: int) -> Path:
    """A 0..255 network as old exporters write it: transposed convolution, Upsample or Resize, names of its own."""
    rng = np.random.default_rng(0)
    weights = {
        "first": rng.normal(0, 0.2 / 255, (8, 3, 3, 3)),
        "up": rng.normal(0, 0.2, (8, 4, 3, 3)),
        "last": rng.normal(0, 20, (3, 4, 3, 3)),
        "bias": np.full(3, 120.0),
        "one": np.ones(8),
        "zero": np.zeros(8),
    }
    nodes = [
        helper.make_node("Conv", ["in", "first"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("InstanceNormalization", ["a", "one", "zero"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("ConvTranspose", ["c", "up"], ["d"], strides=[2, 2], pads=[1] * 4, output_padding=[1, 1]),
        helper.make_node("Conv", ["d", "last", "bias"], ["out"], pads=[1, 1, 1, 1]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 3, "h", "w")) for name in ("in", "out")]
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    body = helper.make_graph(nodes, "old", ends[:1], ends[1:], tensors)
    onnx.save(helper.make_model(body, opset_imports=[helper.make_opsetid("", opset)], ir_version=4), path)
    return path


@pytest.mark.parametrize("opset", [9, 11, 18])
def test_foreign_model_becomes_one_of_our_own(opset: int, tmp_path: Path) -> None:
    path = foreign(tmp_path / "old.onnx", opset=opset)
    proven = onnx_from_onnx(open_artifact(path, input_range=(0, 255)), precision="fp16")
    assert (proven.rewrites.transposed_convs, proven.rewrites.folded_scales) == (1, 1)
    assert min(result.psnr_db for result in proven.results) >= 45
    assert (proven.contract.input_name, proven.contract.value_range) == ("frame", (0.0, 1.0))
    assert build(onnx.load_from_string(proven.data), DYNAMIC, "8.9")


def test_command_adopts_a_foreign_model(tmp_path: Path) -> None:
    path = foreign(tmp_path / "old.onnx", opset=11)
    result = CliRunner().invoke(main, [str(path), "--input-range", "0..255", "-o", str(tmp_path / "new.onnx")])
    assert result.exit_code == 0, result.output
    assert "rewritten: 1 transposed convs, 1 folded scales" in result.stdout
    over_itself = CliRunner().invoke(main, [str(path), "--input-range", "0..255", "-o", str(path)])
    assert "old.onnx is the model itself: name another file" in over_itself.stderr
    frames = np.random.default_rng(0).integers(0, 256, (1, 48, 64, 3), np.uint8)
    results = []
    for artifact in (open_artifact(path, input_range=(0, 255)), open_artifact(tmp_path / "new.onnx")):
        with Stylizer(artifact, backend=Backend.ONNXRUNTIME) as stylizer:
            results.append(stylizer.run(frames).astype(int))
    assert np.abs(results[0] - results[1]).max() <= 1  # a rounding turned by the last bit of float32


def test_graph_that_breaks_the_rules_is_one_line(small: Path, tmp_path: Path) -> None:
    model = onnx.load(small)
    model.graph.node[0].attribute.append(helper.make_attribute("colour", "red"))
    (tmp_path / "broken.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(EngineBuildError, match=r"broken\.onnx: its graph breaks ONNX's own rules: .*colour"):
        onnx_from_onnx(open_artifact(tmp_path / "broken.onnx"), precision="fp32")


def test_int8_is_left_as_it_is(small: Path, tmp_path: Path) -> None:
    model = onnx.load(small)
    sealed = seal_contract(model, dataclasses.replace(contract(), size_multiple=2, float_layers=("first",)))
    (tmp_path / "int8.onnx").write_bytes(sealed)
    artifact = open_artifact(tmp_path / "int8.onnx")
    proven = onnx_from_onnx(artifact, precision="fp32")
    assert onnx.load_from_string(proven.data).graph == artifact_graph(artifact)
    assert proven.contract.is_int8


def artifact_graph(artifact: Artifact) -> onnx.GraphProto:
    return onnx.load(artifact.path).graph


def test_no_rewrite_leaves_the_graph(tmp_path: Path) -> None:
    path = foreign(tmp_path / "old.onnx", opset=18)
    proven = onnx_from_onnx(open_artifact(path, input_range=(0, 255)), precision="fp32", has_rewrites=False)
    assert not proven.rewrites.transposed_convs
    assert "ConvTranspose" in {node.op_type for node in onnx.load_from_string(proven.data).graph.node}


def test_channels_last_is_adopted(tmp_path: Path) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 48, 64, 3)) for name in ("in", "out")]
    body = helper.make_graph([helper.make_node("Identity", ["in"], ["out"])], "identity", ends[:1], ends[1:])
    onnx.save(helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "x.onnx")
    proven = onnx_from_onnx(open_artifact(tmp_path / "x.onnx", input_range=(-1, 1)), precision="fp32")
    assert (proven.contract.layout, proven.contract.fixed_size) == ("NCHW", (64, 48))
    assert min(result.psnr_db for result in proven.results) > 120


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trt", "fp16", "--rtx", "--calibration", "."], "int8 and --calibration DIR need each other"),
        (["--trt", "int8", "--rtx"], "int8 and --calibration DIR need each other"),
        (["--trt", "fp16", "--rtx", "--target", "9.0"], "does not build for compute capability 9.0: choose of 7.5,"),
        (["--trt", "fp16", "--rtx", "--target", "sm_89"], "does not build for compute capability sm_89"),
        (["--trt", "fp16", "--target", "8.9"], "--target is TensorRT-RTX's"),
        (["--trt", "fp16", "--rtx", "--portable"], "--portable is TensorRT's"),
        (["--trt", "fp16", "--rtx", "--min", "640x360", "--max", "320x180"], "no side may exceed that of the next"),
        (["--trt", "fp16", "--rtx", "--static", "64x64", "--max", "320x180"], "choose one of the two"),
        (["--trt", "fp16", "--fp16"], "--fp16 is for an ONNX file: --trt says the precision"),
        (["--static", "64x64"], "--static is for engines: it needs --trt"),
        (["--raw"], "--raw is for engines: it needs --trt"),
        (["--input-range", "0..255"], "--input-range is for models without a contract"),
    ],
)
def test_what_cannot_be_built_is_one_line(arguments: list[str], message: str, small: Path, tmp_path: Path) -> None:
    target = tmp_path / ("x.plan" if "--trt" in arguments else "x.onnx")
    result = CliRunner().invoke(main, [str(small), "-o", str(target), *arguments])
    assert result.exit_code == 1, result.output
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["small.onnx"]


@pytest.mark.parametrize(("module", "extra"), [("tensorrt", "trt"), ("tensorrt_rtx", "rtx")])
def test_missing_builder_is_one_line(
    module: str, extra: str, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    options = ["--rtx"] if extra == "rtx" else []
    result = CliRunner().invoke(main, [str(small), "--trt", "fp16", *options, "-o", str(tmp_path / "x.plan")])
    assert result.exit_code == 1
    assert f"{module} is not installed: pip install 'stylize[{extra}]'" in result.stderr


def test_tensorrt_without_a_gpu_names_the_way_out(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setattr("stylize.runtime.gpu._LIBRARY", "libno-such-driver.so")
    with pytest.raises(BackendUnavailableError, match=r"no NVIDIA driver .*--rtx builds for RTX cards on any machine"):
        plan_from_onnx(open_artifact(small), tmp_path / "x.plan", options=PlanOptions(builder="tensorrt"))


def test_old_tensorrt_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", trt)  # 1.7 in its place
    gpu = Gpu(index=0, name="NVIDIA A10", compute_capability="8.6")
    with pytest.raises(OptionError, match=r"TensorRT 1\.7.* is too old: 10\.12 or later is needed"):
        engine_from_onnx(b"", builder="tensorrt", options=BuildOptions(profile=STATIC), gpu=gpu)


def test_parser_errors_are_all_named_in_one_line(small: Path) -> None:
    model = onnx.load(small)
    for node in model.graph.node:
        if node.op_type in ("Relu", "Sigmoid"):
            node.op_type = f"My{node.op_type}"
            node.name = f"the_{node.op_type}"
    with pytest.raises(
        EngineBuildError, match=r"in 2 places: MyRelu the_MyRelu: .*; MySigmoid the_MySigmoid: "
    ) as error:
        build(model, DYNAMIC, "8.9")
    assert "\n" not in str(error.value)


def test_damaged_onnx_is_one_line(small: Path) -> None:
    options = BuildOptions(profile=DYNAMIC, compute_capabilities=("8.9",))
    with pytest.raises(EngineBuildError, match="TensorRT's parser refuses the model"):
        engine_from_onnx(small.read_bytes()[:-900], builder="tensorrt_rtx", options=options, gpu=None)


@pytest.mark.parametrize(
    ("shape", "profile"), [((1, 3, 64, 64), DYNAMIC), ((1, 3, 64, 64), STATIC), (("N", 4, "H", "W"), DYNAMIC)]
)
def test_profile_that_the_graph_does_not_take(shape: tuple[int | str, ...], profile: EngineProfile) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("frame", "stylized")]
    body = helper.make_graph([helper.make_node("Relu", ["frame"], ["stylized"])], "relu", ends[:1], ends[1:])
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    with pytest.raises(OptionError, match="the model takes pictures of shape"):
        build(model, profile, "8.9")


def test_interrupted_build_ends(small: Path) -> None:
    calls: list[str] = []

    def interrupt(phase: str, _fraction: float) -> None:
        calls.append(phase)
        raise KeyboardInterrupt

    options = BuildOptions(profile=DYNAMIC, compute_capabilities=("8.9",))
    with pytest.raises(KeyboardInterrupt):
        engine_from_onnx(small.read_bytes(), builder="tensorrt_rtx", options=options, gpu=None, on_progress=interrupt)
    assert len(calls) == 1


@pytest.mark.parametrize(("makes_textures", "ends"), [(False, "in.mp4 out.mp4"), (True, "noise: out.png")])
def test_next_step_is_one_that_works(makes_textures: bool, ends: str, tmp_path: Path) -> None:
    contract = ModelContract(network="affine", style="x", size_multiple=1, makes_textures=makes_textures)
    model, target = write_affine(tmp_path / "m.onnx", contract=contract), tmp_path / "new.onnx"
    result = CliRunner().invoke(main, [str(model), "-o", str(target)])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == f"next: stylize-run {target} {ends}"
