"""The most memory a rendering takes, measured in a process that does nothing else.

`python -m stylize.benchmarks.memory MODEL BACKEND PRECISION CLIP OUTPUT` renders once and prints what it held at most
as one line of JSON; `peak_memory` starts it.
"""

import json
import subprocess
import sys
import threading
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from stylize.runtime.device import Device
from stylize.runtime.errors import BackendError
from stylize.runtime.render import stylize_video
from stylize.runtime.runner import Backend, ComputePrecision
from stylize.runtime.stylizer import Stylizer

__all__ = ["DevicePeak", "PeakMemory", "main", "own_peak_resident_bytes", "peak_memory"]

_SAMPLE_SECONDS = 0.005
_TIMEOUT_SECONDS = 600


@dataclass(frozen=True, kw_only=True)
class PeakMemory:
    """What one rendering held at most.

    Attributes:
        resident_bytes: of the host, everything that the process had loaded included.
        device_bytes: of the GPU, CUDA's own context included; None where none was used.
    """

    resident_bytes: int
    device_bytes: int | None


def peak_memory(
    model: Path, *, backend: Backend, precision: ComputePrecision, clip: Path, output: Path, device: Device | None
) -> PeakMemory:
    """Render a clip in a process of its own.

    Args:
        model: the model file.
        backend: what runs it.
        precision: what it computes in.
        clip: the video to render.
        output: where to; overwritten.
        device: the GPU that the process will use too, None on the CPU. Other programs must leave it alone meanwhile.

    Raises:
        BackendError: the process failed, for example out of memory, or took more than ten minutes.
    """
    used_before = 0 if device is None else _used_bytes(device)
    try:
        printed = _printed_elsewhere([str(argument) for argument in (model, backend, precision, clip, output)])
    except subprocess.TimeoutExpired as error:
        raise BackendError(f"{model}: measuring memory took over {error.timeout:.0f} s: use fewer --frames") from error
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or [f"exit status {error.returncode}"])[-1]
        raise BackendError(f"{model}: the process that measures memory failed: {reason}") from error
    peak = json.loads(printed.splitlines()[-1])
    device_bytes = None if device is None else peak["device_used_bytes"] - used_before
    return PeakMemory(resident_bytes=peak["resident_bytes"], device_bytes=device_bytes)


def _printed_elsewhere(arguments: list[str]) -> str:
    """What `main` prints in a process of its own."""
    command = [sys.executable, "-m", "stylize.benchmarks.memory", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=_TIMEOUT_SECONDS).stdout


def main(arguments: list[str]) -> None:
    """Render once; `arguments` are model, backend, precision, clip and output."""
    model, backend, precision, clip, output = arguments
    with Stylizer(model, backend=Backend(backend), precision=ComputePrecision(precision)) as stylizer:
        watch = nullcontext() if stylizer.device is None else DevicePeak(stylizer.device)
        with watch as peak:
            stylize_video(stylizer, clip, Path(output))
    used_bytes = None if peak is None else peak.used_bytes
    print(json.dumps({"resident_bytes": own_peak_resident_bytes(), "device_used_bytes": used_bytes}))


class DevicePeak:
    """Looks every few milliseconds how much memory of a device all programs together hold, while it is entered.

    Attributes:
        used_bytes: the most so far.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self.used_bytes = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="device memory")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.used_bytes = max(self.used_bytes, _used_bytes(self._device))
            if self._is_over.wait(_SAMPLE_SECONDS):
                return


def _used_bytes(device: Device) -> int:
    free, total = device.memory_bytes()
    return total - free


def own_peak_resident_bytes() -> int:
    """Most memory this process has held resident since it was started.

    On Linux this is VmHWM: `getrusage` keeps the figure of the process that forked this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    # Not on Windows, which has neither; importing it here keeps the rest of the module usable there.
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main(sys.argv[1:])
