"""What is timed: every stage of a rendering alone, and all of them at once.

The stages are the runtime's own parts, put together as `stylize-run` does. Each case returns the
seconds of every frame, so medians, percentiles and frames per second come from the same samples.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stylize.benchmarks.measure import Case
from stylize.benchmarks.results import Stage
from stylize.runtime.decode import Decoder, Item, VideoInfo
from stylize.runtime.device import DeviceTensor
from stylize.runtime.device_bridge import DeviceSession
from stylize.runtime.encode import Encoder
from stylize.runtime.extra_inputs import ExtraInputs
from stylize.runtime.finish import Finish
from stylize.runtime.frame import Frame, TimedPicture
from stylize.runtime.network_pass import padded_size
from stylize.runtime.partial_file import PartialFile
from stylize.runtime.pipeline import run_pipeline
from stylize.runtime.route import Route
from stylize.runtime.runner import Backend, ComputePrecision
from stylize.runtime.stylizer import Stylizer

__all__ = [
    "DecodeCase",
    "DeviceNetworkCase",
    "EncodeCase",
    "ModelUnderTest",
    "NetworkCase",
    "PeerCases",
    "PipelineCase",
    "TimelineSpan",
    "decoded_frames",
    "network_case",
]


@dataclass(frozen=True, kw_only=True)
class TimelineSpan:
    """One frame in one stage of the pipeline.

    Attributes:
        stage: `decode`, `network` or `encode`.
        frame_index: number of the frame.
        begin_seconds: since the pipeline was started.
        end_seconds: likewise.
    """

    stage: str
    frame_index: int
    begin_seconds: float
    end_seconds: float


@dataclass(frozen=True, kw_only=True)
class ModelUnderTest:
    """A loaded model on one backend; whoever opened the stylizer closes it.

    Attributes:
        stylizer: the model at full strength.
        backend: what runs it, never `AUTO`.
        asked_precision: what it was opened with; `precision` says what came of it.
    """

    stylizer: Stylizer
    backend: Backend
    asked_precision: ComputePrecision = ComputePrecision.AUTO

    @property
    def name(self) -> str:
        """Style name or file stem."""
        return self.stylizer.artifact.name

    @property
    def precision(self) -> str:
        """What the network is computed in."""
        return self.stylizer.precision

    @property
    def identity(self) -> tuple[str, str, str]:
        """Name, backend and precision: what tells one row of the results from another."""
        return self.name, str(self.backend), self.precision

    @property
    def label(self) -> str:
        """Name, backend and precision, in one line."""
        return "{}, {} {}".format(*self.identity)


@dataclass(frozen=True, kw_only=True)
class PeerCases:
    """The stages of another way to run a model, timed in turn with ours.

    Attributes:
        model: name of the model.
        backend: what runs it, with its version.
        precision: element type of the network.
        by_stage: the cases.
    """

    model: str
    backend: str
    precision: str
    by_stage: Mapping[Stage, Case]


def decoded_frames(clip: Path) -> list[Frame]:
    """All frames of a video, as the network reads them."""
    with Decoder(clip) as decoder:
        return list(_video_frames(decoder))


def _video_frames(decoder: Decoder) -> Iterator[Frame]:
    return (item for item in decoder if isinstance(item, Frame))


class DecodeCase:
    """Opening a video and decoding it to what the network reads."""

    def __init__(self, clip: Path) -> None:
        self._clip = clip

    def __call__(self) -> Sequence[float]:
        """Seconds of each frame; the first one's include opening the file."""
        seconds = []
        begin = time.perf_counter()
        with Decoder(self._clip) as decoder:
            for _ in _video_frames(decoder):
                end = time.perf_counter()
                seconds.append(end - begin)
                begin = end
        return seconds


def network_case(model: ModelUnderTest, frames: Sequence[Frame]) -> Case:
    """The network alone on `frames`: by the GPU's clock where its tensors stay there, else by the host's."""
    session = model.stylizer.surface_session
    return NetworkCase(model, frames) if session is None else DeviceNetworkCase(session, frames)


class NetworkCase:
    """The network with its padding and cropping, from frame to frame in host memory."""

    def __init__(self, model: ModelUnderTest, frames: Sequence[Frame]) -> None:
        """Use `frames`, which stay as they are and may be shared."""
        self._model = model
        self._frames = frames

    def __call__(self) -> Sequence[float]:
        """Seconds of each frame; restoring the source between passes is not counted."""
        seconds = []
        first = self._frames[0]
        work = Frame.blank(first.width, first.height)
        for frame in self._frames:
            for target, source in zip(work.planes, frame.planes, strict=True):
                np.copyto(target, source)
            begin = time.perf_counter()
            self._model.stylizer.stylize(work)
            seconds.append(time.perf_counter() - begin)
        return seconds


class DeviceNetworkCase:
    """The network from tensor to tensor in device memory, timed by events in its stream."""

    def __init__(self, session: DeviceSession, frames: Sequence[Frame]) -> None:
        """Run `session` as often as there are frames, on noise of their size."""
        self._session, self._num_frames = session, len(frames)
        contract = session.runner.contract
        width, height = contract.fixed_size or padded_size(contract, frames[0].width, frames[0].height)
        black, white = contract.value_range
        dtype = np.float16 if contract.precision == "fp16" else np.float32
        # Not zeros: a GPU draws less power on them and clocks higher.
        self._picture = np.random.default_rng(0).uniform(black, white, (1, 3, height, width)).astype(dtype)
        self._extras = ExtraInputs(contract).at(0.0, height=height, width=width)

    def __call__(self) -> Sequence[float]:
        """Seconds of each pass, one after the other."""
        device, cuda_stream, runner = self._session.device, self._session.cuda_stream, self._session.runner
        precision, num_bytes = runner.contract.precision, self._picture.nbytes
        seconds = []
        with (
            device.current(),
            device.allocate(num_bytes) as read,
            device.allocate(num_bytes) as written,
            device.allocate_host(num_bytes) as staged,
        ):
            begin, end = device.open_event(has_time=True), device.open_event(has_time=True)
            staged.data[:] = self._picture.reshape(-1).view(np.uint8)
            device.upload(read.address, staged, num_bytes, cuda_stream=cuda_stream)
            source, target = (
                DeviceTensor(buffer.address, self._picture.shape, precision) for buffer in (read, written)
            )
            for _ in range(self._num_frames):
                begin.record(cuda_stream=cuda_stream)
                runner.enqueue(source, target=target, cuda_stream=cuda_stream.handle, extras=self._extras)
                end.record(cuda_stream=cuda_stream)
                end.synchronize()
                seconds.append(end.seconds_since(begin))
        return seconds


class EncodeCase:
    """Encoding stylized frames and writing the file, with the encoder `stylize-run` uses by default."""

    def __init__(self, model: ModelUnderTest, clip: Path, target: Path) -> None:
        self._target = target
        with Decoder(clip) as decoder:
            self._info: VideoInfo = decoder.info
            self._frames = list(_video_frames(decoder))
        for frame in self._frames:
            model.stylizer.stylize(frame)

    def __call__(self) -> Sequence[float]:
        """Seconds of each frame; the last one's include what the encoder held back."""
        seconds = []
        with PartialFile(self._target) as output:
            begin = time.perf_counter()
            with Encoder(output, info=self._info) as encoder:
                for frame in self._frames:
                    encoder.write(frame)
                    end = time.perf_counter()
                    seconds.append(end - begin)
                    begin = end
            output.commit()
            seconds[-1] += time.perf_counter() - begin
        return seconds


class PipelineCase:
    """Decode, network and encode overlapping, as `stylize-run` runs them.

    Attributes:
        timelines: of each run so far, warm-up included: when every frame was in which stage.
    """

    def __init__(self, model: ModelUnderTest, clip: Path, target: Path) -> None:
        self._model, self._clip, self._target = model, clip, target
        self.timelines: list[list[TimelineSpan]] = []

    def __call__(self) -> Sequence[float]:
        """The whole duration spread evenly over the frames, for they overlap; see `latencies_seconds`."""
        spans: list[TimelineSpan] = []
        with PartialFile(self._target) as output:
            started = time.perf_counter()
            stylizer = self._model.stylizer
            with (
                Decoder(self._clip, surface_gpu=stylizer.surface_gpu) as decoder,
                Route(stylizer, decoder, finish=Finish()) as route,
                Encoder(output, info=decoder.info, source=decoder) as encoder,
            ):
                route.lead_to(encoder.video)
                timed = _TimedStages(route.passable(decoder), route.begin, encoder, spans, started)
                run_pipeline(timed.source(), network=timed.begin, sink=timed.write, num_in_flight=route.num_in_flight)
            output.commit()
            duration_seconds = time.perf_counter() - started
        self.timelines.append(spans)
        num_frames = sum(span.stage == "network" for span in spans)
        return [duration_seconds / num_frames] * num_frames

    def latencies_seconds(self, *, num_warmup: int) -> list[float]:
        """From the begin of a frame's decoding to its hand-over to the encoder, queues included."""
        latencies = []
        for spans in self.timelines[num_warmup:]:
            begins = {span.frame_index: span.begin_seconds for span in spans if span.stage == "decode"}
            latencies += [span.end_seconds - begins[span.frame_index] for span in spans if span.stage == "encode"]
        return latencies


class _TimedStages:
    """The three stages, each noting when it worked on which frame; a list append is atomic."""

    def __init__(
        self,
        items: Iterable[Item],
        begin: Callable[[TimedPicture], Callable[[], None]],
        encoder: Encoder,
        spans: list[TimelineSpan],
        started: float,
    ) -> None:
        self._items, self._begin, self._encoder = items, begin, encoder
        self._spans, self._started = spans, started
        self._num_stylized = self._num_written = 0

    def _note(self, stage: str, frame_index: int, begin: float) -> None:
        span = TimelineSpan(
            stage=stage,
            frame_index=frame_index,
            begin_seconds=begin - self._started,
            end_seconds=time.perf_counter() - self._started,
        )
        self._spans.append(span)

    def source(self) -> Iterator[Item]:
        num_decoded = 0
        begin = time.perf_counter()
        for item in self._items:
            if isinstance(item, TimedPicture):
                self._note("decode", num_decoded, begin)
                num_decoded += 1
            yield item
            begin = time.perf_counter()

    def begin(self, frame: TimedPicture) -> Callable[[], None]:
        begin = time.perf_counter()
        complete_frame = self._begin(frame)

        def complete() -> None:
            complete_frame()
            self._note("network", self._num_stylized, begin)
            self._num_stylized += 1

        return complete

    def write(self, item: Item) -> None:
        begin = time.perf_counter()
        self._encoder.write(item)
        if isinstance(item, TimedPicture):
            self._note("encode", self._num_written, begin)
            self._num_written += 1
