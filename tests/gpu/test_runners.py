"""Networks on the GPU paint what they paint on the CPU: through ONNX Runtime and TensorRT, pictures and videos."""

from pathlib import Path

import numpy as np
import pytest

from helpers.clips import ClipSpec, read_frames, write_clip
from helpers.networks import write_colors
from stylize.runtime import Backend, FinishOptions, Stylizer, open_artifact, stylize_video
from stylize.runtime.artifact import Artifact
from stylize.runtime.cuda import CudaDevice
from stylize.runtime.device_inputs import DeviceInputs
from stylize.runtime.engine_from_onnx import RTX_TARGETS
from stylize.runtime.errors import BackendUnavailableError
from stylize.runtime.parts import gpu_workers, stylize_in_parts
from stylize.runtime.runner_onnxruntime_cuda import import_onnxruntime_cuda
from stylize.runtime.tensorrt_module import import_tensorrt

pytestmark = pytest.mark.needs_gpu
FRAMES = np.random.default_rng(0).integers(0, 256, (3, 123, 217, 3), np.uint8)
MIXES = (None, "0.25,0.75,0,0", "the-scream")


@pytest.fixture(params=["onnxruntime-cuda", "tensorrt", "tensorrt_rtx"])
def backend(request: pytest.FixtureRequest) -> str:
    """Skipped where the packages of one are missing; what is there must work."""
    try:
        if request.param == "onnxruntime-cuda":
            import_onnxruntime_cuda()
        else:
            import_tensorrt(request.param)
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    return str(request.param)


def half(model: str, backend: str, folder: Path) -> tuple[Artifact, Backend]:
    """The model in half precision as the backend takes it, engines built on this GPU."""
    from stylize.export.onnx_from_onnx import onnx_from_onnx
    from stylize.export.plan_from_onnx import PlanOptions, plan_from_onnx

    if backend == "onnxruntime-cuda":
        path = folder / f"{Path(model).stem}-half.onnx"
        path.write_bytes(onnx_from_onnx(open_artifact(model), precision="fp16").data)
        return open_artifact(path), Backend.ONNXRUNTIME_CUDA
    path = folder / f"{Path(model).stem}.plan"
    targets = ()
    if backend == "tensorrt_rtx":
        with CudaDevice() as device:
            if device.gpu.compute_capability not in RTX_TARGETS:
                pytest.skip(f"TensorRT-RTX builds no engines for {device.gpu.name}")
            targets = (device.gpu.compute_capability,)
    sizes = ((64, 64), (217, 123), (640, 360))
    options = PlanOptions(builder=backend, targets=targets, sizes=sizes)  # type: ignore[arg-type]
    exported = plan_from_onnx(open_artifact(model), path, options=options)
    assert exported.engine_results, f"the engine was not run: {exported.not_proven}"
    return open_artifact(path), Backend.TENSORRT


def psnr_db(first: np.ndarray, second: np.ndarray) -> float:
    return float(-10 * np.log10(max(np.square((first.astype(float) - second) / 255).mean(), 1e-12)))


@pytest.mark.parametrize("model", ["starry-night", "starry-night-fastest", "four-paintings"])
def test_pictures_are_those_of_the_cpu(model: str, backend: str, tmp_path: Path) -> None:
    artifact, chosen = half(model, backend, tmp_path)
    for mix in MIXES if model == "four-paintings" else (None,):
        with Stylizer(model, backend=Backend.ONNXRUNTIME, style_mix=mix) as stylizer:
            wanted = stylizer.run(FRAMES)
        with Stylizer(artifact, backend=chosen, style_mix=mix) as stylizer:
            found, again = stylizer.run(FRAMES), stylizer.run(FRAMES)
            other_size = stylizer.run(FRAMES[:, :64, :64])  # an engine binds anew
        assert np.array_equal(found, again)
        assert other_size.shape == (3, 64, 64, 3)
        assert psnr_db(found, wanted) > 40  # half precision on a GPU, 8 bits at both ends


def test_a_video_whose_mix_changes_is_that_of_the_cpu_steadied_too(backend: str, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "in.mp4", ClipSpec(width=128, height=96, pts=range(60), sound_start_seconds=0.0))
    artifact, chosen = half("four-paintings", backend, tmp_path)
    mix = "0:starry-night;1:great-wave;2:the-scream"
    for finish in (FinishOptions(), FinishOptions(steady=0.9)):
        frames = []
        for model, name in ((open_artifact("four-paintings"), Backend.ONNXRUNTIME), (artifact, chosen)):
            with Stylizer(model, backend=name, style_mix=mix) as stylizer:
                report = stylize_video(stylizer, clip, tmp_path / f"{name}.mp4", finish=finish)
            assert report.num_frames == 60
            assert not any("pictures pass through the CPU" in note for note in report.notes)
            assert ("CUDA graph" in report.backend) == (name != Backend.ONNXRUNTIME)
            frames.append(np.stack(read_frames(tmp_path / f"{name}.mp4")))
        # Two encoders, two filters.
        assert min(psnr_db(found, wanted) for found, wanted in zip(*frames, strict=True)) > 28


def test_the_same_gpu_twice_renders_two_parts(tmp_path: Path) -> None:
    try:
        import_onnxruntime_cuda()
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    clip = write_clip(tmp_path / "in.mp4", ClipSpec(width=128, height=96, pts=range(60)))
    artifact = open_artifact(write_colors(tmp_path / "colors.onnx", style_names=("red", "green", "blue")))
    options = {"style_mix": "0:red;2:blue", "backend": Backend.ONNXRUNTIME_CUDA}
    report = stylize_in_parts(artifact, clip, tmp_path / "out.mp4", workers=[*gpu_workers(artifact, (0,), options)] * 2)
    assert report.num_frames == len(read_frames(tmp_path / "out.mp4")) == 60


def test_extra_inputs_are_copied_when_they_change() -> None:
    with CudaDevice() as device, device.current(), device.allocate_host(12) as host:
        stream = device.open_stream()
        inputs = DeviceInputs(device, cuda_stream=stream)
        for number in range(20):
            shown = inputs.show({"mix": np.full(3, number // 2, np.float32)})
            device.download(host, shown["mix"].address, 12, cuda_stream=stream)
            stream.synchronize()
            assert host.data.view(np.float32).tolist() == [number // 2] * 3
        inputs.close()
