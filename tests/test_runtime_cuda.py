"""The real PyCUDA and FFmpeg on a driver and a video decoder of the CPU; what is said where something is missing."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import av
import pytest

from helpers.host_kernels import SOURCE
from stylize.runtime import hardware_video
from stylize.runtime.cuda import CudaDevice, import_pycuda
from stylize.runtime.errors import BackendUnavailableError

TESTS = Path(__file__).parent
CUDA_HEADER = Path("/usr/local/cuda/include/cuda.h")


def test_without_a_driver_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stylize.runtime.gpu._LIBRARY", "libno-such-driver.so")
    with pytest.raises(BackendUnavailableError, match=r"^this machine has no NVIDIA driver \(libno-such-driver.so is"):
        CudaDevice()


def test_without_pycuda_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pycuda", "pycuda.driver"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendUnavailableError, match=r"^PyCUDA is not installed: pip install pycuda, which needs"):
        import_pycuda()


def test_a_driver_without_video_says_what_its_container_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware_video, "gpu_refusal", lambda _gpu: "")
    monkeypatch.setattr(hardware_video, "_NVDEC_LIBRARY", "libno-such-decoder.so")
    refusal = hardware_video.nvdec_refusal.__wrapped__(0)
    assert refusal == ("libno-such-decoder.so is missing; in a container, NVIDIA_DRIVER_CAPABILITIES must name `video`")


@pytest.mark.skipif(not CUDA_HEADER.is_file(), reason="no CUDA toolkit on this machine")
def test_graph_calls_are_those_of_the_driver() -> None:
    """Names and numbers of arguments of the calls that go past PyCUDA, against NVIDIA's header."""
    header = CUDA_HEADER.read_text()
    source = "".join((SOURCE.parent / name).read_text() for name in ("cuda.py", "cuda_graph.py", "gpu.py"))
    versions = dict(re.findall(r"#define (cu\w+)\s+(?:__CUDA_API_PTSZ\()?(cu\w+(?:_v\d|WithFlags))", header))
    for name, count in {
        "cuStreamBeginCapture": 2,
        "cuStreamEndCapture": 2,
        "cuGraphInstantiate": 3,
        "cuGraphLaunch": 2,
        "cuGraphDestroy": 1,
        "cuGraphExecDestroy": 1,
        "cuGetErrorName": 2,
        "cuDeviceGet": 2,
        "cuDeviceGetCount": 1,
        "cuDeviceGetName": 3,
        "cuDeviceGetAttribute": 3,
        "cuDevicePrimaryCtxSetFlags": 2,
    }.items():
        assert re.search(rf'["\.]{versions.get(name, name)}["(]', source), name
        declared = re.search(rf"CUDAAPI {name}\(([^)]*)\)", header)
        assert declared is not None, name
        assert declared[1].count(",") + 1 == count, name
    assert re.search(r"CU_STREAM_CAPTURE_MODE_THREAD_LOCAL\s*=\s*1", header)
    assert re.search(r"CU_STREAM_NON_BLOCKING\s*=\s*0x1", header)
    assert re.search(r"CU_EVENT_DISABLE_TIMING\s*=\s*0x2", header)
    assert re.search(r"CU_EVENT_BLOCKING_SYNC\s*=\s*0x1", header)
    assert re.search(r"CU_CTX_SCHED_BLOCKING_SYNC\s*=\s*0x04", header)


needs_pycuda = pytest.mark.skipif(
    importlib.util.find_spec("pycuda") is None or shutil.which("g++") is None or Path("/dev/nvidiactl").exists(),
    reason="needs PyCUDA and g++; with a GPU the same tests run on it",
)
# A video through the pass and a network that copies; what comes of it is printed.
RENDER = """
import sys
from pathlib import Path

from helpers.clips import ClipSpec, write_clip
from helpers.copy_runner import CopyRunner
from helpers.networks import write_affine
from stylize.runtime import Stylizer, runner, stylize_video
from stylize.runtime.artifact import open_artifact
from stylize.runtime.cuda import CudaDevice
from stylize.runtime.device_bridge import DeviceBridge, DeviceSession
from stylize.runtime.errors import StylizeError

folder = Path(sys.argv[1])
artifact = open_artifact(write_affine(folder / "identity.onnx"))

def opened():
    device = CudaDevice()
    return DeviceSession(device, CopyRunner(artifact), device.open_stream())

runner.open_runner = lambda *_, **__: DeviceBridge(artifact, opened)
clip = write_clip(folder / "in.mkv", ClipSpec(codec="ffv1", pts=range(30)))
try:
    with Stylizer(artifact) as stylizer:
        print(stylize_video(stylizer, clip, folder / "out.mp4").num_frames)
except StylizeError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def cpu_driver(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that finds a driver of the CPU."""
    folder = tmp_path_factory.mktemp("driver")
    driver = (TESTS / "helpers" / "cpu_driver.cpp").read_text()
    missing = sorted(_names_looked_up() - set(re.findall(r"^Result (cu\w+)\(", driver, re.MULTILINE)))
    source = folder / "driver.cpp"
    stubs = "".join(f'extern "C" int {name}() {{ return 801; }}\n' for name in missing)  # CUDA_ERROR_NOT_SUPPORTED
    source.write_text(driver + stubs)
    library = str(folder / "libcuda.so.1")
    compiler = ["g++", "-std=c++17", "-O2", "-shared", "-fPIC", f"-I{SOURCE.parent}"]
    subprocess.run([*compiler, str(source), "-o", library, "-ldl"], check=True)
    decoder = [str(TESTS / "helpers" / "cpu_nvdec.cpp"), "-o", str(folder / "libnvcuvid.so.1")]
    subprocess.run([*compiler, *decoder, f"-L{folder}", "-l:libcuda.so.1"], check=True)
    paths = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"LD_LIBRARY_PATH": str(folder), "FAIL_WITHOUT_GPU": "1", "PYTHONPATH": paths}


@pytest.mark.slow
@needs_pycuda
def test_device_tests_pass_on_a_driver_of_the_cpu(cpu_driver: dict[str, str]) -> None:
    """PyCUDA and FFmpeg are real: names, signatures, argument packing, ownership and contexts are tested here."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        str(TESTS / "gpu" / "test_cuda_device.py"),
        str(TESTS / "gpu" / "test_video_engines.py"),
        "-k",
        "not nvenc and not libsvtav1",  # FFmpeg decodes AV1 by dav1d
    ]
    done = subprocess.run(command, env=cpu_driver, capture_output=True, text=True, cwd=TESTS.parent)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "skipped" not in done.stdout


@pytest.mark.slow
@needs_pycuda
@pytest.mark.parametrize("num_kernels", ["1", "2", "20"])
def test_a_gpu_that_fails_is_one_line(num_kernels: str, cpu_driver: dict[str, str], tmp_path: Path) -> None:
    """From then on nothing can be freed, which PyCUDA would print of everything."""
    environment = cpu_driver | {"DRIVER_FAILS_AFTER": num_kernels}
    command = [sys.executable, "-c", RENDER, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"the GPU failed: cu\w+ failed: an illegal memory access\n", done.stdout), done.stdout
    lines = [line for line in done.stderr.splitlines() if "is kept in" not in line]
    assert lines == []


@pytest.mark.slow
@needs_pycuda
@pytest.mark.parametrize("closes", ["in main", "in another"])
def test_a_gpu_may_be_opened_and_closed_in_different_threads(closes: str, cpu_driver: dict[str, str]) -> None:
    """PyCUDA frees nothing outside the thread that made the context, unless that is current, and warns."""
    code = f"""
import gc, threading
from stylize.runtime.cuda import CudaDevice
held = []

def open():
    device = CudaDevice()
    with device.current():
        held.extend([device, device.open_stream(), device.open_event(), device.allocate(9), device.allocate_host(9)])

def close():
    for owned in (*held[3:], held[0]):
        owned.close()
    held.clear()
    gc.collect()

def run(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

run(open)
close() if "{closes}" == "in main" else run(close)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], env=cpu_driver, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def _names_looked_up() -> set[str]:
    """Functions of the driver that PyCUDA is linked to, and those FFmpeg asks for by name when it loads one."""
    found = importlib.util.find_spec("pycuda")
    assert found is not None and found.origin is not None
    binding = next(Path(found.origin).parent.glob("_driver*.so"))
    names = set()
    for library in (binding, *(Path(av.__file__).parents[1] / "av.libs").glob("libavutil*")):
        names |= {name.decode() for name in re.findall(rb"\0(cu[A-Z]\w+)(?=\0)", library.read_bytes())}
    return names
