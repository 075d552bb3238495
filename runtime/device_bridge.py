"""A network on a device behind the interface of those on the CPU, for pictures that have to pass the host anyway."""

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from stylize.runtime.artifact import Artifact
from stylize.runtime.contract import ModelContract
from stylize.runtime.device import Device, DeviceBuffer, DeviceRunner, DeviceTensor, HostBuffer, Stream
from stylize.runtime.extra_inputs import NO_EXTRAS, Extras
from stylize.runtime.runner import Backend, HostArray, Runner

__all__ = ["DeviceBridge", "DeviceSession", "OpenSession", "open_cuda_session"]

_NUM_IN_FLIGHT: Final = 3  # one copied in, one in the network, one copied out


@dataclass(frozen=True)
class DeviceSession:
    """A device, a network on it and the stream on which that works; the session owns all three."""

    device: Device
    runner: DeviceRunner
    cuda_stream: Stream

    def close(self) -> None:
        """Free the network, then the device."""
        self.runner.close()
        self.device.close()


OpenSession: TypeAlias = Callable[[], DeviceSession]


def open_cuda_session(artifact: Artifact, *, backend: Backend, gpu: int) -> DeviceSession:
    """Open GPU number `gpu` and the network on it, active.

    Raises:
        BackendUnavailableError: no such GPU, or a package is missing.
        ArtifactError: the backend refuses the model.
        BackendError: the GPU has too little memory.
    """
    from stylize.runtime.cuda import CudaDevice

    device = CudaDevice(gpu)
    cuda_stream = device.open_stream()
    runner: DeviceRunner
    if backend == Backend.TENSORRT:
        from stylize.runtime.runner_tensorrt import TensorRTRunner

        runner = TensorRTRunner(artifact, device=device, cuda_stream=cuda_stream)
    else:
        from stylize.runtime.runner_onnxruntime_cuda import OnnxRuntimeCudaRunner

        runner = OnnxRuntimeCudaRunner(artifact, device=device, cuda_stream=cuda_stream)
    try:
        runner.activate()
    except BaseException:
        device.close()
        raise
    return DeviceSession(device, runner, cuda_stream)


class DeviceBridge(Runner[HostArray]):
    """Copies pictures to the device and back through page-locked memory, several at a time."""

    def __init__(self, artifact: Artifact, open_session: OpenSession) -> None:
        """Remember how to open the network; `activate` does it."""
        super().__init__(artifact)
        self._open_session = open_session
        self._session: DeviceSession | None = None
        self._lanes: list[_Lane] = []
        self._num_started = 0

    @property
    def session(self) -> DeviceSession:
        """The network itself, once active."""
        assert self._session is not None, "activate first"
        return self._session

    @property
    def contract(self) -> ModelContract:
        """What the model promises, as its runner has found it."""
        return self.artifact.contract if self._session is None else self._session.runner.contract

    @property
    def description(self) -> str:
        """That of the network's runner."""
        return self.session.runner.description

    @property
    def num_in_flight(self) -> int:
        """See `Runner.num_in_flight`."""
        return _NUM_IN_FLIGHT

    def activate(self) -> None:
        """Open device and network; see `Runner.activate`."""
        self._session = self._open_session()

    def enqueue(
        self, source: HostArray, *, target: HostArray, cuda_stream: int | None, extras: Extras = NO_EXTRAS
    ) -> None:
        """Run one pass, complete on return; see `Runner.enqueue`."""
        self.start(source, target=target, extras=extras)()

    def start(self, source: HostArray, *, target: HostArray, extras: Extras = NO_EXTRAS) -> Callable[[], None]:
        """Begin one pass; see `Runner.start`."""
        session = self.session
        with session.device.current():
            lane = self._lane(source)
            lane.staged_in.data[:] = np.ascontiguousarray(source).reshape(-1).view(np.uint8)
            upload, compute, download = lane.upload, session.cuda_stream, lane.download
            device, size_bytes = session.device, source.nbytes
            device.upload(lane.source.address, lane.staged_in, size_bytes, cuda_stream=upload)
            lane.event.record(cuda_stream=upload)
            compute.wait_for(lane.event)
            tensors = [
                DeviceTensor(at.address, source.shape, self.contract.precision) for at in (lane.source, lane.target)
            ]
            session.runner.enqueue(tensors[0], target=tensors[1], cuda_stream=compute.handle, extras=extras)
            lane.event.record(cuda_stream=compute)
            download.wait_for(lane.event)
            device.download(lane.staged_out, lane.target.address, size_bytes, cuda_stream=download)
            lane.event.record(cuda_stream=download)

        def wait() -> None:
            with session.device.current():
                lane.event.synchronize()
            target.reshape(-1).view(np.uint8)[:] = lane.staged_out.data

        return wait

    def close(self) -> None:
        """Free everything; see `Runner.close`."""
        session, self._session = self._session, None
        if session is None:
            return
        lanes, self._lanes = self._lanes, []
        with closing(session), session.device.current(), ExitStack() as owned:
            for lane in lanes:
                owned.callback(lane.close)
            for stream in (
                session.cuda_stream,
                *(stream for lane in lanes[:1] for stream in (lane.upload, lane.download)),
            ):
                owned.callback(stream.synchronize)  # before, and what failed keeps no memory from being freed

    def _lane(self, source: HostArray) -> "_Lane":
        """The lane whose turn it is, with memory for pictures like `source`; its last pass was waited for."""
        device = self.session.device
        if not self._lanes:
            upload, download = device.open_stream(), device.open_stream()
            self._lanes = [_Lane(device, upload, download) for _ in range(_NUM_IN_FLIGHT)]
        lane = self._lanes[self._num_started % _NUM_IN_FLIGHT]
        self._num_started += 1
        if lane.size_bytes != source.nbytes:
            lane.close()
            lane.open(device, source.nbytes)
        return lane


class _Lane:
    """What one pass under way needs."""

    source: DeviceBuffer
    target: DeviceBuffer
    staged_in: HostBuffer
    staged_out: HostBuffer

    def __init__(self, device: Device, upload: Stream, download: Stream) -> None:
        self.upload, self.download, self.event = upload, download, device.open_event()
        self.size_bytes = 0
        self._owned = ExitStack()

    def open(self, device: Device, size_bytes: int) -> None:
        """Take memory for pictures of `size_bytes`."""
        with ExitStack() as owned:
            self.source, self.target = (owned.enter_context(device.allocate(size_bytes)) for _ in range(2))
            self.staged_in, self.staged_out = (owned.enter_context(device.allocate_host(size_bytes)) for _ in range(2))
            self._owned = owned.pop_all()
        self.size_bytes = size_bytes

    def close(self) -> None:
        self._owned.close()
        self.size_bytes = 0
