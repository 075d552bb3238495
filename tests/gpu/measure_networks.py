"""Networks alone at 1920x1080: ours in half precision, PyTorch eager beside them, the GPU's own limits; writes JSON.

    python tests/gpu/measure_networks.py OUT.json [BACKEND [WIDTHxHEIGHT [PASSES]]]

Each row is measured in a process of its own, so that one that fails leaves the others alone. The networks are
untrained, which changes no operation. On a CPU (backend `onnxruntime`) it is a rehearsal.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from stylize.benchmarks.cases import DeviceNetworkCase
from stylize.runtime import Backend, open_artifact, open_runner
from stylize.runtime.contract import ModelContract
from stylize.runtime.device_bridge import open_cuda_session
from stylize.runtime.frame import Frame
from stylize.runtime.runner_onnxruntime_cuda import PROVIDER_OPTIONS

NETWORKS = {"reconet": ("reconet", {}), "fast": ("fast", {"width": 48}), "fastest": ("fastest", {})}
# Whether ONNX Runtime is faster with channels last, for which it turns tensors around at each normalisation.
CHANNELS_LAST = " channels-last"
# What recording the pass as a CUDA graph gains.
NO_GRAPH = " kernel by kernel"
EAGER = ("eager fp32", "eager fp32 (TF32)", "eager fp16 channels-last")
ROW_SECONDS = 90
NUM_WARMUP = 10
# What the project set out to reach on an H200.
WANTED_FPS = {"reconet": 260.0, "fast": 1500.0}
WANTED_TIMES_EAGER = 8.0


def main(target: Path, backend: str, size: str, num_passes: str) -> None:
    rows: list[dict[str, Any]] = []
    kinds = (NO_GRAPH, CHANNELS_LAST) if backend == Backend.ONNXRUNTIME_CUDA else ()
    # What counts comes first: the time for all may be short.
    ways = (backend, EAGER[0], *(backend + kind for kind in kinds), *EAGER[1:])
    for network, what in (*((network, what) for what in ways for network in NETWORKS), ("machine", "limits")):
        command = [sys.executable, __file__, "--row", network, what, size, num_passes]
        row: dict[str, Any] = {"network": network, "what": what, "size": size}
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=ROW_SECONDS, check=True)
            row |= json.loads(done.stdout.splitlines()[-1])
        except subprocess.TimeoutExpired:
            row["error"] = f"took longer than {ROW_SECONDS} s"
        except subprocess.CalledProcessError as error:
            row["error"] = error.stderr.strip()[-1500:]
        rows.append(row)
        print(row, flush=True)
        target.write_text(json.dumps({"rows": rows, "wanted": reached(rows, backend)}, indent=2) + "\n")


def reached(rows: list[dict[str, Any]], backend: str) -> list[dict[str, Any]]:
    """Each aim with what was measured."""
    fps = {(row["network"], row["what"]): row.get("frames_per_second") for row in rows}
    results = []
    for network, wanted in WANTED_FPS.items():
        ways = [found for (name, what), found in fps.items() if name == network and what.startswith(backend) and found]
        ours, eager = max(ways, default=None), fps.get((network, EAGER[0]))
        times = ours / eager if ours and eager else None
        results += [
            {"what": f"{network}, frames per second", "wanted": wanted, "found": ours},
            {"what": f"{network}, times PyTorch eager fp32", "wanted": WANTED_TIMES_EAGER, "found": times},
        ]
    return [result | {"is_met": (result["found"] or 0) >= result["wanted"]} for result in results]


def row(network: str, what: str, size: tuple[int, int], num_passes: int) -> dict[str, Any]:
    """One measurement."""
    if what == "limits":
        return limits()
    seconds, facts = eager(network, what, size, num_passes) if what in EAGER else ours(network, what, size, num_passes)
    p50 = statistics.median(seconds)
    return facts | {
        "frames_per_second": 1 / p50,
        "p50_ms": 1000 * p50,
        "p95_ms": 1000 * float(np.percentile(seconds, 95)),
        "num_passes": len(seconds),
    }


def ours(network: str, backend: str, size: tuple[int, int], num_passes: int) -> tuple[list[float], dict[str, Any]]:
    """Seconds of each pass from tensor to tensor, by the GPU's events."""
    from stylize.export.onnx_from_network import onnx_from_network, seal_contract
    from stylize.train.networks import build_network

    name, options = NETWORKS[network]
    built = build_network(name, options)
    contract = ModelContract(
        network=network, style="untrained", size_multiple=built.facts.size_multiple, precision="fp16", fixed_size=size
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{network}.onnx"
        path.write_bytes(seal_contract(onnx_from_network(built, precision="fp16", fixed_size=size), contract))
        artifact = open_artifact(path)
        gflop = built.facts.flop_per_pixel * size[0] * size[1] / 1e9
        if backend.startswith(Backend.ONNXRUNTIME_CUDA):
            PROVIDER_OPTIONS["prefer_nhwc"] = str(int(backend.endswith(CHANNELS_LAST)))
            session = open_cuda_session(artifact, backend=Backend.ONNXRUNTIME_CUDA, gpu=0)
            if backend.endswith(NO_GRAPH):
                session.runner.repeated.can_record = False  # type: ignore[attr-defined]
            case = DeviceNetworkCase(session, [Frame.blank(*size)] * (NUM_WARMUP + num_passes))
            seconds = list(case())[NUM_WARMUP:]
            facts = {"runner": session.runner.description}
            session.close()
            return seconds, facts | {"gflop": gflop}
        picture = np.random.default_rng(0).random((1, 3, size[1], size[0])).astype(np.float16)
        seconds = []
        with open_runner(artifact, backend=Backend(backend)) as runner:
            for _ in range(num_passes + 1):
                started = time.perf_counter()
                runner.enqueue(picture, target=np.empty_like(picture), cuda_stream=None)
                seconds.append(time.perf_counter() - started)
            return seconds[1:], {"runner": runner.description, "gflop": gflop}


def eager(network: str, what: str, size: tuple[int, int], num_passes: int) -> tuple[list[float], dict[str, Any]]:
    """The same in PyTorch, tensor to tensor."""
    import torch

    from stylize.train.networks import build_network

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = "TF32" in what
    torch.backends.cudnn.benchmark = True
    is_half = "fp16" in what
    name, options = NETWORKS[network]
    built = build_network(name, options).eval().to(device, torch.float16 if is_half else torch.float32)
    picture = torch.rand(1, 3, size[1], size[0], device=device, dtype=torch.float16 if is_half else torch.float32)
    if is_half:
        built, picture = built.to(memory_format=torch.channels_last), picture.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.inference_mode():
        seconds = timed(lambda: built(picture), num_passes, device)
    return seconds, {"runner": f"PyTorch {torch.__version__}, {device}"}


def timed(work: Any, num_passes: int, device: Any) -> list[float]:  # noqa: ANN401 - torch is imported late
    """Seconds of each call, by events where there is a GPU."""
    import torch

    seconds = []
    for _ in range(NUM_WARMUP + num_passes if device.type == "cuda" else 1 + num_passes):
        if device.type == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            work()
            end.record()
            end.synchronize()
            seconds.append(begin.elapsed_time(end) / 1000)
        else:
            started = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - started)
    return seconds[-num_passes:]


def limits() -> dict[str, Any]:
    """What the GPU itself reaches: a matrix product and a copy."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    side = 8192 if device.type == "cuda" else 512
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    source = torch.empty(side * side, 32 if device.type == "cuda" else 1, dtype=torch.uint8, device=device)
    copied = torch.empty_like(source)
    product = min(timed(lambda: left @ right, 20, device))
    copy = min(timed(lambda: copied.copy_(source), 20, device))
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        "matrix_product_tflops": 2 * side**3 / product / 1e12,
        "copy_gb_per_second": 2 * source.numel() / copy / 1e9,
    }


if __name__ == "__main__":
    if sys.argv[1] == "--row":
        width, height = map(int, sys.argv[4].split("x"))
        print(json.dumps(row(sys.argv[2], sys.argv[3], (width, height), int(sys.argv[5]))))
    else:
        given = sys.argv[2:] + ["onnxruntime-cuda", "1920x1080", "200"][len(sys.argv) - 2 :]
        main(Path(sys.argv[1]), *given)
