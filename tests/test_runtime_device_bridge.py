"""A network behind a device gives the host what it would have given directly."""

import re
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from helpers.clips import ClipSpec, write_clip
from helpers.host_device import HostDevice, HostRunner
from helpers.networks import write_affine
from stylize.runtime import Backend, Stylizer, stylize_video
from stylize.runtime.artifact import Artifact, open_artifact
from stylize.runtime.device_bridge import DeviceBridge, DeviceSession
from stylize.runtime.errors import ArtifactError, BackendError, BackendUnavailableError, OptionError
from stylize.runtime.gpu import Gpu
from stylize.runtime.runner import ComputePrecision, automatic_backend, open_runner
from stylize.runtime.runner_onnxruntime_cuda import PROVIDER, OnnxRuntimeCudaRunner, import_onnxruntime_cuda


class Opened:
    """Opens a session of threads and remembers it."""

    def __init__(self, artifact: Artifact, *, seed: int = 0) -> None:
        self.device = HostDevice(seed=seed)
        self._artifact = artifact

    def __call__(self) -> DeviceSession:
        runner = HostRunner(self._artifact, self.device)
        runner.activate()
        return DeviceSession(self.device, runner, self.device.open_stream())


@pytest.mark.parametrize("seed", range(3))
def test_batches_under_way_at_a_time_do_not_mix(seed: int, tmp_path: Path) -> None:
    artifact = open_artifact(write_affine(tmp_path / "negative.onnx", scale=-1, offset=1))
    opened = Opened(artifact, seed=seed)
    with DeviceBridge(artifact, opened) as bridge:
        shapes = [(1, 3, 32, 40)] * 8 + [(1, 3, 36, 44)] * 4
        sources = [np.full(shape, number / 16, np.float32) for number, shape in enumerate(shapes)]
        waiting = []
        for source in sources:
            target = np.empty_like(source)
            waiting.append((source, target, bridge.start(source, target=target)))
            while len(waiting) == bridge.num_in_flight or (source is sources[-1] and waiting):
                begun, result, wait = waiting.pop(0)
                wait()
                np.testing.assert_allclose(result, 1 - begun, atol=1e-6)
    assert opened.device.allocated_bytes == 0


def test_a_video_is_that_of_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the whole of `stylize_video`, lossless, byte for byte."""
    clip = write_clip(tmp_path / "in.mp4", ClipSpec(width=50, height=38, pix_fmt="yuv444p"))  # no surface
    model = write_affine(tmp_path / "negative.onnx", scale=-1, offset=1)
    artifact = open_artifact(model)
    opened = Opened(artifact)
    frames = np.random.default_rng(0).integers(0, 256, (5, 38, 50, 3), np.uint8)
    with Stylizer(model, backend=Backend.ONNXRUNTIME) as stylizer:
        stylize_video(stylizer, clip, tmp_path / "cpu.mp4")
        wanted = stylizer.run(frames)
    monkeypatch.setattr("stylize.runtime.runner.open_runner", lambda *_, **__: DeviceBridge(artifact, opened))
    with Stylizer(model) as stylizer:
        report = stylize_video(stylizer, clip, tmp_path / "device.mp4")
        assert np.array_equal(stylizer.run(frames), wanted)
    assert report.num_frames == 10
    assert (tmp_path / "cpu.mp4").read_bytes() == (tmp_path / "device.mp4").read_bytes()
    assert opened.device.allocated_bytes == 0


def test_closing_frees_everything_with_passes_under_way_and_after_a_failure(tmp_path: Path) -> None:
    for has_failed in (False, True):
        artifact = open_artifact(write_affine(tmp_path / "model.onnx"))
        opened = Opened(artifact)
        bridge = DeviceBridge(artifact, opened)
        bridge.activate()
        picture = np.zeros((1, 3, 64, 64), np.float32)
        for _ in range(bridge.num_in_flight):
            bridge.start(picture, target=np.empty_like(picture))
        if has_failed:
            opened.device.errors.append(RuntimeError("an illegal memory access"))
        with pytest.raises(BackendError, match="illegal memory") if has_failed else nullcontext():
            bridge.close()
        assert opened.device.allocated_bytes == 0


@pytest.mark.parametrize("backend", [Backend.ONNXRUNTIME_CUDA, Backend.TENSORRT])
def test_without_a_driver_a_backend_asked_for_is_one_line(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stylize.runtime.gpu._LIBRARY", "libno-such-driver.so")
    with pytest.raises(BackendUnavailableError, match=r"^this machine has no NVIDIA driver"):
        Stylizer(write_affine(tmp_path / "model.onnx"), backend=backend)


def test_precision_of_a_gpu_is_that_of_the_model(tmp_path: Path) -> None:
    artifact = open_artifact(write_affine(tmp_path / "model.onnx"))
    with pytest.raises(OptionError, match=r"--precision bf16: on a GPU a model is computed in .* here fp32"):
        open_runner(artifact, backend=Backend.ONNXRUNTIME_CUDA, precision=ComputePrecision.BF16)


def test_automatic_choice_says_why_a_gpu_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stylize.runtime.runner.find_gpu", lambda _index: None)

    def missing() -> None:
        raise BackendUnavailableError("PyCUDA is not installed: pip install pycuda")

    monkeypatch.setattr("stylize.runtime.cuda.import_pycuda", missing)
    backend, reason = automatic_backend()
    assert backend in {Backend.OPENVINO, Backend.ONNXRUNTIME}
    assert reason.startswith("the GPU is not used: PyCUDA is not installed: pip install pycuda")
    monkeypatch.setattr("stylize.runtime.cuda.import_pycuda", lambda: None)
    monkeypatch.setattr("stylize.runtime.runner_onnxruntime_cuda.import_onnxruntime_cuda", lambda: None)
    assert automatic_backend() == (Backend.ONNXRUNTIME_CUDA, "")


def test_automatic_choice_falls_back_where_the_gpu_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = open_artifact(write_affine(tmp_path / "model.onnx"))

    def fails() -> DeviceSession:
        raise BackendUnavailableError("ONNX Runtime cannot start on the GPU: its CUDA or cuDNN libraries are missing")

    monkeypatch.setattr("stylize.runtime.runner.automatic_backend", lambda *_, **__: (Backend.ONNXRUNTIME_CUDA, ""))
    monkeypatch.setattr("stylize.runtime.runner._open_on_gpu", lambda *_: DeviceBridge(artifact, fails))
    with Stylizer(artifact) as stylizer:
        assert "CPU" in stylizer.backend
        assert stylizer.backend.endswith(
            "(the GPU is not used: ONNX Runtime cannot start on the GPU: its CUDA or cuDNN libraries are missing)"
        )
    with pytest.raises(BackendUnavailableError, match="cannot start on the GPU"):
        Stylizer(artifact, backend=Backend.ONNXRUNTIME_CUDA)


def test_libraries_of_nvidia_are_found_wherever_pip_has_put_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime looks beside itself alone, and not where another package, under which it was laid, has them."""
    folders = [tmp_path / place / "nvidia" / part / "lib" for place in ("site", "torch") for part in ("cu13", "cudnn")]
    for folder in folders:
        folder.mkdir(parents=True)
    for place in ("torch", "site"):
        monkeypatch.syspath_prepend(tmp_path / place)
    asked: list[str | None] = []
    module = SimpleNamespace(
        __file__=str(tmp_path / "site" / "onnxruntime" / "__init__.py"),
        get_available_providers=lambda: [PROVIDER],
        preload_dlls=lambda directory=None: asked.append(directory),
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    assert import_onnxruntime_cuda() is module
    assert asked[0] is None
    assert {str(folder) for folder in folders[2:]} <= {*asked[1:]}
    assert not {str(folder) for folder in folders[:2]} & {*asked[1:]}


@pytest.mark.parametrize(
    ("reason", "kind", "message"),
    [
        (
            "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version ; GPU=0",
            BackendUnavailableError,
            "ONNX Runtime cannot start on the GPU: CUDA failure 35: CUDA driver version is insufficient",
        ),
        ("no kernel for Conv(11)", ArtifactError, "ONNX Runtime refuses the model on the GPU: no kernel for"),
    ],
)
def test_what_keeps_onnx_runtime_from_the_gpu_is_one_line(
    reason: str, kind: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would print it and compute on the CPU."""
    onnxruntime = pytest.importorskip("onnxruntime")

    def refuse(*_: object, enable_fallback: int = 1, **__: object) -> None:
        assert enable_fallback == 0
        raise RuntimeError(reason)

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    monkeypatch.setattr("stylize.runtime.runner_onnxruntime_cuda.import_onnxruntime_cuda", lambda: onnxruntime)
    device = HostDevice(seed=0)
    device.gpu = Gpu(index=0, name="a GPU", compute_capability="8.9")  # type: ignore[attr-defined]
    runner = OnnxRuntimeCudaRunner(
        open_artifact(write_affine(tmp_path / "model.onnx")),
        device=device,  # type: ignore[arg-type]
        cuda_stream=device.open_stream(),
    )
    with pytest.raises(kind, match=re.escape(message)):
        runner.activate()
    device.close()
