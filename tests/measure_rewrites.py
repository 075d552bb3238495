"""What the exact rewrites gain on networks written as other exporters write them: work, time, size.

    python tests/measure_rewrites.py [WIDTHxHEIGHT [ROUNDS]]

Times are of one thread on this CPU, both graphs in turn, the median of the rounds; their ratio is what to look at.
"""

import statistics
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import onnxruntime
import openvino
import torch
from torch import Tensor, nn
from torch.nn import functional

from stylize.benchmarks.graph_cost import gflop_per_frame
from stylize.export.onnx_from_network import onnx_from_network
from stylize.export.rewrite import rewrite
from stylize.train.blocks import UpsampleConv
from stylize.train.networks import build_network

Run = Callable[[np.ndarray], np.ndarray]
NETWORKS: dict[str, tuple[str, dict[str, str | int | bool]]] = {
    "johnson, resize": ("johnson", {}),
    "johnson, deconv": ("johnson", {"upsampling": "deconv"}),
    "reconet": ("reconet", {}),
}


class PlainUpsample(nn.Module):
    """`UpsampleConv` as everybody else writes it: the large map is made, padded and convolved."""

    def __init__(self, phases: UpsampleConv) -> None:
        super().__init__()
        self.weight, self.bias = phases.weight, phases.bias

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, in, H, W) to (N, out, 2H, 2W)."""
        border = self.weight.shape[-1] // 2
        large = functional.interpolate(x_NCHW, scale_factor=2, mode="nearest")
        return functional.conv2d(functional.pad(large, [border] * 4, mode="reflect"), self.weight, self.bias)


def make_plain(network: nn.Module) -> None:
    """Replace, in place, every `UpsampleConv`."""
    for name, child in network.named_children():
        if isinstance(child, UpsampleConv):
            setattr(network, name, PlainUpsample(child))
        else:
            make_plain(child)


def main(width: int, height: int, num_rounds: int) -> None:
    picture = np.random.default_rng(0).random((1, 3, height, width), dtype=np.float32)
    print(f"{width}x{height}, {num_rounds} rounds; before -> after")
    for title, (name, options) in NETWORKS.items():
        torch.manual_seed(0)
        network = build_network(name, options)
        make_plain(network)
        plain = onnx_from_network(network, precision="fp32")
        rewritten, counts = rewrite(plain)
        graphs = [model.SerializeToString() for model in (plain, rewritten)]
        work = [gflop_per_frame(graph, width_px=width, height_px=height) for graph in graphs]
        runners = {
            "ONNX Runtime": [on_onnxruntime(graph) for graph in graphs],
            "OpenVINO": [on_openvino(graph) for graph in graphs],
        }
        differences = [
            np.abs(run(picture) - runners["ONNX Runtime"][0](picture)).max() for run in runners["ONNX Runtime"]
        ]
        print(f"\n{title}: {counts}; largest difference {differences[1]:.1e}")
        print(f"  GFLOP         {work[0]:8.2f} -> {work[1]:8.2f}   {work[1] / work[0]:.3f}")
        print(f"  nodes         {len(plain.graph.node):8} -> {len(rewritten.graph.node):8}")
        print(f"  MB            {len(graphs[0]) / 1e6:8.2f} -> {len(graphs[1]) / 1e6:8.2f}")
        for backend, pair in runners.items():
            milliseconds = in_turn(pair, picture, num_rounds)
            ratio = milliseconds[1] / milliseconds[0]
            print(f"  {backend:12}  {milliseconds[0]:8.0f} -> {milliseconds[1]:8.0f} ms {ratio:.3f}", flush=True)


def in_turn(runs: Sequence[Run], picture: np.ndarray, num_rounds: int) -> list[float]:
    """Median milliseconds of processor time of each, after one round to warm up."""
    samples: list[list[float]] = [[] for _ in runs]
    for _ in range(num_rounds + 1):
        for taken, run in zip(samples, runs, strict=True):
            started = time.process_time()  # other programs on this machine do not count
            run(picture)
            taken.append(1000 * (time.process_time() - started))
    return [statistics.median(taken[1:]) for taken in samples]


def on_onnxruntime(graph: bytes) -> Run:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda picture: session.run(None, {"frame": picture})[0]


def on_openvino(graph: bytes) -> Run:
    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(core.read_model(graph), "CPU", settings)
    return lambda picture: compiled(picture)[0]


if __name__ == "__main__":
    size = sys.argv[1] if len(sys.argv) > 1 else "640x360"
    main(*map(int, size.split("x")), int(sys.argv[2]) if len(sys.argv) > 2 else 5)
