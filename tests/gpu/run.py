"""The parts of `run.sh`: looks, builds, tests, checks and measures on a GPU, and writes down what came of it."""

import ctypes
import ctypes.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
PACKAGES = ("av", "numpy", "onnxruntime", "onnxruntime-gpu", "pycuda", "tensorrt", "tensorrt-rtx-cu13", "torch")
TAIL_CHARACTERS = 4000


@dataclass
class Part:
    """What became of one part."""

    name: str
    status: str
    """`ok`, `failed`, `timed out` or `skipped`."""
    seconds: float = 0.0
    reason: str = ""
    facts: dict[str, object] = field(default_factory=dict)


class Skipped(Exception):  # noqa: N818 - not an error
    """This machine cannot run a part; the text says why."""


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "benchmarks" / "results" / "gpu"
    folder.mkdir(parents=True, exist_ok=True)
    parts: list[Part] = []
    must = os.environ.get("FAIL_WITHOUT_GPU") == "1"
    for name, run in PARTS.items():
        started = time.monotonic()
        try:
            part = Part(name, "ok", facts=run(folder))
        except Skipped as reason:
            part = Part(name, "failed" if must and name != "video engines" else "skipped", reason=str(reason))
        except subprocess.TimeoutExpired as error:
            part = Part(name, "timed out", reason=f"after {error.timeout:.0f} s")
        except subprocess.CalledProcessError as error:
            part = Part(name, "failed", reason=_tail(f"{error.stdout or ''}{error.stderr or ''}"))
        part.seconds = round(time.monotonic() - started, 1)
        parts.append(part)
        line = part.reason.strip().splitlines()[-1:] or [""]
        print(f"{part.status:10} {part.seconds:7.1f} s  {name:20} {line[0][:110]}", flush=True)
        (folder / "run.json").write_text(json.dumps(_report(parts), indent=2, default=str) + "\n")
    print(f"written to {folder}")
    return int(any(part.status in {"failed", "timed out"} for part in parts))


def look(_folder: Path) -> dict[str, object]:
    """What is there: driver, GPU, libraries of the video engines, packages."""
    libraries = {}
    for name in ("libcuda.so.1", "libnvcuvid.so.1", "libnvidia-encode.so.1", "libcudart.so.13", "libcudnn.so.9"):
        try:
            ctypes.CDLL(name)
            libraries[name] = True
        except OSError:
            libraries[name] = False
    facts: dict[str, object] = {"libraries": libraries, "packages": _versions(), "nvcc": shutil.which("nvcc")}
    if shutil.which("nvidia-smi"):
        query = "name,driver_version,memory.total,compute_cap,clocks.max.sm"
        command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
        facts["gpus"] = _run(command, 30).splitlines()
    return facts


def build_pycuda(_folder: Path) -> dict[str, object]:
    """Install PyCUDA where it is missing; from source, which needs the toolkit's headers."""
    _need_gpu()
    try:
        return {"pycuda": version("pycuda"), "was": "installed"}
    except PackageNotFoundError:
        pass
    root = next(
        (path for path in (os.environ.get("CUDA_HOME"), "/usr/local/cuda") if path and Path(path).is_dir()), None
    )
    if root is None:
        raise Skipped("no CUDA toolkit (CUDA_HOME or /usr/local/cuda) to build PyCUDA with")
    try:
        _run([sys.executable, "-m", "pip", "install", "-q", "pycuda"], 900, PATH=f"{root}/bin:{os.environ['PATH']}")
    except subprocess.CalledProcessError:
        # Without curand: its header is missing in slim toolkits, and nothing here needs it. Linked against the
        # driver that is loaded, where the toolkit has no stub of it.
        _build_pycuda_by_hand(Path(root))
    return {"pycuda": _run([sys.executable, "-c", "import pycuda.driver; print(pycuda.VERSION_TEXT)"], 60).strip()}


def _build_pycuda_by_hand(root: Path) -> None:
    """The same steps as pip's, with a configuration; linked against an empty stub, since only names matter there."""
    pip = [sys.executable, "-m", "pip"]
    work = ROOT / "build" / "pycuda"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    _run([*pip, "install", "-q", "wheel", "pytools"], 120)
    _run([*pip, "download", "-q", "--no-deps", "--no-binary", ":all:", "pycuda", "-d", str(work)], 300)
    shutil.unpack_archive(next(work.glob("pycuda-*.tar.gz")), work, filter="data")
    source = next(path for path in work.iterdir() if path.is_dir())
    _run(["gcc", "-shared", "-x", "c", "/dev/null", "-o", str(work / "libcuda.so"), "-Wl,-soname,libcuda.so.1"], 60)
    settings = {
        "CUDA_ROOT": str(root),
        "CUDA_ENABLE_CURAND": False,
        "USE_SHIPPED_BOOST": True,
        "BOOST_PYTHON_LIBNAME": ["boost_python"],
        "BOOST_THREAD_LIBNAME": ["boost_thread"],
        "CUDADRV_LIB_DIR": [str(work)],
        "CUDADRV_LIBNAME": ["cuda"],
        "CXXFLAGS": ["-w"],
        "LDFLAGS": [],
    }
    (source / "siteconf.py").write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()))
    _run([*pip, "install", "-q", "--no-deps", "--no-build-isolation", str(source)], 900)


def video_engines(_folder: Path) -> dict[str, object]:
    """Which codecs NVENC writes and NVDEC reads here."""
    _need_gpu()
    return dict(json.loads(_run([sys.executable, str(HERE / "video_engines.py")], 120)))


def gpu_tests(folder: Path) -> dict[str, object]:
    """All tests that need a GPU."""
    _need_gpu()
    report = folder / "tests.xml"
    _run(
        [sys.executable, "-m", "pytest", "-q", "-m", "needs_gpu", "tests", f"--junitxml={report}"],
        900,
        FAIL_WITHOUT_GPU="1",
    )
    return {"report": report.name}


def sanitizer(_folder: Path) -> dict[str, object]:
    """compute-sanitizer over the kernels and the pass: memory, and races within a block."""
    _need_gpu()
    tool = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(tool).exists():
        raise Skipped("compute-sanitizer is not installed (it comes with the CUDA toolkit)")
    test = "tests/gpu/test_cuda_device.py"
    results = {}
    for check in ("memcheck", "racecheck", "initcheck"):
        command = [tool, f"--tool={check}", "--error-exitcode=9", sys.executable, "-m", "pytest", "-q", test]
        results[check] = _tail(_run(command, 600, FAIL_WITHOUT_GPU="1"), 200)
    return results


def kernels(folder: Path) -> dict[str, object]:
    """Bandwidth of the colour kernels against that of a copy."""
    return _measured("measure_kernels.py", folder / "kernels.json", 300)


def pipeline(folder: Path) -> dict[str, object]:
    """Whole videos on every backend there is, stage by stage."""
    return _measured("measure_pipeline.py", folder / "pipeline.json", 1200)


def memory(folder: Path) -> dict[str, object]:
    """Device memory over 10,000 frames."""
    return _measured("measure_memory.py", folder / "memory.json", 900)


def training(folder: Path) -> dict[str, object]:
    """A style trained on the GPU for three minutes, exported and run."""
    _need_gpu()
    style = next((ROOT / "docs").glob("*.jpg"), None)
    if style is None:
        raise Skipped("no picture to learn from in docs/")
    model = folder / "trained.pth"
    started = time.monotonic()
    output = _run(
        [sys.executable, "-m", "stylize.train.cli", "--style", str(style), "--minutes", "3", "-o", str(model)], 900
    )
    _run([sys.executable, "-m", "stylize.export.cli", str(model), "-o", str(folder / "trained.onnx")], 300)
    return {"seconds": round(time.monotonic() - started), "last_lines": output.strip().splitlines()[-3:]}


PARTS: dict[str, Callable[[Path], dict[str, object]]] = {
    "machine": look,
    "PyCUDA": build_pycuda,
    "video engines": video_engines,
    "tests": gpu_tests,
    "compute-sanitizer": sanitizer,
    "kernels": kernels,
    "pipeline": pipeline,
    "memory": memory,
    "training": training,
}


def _measured(script: str, target: Path, limit_seconds: float) -> dict[str, object]:
    _need_gpu()
    _run([sys.executable, str(HERE / script), str(target)], limit_seconds)
    return dict(json.loads(target.read_text()))


def _need_gpu() -> None:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise Skipped("no NVIDIA driver on this machine (libcuda.so.1 is missing)") from error
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        raise Skipped("an NVIDIA driver, but no GPU that it can use")


def _run(command: list[str], limit_seconds: float, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=limit_seconds,
        check=True,
    )
    return done.stdout


def _report(parts: list[Part]) -> dict[str, object]:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return {
        "commit": commit,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "parts": [asdict(part) for part in parts],
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _tail(text: str, length: int = TAIL_CHARACTERS) -> str:
    return text[-length:]


if __name__ == "__main__":
    sys.exit(main())
