"""What is measured of a GPU, on a device of threads in its place: its own clock and its own memory."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.clips import ClipSpec, write_clip
from helpers.host_device import HostDevice, HostRunner
from helpers.networks import write_affine
from stylize.benchmarks import memory
from stylize.benchmarks.cases import DeviceNetworkCase, ModelUnderTest, PipelineCase, decoded_frames, network_case
from stylize.benchmarks.clip_file import prepare_clip
from stylize.benchmarks.memory import DevicePeak
from stylize.benchmarks.speed import SpeedOptions, measure_speed
from stylize.runtime.artifact import open_artifact
from stylize.runtime.device_bridge import DeviceBridge, DeviceSession
from stylize.runtime.runner import Backend
from stylize.runtime.stylizer import Stylizer

NUM_FRAMES = 3
OTHER_PROGRAMS_BYTES = 1 << 20


class SharedDevice(HostDevice):
    """Outlives the sessions on it, as a GPU does."""

    def close(self) -> None:
        pass


class Rig:
    """A model on a device that other programs use too, and a clip."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clip = write_clip(folder / "clip.mp4", ClipSpec(width=96, height=64, pts=range(NUM_FRAMES)))
        self.artifact = open_artifact(write_affine(folder / "negative.onnx", scale=-1, offset=1))
        self.device = SharedDevice(seed=1)
        self.device.allocated_bytes = OTHER_PROGRAMS_BYTES
        monkeypatch.setattr(
            "stylize.runtime.runner.open_runner", lambda *_, **__: DeviceBridge(self.artifact, self._open)
        )

    def _open(self) -> DeviceSession:
        runner = HostRunner(self.artifact, self.device)
        runner.activate()
        return DeviceSession(self.device, runner, self.device.open_stream())

    @contextlib.contextmanager
    def model(self) -> Iterator[ModelUnderTest]:
        with Stylizer(self.artifact) as stylizer:
            yield ModelUnderTest(stylizer=stylizer, backend=Backend.ONNXRUNTIME_CUDA)


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(tmp_path, monkeypatch)


def test_the_network_is_timed_by_events_of_its_stream(rig: Rig) -> None:
    with rig.model() as model:
        case = network_case(model, decoded_frames(rig.clip))
        assert isinstance(case, DeviceNetworkCase)
        seconds = case()
    assert len(seconds) == NUM_FRAMES
    assert min(seconds) > 0
    assert rig.device.allocated_bytes == OTHER_PROGRAMS_BYTES, "what was taken for it is given back"


def test_the_pipeline_keeps_pictures_on_the_device(rig: Rig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with rig.model() as model:
        monkeypatch.setattr(DeviceBridge, "start", None)  # what pictures of the host would pass through
        pipeline = PipelineCase(model, rig.clip, tmp_path / "out.mp4")
        assert len(pipeline()) == NUM_FRAMES
        assert len(decoded_frames(tmp_path / "out.mp4")) == NUM_FRAMES
        assert len(pipeline.latencies_seconds(num_warmup=0)) == NUM_FRAMES


def test_the_most_memory_held_is_seen_after_it_was_freed() -> None:
    device = HostDevice(seed=0)
    with device.current(), DevicePeak(device) as peak, device.allocate(5000):
        while peak.used_bytes == 0:
            pass
    assert device.allocated_bytes == 0
    assert peak.used_bytes == 5000


def test_memory_of_the_device_is_that_of_the_rendering_alone(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def printed_here(arguments: list[str]) -> str:
        """The process that measures memory cannot see the device: this one does what it would."""
        with contextlib.redirect_stdout(io.StringIO()) as output:
            memory.main(arguments)
        return output.getvalue()

    monkeypatch.setattr(memory, "_printed_elsewhere", printed_here)
    clip = prepare_clip(rig.clip, tmp_path, size_px=None, num_frames=NUM_FRAMES)
    with rig.model() as model:
        speeds = measure_speed([model], [], clip, options=SpeedOptions(num_rounds=1), advance=lambda _: None)
    rows = {row.stage: row for row in speeds.rows}
    held_bytes = rows["pipeline"].peak_device_bytes
    assert held_bytes is not None
    # At least a network's input and output, float32, and not what was in use before.
    assert 2 * 3 * 96 * 64 * 4 <= held_bytes < OTHER_PROGRAMS_BYTES
    assert rows["network"].roof_share is None, "the roof is the CPU's"
