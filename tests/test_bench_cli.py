"""`stylize-bench` from the command line, on clips and models of a few pixels."""

import dataclasses
import json
import math
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner, Result

from helpers.clips import ClipSpec, write_clip
from helpers.networks import write_affine
from helpers.sintel import write_scene
from stylize.benchmarks.cli import main
from stylize.benchmarks.command import bench
from stylize.benchmarks.results import Results, read_results
from stylize.benchmarks.sintel import RECONET_SCENES
from stylize.runtime.contract import ModelContract
from stylize.runtime.errors import BackendUnavailableError
from stylize.runtime.plan import EngineProfile, PlanHeader, write_plan

SHORT = ("--backend", "onnxruntime", "--rounds", "1", "--frames", "4", "--quiet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench")
    write_clip(path / "clip.mp4", ClipSpec(width=96, height=64))
    write_clip(path / "one.mp4", ClipSpec(pts=(0,)))
    write_affine(path / "identity.onnx")
    write_affine(path / "faint.onnx", scale=0.5)
    return path


@pytest.fixture(scope="module")
def measured(folder: Path) -> tuple[Result, Path]:
    """One run with two models, and its JSON."""
    models = ("--model", str(folder / "identity.onnx"), "--model", str(folder / "faint.onnx"))
    json_path = folder / "results.json"
    arguments = [*models, "--clip", str(folder / "clip.mp4"), "--json", str(json_path), *SHORT]
    return CliRunner().invoke(bench, arguments, catch_exceptions=False), json_path


def test_every_stage_of_every_model_is_in_the_results(measured: tuple[Result, Path]) -> None:
    result, json_path = measured
    assert result.exit_code == 0
    results = read_results(json_path)
    assert [(row.model, row.stage) for row in results.speed] == [
        ("-", "decode"),
        *((model, stage) for model in ("identity", "faint") for stage in ("network", "encode", "pipeline")),
    ]
    assert (results.clip.width_px, results.clip.height_px, results.clip.num_frames) == (96, 64, 4)
    for row in results.speed:
        assert row.fps.median > 0
        if row.stage == "pipeline":
            assert row.peak_resident_bytes is not None
            assert row.peak_resident_bytes > 20 * 2**20  # an interpreter with NumPy and FFmpeg
        if row.stage in ("network", "pipeline"):
            assert row.latency_p50_ms is not None
            assert row.latency_p99_ms is not None
            assert row.latency_p50_ms <= row.latency_p99_ms


def test_doing_nothing_is_as_steady_as_the_source_and_has_its_style(measured: tuple[Result, Path]) -> None:
    rows = {(row.clip, row.model): row for row in read_results(measured[1]).steadiness}
    for clip in ("clip.mp4", "crossing object"):
        source, identity = rows[clip, "source"], rows[clip, "identity, onnxruntime fp32"]
        assert identity.e_stab == pytest.approx(source.e_stab, abs=1e-6)
        assert identity.t_of_px == 0.0
        assert identity.style_change == pytest.approx(0.0, abs=1e-6)
    assert rows["crossing object", "identity, onnxruntime fp32"].content == pytest.approx(1.0)
    assert rows["clip.mp4", "faint, onnxruntime fp32"].style_change > 0.3
    # Halved contrast halves every change, up to rounding to 8 bits.
    halved = rows["clip.mp4", "faint, onnxruntime fp32"].e_stab
    assert halved == pytest.approx(rows["clip.mp4", "source"].e_stab / 2, rel=0.1)


def test_each_model_is_measured_steadied_too(measured: tuple[Result, Path]) -> None:
    rows = {(row.clip, row.model): row for row in read_results(measured[1]).steadiness}
    for clip in ("clip.mp4", "crossing object"):
        plain, steadied = (rows[clip, f"identity, onnxruntime fp32{end}"] for end in ("", ", steady 0.9"))
        assert (plain.steady, plain.steady_ms) == (0.0, None)
        assert steadied.steady == 0.9
        assert steadied.steady_ms is not None
        assert steadied.steady_ms > 0
        assert plain.sharpness is not None
        assert steadied.sharpness == pytest.approx(plain.sharpness, rel=0.1)
        # What the network does to the noise of a still is what steadying is for.
        assert plain.static_flicker is not None
        assert steadied.static_flicker is not None
        # How much calmer is for the steadier's own tests; 0.30 and 0.27 on these few pixels.
        assert steadied.static_flicker < 0.5 * plain.static_flicker


def test_the_table_goes_to_standard_output(measured: tuple[Result, Path]) -> None:
    output = measured[0].stdout
    for text in ("Frames per second, clip.mp4, 96x64, 4 frames", "identity onnxruntime fp32", "e_stab", "exact flow"):
        assert text in output


def test_what_was_written_is_said(measured: tuple[Result, Path]) -> None:
    assert measured[0].stderr == f"{measured[1]}: the results, for --compare\n"


@pytest.fixture(scope="module")
def again(measured: tuple[Result, Path], folder: Path) -> Result:
    """A second run with one of the models, held against the first, with MPI-Sintel and the page."""
    old = json.loads(measured[1].read_text())
    for row in old["speed"]:
        row["fps"]["median"] = 1e9
    (folder / "old.json").write_text(json.dumps(old))
    for scene in RECONET_SCENES:
        write_scene(folder / "sintel", scene, shift_px=2)
    outputs = ("--json", str(folder / "sintel.json"), "--report", str(folder / "page.html"))
    arguments = ["--model", str(folder / "identity.onnx"), "--clip", str(folder / "clip.mp4"), *SHORT, *outputs]
    given = ("--compare", str(folder / "old.json"), "--sintel", str(folder / "sintel"))
    return CliRunner().invoke(bench, [*arguments, *given], catch_exceptions=False)


def test_compare_prints_ratios_to_an_earlier_run(again: Result) -> None:
    assert "network identity onnxruntime fp32 96x64, fps" in again.stdout
    assert "1000000000.00" in again.stdout
    assert "e_stab identity, onnxruntime fp32, clip.mp4" in again.stdout
    assert "faint" not in again.stdout.partition("Now against")[2]


def test_sintel_brings_its_scenes_with_true_motion(again: Result, folder: Path) -> None:
    assert again.exit_code == 0
    rows = [row for row in read_results(folder / "sintel.json").steadiness if row.flow == "ground truth"]
    assert {row.clip for row in rows} == {f"sintel {scene}" for scene in RECONET_SCENES}
    assert all(row.e_stab == 0.0 for row in rows if not row.steady)


def test_the_page_is_written_where_asked_for(again: Result, folder: Path) -> None:
    assert f"{folder / 'page.html'}: the page, for a browser" in again.stderr
    assert "identity" in (folder / "page.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def hurried(folder: Path) -> Results:
    """float16, its float32 twin and what is taken for int8, at another size, in no time: eight frames for the speed."""
    contract = ModelContract(network="affine", style="twin", size_multiple=4, precision="fp16")
    half = write_affine(folder / "twin_fp16.onnx", scale=0.3, contract=contract, elem_type=onnx.TensorProto.FLOAT16)
    full = write_affine(folder / "twin.onnx", scale=0.3, contract=dataclasses.replace(contract, precision="fp32"))
    coarse = write_affine(
        folder / "twin_int8.onnx", scale=0.31, contract=dataclasses.replace(contract, precision="fp32", float_layers=())
    )
    clip = write_clip(folder / "long.mp4", ClipSpec(width=96, height=64, pts=range(20)))
    models = [argument for model in (half, full, coarse) for argument in ("--model", str(model))]
    arguments = [*models, "--backend", "onnxruntime", "--clip", str(clip), "-q"]
    given = ("--size", "80x50", "--rounds", "1", "--seconds", "0", "--steady", "0", "--json", str(folder / "half.json"))
    CliRunner().invoke(bench, [*arguments, *given], catch_exceptions=False)
    return read_results(folder / "half.json")


def test_half_precision_is_held_against_its_float32_twin(hurried: Results) -> None:
    row = hurried.fidelity[0]
    assert (row.model, row.precision) == ("twin_fp16", "fp16")
    assert row.psnr_db is None or row.psnr_db > 45  # 11 bits of mantissa, then rounding to 8 bits
    assert row.max_error <= 1 / 255 + 1e-6
    assert row.ssim > 0.99


def test_int8_is_held_against_its_float32_twin_and_never_the_other_way(hurried: Results) -> None:
    assert [(row.model, row.precision) for row in hurried.fidelity] == [
        ("twin_fp16", "fp16"),
        ("twin_int8", "int8+fp32"),
    ]
    # Of 0.31 in place of 0.3, where the frames' values are 0.47 on average: 0.0047 and rounding.
    assert hurried.fidelity[1].psnr_db == pytest.approx(-20 * math.log10(0.0047), abs=1)


def test_measures_at_another_size(hurried: Results) -> None:
    assert {(row.width_px, row.height_px) for row in hurried.speed} == {(80, 50)}
    assert {(row.width_px, row.height_px) for row in hurried.steadiness if row.clip == "long.mp4"} == {(80, 50)}


def test_steadiness_does_not_depend_on_how_much_time_there_is(hurried: Results) -> None:
    assert hurried.clip.num_frames == 8
    assert {row.num_frames for row in hurried.steadiness} == {16}


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="a GPU is there")
def test_an_engine_is_measured_on_its_gpu_or_not_at_all(folder: Path, tmp_path: Path) -> None:
    header = PlanHeader(
        contract=ModelContract(network="affine", style="none", size_multiple=4),
        builder="tensorrt",
        builder_version="10.13.3.9",
        gpu="NVIDIA A10",
        compute_capabilities=("8.6",),
        profile=EngineProfile(min=(1, 3, 64, 64), opt=(1, 3, 64, 96), max=(1, 3, 128, 128)),
        precision="fp16",
        verification={},
    )
    plan = tmp_path / "engine.plan"
    write_plan(plan, header, onnx=(folder / "identity.onnx").read_bytes(), engine=b"ftrt")
    arguments = ["--model", str(plan), "--clip", str(folder / "clip.mp4"), "--rounds", "1", "--quiet"]
    with pytest.raises(BackendUnavailableError, match="NVIDIA driver"):
        CliRunner().invoke(bench, arguments, catch_exceptions=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "no-such-style"), "no such file or style"),
        (("--model", "{folder}/identity.onnx", "--clip", "{folder}/missing.mp4"), "missing.mp4"),
        (("--model", "{folder}/identity.onnx", "--model", "{folder}/identity.onnx"), "named twice"),
        (("--model", "{folder}/identity.onnx", "--style-picture", "other=x.jpg"), "not measured in this run"),
        (("--model", "{folder}/identity.onnx", "--sintel", "{folder}"), "final/alley_2: holds no frames"),
        (("--compare", "{folder}/clip.mp4"), "clip.mp4: not JSON"),
        (("--size", "640"), "not a size such as 640x360"),
        (("--model", "{folder}/identity.onnx", "--clip", "{folder}/clip.mp4", "--size", "64x40"), "2 frames of 48x48"),
        (("--model", "{folder}/identity.onnx", "--clip", "{folder}/one.mp4"), "1 frame(s)"),
        (("--model", "{folder}/identity.onnx", "--checkpoint", "identity=x.pth"), "add --baseline eager"),
        (("--model", "{folder}/identity.onnx", "--json", "{folder}/none/x.json"), "no such folder"),
    ],
)
def test_rejects_what_it_cannot_measure(
    arguments: tuple[str, ...],
    message: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["stylize-bench", *(text.format(folder=folder) for text in arguments), "--quiet"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code != 0
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
