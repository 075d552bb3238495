"""What of each stage is timed and what is not, by a clock that only the work in question moves."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.clips import ClipSpec, write_clip
from helpers.networks import write_convolutions
from stylize.benchmarks import cases, speed
from stylize.benchmarks.cases import (
    DecodeCase,
    EncodeCase,
    ModelUnderTest,
    PipelineCase,
    decoded_frames,
    network_case,
)
from stylize.benchmarks.clip_file import WorkingClip, prepare_clip
from stylize.benchmarks.graph_cost import gflop_per_frame
from stylize.benchmarks.memory import PeakMemory
from stylize.benchmarks.results import ClipFacts
from stylize.benchmarks.speed import SpeedOptions, choose_num_frames, measure_speed
from stylize.benchmarks.steadying import steadied_clip
from stylize.runtime.decode import Decoder
from stylize.runtime.encode import Encoder
from stylize.runtime.frame import Frame
from stylize.runtime.runner import Backend
from stylize.runtime.stylizer import Stylizer

NUM_FRAMES = 3


class Clock:
    """In place of the module `time`."""

    now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(cases, "time", clock)
    return clock


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", ClipSpec(pts=range(NUM_FRAMES)))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelUnderTest]:
    path = write_convolutions(tmp_path_factory.mktemp("model") / "small.onnx")
    with Stylizer(path, backend=Backend.ONNXRUNTIME) as stylizer:
        yield ModelUnderTest(stylizer=stylizer, backend=Backend.ONNXRUNTIME)


def slowed(clock: Clock, seconds: float, work: Callable[..., Any]) -> Callable[..., Any]:
    """`work`, which takes so long by the clock."""

    def slowly(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - whatever the work takes and gives
        clock.now += seconds
        return work(*arguments, **options)

    return slowly


def test_decoding_begins_with_opening_the_file(clip: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "Decoder", slowed(clock, 0.5, Decoder))
    monkeypatch.setattr(
        Decoder, "__iter__", lambda decoder: map(slowed(clock, 0.01, lambda item: item), decoder._items)
    )
    assert DecodeCase(clip)() == pytest.approx([0.51, 0.01, 0.01])


def test_the_network_is_timed_without_what_prepares_its_frames(
    clip: Path, model: ModelUnderTest, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = decoded_frames(clip)
    monkeypatch.setattr(Frame, "blank", slowed(clock, 7.0, Frame.blank))
    monkeypatch.setattr(np, "copyto", slowed(clock, 7.0, np.copyto))
    case = network_case(model, frames)
    monkeypatch.setattr(Stylizer, "stylize", lambda _stylizer, _frame: slowed(clock, 0.02, lambda: None)())
    assert case() == pytest.approx([0.02] * NUM_FRAMES)


def test_encoding_ends_when_the_file_is_complete(
    clip: Path, model: ModelUnderTest, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = EncodeCase(model, clip, tmp_path / "out.mp4")
    monkeypatch.setattr(cases, "Encoder", slowed(clock, 0.5, Encoder))
    monkeypatch.setattr(Encoder, "write", slowed(clock, 0.01, Encoder.write))
    monkeypatch.setattr(Encoder, "_finish", slowed(clock, 0.2, Encoder._finish))
    assert case() == pytest.approx([0.51, 0.01, 0.21])


def test_latency_in_the_pipeline_is_of_the_rounds_that_count(clip: Path, model: ModelUnderTest, tmp_path: Path) -> None:
    case = PipelineCase(model, clip, tmp_path / "out.mp4")
    durations = [sum(case()) for _ in range(3)]
    latencies = case.latencies_seconds(num_warmup=1)
    assert len(latencies) == 2 * NUM_FRAMES
    for spans, duration, found in zip(case.timelines[1:], durations[1:], (latencies[:3], latencies[3:]), strict=True):
        assert [span.frame_index for span in spans if span.stage == "network"] == [0, 1, 2]
        last = max(span.end_seconds for span in spans)
        assert max(found) <= last <= duration
        # No frame is encoded before it was decoded and painted.
        work = [sum(s.end_seconds - s.begin_seconds for s in spans if s.frame_index == i) for i in range(3)]
        assert all(latency >= least * 0.99 for latency, least in zip(found, work, strict=True))


def test_rows_are_made_of_what_was_timed(
    clip: Path, model: ModelUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "peak_memory", lambda *_, **__: PeakMemory(resident_bytes=7, device_bytes=None))
    working = prepare_clip(clip, tmp_path, size_px=None, num_frames=NUM_FRAMES)
    speeds = measure_speed([model], [], working, options=SpeedOptions(num_rounds=2), advance=lambda _: None)
    rows = {row.stage: row for row in speeds.rows}
    assert {row.fps.num_samples for row in rows.values()} == {2}
    network = rows["network"]
    work = gflop_per_frame(model.stylizer.artifact.path, width_px=64, height_px=48)
    assert network.gflop_per_frame == work > 0
    assert network.roof_share == pytest.approx(work * network.fps.median / speeds.roof.gemm_gflop_per_second)
    # Of all frames of both rounds; the percentiles' own test is in test_bench_measure.py.
    latencies = speeds.by_model[0].latencies_ms
    assert len(latencies) == 2 * NUM_FRAMES
    assert network.latency_p50_ms == pytest.approx(np.median(latencies))
    assert rows["pipeline"].peak_resident_bytes == 7
    assert rows["pipeline"].latency_p50_ms is not None
    assert rows["pipeline"].latency_p50_ms > network.latency_p50_ms


@pytest.mark.parametrize(("width_px", "num_frames"), [(64, 48), (1920, 40), (7680, 8)])
def test_frames_to_measure_on_fit_a_gigabyte(width_px: int, num_frames: int, clip: Path, model: ModelUnderTest) -> None:
    # 6 bytes a pixel, for the source and for what the one model made of it: 1e9 / (2 * 6 * 1920 * 1080) = 40.2.
    facts = ClipFacts(name="c", width_px=width_px, height_px=width_px * 9 // 16, num_frames=2)
    probe, options = WorkingClip(path=clip, facts=facts), SpeedOptions(budget_seconds=1e6)
    assert choose_num_frames([model], probe, options, has_baseline=False) == num_frames


def test_the_frame_that_steadying_only_keeps_is_not_timed() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (4, 48, 64, 3), np.uint8)
    steadied, seconds = steadied_clip(frames, frames, amount=0.9)
    assert steadied.shape == frames.shape
    assert len(seconds) == 3
