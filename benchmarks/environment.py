"""Where a figure was measured: without this it cannot be compared with any other."""

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

__all__ = ["Environment", "capture_environment"]

_LIBRARIES = ("av", "numpy", "onnxruntime", "onnxruntime-gpu", "opencv-python", "opencv-python-headless", "openvino")
_LIBRARIES_OF_BASELINE = ("torch",)
_PROBE_TIMEOUT_SECONDS = 10


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The machine and the software of one run.

    Attributes:
        system: operating system and its version.
        cpu: model name of the processor.
        num_cores: cores this process may use.
        memory_bytes: physical memory, None where the system does not tell.
        gpu: name of the first NVIDIA GPU, None without one.
        gpu_driver: its driver, None without one.
        python: version of the interpreter.
        stylize: version of this package.
        commit: of the checkout the package runs from, `-dirty` when it has changes; None when installed.
        libraries: versions by distribution name.
    """

    system: str
    cpu: str
    num_cores: int
    memory_bytes: int | None
    gpu: str | None
    gpu_driver: str | None
    python: str
    stylize: str
    commit: str | None
    libraries: dict[str, str]


def _answer(command: list[str], *, folder: Path | None = None) -> str | None:
    """What a small program prints, None when it is missing or fails."""
    if shutil.which(command[0]) is None:
        return None
    try:
        completed = subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=folder, timeout=_PROBE_TIMEOUT_SECONDS
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired, OSError):
        return None
    return completed.stdout.strip()


def _commit() -> str | None:
    """The checkout's commit, only if this very file is tracked: a venv may lie inside another project."""
    own_file = Path(__file__).resolve()
    if _answer(["git", "ls-files", "--error-unmatch", own_file.name], folder=own_file.parent) is None:
        return None
    return _answer(["git", "describe", "--always", "--dirty", "--abbrev=12"], folder=own_file.parent)


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return _answer(["sysctl", "-n", "machdep.cpu.brand_string"]) or platform.processor() or platform.machine()


def _num_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_bytes() -> int | None:
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _versions(names: tuple[str, ...]) -> dict[str, str]:
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def capture_environment(*, has_torch: bool = False) -> Environment:
    """Describe this machine; nothing is loaded for it and no GPU is touched.

    Args:
        has_torch: whether the run used PyTorch, so that its version belongs to the result.
    """
    gpu = _answer(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"])
    gpu_name, gpu_driver = [part.strip() for part in gpu.splitlines()[0].split(",")] if gpu else (None, None)
    return Environment(
        system=platform.platform(terse=True),
        cpu=_cpu_name(),
        num_cores=_num_cores(),
        memory_bytes=_memory_bytes(),
        gpu=gpu_name,
        gpu_driver=gpu_driver,
        python=platform.python_version(),
        stylize=metadata.version("stylize"),
        commit=_commit(),
        libraries=_versions(_LIBRARIES + (_LIBRARIES_OF_BASELINE if has_torch else ())),
    )
