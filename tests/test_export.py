"""Export: the graph, its proof and its contract."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray

from helpers.training import tiny_config, write_picture
from stylize.export.cli import main
from stylize.export.onnx_from_checkpoint import export_checkpoint
from stylize.export.onnx_from_network import onnx_from_network
from stylize.export.verify import (
    FrameFidelity,
    cases,
    check_floor,
    compare_on_frames,
    figures_of,
    growth_of_a_tiny_change,
    verification_frames,
)
from stylize.runtime import Backend, ModelContract, Stylizer, open_artifact
from stylize.train.checkpoint import (
    checkpoint_of_weights,
    load_checkpoint,
    network_from_checkpoint,
    save_checkpoint,
)
from stylize.train.loop import train
from stylize.train.networks import build_network


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `fast` network after one step of training."""
    folder = tmp_path_factory.mktemp("training")
    config = tiny_config(folder, steps=1)
    train(config, folder / "tiny.pth", resume=False, on_step=lambda _: None, device="cpu")
    return folder / "tiny.pth"


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("export")
    paths = {precision: folder / f"{precision}.onnx" for precision in ("fp32", "fp16")}
    export_checkpoint(
        checkpoint, paths["fp32"], given_frames=(write_picture(folder / "given.png", height=50, width=70),)
    )
    export_checkpoint(checkpoint, paths["fp16"], precision="fp16")
    return paths


def test_contract_is_sealed_with_the_measured_figures(exported: dict[str, Path], checkpoint: Path) -> None:
    contract = open_artifact(exported["fp32"]).contract
    assert contract.network == "fast(width=32)"
    assert contract.style == "style"
    assert (contract.size_multiple, contract.precision, contract.training_size_px) == (4, "fp32", 64)
    assert (contract.style_size_px, contract.content_size_px) == (64, None)
    assert 0 < contract.verification["max_abs_error"] <= 1e-3
    assert contract.verification["num_frames"] == 7  # six drawn ones and the given one
    assert contract.hashes["style_picture"] == load_checkpoint(checkpoint).style_sha256
    half = open_artifact(exported["fp16"]).contract
    assert half.precision == "fp16"
    assert 45 <= half.verification["min_psnr_db"] < 120  # not the float32 graph under another name
    assert half.hashes["weights"] == contract.hashes["weights"]


def test_graph_takes_any_size_and_keeps_nothing_of_this_machine(exported: dict[str, Path]) -> None:
    model = onnx.load(exported["fp32"])
    shape = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert shape == ["batch", 3, "height", "width"]
    assert [tensor.name for tensor in model.graph.output] == ["stylized"]
    assert str(Path.cwd()).encode() not in exported["fp32"].read_bytes()
    assert b".py" not in exported["fp32"].read_bytes()


def test_half_precision_keeps_norm_statistics_in_float32(exported: dict[str, Path]) -> None:
    model = onnx.shape_inference.infer_shapes(onnx.load(exported["fp16"]))
    types = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
    norms = [node for node in model.graph.node if node.op_type == "InstanceNormalization"]
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(norms) == 11
    assert {types[node.output[0]] for node in norms} == {onnx.TensorProto.FLOAT}
    assert {types[node.output[0]] for node in convs} == {onnx.TensorProto.FLOAT16}


def test_runtime_paints_what_the_network_paints(exported: dict[str, Path], checkpoint: Path) -> None:
    network = network_from_checkpoint(load_checkpoint(checkpoint))
    frame = np.random.default_rng(1).integers(0, 256, (40, 64, 3), np.uint8)
    with torch.no_grad():
        expected = network(torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255)[0].permute(1, 2, 0).numpy()
    with Stylizer(exported["fp32"], backend=Backend.ONNXRUNTIME) as stylizer:
        got = stylizer.run(frame[None])[0]
    # Half a code value of rounding, and float32 summation order.
    assert np.abs(got / 255 - expected).max() <= 0.51 / 255


@pytest.mark.parametrize("options", [{"norm": "instance"}, {"norm": "frn", "activation_after_add": True}])
def test_reconet_exports_equal_too(tmp_path: Path, checkpoint: Path, options: dict[str, str | int | bool]) -> None:
    torch.manual_seed(0)
    network = build_network("reconet", options)
    trained = dataclasses.replace(
        load_checkpoint(checkpoint), network="reconet", options=options, weights=network.state_dict()
    )
    save_checkpoint(trained, tmp_path / "reconet.pth")
    results = export_checkpoint(tmp_path / "reconet.pth", tmp_path / "reconet.onnx", size=(62, 46))
    assert max(result.max_abs_error for result in results) <= 1e-3
    # 62x46 is no multiple of four: the graph is 64x48 and the frame is padded into it.
    assert open_artifact(tmp_path / "reconet.onnx").contract.fixed_size == (64, 48)


def test_refuses_a_model_that_paints_something_else(exported: dict[str, Path], checkpoint: Path) -> None:
    network = network_from_checkpoint(load_checkpoint(checkpoint))
    with torch.no_grad():
        network.decoder[-1].bias.add_(0.05)  # type: ignore[union-attr, operator]
    results = list(compare_on_frames(network, exported["fp32"], verification_frames(None)))
    with pytest.raises(ValueError, match=r"differs from the network on 'landscape' \(640x360\).*nothing was written"):
        check_floor(results, "fp32")


@pytest.mark.parametrize("figures", [{"max_abs_error": float("nan")}, {"psnr_db": 44.9}, {"psnr_db": float("nan")}])
def test_floor_refuses_nan_and_noise(figures: dict[str, float]) -> None:
    good = FrameFidelity(name="a", width=8, height=8, max_abs_error=1e-4, psnr_db=80.0)
    check_floor([good], "fp16")
    with pytest.raises(ValueError, match="differs from the network on 'a'"):
        check_floor([dataclasses.replace(good, **figures)], "fp16")  # type: ignore[arg-type]


def test_a_frame_of_which_the_network_makes_noise_excuses_rounding_but_not_nan() -> None:
    noise = FrameFidelity(name="one pixel", width=1, height=1, max_abs_error=0.1, psnr_db=21.7, growth=6e5)
    telling = FrameFidelity(name="scene", width=8, height=8, max_abs_error=1e-6, psnr_db=130.0)
    check_floor([noise, telling], "fp32")
    with pytest.raises(ValueError, match=r"on all 1 frames a tiny change .* nothing can be proven"):
        check_floor([noise], "fp32")
    with pytest.raises(ValueError, match="differs from the network on 'one pixel'"):
        check_floor([dataclasses.replace(noise, max_abs_error=float("nan"))], "fp32")
    good = FrameFidelity(name="a", width=8, height=8, max_abs_error=1e-4, psnr_db=80.0)
    assert figures_of([noise, good]) == {"max_abs_error": 1e-4, "min_psnr_db": 80.0, "num_frames": 1.0}


def test_growth_is_that_of_the_change() -> None:
    frame = np.full((1, 3, 8, 8), 0.5, np.float32)
    assert growth_of_a_tiny_change(lambda picture: picture * 7, frame) == pytest.approx(7, rel=0.1)  # float32 rounding
    assert growth_of_a_tiny_change(lambda picture: picture / 255, frame * 255, white=255.0) == pytest.approx(1, rel=0.1)


def test_norms_that_differ_make_noise_of_one_colour_and_pictures_of_pictures() -> None:
    torch.manual_seed(0)
    network = build_network("fast", {"width": 32}).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:  # norms and biases, which training makes differ
                parameter.add_(0.3 * torch.randn_like(parameter))

    def paint(frame_NCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad():
            painted: NDArray[np.float32] = network(torch.from_numpy(frame_NCHW)).numpy()
        return painted

    assert growth_of_a_tiny_change(paint, np.full((1, 3, 32, 32), 0.4, np.float32)) > 1e5
    assert growth_of_a_tiny_change(paint, np.random.default_rng(0).random((1, 3, 32, 32), np.float32)) < 10


def test_nothing_is_written_below_the_floor(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stylize.export import verify

    monkeypatch.setitem(verify.FLOORS, "fp16", verify.Floor(max_abs_error=0.0, psnr_db=45.0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nothing was written"):
        export_checkpoint(checkpoint, tmp_path / "x.onnx", precision="fp16", size=(32, 32))
    assert list(tmp_path.iterdir()) == []


def test_each_style_is_proven_alone_and_all_of_them_mixed() -> None:
    contract = ModelContract(network="n", style="a+b", size_multiple=4, style_names=("a", "b"))
    frames = dict.fromkeys(("x", "y"), np.zeros((4, 4, 3), np.uint8))
    assert [(name, mix) for name, mix, _ in cases(contract, frames)] == [
        ("x, a", "a"),
        ("x, b", "b"),
        ("x, mixed", [1.0, 1.0]),
        ("y, mixed", [1.0, 1.0]),
    ]


def test_rejects_size_that_is_no_multiple() -> None:
    with pytest.raises(ValueError, match="size 30x32 must be made of multiples of 4"):
        onnx_from_network(build_network("fast", {"width": 32}), precision="fp32", fixed_size=(30, 32))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere.pth"], 1, "nowhere.pth: no such checkpoint"),
        (["fake.pth"], 1, "fake.pth: not a checkpoint"),
        (["tiny.pth", "-o", "nowhere/x.onnx"], 1, "nowhere/x.onnx: no such folder"),
        (["tiny.pth", "--frames", "nowhere.mp4"], 1, "nowhere.mp4"),
        (["tiny.pth", "-o", "x.jpg"], 1, "x.jpg: a model is written here; give a name ending in .onnx"),
        (["two.pth", "--int8", "--calibration", "."], 1, "two.pth: int8 is for networks of one style"),
        (["tiny.pth", "--size", "640"], 2, "'640' is not a size such as 1280x720"),
    ],
)
def test_bad_input_is_one_line_and_no_file(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    (tmp_path / "fake.pth").write_bytes(b"no weights")
    (tmp_path / "tiny.pth").write_bytes(checkpoint.read_bytes())
    two = build_network("fast", {"width": 32, "num_styles": 2})
    save_checkpoint(checkpoint_of_weights(two, style="a+b", style_names=("a", "b")), tmp_path / "two.pth")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert not list(tmp_path.glob("*.onnx"))


def test_command_prints_the_proof(tmp_path: Path, checkpoint: Path) -> None:
    result = CliRunner().invoke(main, [str(checkpoint), "-o", str(tmp_path / "x.onnx"), "--size", "64x48"])
    assert result.exit_code == 0, result.output
    assert "PSNR dB" in result.stdout
    assert f"next: stylize-run {tmp_path / 'x.onnx'} in.mp4 out.mp4" in result.stdout
