"""A loaded model, and pictures as arrays."""

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from stylize.runtime.artifact import Artifact, open_artifact
from stylize.runtime.device import Device
from stylize.runtime.device_bridge import DeviceBridge, DeviceSession
from stylize.runtime.errors import BackendError
from stylize.runtime.extra_inputs import ExtraInputs, StyleMix
from stylize.runtime.finish import Finish
from stylize.runtime.frame import Frame, TimedPicture
from stylize.runtime.network_pass import NetworkPass
from stylize.runtime.runner import Backend, ComputePrecision, open_active_runner
from stylize.runtime.video_info import VideoInfo

__all__ = ["Stylizer"]


class Stylizer:
    """One loaded model; a context manager, used by one thread at a time."""

    def __init__(
        self,
        model: str | Path | Artifact,
        *,
        backend: Backend = Backend.AUTO,
        num_threads: int = 0,
        precision: ComputePrecision = ComputePrecision.AUTO,
        gpu: int | None = None,
        strength: float = 1.0,
        style_scale: float = 1.0,
        style_mix: str | Sequence[float] | StyleMix | None = None,
        seed: int = 0,
    ) -> None:
        """Load `model`.

        Args:
            model: an ONNX file, the name of a built-in style, or an opened artifact.
            backend: what executes the network.
            num_threads: threads for the network; 0 leaves the choice to the backend.
            precision: what the network is computed in.
            gpu: number of the GPU; None for the first, where the backend uses one.
            strength: 0 shows the source, 1 the style, in between a blend.
            style_scale: size of the picture the network sees over that of the frame; below 1 strokes grow.
            style_mix: shares of the styles of a model of several, as numbers in its order; or text such as
                `0.3,0.7`, the name of one, or moments between which they change, `0:1,0;5:0,1`. None is the first.
            seed: of the noise that some models take beside the frame.

        Raises:
            ArtifactError: no such file or style, or not a model.
            BackendUnavailableError: the backend's package or that GPU is missing, or the CPU lacks the precision.
            OptionError: strength outside [0, 1], a style scale or mix this model or a precision or GPU this backend
                cannot have.
        """
        self.artifact = model if isinstance(model, Artifact) else open_artifact(model)
        self.strength = strength
        self._in_use, self._is_closed = threading.Lock(), False
        self._settings = {"strength": strength, "style_scale": style_scale, "style_mix": style_mix, "seed": seed}
        self._finish = Finish(strength=strength)
        self._style_scale = style_scale
        if not self.artifact.is_bare_engine:  # before minutes of building
            ExtraInputs(self.artifact.contract, style_mix=style_mix, seed=seed)
        self._runner, self._backend_reason = open_active_runner(
            self.artifact, backend=backend, num_threads=num_threads, precision=precision, gpu=gpu
        )
        try:
            self.extra_inputs = ExtraInputs(self._runner.contract, style_mix=style_mix, seed=seed)
            self._pass = NetworkPass(self._runner, style_scale=style_scale, extra_inputs=self.extra_inputs)
        except BaseException:
            self._runner.close()
            raise

    @property
    def backend(self) -> str:
        """Backend, version, device and precision really in use, and why not the fastest one."""
        reason = f" ({self._backend_reason})" if self._backend_reason else ""
        return self._runner.description + reason

    @property
    def precision(self) -> str:
        """What the network is really computed in, for example `fp32`."""
        return self._runner.precision

    @property
    def facts(self) -> dict[str, str]:
        """All on which the picture depends, by name: the model, its settings and what computes it."""
        digest = hashlib.sha256(self.artifact.path.read_bytes()).hexdigest()
        return {
            "model": f"{self.artifact.name} ({digest[:12]})",
            "contract": self.artifact.contract.to_json(),
            "backend": self._runner.description,
            **{name: str(value) for name, value in self._settings.items()},
        }

    def run(self, frames_NHWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Stylize pictures.

        Args:
            frames_NHWC: (N, H, W, 3) RGB, uint8 in [0, 255], any H and W.

        Returns:
            The same shape and type, a new array.

        Raises:
            ValueError: another shape or type, or frames without pixels.
            BackendError: as `stylize`.
        """
        if frames_NHWC.ndim != 4:
            hint = ": for one picture give frames[None]" if frames_NHWC.ndim == 3 else ""
            raise ValueError(f"expected (N, H, W, 3), got {frames_NHWC.shape}{hint}")
        stylized_NHWC = np.empty_like(frames_NHWC)
        for source, target in zip(frames_NHWC, stylized_NHWC, strict=True):
            frame = Frame.from_array(source)
            self.stylize(frame)
            target[:] = frame.to_array()
        return stylized_NHWC

    def stylize(self, frame: Frame, *, finish: Finish | None = None) -> None:
        """Replace the pixels of `frame` in place, see `begin`.

        Raises:
            BackendError: the network failed, this is closed, or another thread is using it.
        """
        with self.held():
            self.begin(frame, finish=finish, is_alone=True)()

    @contextmanager
    def held(self) -> Iterator[Self]:
        """Keep other threads away for as long as the block lasts.

        Raises:
            BackendError: this is closed, or another thread is using it.
        """
        self._check_open()
        if not self._in_use.acquire(blocking=False):
            raise BackendError("one Stylizer serves one thread at a time, and another is using it: open one for each")
        try:
            yield self
        finally:
            self._in_use.release()

    def _check_open(self) -> None:
        if self._is_closed:
            raise BackendError("this Stylizer is closed: open a new one")

    @property
    def device(self) -> Device | None:
        """The GPU that the network is on, None on the CPU."""
        return self._runner.session.device if isinstance(self._runner, DeviceBridge) else None

    @property
    def surface_session(self) -> DeviceSession | None:
        """The GPU where whole surfaces can be stylized, None where pictures pass through the CPU.

        The kernels pad and write planes of RGB; they neither scale nor paint from noise alone.
        """
        contract = self._runner.contract
        takes_planes = contract.layout == "NCHW" and not contract.makes_textures and self._style_scale == 1.0
        return self._runner.session if isinstance(self._runner, DeviceBridge) and takes_planes else None

    @property
    def surface_gpu(self) -> int | None:
        """The number of that GPU."""
        session = self.surface_session
        return None if session is None else session.device.dlpack_device[1]

    @property
    def num_in_flight(self) -> int:
        """How many frames may be begun before the first is completed."""
        return self._runner.num_in_flight

    def begin(self, frame: TimedPicture, *, finish: Finish | None = None, is_alone: bool = False) -> Callable[[], None]:
        """Start on `frame` and return what completes it in place.

        At most `num_in_flight` may be begun; complete them once each and in order.

        Args:
            frame: what to stylize.
            finish: how the style shows; by default all of it at the own strength.
            is_alone: whether none is begun before the last is completed. A single one is faster so, many are slower.

        Raises:
            BackendError: the network failed, or this is closed; completing raises it too.
        """
        assert isinstance(frame, Frame), "decoders make nothing else unless asked"
        self._check_open()
        return self._pass.begin(frame, finish=finish or self._finish, is_alone=is_alone)

    def notes_on(self, info: VideoInfo) -> tuple[str, ...]:
        """What the model cannot do for such a video, one sentence each."""
        fixed = self._runner.contract.fixed_size
        if fixed is None or (info.width <= fixed[0] and info.height <= fixed[1]):
            return ()
        return (f"the model takes {fixed[0]}x{fixed[1]} only: it paints frames scaled down to that, enlarged again",)

    def close(self) -> None:
        """Free the model; calling it again is harmless."""
        self._is_closed = True
        self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
