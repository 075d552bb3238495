"""int8 export: what becomes integers, what it costs, and that too much is refused."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from onnx import TensorProto, numpy_helper

from helpers.training import tiny_config, write_picture
from stylize.export import quantize as quantize_module
from stylize.export.cli import main
from stylize.export.quantize import Int8Floor, Int8Model, Int8Quality, quantize, quantize_file
from stylize.runtime import Backend, Stylizer, open_artifact
from stylize.runtime.artifact import builtin_styles
from stylize.train.data import FramePairs, open_data
from stylize.train.frame_pair import FramePair, Window
from stylize.train.loop import train

FREE = Int8Floor(psnr_db=0, max_restlessness=99)
"""Met by integers wherever they can be."""


@pytest.fixture(scope="module")
def float_model() -> onnx.ModelProto:
    return onnx.load(builtin_styles()[0].path)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[FramePair]:
    folder = tmp_path_factory.mktemp("photos")
    write_picture(folder / "a.png")
    drawn = FramePairs(open_data([str(folder)], Window(crop_px=64)), num_pairs=6, seed=0)
    return [drawn[number] for number in range(6)]


@pytest.fixture(scope="module")
def everything(float_model: onnx.ModelProto, pairs: list[FramePair]) -> Int8Model:
    """All in integers that can be, tried on the last two pairs."""
    return quantize(float_model, calibration=pairs[:4], trial=pairs[4:], floor=FREE)


@pytest.fixture(autouse=True)
def _few_small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize_module, "_CROP_PX", 64)
    monkeypatch.setattr(quantize_module, "_NUM_CALIBRATION_PAIRS", 4)
    monkeypatch.setattr(quantize_module, "_NUM_TRIAL_PAIRS", 2)


def integer_layers(model: onnx.ModelProto) -> list[str]:
    suffix = ".weight_quantized"
    return [tensor.name.removesuffix(suffix) for tensor in model.graph.initializer if tensor.name.endswith(suffix)]


def run(model: onnx.ModelProto, frame: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"frame": frame})[0])


def psnr_db(first: np.ndarray, second: np.ndarray) -> float:
    return float(-10 * np.log10(np.square(first - second, dtype=np.float64).mean()))


def test_foreign_model_is_adopted_first(float_model: onnx.ModelProto, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    write_picture(tmp_path / "photos" / "a.png")
    foreign = onnx.ModelProto()
    foreign.CopyFrom(float_model)
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    target = tmp_path / "int8.onnx"
    command = [str(tmp_path / "foreign.onnx"), "--int8", "--calibration", str(tmp_path / "photos"), "-o", str(target)]
    refused = CliRunner().invoke(main, command)
    assert "say --input-range 0..255" in refused.stderr
    result = CliRunner().invoke(main, [*command, "--input-range", "0..1"])
    assert result.exit_code == 0, result.output
    contract = open_artifact(target).contract
    assert contract.is_int8
    assert contract.style == "foreign"
    assert contract.verification["min_psnr_db"] > 60  # of the adopted model against the foreign one


def test_command_writes_a_model_that_runs_in_int8_on_every_backend(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, steps=1)
    train(config, tmp_path / "tiny.pth", resume=False, on_step=lambda _: None, device="cpu")
    target = tmp_path / "int8.onnx"
    command = [str(tmp_path / "tiny.pth"), "--int8", "--calibration", str(tmp_path / "photos"), "-o", str(target)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert "int8 against float on 2 frame pairs" in result.output
    contract = open_artifact(target).contract
    assert contract.float_layers is not None
    assert contract.float_layers[0] == "encoder.0.conv.conv"
    assert contract.float_layers[-1] == "decoder.2"
    assert contract.verification["int8_min_psnr_db"] >= 32
    assert contract.verification["int8_warp_error_ratio"] <= 1.05
    assert contract.verification["int8_still_error_ratio"] <= 1.05
    assert contract.verification["min_psnr_db"] > 60  # of the float model against the network
    integers = integer_layers(onnx.load(target))
    assert integers
    assert set(integers).isdisjoint(contract.float_layers)
    frame = np.random.default_rng(0).integers(0, 256, (1, 61, 83, 3), np.uint8)
    pictures = []
    for backend in (Backend.ONNXRUNTIME, Backend.OPENVINO):
        if backend == Backend.OPENVINO:
            pytest.importorskip("openvino")
        with Stylizer(target, backend=backend) as stylizer:
            assert stylizer.precision.startswith("int8+")
            assert f"CPU, {stylizer.precision}" in stylizer.backend
            pictures.append(stylizer.run(frame))
            assert np.array_equal(stylizer.run(frame), pictures[-1])
    assert psnr_db(pictures[0] / 255, pictures[1] / 255) > 32
    with pytest.raises(ValueError, match=r"int8\.onnx: int8 is made from a float32 model"):
        quantize_file(target, tmp_path / "again.onnx", calibration=tmp_path / "photos")
    check_engine(target)


def check_engine(model: Path) -> None:
    """TensorRT-RTX builds it with its integers, and with half precision in place of float32 between them."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    plan = model.with_suffix(".plan")
    targets = ("8.6", "8.9", "12.0")
    command = [str(model), "--trt", "int8", "--rtx", *(f"--target={target}" for target in targets), "-o", str(plan)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert "int8 of TensorRT-RTX for matrix products, not for convolutions" in result.stdout
    read = open_artifact(plan).plan
    assert read is not None
    assert (read.header.precision, read.header.compute_capabilities) == ("int8", targets)
    assert (read.header.contract.precision, read.header.contract.is_int8) == ("fp16", True)
    assert read.header.verification["onnx"]["min_psnr_db"] >= 32
    typed = onnx.load_from_string(read.read_onnx())
    integers = [tensor for tensor in typed.graph.initializer if tensor.name.endswith(".weight_quantized")]
    assert integers
    weights = {tensor.data_type for tensor in typed.graph.initializer if len(tensor.dims) == 4}
    assert weights == {TensorProto.INT8, TensorProto.FLOAT16}
    frame = np.random.default_rng(0).integers(0, 256, (1, 61, 83, 3), np.uint8)
    for backend in (Backend.ONNXRUNTIME, Backend.OPENVINO):
        if backend == Backend.OPENVINO:
            pytest.importorskip("openvino")
        pictures = []
        for path in (model, plan):
            with Stylizer(path, backend=backend) as stylizer:
                pictures.append(stylizer.run(frame).astype(int))
        # A value next to a step goes to its neighbour: the floor of an int8 engine, 32 dB.
        assert np.square(pictures[0] - pictures[1]).mean() ** 0.5 < 255 * 10 ** (-32 / 20)
    result = CliRunner().invoke(main, [str(model), "--trt", "fp16", "--rtx", "-o", str(plan)])
    assert "is int8: choose --trt int8" in result.stderr


def test_integers_reach_every_convolution_but_the_first_and_last(
    float_model: onnx.ModelProto, pairs: list[FramePair], everything: Int8Model
) -> None:
    result = everything
    convolutions = [node.input[1].removesuffix(".weight") for node in float_model.graph.node if node.op_type == "Conv"]
    assert result.float_layers == (convolutions[0], convolutions[-1])
    assert sorted(integer_layers(result.model)) == sorted(convolutions[1:-1])
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in result.model.graph.initializer}
    for layer in convolutions[1:-1]:
        integers, scale = weights[f"{layer}.weight_quantized"], weights[f"{layer}.weight_scale"]
        assert integers.dtype == np.int8
        assert scale.shape == integers.shape[:1]  # per output channel
    frame = pairs[5].current[None].numpy()
    measured = psnr_db(run(result.model, frame), run(float_model, frame))
    assert result.quality.psnr_db[1] == pytest.approx(measured, abs=1e-6)
    assert measured > 32


def test_only_what_convolutions_read_is_rounded(everything: Int8Model) -> None:
    nodes = list(everything.model.graph.node)
    activations = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear" and len(node.attribute) == 0}
    weights = {name for name in activations if ".weight_" in name}
    for name in activations - weights:
        assert {node.op_type for node in nodes if name in node.input} <= {"Conv", "Pad"}, name
    rounded = {node.input[0] for node in nodes if node.op_type == "QuantizeLinear"}
    assert rounded.isdisjoint(output for node in nodes if node.op_type == "Conv" for output in node.output)
    sums = [node for node in nodes if node.op_type == "Add" and "add" in node.name]
    assert any(name in rounded for node in sums for name in node.input)  # read by a convolution and by a sum


@pytest.mark.parametrize("moves", [True, False])
def test_either_kind_of_restlessness_alone_is_too_much(moves: bool) -> None:
    quality = Int8Quality(
        psnr_db=(50.0, 40.0), warp_error_ratio=1.06 if moves else 1.0, still_error_ratio=1.0 if moves else 1.06
    )
    assert not quality.meets(Int8Floor())
    assert quality.meets(Int8Floor(max_restlessness=1.06))
    assert not quality.meets(Int8Floor(max_restlessness=1.06, psnr_db=41))
    assert quality.harm(Int8Floor()) == pytest.approx((1.06**2 - 1) / (1.05**2 - 1))
    assert quality.harm(Int8Floor(psnr_db=40, max_restlessness=2)) == pytest.approx(1)


def test_the_still_trial_measures_what_rounding_does_without_motion(
    float_model: onnx.ModelProto, pairs: list[FramePair], everything: Int8Model
) -> None:
    result = everything
    squares = np.zeros(2)
    for number, pair in enumerate(pairs[4:]):
        rng = np.random.default_rng(number)
        clean = pair.current_clean.numpy()
        noise = rng.normal(0, 0.5 / 255, (2, 1, *clean.shape[1:])).astype(np.float32)
        frames = np.clip(clean + noise, 0, 1)
        for index, model in enumerate((result.model, float_model)):
            first, second = (run(model, frame[None]) for frame in frames)
            squares[index] += np.square(second - first, dtype=np.float64).mean()
    assert result.quality.still_error_ratio == pytest.approx(np.sqrt(squares[0] / squares[1]), rel=1e-4)
    assert result.quality.still_error_ratio > result.quality.warp_error_ratio  # why moving pairs are not enough


def test_the_most_harmful_convolutions_go_back_to_float_until_the_floor_is_met(
    float_model: onnx.ModelProto, pairs: list[FramePair], everything: Int8Model
) -> None:
    stricter = dataclasses.replace(FREE, psnr_db=min(everything.quality.psnr_db) + 0.5)
    result = quantize(float_model, calibration=pairs[:4], trial=pairs[4:], floor=stricter)
    assert min(result.quality.psnr_db) >= stricter.psnr_db
    assert len(everything.float_layers) < len(result.float_layers) < 12
    assert set(everything.float_layers) < set(result.float_layers)


def test_a_network_that_paints_one_colour_stands_integers(float_model: onnx.ModelProto, pairs: list[FramePair]) -> None:
    blank = onnx.ModelProto()
    blank.CopyFrom(float_model)
    last = [node for node in blank.graph.node if node.op_type == "Conv"][-1].input[1]
    weight = next(tensor for tensor in blank.graph.initializer if tensor.name == last)
    weight.CopyFrom(numpy_helper.from_array(np.zeros(tuple(weight.dims), np.float32), last))
    quality = quantize(blank, calibration=pairs[:1], trial=pairs[4:5]).quality
    assert quality.still_error_ratio == 0
    assert quality.restlessness <= 1
    assert quality.psnr_db == (np.inf,)


def test_rejects_a_floor_that_int8_cannot_meet(float_model: onnx.ModelProto, pairs: list[FramePair]) -> None:
    with pytest.raises(ValueError, match=r"does not stand int8: with 1 convolutions .* dB \(at least 200\)"):
        quantize(float_model, calibration=pairs[:2], trial=pairs[4:5], floor=Int8Floor(psnr_db=200))


def test_unsteady_integers_are_refused_too(float_model: onnx.ModelProto, pairs: list[FramePair]) -> None:
    with pytest.raises(ValueError, match=r"of the temporal error, .* where nothing moves \(at most 0\.5\)"):
        quantize(float_model, calibration=pairs[:2], trial=pairs[4:5], floor=Int8Floor(max_restlessness=0.5))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--int8"], "need each other"),
        (["--calibration", "photos"], "need each other"),
        (["--int8", "--calibration", "photos", "--fp16"], "drop --fp16 and --size"),
        (["--int8", "--calibration", "photos", "--size", "64x64"], "drop --fp16 and --size"),
    ],
)
def test_rejects_options_that_exclude_each_other(options: list[str], reason: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, [str(tmp_path / "x.pth"), *options])
    assert result.exit_code == 1
    assert reason in result.output
    assert list(tmp_path.iterdir()) == []
