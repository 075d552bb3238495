"""The baseline runs the model's own weights, and says so when it cannot."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from helpers.clips import ClipSpec, write_clip
from helpers.networks import write_affine
from stylize.benchmarks.baseline import eager_cases
from stylize.benchmarks.cases import ModelUnderTest
from stylize.benchmarks.results import EAGER
from stylize.export.onnx_from_network import onnx_from_network, seal_contract
from stylize.runtime.contract import ModelContract, Precision
from stylize.runtime.errors import OptionError
from stylize.runtime.runner import Backend
from stylize.runtime.stylizer import Stylizer
from stylize.train.checkpoint import checkpoint_of_weights, save_checkpoint
from stylize.train.networks import build_network
from stylize.train.style_network import StyleNetwork


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Not a multiple of four either way: the baseline has to pad as the runtime does.
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", ClipSpec(width=70, height=50, pts=range(3)))


def random_network() -> StyleNetwork:
    torch.manual_seed(0)
    network = build_network("fast", {"width": 32})
    # Fresh norms all hold the same numbers, which the exporter stores once: make them differ as training does.
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return network


def export(path: Path, precision: Precision) -> Path:
    network = random_network()
    contract = ModelContract(
        network="fast(width=32)", style="random", size_multiple=network.facts.size_multiple, precision=precision
    )
    path.write_bytes(seal_contract(onnx_from_network(network, precision=precision), contract))
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("model") / "random.onnx", "fp32")


def test_every_stage_is_timed_with_the_weights_of_the_model(exported: Path, clip: Path) -> None:
    with Stylizer(exported) as stylizer:
        cases = eager_cases(ModelUnderTest(stylizer=stylizer, backend=Backend.ONNXRUNTIME), clip, checkpoint=None)
    assert cases.backend == f"{EAGER} {torch.__version__}"
    assert list(cases.by_stage) == ["decode", "network", "encode", "pipeline"]
    for case in cases.by_stage.values():
        seconds = case()
        assert len(seconds) == 3
        assert np.all(np.asarray(seconds) > 0)


def test_a_half_precision_file_is_taken_for_the_same_weights(clip: Path, tmp_path: Path) -> None:
    save_checkpoint(checkpoint_of_weights(random_network(), style="random"), tmp_path / "random.pth")
    with Stylizer(export(tmp_path / "half.onnx", "fp16"), backend=Backend.ONNXRUNTIME) as stylizer:
        model = ModelUnderTest(stylizer=stylizer, backend=Backend.ONNXRUNTIME)
        cases = eager_cases(model, clip, checkpoint=tmp_path / "random.pth")
    assert cases.precision == "fp32"


def test_rejects_a_model_whose_network_is_not_ours(tmp_path: Path, clip: Path) -> None:
    with (
        Stylizer(write_affine(tmp_path / "affine.onnx")) as stylizer,
        pytest.raises(OptionError, match=r"network 'affine': a checkpoint .*; give --checkpoint"),
    ):
        eager_cases(ModelUnderTest(stylizer=stylizer, backend=Backend.ONNXRUNTIME), clip, checkpoint=None)


def test_rejects_weights_that_paint_another_picture(exported: Path, clip: Path, tmp_path: Path) -> None:
    graph = onnx.load(exported)
    bias = next(tensor for tensor in graph.graph.initializer if tensor.name == "encoder.1.norm.0.bias")
    # The graph computes with other numbers than those it holds under the network's names.
    bias_values = numpy_helper.to_array(bias)
    graph.graph.initializer.append(numpy_helper.from_array(bias_values + 1, "moved"))
    for node in graph.graph.node:
        for position, name in enumerate(node.input):
            if name == bias.name:
                node.input[position] = "moved"
    onnx.save(graph, tmp_path / "other.onnx")
    with (
        Stylizer(tmp_path / "other.onnx", backend=Backend.ONNXRUNTIME) as stylizer,
        pytest.raises(OptionError, match="not those of other"),
    ):
        eager_cases(ModelUnderTest(stylizer=stylizer, backend=Backend.ONNXRUNTIME), clip, checkpoint=None)
