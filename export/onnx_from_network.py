"""Style network to ONNX graph, with every scale, offset and clamp inside."""

import copy
import logging
import warnings

import onnx
import torch

from stylize.runtime.contract import CONTRACT_KEY, NOISE_INPUT, STYLE_WEIGHTS_INPUT, ModelContract, Precision
from stylize.train.blocks import NORMS, fold_upsampling
from stylize.train.style_network import StyleNetwork

__all__ = ["LARGEST_SIDE_PX", "onnx_from_network", "seal_contract"]

_OPSET = 18  # the oldest the exporter writes natively, so the one most runtimes and TensorRT read
LARGEST_SIDE_PX = 16_384
_EXAMPLE_SIZE = (64, 96)  # height, width of the traced frame; unequal, so that mixing them up fails


def onnx_from_network(
    network: StyleNetwork, *, precision: Precision, fixed_size: tuple[int, int] | None = None
) -> onnx.ModelProto:
    """Trace a network into a graph with input `frame` and output `stylized`, (N, 3, H, W) each.

    A network of several styles has the input `style_weights` (styles,) besides, float32 at any precision, one
    that takes noise the input `noise` (1, 3, H, W).

    Args:
        network: on the CPU, float32; left as it is.
        precision: element type of input, output and weights. Norm statistics stay float32 in `fp16`,
            since half-precision variances overflow.
        fixed_size: (width, height) in pixels, multiples of the network's; None leaves N, H and W open.

    Raises:
        ValueError: `fixed_size` is not a multiple of the network's size multiple.
    """
    multiple = network.facts.size_multiple
    width, height = fixed_size or _EXAMPLE_SIZE[::-1]
    if width % multiple or height % multiple or min(width, height) < 1:
        raise ValueError(f"size {width}x{height} must be made of multiples of {multiple}")
    prepared = copy.deepcopy(network).eval()
    fold_upsampling(prepared)
    dtype = torch.float16 if precision == "fp16" else torch.float32
    # Norms compute in float32: as constants of that type their weights keep their values and names.
    norms = {name: copy.deepcopy(module) for name, module in prepared.named_modules() if isinstance(module, NORMS)}
    prepared.to(dtype)
    for name, norm in norms.items():
        prepared.set_submodule(name, norm)
    # Two pictures: torch.export takes an axis of length 1 for a constant.
    example = torch.zeros(1 if fixed_size else 2, 3, height, width, dtype=dtype)
    # Input of the graph to parameter of `forward` and example value.
    inputs = {"frame": ("frames_NCHW", example)}
    if network.num_styles > 1:
        inputs[STYLE_WEIGHTS_INPUT] = ("mix", torch.full((network.num_styles,), 1 / network.num_styles))
    if network.takes_noise:
        inputs[NOISE_INPUT] = ("noise_1CHW", example[:1])
    dynamic_shapes = None
    if fixed_size is None:
        rows, columns = (torch.export.Dim(name, min=2, max=LARGEST_SIDE_PX // multiple) for name in ("rows", "columns"))
        size = {2: multiple * rows, 3: multiple * columns}
        shapes = {"frame": {0: "batch", **size}, STYLE_WEIGHTS_INPUT: {}, NOISE_INPUT: size}
        dynamic_shapes = {parameter: shapes[name] for name, (parameter, _) in inputs.items()}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # reports that torchvision is not installed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch.export about its own internals
        warnings.filterwarnings("ignore", "# The axis name")  # the noise has the frame's height and width
        program = torch.onnx.export(
            prepared,
            kwargs=dict(inputs.values()),
            dynamo=True,
            opset_version=_OPSET,
            input_names=list(inputs),
            output_names=["stylized"],
            dynamic_shapes=dynamic_shapes,
            verbose=False,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    _strip(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def seal_contract(model: onnx.ModelProto, contract: ModelContract) -> bytes:
    """The model file's bytes with the contract in its metadata, replacing an earlier one."""
    kept = [entry for entry in model.metadata_props if entry.key != CONTRACT_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend([*kept, onnx.StringStringEntryProto(key=CONTRACT_KEY, value=contract.to_json())])
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _strip(model: onnx.ModelProto) -> None:
    """Remove what the tracer noted for itself: source paths, stack traces and symbolic shapes."""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]
    model.graph.doc_string = ""
    for item in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]
    for tensor in (*model.graph.input, *model.graph.output):
        if tensor.name == STYLE_WEIGHTS_INPUT:
            continue
        for axis, name in ((0, "batch"), (2, "height"), (3, "width")):
            dimension = tensor.type.tensor_type.shape.dim[axis]
            if not dimension.HasField("dim_value"):
                dimension.dim_param = name
