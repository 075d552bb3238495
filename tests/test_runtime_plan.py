"""Plan files: what is written is read back, and what is wrong with one is said in one line."""

import dataclasses
import json
import struct
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from helpers.networks import write_affine
from stylize.runtime import Backend, ModelContract, Stylizer, open_artifact, open_runner
from stylize.runtime.errors import ArtifactError, BackendUnavailableError, OptionError, OutputMediaError
from stylize.runtime.gpu import Gpu
from stylize.runtime.plan import EngineProfile, PlanHeader, read_plan, write_plan

HEADER = PlanHeader(
    contract=ModelContract(network="affine", style="negative", size_multiple=4),
    builder="tensorrt",
    builder_version="10.13.3.9",
    gpu="NVIDIA A10",
    compute_capabilities=("8.6",),
    profile=EngineProfile(min=(1, 3, 64, 64), opt=(1, 3, 360, 640), max=(1, 3, 1080, 1920)),
    precision="fp16",
    verification={"onnx": {"min_psnr_db": 61.5}},
)
ENGINE = b"ftrt" + bytes(range(256)) * 10
PREFIX_BYTES = 48


@pytest.fixture
def onnx(tmp_path: Path) -> bytes:
    return write_affine(tmp_path / "negative.onnx", scale=-1, offset=1, contract=HEADER.contract).read_bytes()


@pytest.fixture
def plan(tmp_path: Path, onnx: bytes) -> Path:
    write_plan(tmp_path / "negative.plan", HEADER, onnx=onnx, engine=ENGINE)
    return tmp_path / "negative.plan"


def test_what_is_written_is_read_back(plan: Path, onnx: bytes) -> None:
    read = read_plan(plan)
    assert read.read_onnx() == onnx
    assert read.read_engine() == ENGINE
    assert read.header == dataclasses.replace(
        HEADER,
        onnx_bytes=len(onnx),
        onnx_sha256=sha256(onnx).hexdigest(),
        engine_bytes=len(ENGINE),
        engine_sha256=sha256(ENGINE).hexdigest(),
    )
    assert sorted(path.name for path in plan.parent.iterdir()) == ["negative.onnx", "negative.plan"]


def test_header_is_read_without_the_payload(plan: Path) -> None:
    """Damage in the payload is found when that part is read, not before."""
    data = bytearray(plan.read_bytes())
    data[-1] ^= 1
    plan.write_bytes(data)
    read = read_plan(plan)
    read.read_onnx()
    with pytest.raises(ArtifactError, match=r"negative\.plan: is damaged: the engine inside has another SHA-256"):
        read.read_engine()


def test_every_cut_is_one_clear_line(plan: Path) -> None:
    data = plan.read_bytes()
    problem = r"negative\.plan: (is cut off|is damaged or cut off|is not a plan)"
    for length in (*range(64), 500, len(data) // 2, len(data) - 1):
        plan.write_bytes(data[:length])
        with pytest.raises(ArtifactError, match=problem) as error:
            open_artifact(plan)
        assert "\n" not in str(error.value)
    plan.write_bytes(data + b"\0")
    with pytest.raises(ArtifactError, match="is longer than it says"):
        open_artifact(plan)


def test_flipped_bits_of_the_head_are_found(plan: Path) -> None:
    data = plan.read_bytes()
    length = PREFIX_BYTES + len(read_plan(plan).header.to_json())
    for position in (*range(PREFIX_BYTES), *range(PREFIX_BYTES, length, 25), length - 1):
        damaged = bytearray(data)
        damaged[position] ^= 0x40
        plan.write_bytes(damaged)
        with pytest.raises(ArtifactError):
            open_artifact(plan)


def test_newer_format_says_what_to_do(plan: Path) -> None:
    data = bytearray(plan.read_bytes())
    struct.pack_into("<I", data, 8, 7)
    plan.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"has plan format 7, this stylize reads 1: update stylize or export again"):
        open_artifact(plan)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"builder": "tvm"}, "builder='tvm' must be tensorrt or tensorrt_rtx"),
        ({"precision": "fp4"}, "precision='fp4' must be fp32, fp16 or int8"),
        ({"hardware_compatibility": "all"}, "hardware_compatibility='all' is unknown"),
        ({"profile": {"min": [1, 3, 8, 8], "opt": [1, 3, 4, 4], "max": [1, 3, 8, 8]}}, r"min=.* <= opt=.* <= max="),
        ({"profile": {"min": [0, 3, 8, 8], "opt": [1, 3, 8, 8], "max": [1, 3, 8, 8]}}, "four positive numbers"),
        ({"profile": 3}, "does not fit format 1"),
        ({"surprise": 1}, "does not fit format 1"),
        ({"contract": {"network": "x"}}, "does not fit schema 1"),
    ],
)
def test_header_that_cannot_be_is_refused(change: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        PlanHeader.from_json(json.dumps(json.loads(HEADER.to_json()) | change))


def test_artifact_of_a_plan_has_its_contract(plan: Path) -> None:
    artifact = open_artifact(plan)
    assert artifact.contract == HEADER.contract
    assert artifact.plan is not None
    assert artifact.plan.header.gpu == "NVIDIA A10"
    with pytest.raises(OptionError, match="--input-range is for models without a contract"):
        open_artifact(plan, input_range=(0, 255))


@pytest.mark.parametrize("backend", [Backend.ONNXRUNTIME, Backend.OPENVINO])
def test_onnx_inside_runs_where_asked_for(plan: Path, backend: Backend) -> None:
    if backend == Backend.OPENVINO:
        pytest.importorskip("openvino")
    frames = np.random.default_rng(0).integers(0, 256, (1, 20, 24, 3), np.uint8)
    with Stylizer(plan, backend=backend) as stylizer:
        assert np.array_equal(stylizer.run(frames), 255 - frames)


def test_without_a_gpu_one_line_names_what_is_missing_and_the_way_out(
    plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stylize.runtime.gpu._LIBRARY", "libno-such-driver.so")
    with pytest.raises(
        BackendUnavailableError,
        match=r"negative\.plan: its engine cannot run: .*no NVIDIA driver.*"
        r"the ONNX inside runs here with --backend openvino or --backend onnxruntime$",
    ):
        open_runner(open_artifact(plan))


@pytest.mark.parametrize(("builder", "extra"), [("tensorrt", "trt"), ("tensorrt_rtx", "rtx")])
def test_without_tensorrt_one_line_names_the_extra(
    builder: str, extra: str, plan: Path, onnx: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_plan(plan, dataclasses.replace(HEADER, builder=builder), onnx=onnx, engine=ENGINE)  # type: ignore[arg-type]
    gpu = Gpu(index=0, name="NVIDIA A10", compute_capability="8.6")
    monkeypatch.setattr("stylize.runtime.tensorrt_module.find_gpu", lambda _index: gpu)
    monkeypatch.setitem(sys.modules, builder, None)
    with pytest.raises(BackendUnavailableError, match=rf"{builder} .*'stylize\[{extra}\]'; the ONNX inside"):
        open_runner(open_artifact(plan))


def test_bare_engine_is_recognised_and_has_no_onnx(tmp_path: Path) -> None:
    path = tmp_path / "bare.plan"
    path.write_bytes(ENGINE)
    artifact = open_artifact(path)
    assert artifact.is_bare_engine
    with pytest.raises(ArtifactError, match=r"bare\.plan: is a bare TensorRT engine with no ONNX inside"):
        open_runner(artifact, backend=Backend.ONNXRUNTIME).activate()


def test_foreign_file_under_the_name_of_a_plan(tmp_path: Path) -> None:
    path = tmp_path / "x.plan"
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(ArtifactError, match=r"x\.plan: is not a plan file of stylize-export"):
        open_artifact(path)


def test_plan_is_not_left_half_written(tmp_path: Path, onnx: bytes) -> None:
    with pytest.raises(OutputMediaError, match="no such folder"):
        write_plan(tmp_path / "nowhere" / "x.plan", HEADER, onnx=onnx, engine=ENGINE)
    with pytest.raises(OutputMediaError, match=r"full: cannot be written: No space left"):
        # What a full disk answers, from a device that is always full.
        (tmp_path / ".full.partial").symlink_to("/dev/full")
        write_plan(tmp_path / "full", HEADER, onnx=onnx, engine=ENGINE)
    assert not (tmp_path / "full").exists()


A10 = {"gpu": "NVIDIA A10", "compute_capability": "8.6"}


@pytest.mark.parametrize(
    ("changes", "machine", "reason"),
    [
        ({}, A10 | {"version": "10.13.3.9"}, ""),
        ({}, A10 | {"version": "10.14.1.48"}, "built with tensorrt 10.13.3.9, installed is 10.14.1.48"),
        ({"is_version_compatible": True}, A10 | {"version": "10.14.1.48"}, ""),
        ({"is_version_compatible": True}, A10 | {"version": "10.9.0.34"}, "installed is 10.9.0.34"),
        (
            {},
            {"version": "10.13.3.9", "gpu": "NVIDIA H200", "compute_capability": "9.0"},
            "built for compute capability 8.6, NVIDIA H200 has 9.0",
        ),
        (
            {},
            {"version": "10.13.3.9", "gpu": "NVIDIA RTX A6000", "compute_capability": "8.6"},
            "built on NVIDIA A10, this is NVIDIA RTX A6000",
        ),
        (
            {"hardware_compatibility": "same_compute_capability"},
            {"version": "10.13.3.9", "gpu": "NVIDIA RTX A6000", "compute_capability": "8.6"},
            "",
        ),
        (
            {"hardware_compatibility": "ampere_plus"},
            {"version": "10.13.3.9", "gpu": "NVIDIA H200", "compute_capability": "9.0"},
            "",
        ),
        (
            {"hardware_compatibility": "ampere_plus"},
            {"version": "10.13.3.9", "gpu": "Tesla T4", "compute_capability": "7.5"},
            "built for compute capability 8.0 and above, Tesla T4 has 7.5",
        ),
        (
            {"builder": "tensorrt_rtx", "gpu": "", "compute_capabilities": ("8.6", "8.9")},
            A10 | {"version": "10.13.3.9"},
            "",
        ),
    ],
)
def test_misfit_names_the_reason(changes: dict[str, object], machine: dict[str, str], reason: str) -> None:
    header = dataclasses.replace(HEADER, **changes)  # type: ignore[arg-type]
    found = header.misfit(**machine)
    assert found == reason if not reason.startswith("installed") else found.endswith(reason)
