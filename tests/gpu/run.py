"""The parts of `run.sh`: looks, installs, tests, checks and measures on a GPU, and writes down what came of it."""

import ctypes
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
SITE = ROOT / "build" / "gpu-site"
"""Where `packages` and `PyCUDA` install; first on the path of every part."""
PACKAGES = (
    "av",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "pycuda",
    "stylize",
    "tensorrt",
    "tensorrt-rtx-cu13",
    "torch",
)
TAIL_CHARACTERS = 4000
REHEARSES = os.environ.get("REHEARSE") == "1"
"""Whether parts that can are run on the CPU, small: to see that the script itself works."""
MIN_SECONDS = 15.0  # what must be left of MINUTES for a part to be begun
# Setuptools compiles one file after the other, which takes minutes.
COMPILE_IN_PARALLEL = """
import os
from concurrent.futures import ThreadPoolExecutor
from setuptools._distutils.ccompiler import CCompiler

def compile_in_parallel(self, sources, output_dir=None, macros=None, include_dirs=None, debug=0, extra_preargs=None,
                        extra_postargs=None, depends=None):
    macros, objects, after, options, build = self._setup_compile(
        output_dir, macros, include_dirs, sources, depends, extra_postargs)
    before = self._get_cc_args(options, debug, extra_preargs)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda name: self._compile(name, *build[name], before, after, options), objects))
    return objects
CCompiler.compile = compile_in_parallel
"""


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
    arguments = sys.argv[1:]
    folder = Path(arguments[0]).resolve() if arguments else ROOT / "benchmarks" / "results" / "gpu"
    unknown = [name for name in arguments[1:] if name not in PARTS]
    if unknown:
        sys.exit(f"no part is called {', '.join(unknown)}; there are {', '.join(PARTS)}")
    folder.mkdir(parents=True, exist_ok=True)
    must = os.environ.get("FAIL_WITHOUT_GPU") == "1"
    deadline = time.monotonic() + 60 * float(os.environ.get("MINUTES", "inf"))
    parts: list[Part] = []
    for name in arguments[1:] or PARTS:
        limit_seconds, run = PARTS[name]
        left = deadline - time.monotonic()
        if left < MIN_SECONDS:
            part = Part(name, "skipped", reason="no time was left")
        else:
            part = attempt(name, run, folder, min(limit_seconds, left))
        if part.status == "skipped" and must and name not in MAY_BE_MISSING:
            part.status = "failed"
        parts.append(part)
        line = part.reason.strip().splitlines()[-1:] or [""]
        print(f"{part.status:10} {part.seconds:7.1f} s  {name:18} {line[0][:150]}", flush=True)
        (folder / "run.json").write_text(json.dumps(report(parts), indent=2, default=str) + "\n")
    print(f"written to {folder}")
    return int(any(part.status in {"failed", "timed out"} for part in parts))


def attempt(name: str, run: Callable[[Path, float], dict[str, object]], folder: Path, limit_seconds: float) -> Part:
    """Run one part; whatever goes wrong is its result."""
    started = time.monotonic()
    try:
        part = Part(name, "ok", facts=run(folder, limit_seconds))
        if part.facts.pop("is_cut_off", False):
            part.status, part.reason = "timed out", f"after {limit_seconds:.0f} s; what was measured by then is kept"
    except Skipped as reason:
        part = Part(name, "skipped", reason=str(reason))
    except subprocess.TimeoutExpired as error:
        part = Part(name, "timed out", reason=f"after {error.timeout:.0f} s; {tail(text_of(error.stdout))}")
    except subprocess.CalledProcessError as error:
        part = Part(name, "failed", reason=tail(f"{error.stdout or ''}{error.stderr or ''}"))
    except Exception as error:  # noqa: BLE001 - a mistake in one part costs none of the others
        part = Part(name, "failed", reason=f"{type(error).__name__}: {error}")
    part.seconds = round(time.monotonic() - started, 1)
    return part


def look(_folder: Path, _limit_seconds: float) -> dict[str, object]:
    """What is there: driver, GPU, libraries of the video engines, packages."""
    libraries = {}
    for name in ("libcuda.so.1", "libnvcuvid.so.1", "libnvidia-encode.so.1", "libcudart.so.13", "libcudnn.so.9"):
        try:
            ctypes.CDLL(name)
            libraries[name] = True
        except OSError:
            libraries[name] = False
    facts: dict[str, object] = {"libraries": libraries, "packages": versions(), "nvcc": shutil.which("nvcc")}
    if shutil.which("nvidia-smi"):
        query = "name,driver_version,memory.total,compute_cap,clocks.max.sm"
        facts["gpus"] = command(["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"], 30).splitlines()
    return facts


def install(_folder: Path, limit_seconds: float) -> dict[str, object]:
    """The wheels in WHEELS, for a machine without a network, and this project where it is not installed."""
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--upgrade", "--target", str(SITE)]
    wheels = sorted(wheel_folder().glob("*.whl"))
    if wheels:
        SITE.mkdir(parents=True, exist_ok=True)
        command([*pip, "--no-index", *map(str, wheels)], limit_seconds)
    needed = [sys.executable, "-c", "import stylize.runtime, stylize.export, stylize.train"]
    try:
        command(needed, limit_seconds)
    except subprocess.CalledProcessError:
        SITE.mkdir(parents=True, exist_ok=True)
        command([*pip, "--no-index", "--no-build-isolation", str(ROOT)], limit_seconds)
        command(needed, limit_seconds)
    return {"wheels": [wheel.name for wheel in wheels], "packages": versions()}


def build_pycuda(folder: Path, limit_seconds: float) -> dict[str, object]:
    """Install PyCUDA where it is missing, from source; the wheel is left in FOLDER for the next machine like this."""
    needs_no_gpu()  # a rehearsal makes the wheel beforehand
    with suppress(subprocess.CalledProcessError):
        return {"pycuda": version_of("pycuda"), "was": "installed"}
    beside_nvcc = Path(shutil.which("nvcc") or "/").resolve().parent.parent
    places: list[str | Path] = [os.environ.get("CUDA_HOME", ""), "/usr/local/cuda", beside_nvcc]
    places += [found for folder in sys.path for found in Path(folder).glob("nvidia/cu*")]  # as pip installs it
    root = next((str(place) for place in places if place and (Path(place) / "include" / "cuda.h").is_file()), "")
    if not root:
        raise Skipped("no headers of CUDA (CUDA_HOME, /usr/local/cuda, nvcc, PyTorch) to build PyCUDA with")
    work = ROOT / "build" / "pycuda"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    sources = sorted(wheel_folder().glob("pycuda-*.tar.gz"))
    if not sources:
        download = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-build-isolation"]
        command([*download, "--no-binary", ":all:", "pycuda", "-d", str(work)], 300)
        sources = sorted(work.glob("pycuda-*.tar.gz"))
    shutil.unpack_archive(sources[0], work, filter="data")
    source = next(path for path in work.iterdir() if path.is_dir())
    # Only names matter when linking: the driver itself is there at run time, its stub in few toolkits.
    command(["gcc", "-shared", "-x", "c", "/dev/null", "-o", str(work / "libcuda.so"), "-Wl,-soname,libcuda.so.1"], 60)
    settings = {
        "CUDA_ROOT": root,
        "CUDA_ENABLE_CURAND": False,  # slim toolkits lack its header, and nothing here needs it
        "USE_SHIPPED_BOOST": True,
        "BOOST_PYTHON_LIBNAME": ["boost_python"],
        "BOOST_THREAD_LIBNAME": ["boost_thread"],
        "CUDADRV_LIB_DIR": [str(work)],
        "CUDADRV_LIBNAME": ["cuda"],
        "CXXFLAGS": ["-w"],
        "LDFLAGS": [],
    }
    (source / "siteconf.py").write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()))
    with (source / "aksetup_helper.py").open("a") as helper:  # which its setup.py imports
        helper.write(COMPILE_IN_PARALLEL)
    wheel = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    # The stub has none of the names: a linker may leave it out as not needed, and with it the driver at run time.
    needed = {"LDFLAGS": "-Wl,--no-as-needed -s", "PATH": f"{root}/bin:{os.environ['PATH']}"}
    command([*wheel, str(source)], limit_seconds, **needed)
    built = next(folder.glob("pycuda-*.whl"))
    command([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(SITE), str(built)], 60)
    return {"pycuda": version_of("pycuda"), "was": built.name}


def onnxruntime_cuda(_folder: Path, limit_seconds: float) -> dict[str, object]:
    """Whether ONNX Runtime starts on the GPU, and what it says where not."""
    need_gpu()
    code = (
        "from stylize.runtime.artifact import open_artifact\n"
        "from stylize.runtime.device_bridge import open_cuda_session\n"
        "session = open_cuda_session(open_artifact('starry-night'), backend='onnxruntime-cuda', gpu=0)\n"
        "print(session.runner.description)\n"
    )
    return {"runner": command([sys.executable, "-c", code], limit_seconds).strip()}


def video_engines(_folder: Path, limit_seconds: float) -> dict[str, object]:
    """Which codecs NVENC writes and NVDEC reads here."""
    need_gpu()
    return dict(json.loads(command([sys.executable, str(HERE / "video_engines.py")], limit_seconds)))


def gpu_tests(folder: Path, limit_seconds: float) -> dict[str, object]:
    """All tests that need a GPU, and those of PyCUDA's calls; other versions of packages may warn."""
    need_gpu()
    pytest = [sys.executable, "-m", "pytest", "-q", "-W", "default", "tests/gpu", "tests/test_runtime_cuda.py"]
    output = command([*pytest, f"--junitxml={folder / 'tests.xml'}"], limit_seconds, FAIL_WITHOUT_GPU="1")
    return {"summary": output.strip().splitlines()[-1]}


def sanitizer(_folder: Path, limit_seconds: float) -> dict[str, object]:
    """compute-sanitizer over the kernels and the pass: memory out of bounds, and memory never written."""
    need_gpu()
    tool = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(tool).exists():
        raise Skipped("compute-sanitizer is not installed (it comes with the CUDA toolkit)")
    pytest = [sys.executable, "-m", "pytest", "-q", "-W", "default", "tests/gpu/test_cuda_device.py", "-k"]
    results: dict[str, object] = {}
    wrong = []
    # Finished pictures are copied with the ends of their rows, which nobody writes nor reads: fewer for initcheck.
    # No kernel has memory shared by threads, about which the other tools are.
    for check, chosen in (
        ("memcheck", "(values and size1) or (whole and nv12) or graph or ffmpeg"),
        ("initcheck", "values and size1"),
    ):
        try:
            watched = [tool, f"--tool={check}", "--error-exitcode=9", *pytest, chosen]
            output = command(watched, limit_seconds / 2, FAIL_WITHOUT_GPU="1")
            results[check] = tail(output, 200)
        except subprocess.TimeoutExpired:
            wrong.append(f"{check}: took longer than {limit_seconds / 2:.0f} s")
        except subprocess.CalledProcessError as error:
            wrong.append(f"{check}: {tail(error.stdout or error.stderr or '', 1500)}")
    if wrong:
        raise ValueError(f"{'; '.join(wrong)}; without finding: {', '.join(results) or 'none'}")
    return results


def kernels(folder: Path, limit_seconds: float) -> dict[str, object]:
    """Bandwidth of the colour kernels and of copies from and to the host against that of a copy on the GPU."""
    need_gpu()
    return measured("measure_kernels.py", folder / "kernels.json", limit_seconds)


def networks(folder: Path, limit_seconds: float) -> dict[str, object]:
    """Networks alone at 1920x1080 against PyTorch eager, and the GPU's limits."""
    small = ("onnxruntime", "64x48", "2") if needs_no_gpu() else ()
    return measured("measure_networks.py", folder / "networks.json", limit_seconds, *small)


def memory(folder: Path, limit_seconds: float) -> dict[str, object]:
    """Device memory over 10,000 frames."""
    need_gpu()
    return measured("measure_memory.py", folder / "memory.json", limit_seconds)


def pipeline(folder: Path, limit_seconds: float) -> dict[str, object]:
    """Whole videos on every backend there is, stage by stage."""
    small = ("onnxruntime", "64x36", "starry-night-fastest") if needs_no_gpu() else ()
    return measured("measure_pipeline.py", folder / "pipeline.json", limit_seconds, *small)


def training(folder: Path, limit_seconds: float) -> dict[str, object]:
    """A style trained in bfloat16 and in float32 for 300 steps each, exported and run."""
    small = (
        ("2", "--width", "32", "--crop-px", "64", "--num-scales", "1", "--style-size-px", "64")
        if needs_no_gpu()
        else ()
    )
    return measured("measure_training.py", folder / "training.json", limit_seconds, *small)


PARTS: dict[str, tuple[float, Callable[[Path, float], dict[str, object]]]] = {
    "machine": (60, look),
    "packages": (180, install),
    "PyCUDA": (600, build_pycuda),
    "onnxruntime": (120, onnxruntime_cuda),
    "video": (120, video_engines),
    "tests": (360, gpu_tests),
    "kernels": (90, kernels),
    "networks": (420, networks),
    "pipeline": (420, pipeline),
    "memory": (240, memory),
    "sanitizer": (300, sanitizer),
    "training": (500, training),
}
"""Name: most seconds, and what is done."""
MAY_BE_MISSING = {"video"}


def measured(script: str, target: Path, limit_seconds: float, *arguments: str) -> dict[str, object]:
    """What a script has written; where it ran out of time, as far as it came."""
    target.unlink(missing_ok=True)
    try:
        command([sys.executable, str(HERE / script), str(target), *arguments], limit_seconds)
    except subprocess.TimeoutExpired:
        if not target.is_file():
            raise
        return json.loads(target.read_text()) | {"is_cut_off": True}
    return dict(json.loads(target.read_text()))


def needs_no_gpu() -> bool:
    """Whether the part is to be rehearsed on the CPU, since there is no GPU."""
    try:
        need_gpu()
    except Skipped:
        if REHEARSES:
            return True
        raise
    return False


def need_gpu() -> None:
    """Raises Skipped where there is none."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise Skipped("no NVIDIA driver on this machine (libcuda.so.1 is missing)") from error
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        raise Skipped("an NVIDIA driver, but no GPU that it can use")


def wheel_folder() -> Path:
    """WHEELS, or a folder that is not there."""
    return Path(os.environ.get("WHEELS", str(ROOT / "build" / "no-wheels"))).resolve()


def version_of(package: str) -> str:
    """Of a package as the parts see it."""
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return command([sys.executable, "-c", code], 60).strip()


def command(arguments: list[str], limit_seconds: float, **environment: str) -> str:
    """What it prints; one that takes too long is ended with all that it has started."""
    path = os.pathsep.join(filter(None, (str(SITE) if SITE.is_dir() else "", os.environ.get("PYTHONPATH", ""))))
    process = subprocess.Popen(
        arguments,
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": path} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=limit_seconds)
    except BaseException:
        os.killpg(process.pid, 9)
        process.communicate()
        raise
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, arguments, output, errors)
    return output


def report(parts: list[Part]) -> dict[str, object]:
    git = ["git", "rev-parse", "HEAD"]
    done = subprocess.run(git, cwd=ROOT, capture_output=True, text=True) if shutil.which("git") else None
    return {
        "commit": done.stdout.strip() if done else "",
        "platform": platform.platform(),
        "python": platform.python_version(),
        "is_rehearsal": REHEARSES,
        "parts": [asdict(part) for part in parts],
    }


def versions() -> dict[str, str]:
    """What is installed, by the names of packages."""
    names = ", ".join(map(repr, PACKAGES))
    code = (
        "import json\nfrom importlib.metadata import distributions\n"
        "found = {dist.metadata['Name'].lower(): dist.version for dist in distributions()}\n"
        f"print(json.dumps({{name: found[name] for name in ({names}) if name in found}}))"
    )
    return dict(json.loads(command([sys.executable, "-c", code], 60)))


def text_of(output: str | bytes | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


def tail(text: str, length: int = TAIL_CHARACTERS) -> str:
    return text[-length:]


if __name__ == "__main__":
    sys.exit(main())
