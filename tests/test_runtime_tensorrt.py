"""Engines: every call against the real module, rebuilding for another GPU for real, and one line for what is wrong.

Loading an engine needs a GPU (tests/gpu); building one with TensorRT-RTX does not.
"""

import dataclasses
import logging
import re
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from helpers.host_device import HostDevice, array_at
from helpers.networks import write_affine
from helpers.tensorrt_api import Api, Use, complaint, rtx_api, tensorrt_api, uses_in
from stylize import runtime
from stylize.runtime.artifact import Artifact, open_artifact
from stylize.runtime.contract import ModelContract
from stylize.runtime.device import DeviceTensor
from stylize.runtime.engine_cache import cache_folder, fitting_engine
from stylize.runtime.errors import ArtifactError, BackendError, BackendUnavailableError
from stylize.runtime.gpu import Gpu
from stylize.runtime.plan import EngineProfile, PlanHeader, read_plan, write_plan
from stylize.runtime.runner_tensorrt import TensorRTRunner

RTX_4090 = Gpu(index=0, name="NVIDIA GeForce RTX 4090", compute_capability="8.9")
PROFILE = EngineProfile(min=(1, 3, 64, 64), opt=(1, 3, 64, 64), max=(1, 3, 128, 128))

FOLDER = Path(runtime.__file__).parent
MODULE = {"trt": ""}
RUNNER = MODULE | {
    "trt_runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "runtime_config": "IRuntimeConfig",
}
BUILDER = MODULE | {
    "trt_builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "parser_error": "ParserError",
    "trt_profile": "IOptimizationProfile",
    "tensor": "ITensor",
    "timing_cache": "ITimingCache",
}
# One flavour has what the other does not: graphs recorded inside and targets; hardware to be compatible with.
RTX_ONLY = {"CudaGraphStrategy", "cuda_graph_strategy", "WHOLE_GRAPH_CAPTURE", "ComputeCapability"} | {
    "num_compute_capabilities",
    "set_compute_capability",
}


@pytest.fixture(scope="module", params=["tensorrt", "tensorrt_rtx"])
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Api:
    return rtx_api() if request.param == "tensorrt_rtx" else tensorrt_api(tmp_path_factory.mktemp("libraries"))


@pytest.mark.parametrize(
    ("source", "classes", "least"),
    [("runner_tensorrt.py", RUNNER, 25), ("engine_from_onnx.py", BUILDER, 35), ("tensorrt_module.py", MODULE, 3)],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_use_of_tensorrt_is_one_that_the_real_module_takes(
    api: Api, source: str, classes: dict[str, str], least: int
) -> None:
    uses = uses_in(FOLDER / source, classes)
    assert len(uses) >= least, "the walk finds what the source calls"
    is_rtx = "CudaGraphStrategy" in api
    common = [use for use in uses if is_rtx or RTX_ONLY.isdisjoint({use.owner, use.name})]
    assert [text for use in common if (text := complaint(api, use))] == []


def test_what_tensorrt_calls_back_and_its_modes_by_name_are_those_of_the_real_module(api: Api) -> None:
    for name in ("NONE", "SAME_COMPUTE_CAPABILITY", "AMPERE_PLUS"):  # PlanHeader.hardware_compatibility
        assert name in api["HardwareCompatibilityLevel"]
    assert "phase_name: str, parent_phase: str" in api["IProgressMonitor"]["phase_start"]
    assert "phase_name: str, step: " in api["IProgressMonitor"]["step_complete"]
    assert "phase_finish" in api["IProgressMonitor"]
    assert re.search(r"severity: .*, msg: str", api["ILogger"]["log"])


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (Use("Runtime", "deserialize_engine"), "does not exist"),
        (Use("", "CudaRuntime", 1), "does not exist"),
        (Use("IBuilderConfig", "set_timing_cache", 1), "not 1"),
        (Use("IBuilderConfig", "set_timing_cache", 2, ("ignore_mismatches",)), "ignore_mismatches"),
        (Use("IExecutionContext", "execute_async_v3", 2), "not 2"),
        (Use("", "OnnxParser", 1), "not 1"),
    ],
)
def test_wrong_uses_of_tensorrt_are_noticed(api: Api, use: Use, message: str) -> None:
    assert message in complaint(api, use)


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plan of TensorRT-RTX that was built by another version."""
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setenv("STYLIZE_CACHE", str(tmp_path / "cache"))
    contract = ModelContract(network="affine", style="negative", size_multiple=4)
    model = write_affine(tmp_path / "negative.onnx", scale=-1, offset=1, contract=contract)
    header = PlanHeader(
        contract=contract,
        builder="tensorrt_rtx",
        builder_version="1.0.0.21",
        gpu="",
        compute_capabilities=("8.6", "8.9"),
        profile=PROFILE,
        precision="fp32",
        verification={"onnx": {"psnr_db": 60.0}, "engine": {"psnr_db": 59.0}},
    )
    write_plan(tmp_path / "negative.plan", header, onnx=model.read_bytes(), engine=b"ftrt of another version")
    return tmp_path / "negative.plan"


def test_engine_of_another_version_is_built_again_once_and_kept(plan: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By the real builder; what it made is what the cache holds."""
    artifact = open_artifact(plan)
    with caplog.at_level(logging.WARNING, "stylize"):
        engine, builder = fitting_engine(artifact, RTX_4090)
    assert builder == "tensorrt_rtx"
    assert engine[:4] in (b"ftrt", b"vtrt")
    assert engine != b"ftrt of another version"
    first = caplog.messages[0]
    assert re.search(
        r"negative\.plan: built with tensorrt_rtx 1\.0\.0\.21, installed is \S+; building an engine for this GPU", first
    )
    kept = list(cache_folder().glob("*.plan"))
    assert len(kept) == 1
    header = read_plan(kept[0]).header
    assert header.compute_capabilities == ("8.9",)
    assert header.verification == {"onnx": {"psnr_db": 60.0}}, "the figures of the other engine are not this one's"
    caplog.clear()
    with caplog.at_level(logging.WARNING, "stylize"):
        assert fitting_engine(artifact, RTX_4090) == (engine, "tensorrt_rtx")
    assert "the engine built here before is used" in caplog.messages[0]


def test_damaged_engine_in_the_cache_is_built_again(plan: Path, caplog: pytest.LogCaptureFixture) -> None:
    artifact = open_artifact(plan)
    engine, _ = fitting_engine(artifact, RTX_4090)
    kept = next(cache_folder().glob("*.plan"))
    kept.write_bytes(kept.read_bytes()[:-10])
    with caplog.at_level(logging.WARNING, "stylize"):
        again, _ = fitting_engine(artifact, RTX_4090)
    assert len(again) == len(engine)
    assert "cut off" in caplog.text
    assert read_plan(kept).read_engine() == again


def test_engine_for_another_gpu_is_built_again(plan: Path, caplog: pytest.LogCaptureFixture) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    read = read_plan(plan)
    header = dataclasses.replace(read.header, builder_version=trt.__version__, compute_capabilities=("8.6",))
    write_plan(plan, header, onnx=read.read_onnx(), engine=b"ftrt of this version")
    with caplog.at_level(logging.WARNING, "stylize"):
        engine, _ = fitting_engine(open_artifact(plan), RTX_4090)
    assert engine != b"ftrt of this version"
    assert "built for compute capability 8.6, NVIDIA GeForce RTX 4090 has 8.9; building" in caplog.text
    ampere = Gpu(index=0, name="NVIDIA A10", compute_capability="8.6")
    assert fitting_engine(open_artifact(plan), ampere)[0] == b"ftrt of this version"


def test_cache_that_cannot_be_written_costs_only_the_next_build(
    plan: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STYLIZE_CACHE", str(tmp_path / "file" / "cache"))
    with caplog.at_level(logging.WARNING, "stylize"):
        engine, _ = fitting_engine(open_artifact(plan), RTX_4090)
    assert engine[:4] in (b"ftrt", b"vtrt")
    assert "the engine cannot be kept" in caplog.text


def test_model_inside_that_cannot_be_built_is_one_line(plan: Path) -> None:
    read = read_plan(plan)
    model = onnx.load_from_string(read.read_onnx())
    model.graph.node[0].op_type = "NoSuchOperator"
    write_plan(plan, read.header, onnx=model.SerializeToString(), engine=b"ftrt")
    with pytest.raises(Exception, match="NoSuchOperator") as error:
        fitting_engine(open_artifact(plan), RTX_4090)
    assert "\n" not in str(error.value)


def test_without_the_module_one_line_names_the_extra(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(BackendUnavailableError, match=r"tensorrt_rtx .*pip install 'stylize\[rtx\]'"):
        fitting_engine(open_artifact(plan), RTX_4090)


def test_a_model_without_an_engine_says_how_to_make_one(tmp_path: Path) -> None:
    artifact = open_artifact(write_affine(tmp_path / "waves.onnx"))
    with pytest.raises(ArtifactError, match=r"waves\.onnx: holds no engine: first `stylize-export waves --trt fp16 -o"):
        TensorRTRunner(artifact, device=None, cuda_stream=None)  # type: ignore[arg-type]


class StandIn:
    """What a GPU and TensorRT would answer, for messages that only they can cause."""

    def __init__(self, artifact: Artifact, **answers: object) -> None:
        trt = pytest.importorskip("tensorrt_rtx")
        device = SimpleNamespace(gpu=RTX_4090, memory_bytes=lambda: (200_000_000, 24_000_000_000), current=nullcontext)
        self.runner = TensorRTRunner(artifact, device=device, cuda_stream=SimpleNamespace(handle=7))  # type: ignore[arg-type]
        self.runner._trt, self.runner._builder = trt, "tensorrt"
        self.runner._logger = SimpleNamespace(errors=["Requested amount of GPU memory (1073741824 bytes) could not"])
        self.runner._engine = SimpleNamespace(
            get_tensor_profile_shape=lambda _name, _index: [PROFILE.min, PROFILE.opt, PROFILE.max]
        )
        self.runner._context = SimpleNamespace(**answers)


def test_gpu_that_refuses_is_one_line_with_its_reason(plan: Path) -> None:
    stand_in = StandIn(open_artifact(plan), execute_async_v3=lambda _handle: False)
    with pytest.raises(BackendError, match=r"^TensorRT failed: Requested amount of GPU memory \(1073741824 bytes\)"):
        stand_in.runner._execute()


def test_size_the_engine_was_not_built_for_is_one_line(plan: Path) -> None:
    stand_in = StandIn(open_artifact(plan), set_input_shape=lambda _name, _shape: False)
    tensor = DeviceTensor(4096, (1, 3, 720, 1280), "fp32")
    with pytest.raises(BackendError, match=r"takes 64x64 to 128x128 pixels, this needs 1280x720: build it with other"):
        stand_in.runner.enqueue(tensor, target=tensor, cuda_stream=7)


@pytest.mark.parametrize("is_portable", [True, False])
def test_only_an_engine_for_later_versions_may_bring_code_along(
    is_portable: bool, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT refuses to load a version-compatible engine otherwise; it includes the lean runtime."""
    allowed: list[bool] = []

    class Runtime:
        engine_host_code_allowed = False  # as it is in TensorRT

        def __init__(self, _logger: object) -> None: ...

        def deserialize_cuda_engine(self, _engine: bytes) -> None:
            allowed.append(self.engine_host_code_allowed)

    module = SimpleNamespace(__version__="11.4.0.106", Runtime=Runtime, ILogger=object)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    read = read_plan(plan)
    header = dataclasses.replace(
        read.header,
        builder="tensorrt",
        builder_version="11.0.0.114" if is_portable else module.__version__,
        gpu=RTX_4090.name,
        compute_capabilities=("8.9",),
        is_version_compatible=is_portable,
    )
    write_plan(plan, header, onnx=read.read_onnx(), engine=b"ftrt")
    stand_in = StandIn(open_artifact(plan))
    with pytest.raises(ArtifactError, match="the engine inside cannot be loaded: it gives no reason"):
        stand_in.runner.activate()
    assert allowed == [is_portable]


def engine_of(tensors: dict[str, tuple[str, str, tuple[int, ...]]]) -> SimpleNamespace:
    """An engine with these tensors: mode, type and shape by name."""
    trt = pytest.importorskip("tensorrt_rtx")
    return SimpleNamespace(
        name="",
        num_io_tensors=len(tensors),
        get_tensor_name=lambda index: list(tensors)[index],
        get_tensor_mode=lambda name: getattr(trt.TensorIOMode, tensors[name][0]),
        get_tensor_dtype=lambda name: getattr(trt.DataType, tensors[name][1]),
        get_tensor_shape=lambda name: tensors[name][2],
        get_tensor_profile_shape=lambda _name, _index: [PROFILE.min, PROFILE.opt, PROFILE.max],
    )


OPEN = (-1, 3, -1, -1)
FRAME, MIX, RESULT = ("INPUT", "HALF", OPEN), ("INPUT", "FLOAT", (2,)), ("OUTPUT", "HALF", OPEN)
TWO_STYLES = ModelContract(
    network="colors", style="two", size_multiple=4, precision="fp16", style_names=("red", "blue")
)


def test_engine_of_several_styles_has_a_picture_and_their_shares(plan: Path) -> None:
    stand_in = StandIn(dataclasses.replace(open_artifact(plan), contract=TWO_STYLES))
    # In whatever order the builder lists them.
    stand_in.runner._engine = engine_of({"style_weights": MIX, "frame": FRAME, "stylized": RESULT})
    assert stand_in.runner._engine_contract() == TWO_STYLES


@pytest.mark.parametrize(
    ("contract", "tensors", "message"),
    [
        (TWO_STYLES, {"frame": FRAME, "stylized": RESULT}, "one picture, style_weights in, one out was expected"),
        (
            dataclasses.replace(TWO_STYLES, style_names=()),
            {"frame": FRAME, "style_weights": MIX, "stylized": RESULT},
            r"has inputs \['frame', 'style_weights'\] and outputs \['stylized'\]; one picture in, one out was expected",
        ),
        (
            dataclasses.replace(TWO_STYLES, style_names=(), takes_noise=True),
            {"frame": FRAME, "style_weights": MIX, "stylized": RESULT},
            "one picture, noise in, one out was expected",
        ),
        (
            dataclasses.replace(TWO_STYLES, style_names=()),
            {"frame": FRAME, "stylized": ("OUTPUT", "FLOAT", OPEN)},
            "not both float16 or both float32",
        ),
    ],
    ids=["no shares", "shares nobody gives", "no noise", "types"],
)
def test_engine_of_other_inputs_than_its_contract_names_is_one_line(
    contract: ModelContract, tensors: dict[str, tuple[str, str, tuple[int, ...]]], message: str, plan: Path
) -> None:
    stand_in = StandIn(dataclasses.replace(open_artifact(plan), contract=contract))
    stand_in.runner._engine = engine_of(tensors)
    with pytest.raises(ArtifactError, match=message):
        stand_in.runner._engine_contract()


def test_a_mix_that_changes_is_read_at_one_address(plan: Path) -> None:
    """Shapes and addresses are set once, as a recorded graph needs it; the passes read what they were queued with."""
    device = HostDevice(seed=1)
    stream = device.open_stream()
    addresses: dict[str, int] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    seen: list[list[float]] = []

    def execute(_handle: int) -> bool:
        mix = DeviceTensor(addresses["style_weights"], (2,), "fp32")
        stream.push(lambda: seen.append(array_at(mix).tolist()))  # type: ignore[attr-defined]
        return True

    runner = TensorRTRunner(
        dataclasses.replace(open_artifact(plan), contract=TWO_STYLES),
        device=device,  # type: ignore[arg-type]
        cuda_stream=stream,
    )
    runner.repeated.can_record = False  # TensorRT-RTX records graphs itself
    runner._context = SimpleNamespace(
        set_input_shape=lambda name, shape: not shapes.setdefault(name, shape) or shapes[name] == shape,
        get_tensor_shape=lambda _name: (1, 3, 64, 64),
        set_tensor_address=lambda name, address: addresses.__setitem__(name, address),
        execute_async_v3=execute,
    )
    frame, result = (DeviceTensor(address, (1, 3, 64, 64), "fp16") for address in (4096, 8192))
    mixes = [[1.0, 0.0], [1.0, 0.0], [0.5, 0.5], [0.25, 0.75]]
    with device.current():
        for mix in mixes:
            extras = {"style_weights": np.array(mix, np.float32)}
            runner.enqueue(frame, target=result, cuda_stream=stream.handle, extras=extras)
        stream.synchronize()
        assert seen == mixes
        assert shapes == {"frame": (1, 3, 64, 64), "style_weights": (2,)}
        assert (addresses["frame"], addresses["stylized"]) == (4096, 8192)
        with pytest.raises(BackendError, match=r"does not take style_weights of shape \(3,\)"):
            extras = {"style_weights": np.array([1.0, 0.0, 0.0], np.float32)}
            runner.enqueue(frame, target=result, cuda_stream=stream.handle, extras=extras)
    runner.close()
    assert device.allocated_bytes == 0
    device.close()
