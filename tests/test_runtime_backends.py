"""Every backend keeps the runner's contract, and they agree with each other."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from helpers.clips import ClipSpec, read_frames, write_clip
from helpers.networks import write_affine, write_convolutions
from stylize.runtime import (
    Backend,
    ComputePrecision,
    EncodeOptions,
    ModelContract,
    Stylizer,
    open_artifact,
    open_runner,
    stylize_video,
)
from stylize.runtime.errors import ArtifactError, BackendError, BackendUnavailableError, OptionError

needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
BACKENDS = [Backend.ONNXRUNTIME, pytest.param(Backend.OPENVINO, marks=needs_openvino)]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_convolutions(tmp_path_factory.mktemp("model") / "convolutions.onnx")


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape[-1]).random(shape, dtype=np.float32)


def run(
    path: Path, *batches: np.ndarray, backend: Backend, precision: ComputePrecision = ComputePrecision.AUTO
) -> list[np.ndarray]:
    """What one runner makes of each batch, one after the other."""
    results = [np.empty_like(batch) for batch in batches]
    with open_runner(open_artifact(path), backend=backend, precision=precision) as runner:
        for source, target in zip(batches, results, strict=True):
            runner.enqueue(source, target=target, cuda_stream=None)
    return results


def psnr_db(first: np.ndarray, second: np.ndarray) -> float:
    return float(-10 * np.log10(np.square(first - second, dtype=np.float64).mean()))


def has_bf16() -> bool:
    from openvino import Core

    return "BF16" in Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_runner_takes_any_batch_and_size(backend: Backend, tmp_path: Path) -> None:
    negative = write_affine(tmp_path / "negative.onnx", scale=-1, offset=1)
    batches = [noise(1, 3, 32, 48), noise(3, 3, 40, 36), noise(1, 3, 32, 48)]
    for source, result in zip(batches, run(negative, *batches, backend=backend), strict=True):
        assert np.array_equal(result, 1 - source)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_half_precision_files_and_both_layouts(layout: str, backend: Backend, tmp_path: Path) -> None:
    contract = ModelContract(network="affine", style="half", size_multiple=4, precision="fp16", layout=layout)
    shape = ("N", 3, "H", "W") if layout == "NCHW" else ("N", "H", "W", 3)
    model = write_affine(tmp_path / "half.onnx", contract=contract, elem_type=10, shape=shape)
    frames = np.random.default_rng(0).integers(0, 256, (1, 20, 24, 3), dtype=np.uint8)
    with Stylizer(model, backend=backend) as stylizer:
        assert np.array_equal(stylizer.run(frames), frames)


@needs_openvino
def test_backends_agree_in_float32(network: Path) -> None:
    batches = [noise(1, 3, 34, 46), noise(1, 3, 64, 48)]
    expected = run(network, *batches, backend=Backend.ONNXRUNTIME)
    got = run(network, *batches, backend=Backend.OPENVINO, precision=ComputePrecision.FP32)
    for first, second in zip(expected, got, strict=True):
        # Sums of 144 products of order 1 in another order, each rounded to 2**-24.
        assert np.abs(first - second).max() < 2e-6


@needs_openvino
def test_bf16_is_really_used_and_close(network: Path) -> None:
    if not has_bf16():
        pytest.skip("this CPU has no bf16 instructions")
    frame = noise(1, 3, 64, 96)
    exact, rounded, automatic = (
        run(network, frame, backend=Backend.OPENVINO, precision=precision)[0]
        for precision in (ComputePrecision.FP32, ComputePrecision.BF16, ComputePrecision.AUTO)
    )
    assert np.array_equal(rounded, automatic)
    # 8 bits of mantissa: far from float32's 140 dB, well above the 40 dB promised.
    assert 45 < psnr_db(exact, rounded) < 80


@pytest.mark.parametrize("backend", BACKENDS)
def test_repeated_passes_are_equal_bit_for_bit(backend: Backend, network: Path) -> None:
    frame = noise(1, 3, 120, 160)
    first, *others = run(network, *[frame] * 5, backend=backend) + run(network, frame, backend=backend)
    assert all(np.array_equal(first, other) for other in others)


@pytest.mark.parametrize("backend", BACKENDS)
def test_repeated_renderings_are_equal_bit_for_bit(backend: Backend, network: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", ClipSpec())
    with Stylizer(network, backend=backend) as stylizer:
        for name in "ab":
            # Lossless: x264 on several threads does not write the same bytes every time.
            stylize_video(stylizer, source, tmp_path / f"{name}.mkv", encode=EncodeOptions(codec="ffv1"))
    for first, second in zip(read_frames(tmp_path / "a.mkv"), read_frames(tmp_path / "b.mkv"), strict=True):
        assert np.array_equal(first, second)


@needs_openvino
@pytest.mark.parametrize("precision", [ComputePrecision.AUTO, ComputePrecision.FP32])
def test_openvino_is_taken_where_installed(precision: ComputePrecision, network: Path) -> None:
    with Stylizer(network, precision=precision) as stylizer:
        expected = "bf16" if precision == ComputePrecision.AUTO and has_bf16() else "fp32"
        assert stylizer.precision == expected
        assert stylizer.backend.startswith("OpenVINO 20")
        assert stylizer.backend.endswith(f", CPU, {expected}")


def test_without_openvino_the_report_says_so(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stylize.runtime.runner.find_spec", lambda _name: None)
    with Stylizer(network) as stylizer:
        assert stylizer.precision == "fp32"
        assert stylizer.backend.startswith("ONNX Runtime ")
        assert stylizer.backend.endswith("CPU, fp32 (OpenVINO is not installed)")


@pytest.mark.parametrize(("backend", "extra"), [(Backend.ONNXRUNTIME, "cpu"), (Backend.OPENVINO, "openvino")])
def test_rejects_a_missing_backend(
    backend: Backend, extra: str, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, backend.value, None)
    with pytest.raises(BackendUnavailableError, match=rf"pip install 'stylize\[{extra}\]'"):
        open_runner(open_artifact(network), backend=backend)


@pytest.mark.parametrize("backend", [*BACKENDS, Backend.AUTO])
def test_rejects_a_named_gpu_that_would_not_be_used(
    backend: Backend, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stylize.runtime.gpu._LIBRARY", "libno-such-driver.so")
    with pytest.raises(
        (OptionError, BackendUnavailableError), match=r"^--gpu 0: .*(without --gpu|or drop --gpu$)"
    ) as got:
        Stylizer(network, backend=backend, gpu=0)
    reason = "no NVIDIA driver" if backend == Backend.AUTO else f"{backend} runs on the CPU"
    assert reason in str(got.value)
    with Stylizer(network, backend=backend) as stylizer:
        assert "CPU" in stylizer.backend


def test_rejects_bf16_on_onnxruntime(network: Path) -> None:
    with pytest.raises(OptionError, match="--backend openvino or --precision fp32"):
        open_runner(open_artifact(network), backend=Backend.ONNXRUNTIME, precision=ComputePrecision.BF16)


@needs_openvino
def test_rejects_bf16_on_a_cpu_without_it(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    properties = {"OPTIMIZATION_CAPABILITIES": ["FP32", "INT8"], "FULL_DEVICE_NAME": "Old CPU"}
    old_cpu = SimpleNamespace(get_property=lambda _device, name: properties[name])
    monkeypatch.setattr("stylize.runtime.runner_openvino.openvino_core", lambda: old_cpu)
    runner = open_runner(open_artifact(network), backend=Backend.OPENVINO, precision=ComputePrecision.BF16)
    with pytest.raises(BackendUnavailableError, match=r"Old CPU has no bf16 .* --precision fp32"):
        runner.activate()


@pytest.mark.parametrize("backend", BACKENDS)
def test_rejects_a_model_with_unknown_operators(backend: Backend, tmp_path: Path) -> None:
    path = write_convolutions(tmp_path / "odd.onnx", opset_domain="nobody.knows")
    with pytest.raises(ArtifactError, match=r"odd\.onnx: .* refuses the model: .*Sigmoid"):
        open_runner(open_artifact(path), backend=backend).activate()


@pytest.mark.parametrize("backend", BACKENDS)
def test_rejects_a_damaged_model_without_other_noise(
    backend: Backend, network: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    artifact = open_artifact(network)
    path = tmp_path / "damaged.onnx"
    path.write_bytes(network.read_bytes()[:700])
    with pytest.raises(ArtifactError, match=r"damaged\.onnx: .* refuses the model: \S"):
        open_runner(replace(artifact, path=path), backend=backend).activate()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("backend", BACKENDS)
def test_rejects_an_output_of_another_size(backend: Backend, tmp_path: Path) -> None:
    path = write_convolutions(tmp_path / "half_size.onnx", stride=2)
    with pytest.raises(BackendError, match="32, 48"):
        run(path, noise(1, 3, 32, 48), backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rejects_a_network_that_returns_nan(backend: Backend, tmp_path: Path) -> None:
    model = write_affine(tmp_path / "broken.onnx", scale=float("inf"))
    with Stylizer(model, backend=backend) as stylizer, pytest.raises(BackendError, match="NaN"):
        stylizer.run(np.zeros((1, 8, 8, 3), np.uint8))


@pytest.mark.parametrize("backend", BACKENDS)
def test_passes_side_by_side_give_the_same_bits_wherever_they_run(backend: Backend, network: Path) -> None:
    sources = [noise(1, 3, 96, 128), noise(1, 3, 96, 64)] * 4
    with open_runner(open_artifact(network), backend=backend) as runner:
        results = []
        for _ in range(2):
            targets = [np.empty_like(source) for source in sources]
            begun: list[Callable[[], None]] = []
            for source, target in zip(sources, targets, strict=True):
                begun.append(runner.start(source, target=target))
                if len(begun) == runner.num_in_flight:
                    begun.pop(0)()
            for wait in begun:
                wait()
            results.append(targets)
    for first, second in zip(results[0][2:], results[1][:-2], strict=True):
        # Two further on: another request has the same source.
        assert np.array_equal(first, second)


@needs_openvino
def test_failures_side_by_side_are_raised_and_leave_the_runner_usable(tmp_path: Path) -> None:
    path = write_convolutions(tmp_path / "half_size.onnx", stride=2)
    source = noise(1, 3, 32, 48)
    fitting, too_large = np.empty((1, 3, 16, 24), np.float32), np.empty_like(source)
    with open_runner(open_artifact(path), backend=Backend.OPENVINO) as runner:
        for _ in range(3):
            with pytest.raises(BackendError, match="32, 48"):
                runner.start(source, target=too_large)()
            runner.start(source, target=fitting)()
    assert np.isfinite(fitting).all()


def test_one_thread_runs_one_pass_at_a_time(network: Path) -> None:
    with Stylizer(network, num_threads=1) as stylizer:
        assert stylizer.num_in_flight == 1


def test_ctrl_c_is_no_crash_after_a_model_was_closed_in_another_thread(tmp_path: Path) -> None:
    """OpenVINO frees the stack on which the first thread's handlers of signals run, when its last model goes."""
    code = """
import signal, sys, threading
from stylize.runtime import Backend, Stylizer

for _ in range(2):
    stylizer = Stylizer(sys.argv[1], backend=Backend.OPENVINO).__enter__()
    thread = threading.Thread(target=stylizer.__exit__, args=(None, None, None))
    del stylizer
    thread.start()
    thread.join()
    del thread
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""
    model = write_affine(tmp_path / "identity.onnx")
    done = subprocess.run([sys.executable, "-c", code, str(model)], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "interrupted"), done.stderr
