"""When a pass is recorded as a graph, when not, and what its owner sees; a GPU's own graphs are in tests/gpu."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from helpers.host_device import HostDevice, HostStream, array_at
from helpers.networks import write_affine
from stylize.runtime.artifact import open_artifact
from stylize.runtime.color import Color
from stylize.runtime.cuda_graph import RepeatedPass
from stylize.runtime.device import DeviceTensor, Stream
from stylize.runtime.device_color import SurfaceLayout
from stylize.runtime.device_pass import DevicePass
from stylize.runtime.errors import BackendError
from stylize.runtime.gpu import Gpu
from stylize.runtime.runner_onnxruntime_cuda import PROVIDER, OnnxRuntimeCudaRunner

SHAPE = (1, 3, 8, 8)


class HostGraph:
    """A graph of the device of threads: the steps that were queued while it was recorded."""

    num_open = 0

    def __init__(self, cuda_stream: Stream, work: Callable[[], None]) -> None:
        assert isinstance(cuda_stream, HostStream)
        self._stream, self._steps = cuda_stream, list[Callable[[], None]]()
        cuda_stream.push = self._steps.append  # type: ignore[method-assign]
        try:
            work()
        finally:
            del cuda_stream.push
        HostGraph.num_open += 1

    def launch(self, *, cuda_stream: int) -> None:
        assert cuda_stream == self._stream.handle
        for step in self._steps:
            self._stream.push(step)

    def close(self) -> None:
        HostGraph.num_open -= 1


class Network:
    """Adds 1 on the device of threads, and counts how often it was asked to."""

    def __init__(self, device: HostDevice) -> None:
        self.stream = device.open_stream()
        self.repeated = RepeatedPass(device, cuda_stream=self.stream, name="plus one")
        self.num_queued, self.num_bound = 0, 0

    def enqueue(self, source: DeviceTensor, target: DeviceTensor) -> None:
        def bind() -> None:
            self.num_bound += 1

        def work() -> None:
            self.num_queued += 1
            self.stream.push(lambda: np.add(array_at(source), 1, out=array_at(target)))  # type: ignore[attr-defined]

        self.repeated.enqueue((source, target), bind=bind, work=work)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[HostDevice]:
    monkeypatch.setattr("stylize.runtime.cuda_graph.CudaGraph", HostGraph)
    HostGraph.num_open = 0
    with HostDevice(seed=0) as device, device.current():
        yield device
        assert HostGraph.num_open == 0
        assert device.allocated_bytes == 0


def tensors(device: HostDevice, count: int) -> tuple[list[DeviceTensor], list[object]]:
    size = DeviceTensor(0, SHAPE, "fp32").size_bytes
    memory = [device.allocate(size) for _ in range(count)]
    return [DeviceTensor(buffer.address, SHAPE, "fp32") for buffer in memory], [*memory]


def test_the_second_pass_at_the_same_addresses_is_recorded_and_others_come_from_it(device: HostDevice) -> None:
    network, (places, memory) = Network(device), tensors(device, 2)
    for number in range(6):
        network.stream.synchronize()
        array_at(places[0])[:] = number
        network.enqueue(*places)
        network.stream.synchronize()
        assert np.unique(array_at(places[1])).tolist() == [number + 1]
        assert network.repeated.is_recorded == (number > 0)
    # The first, and of the second the one that is compared and the one that is recorded.
    assert (network.num_queued, network.num_bound) == (3, 1)
    network.repeated.forget()
    for buffer in memory:
        buffer.close()  # type: ignore[attr-defined]


def test_passes_that_take_turns_at_their_addresses_are_not_recorded(device: HostDevice) -> None:
    network, (places, memory) = Network(device), tensors(device, 4)
    for number in range(6):
        network.enqueue(*(places[:2] if number % 2 else places[2:]))
    assert (network.num_queued, network.num_bound) == (6, 6)
    assert not network.repeated.is_recorded
    network.stream.synchronize()
    for buffer in memory:
        buffer.close()  # type: ignore[attr-defined]


def test_a_pass_that_cannot_be_recorded_runs_as_it_is(device: HostDevice, caplog: pytest.LogCaptureFixture) -> None:
    network, (places, memory) = Network(device), tensors(device, 2)

    def wait() -> None:
        if "push" in vars(network.stream):
            raise BackendError("cuStreamEndCapture failed: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED")
        network.num_queued += 1

    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            network.repeated.enqueue(tuple(places), bind=lambda: None, work=wait)
    assert caplog.messages == [
        "plus one: runs without a CUDA graph: cuStreamEndCapture failed: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"
    ]
    assert network.num_queued == 5
    for buffer in memory:
        buffer.close()  # type: ignore[attr-defined]


def test_a_graph_that_reads_what_is_gone_is_not_used(device: HostDevice, caplog: pytest.LogCaptureFixture) -> None:
    """As one would that copies from memory of the host that only lived while it was recorded."""
    network, (places, memory) = Network(device), tensors(device, 2)
    values = np.zeros(SHAPE, np.float32)

    def work() -> None:
        values[:] = network.num_queued = network.num_queued + 1
        network.stream.push(lambda: np.copyto(array_at(places[1]), values))  # type: ignore[attr-defined]
        if "push" not in vars(network.stream):
            network.stream.synchronize()

    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            network.repeated.enqueue(tuple(places), bind=lambda: None, work=work)
            network.stream.synchronize()
            assert np.unique(array_at(places[1])).tolist() == [network.num_queued]
    assert caplog.messages == ["plus one: runs without a CUDA graph: from one it gives another picture"]
    for buffer in memory:
        buffer.close()  # type: ignore[attr-defined]


def onnxruntime_of(stream: HostStream, providers: list[str]) -> SimpleNamespace:
    """What of ONNX Runtime the runner uses, for a model that adds 1; what is bound is in `bound`."""
    bound: dict[str, DeviceTensor] = {}

    def bind(name: str, kind: str, ordinal: int, dtype: type, shape: tuple[int, ...], address: int) -> None:
        assert (kind, ordinal, dtype) == ("cuda", 0, np.float32)
        bound[name] = DeviceTensor(address, shape, "fp32")

    def run(_binding: object, options: dict[str, str]) -> None:
        assert options["disable_synchronize_execution_providers"] == "1", "nobody may wait"
        source, target = array_at(bound["frame"]), array_at(bound["stylized"])
        stream.push(lambda: np.add(source, 1, out=target))

    def session(_model: str, options: dict[str, str], **_: object) -> SimpleNamespace:
        assert options["session.record_ep_graph_assignment_info"] == "1"
        return SimpleNamespace(
            get_providers=lambda: [PROVIDER],
            get_provider_graph_assignment_info=lambda: [SimpleNamespace(ep_name=name) for name in providers],
            io_binding=lambda: SimpleNamespace(bind_input=bind, bind_output=bind),
            run_with_iobinding=run,
        )

    class Options(dict[str, str]):
        add_session_config_entry = add_run_config_entry = dict.__setitem__

    return SimpleNamespace(
        __version__="1.31.1", InferenceSession=session, SessionOptions=Options, RunOptions=Options, bound=bound
    )


@pytest.mark.parametrize("providers", [[PROVIDER, PROVIDER], [PROVIDER, "CPUExecutionProvider"]])
def test_onnx_runtime_is_recorded_before_the_first_picture_where_all_of_it_is_on_the_gpu(
    providers: list[str], device: HostDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is recorded no other thread, such as the decoder's, should be at work on the GPU."""
    stream = device.open_stream()
    assert isinstance(stream, HostStream)
    module = onnxruntime_of(stream, providers)
    monkeypatch.setattr("stylize.runtime.runner_onnxruntime_cuda.import_onnxruntime_cuda", lambda: module)
    monkeypatch.setattr("stylize.runtime.runner_onnxruntime_cuda.onnxruntime_errors", lambda _: (RuntimeError,))
    device.gpu = Gpu(index=0, name="a GPU", compute_capability="8.9")  # type: ignore[attr-defined]
    runner = OnnxRuntimeCudaRunner(
        open_artifact(write_affine(tmp_path / "model.onnx")), device=device, cuda_stream=stream
    )  # type: ignore[arg-type]
    runner.activate()
    layout, color = SurfaceLayout("nv12", 64, 48), Color(matrix=1, is_full_range=False)
    with DevicePass(
        device, runner, cuda_stream=stream, size=(64, 48), output=layout, output_color=color, is_encoded_by_host=True
    ):
        assert HostGraph.num_open == (1 if len({*providers}) == 1 else 0)
        assert runner.description.endswith(", CUDA graph") == (HostGraph.num_open == 1)
        source, target = (array_at(module.bound[name]) for name in ("frame", "stylized"))
        assert 0.4 < source.mean() < 0.6, "recorded on noise, on which a wrong graph shows"
        assert np.allclose(target, source + 1)
    runner.close()


def test_the_real_onnx_runtime_says_where_each_part_runs(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    model = str(write_affine(tmp_path / "model.onnx"))
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    assert {part.ep_name for part in session.get_provider_graph_assignment_info()} == {"CPUExecutionProvider"}
