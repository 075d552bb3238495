"""Post-training int8: scales from real frames, the sensitive layers left in float, nothing kept unproven.

Convolutions and the padding before them become int8 between QuantizeLinear and DequantizeLinear, symmetric,
weights per output channel. Norms keep float statistics: the integers end where a convolution does. The first
convolution and the last always stay in float: they read and write the picture itself, with three channels.

Shapes: N pairs, H = W = crop.
"""

import dataclasses
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QDQQuantizer, QuantType, TensorsData, create_calibrator

from stylize.export.onnx_from_network import seal_contract
from stylize.export.rewrite import rewrite
from stylize.runtime.artifact import open_artifact
from stylize.runtime.partial_file import PartialFile
from stylize.train.data import FramePairs, open_data
from stylize.train.frame_pair import FramePair, Window
from stylize.train.motion import warp_backward

__all__ = ["INT8_FLOOR", "Int8Floor", "Int8Model", "quantize", "quantize_file"]

FramesNCHW = NDArray[np.float32]
"""float32, RGB in [0, 1]; H and W multiples of the network's."""

# Half the height of a 512-line picture: what style networks normalise over is the picture, not its size.
_CROP_PX = 256
# 12 and 24 pairs gave a trained network 42.0 and 43.1 dB.
_NUM_CALIBRATION_PAIRS = 24
_NUM_TRIAL_PAIRS = 8
# Layers are ranked on this many frames: their order hardly depends on more.
_NUM_RANKING_PAIRS = 2


@dataclass(frozen=True, kw_only=True)
class Int8Floor:
    """What an int8 model must reach on frames it was not calibrated on."""

    psnr_db: float = 32.0
    """Against the float model, for each frame: an error of 2.5 % of the range in the mean square."""
    max_warp_error_ratio: float = 1.05
    """Temporal error over that of the float model: at most 5 % less steady."""


INT8_FLOOR = Int8Floor()


@dataclass(frozen=True, kw_only=True)
class Int8Model:
    """A quantized model and how well it does."""

    model: onnx.ModelProto
    float_layers: tuple[str, ...]
    """Convolutions computed in float, by the names of their weights, in the order of the graph."""
    psnr_db: tuple[float, ...]
    """Against the float model, for each frame it was tried on."""
    warp_error_ratio: float
    """Temporal error over that of the float model."""


def quantize_file(source: Path, target: Path, *, calibration: Path) -> Int8Model:
    """Quantize an exported model with its contract.

    Args:
        source: a float32 model of any frame size, as `export_checkpoint` writes it.
        target: the ONNX file; appears only when the floor is met.
        calibration: a folder of pictures or clips, or one file of them: anything `stylize-train --data` takes.

    Raises:
        ArtifactError: `source` is not a model with a contract.
        ValueError: it is of another precision, of one size only or takes more than frames; there are no usable
            frames; or the floor is not met.
        OSError: the target cannot be written.
    """
    contract = open_artifact(source).contract
    if contract.precision != "fp32" or contract.fixed_size is not None or contract.is_int8:
        raise ValueError(f"{source}: int8 is made from a float32 model that takes frames of any size")
    if contract.style_names or contract.takes_noise or contract.makes_textures:
        raise ValueError(f"{source}: int8 is for models of one style that paint frames; this one has other inputs")
    pairs = FramePairs(
        open_data([str(calibration)], Window(crop_px=_CROP_PX)),
        num_pairs=_NUM_CALIBRATION_PAIRS + _NUM_TRIAL_PAIRS,
        seed=0,
    )
    frames = [pairs[number] for number in range(len(pairs))]
    # The input's scale and offset in the first convolution: an int8 model of `fast` gains 8 % on a CPU, since OpenVINO
    # scales the three channels interleaved there. A bf16 one gains 2 % and loses 6 dB of its 65 against float32, since
    # [0, 1] uses bf16 worse than [-1, 1] does; so only int8 models are rewritten.
    model, _ = rewrite(onnx.load(source))
    result = quantize(model, calibration=frames[:_NUM_CALIBRATION_PAIRS], trial=frames[_NUM_CALIBRATION_PAIRS:])
    figures = {
        "int8_min_psnr_db": min(result.psnr_db),
        "int8_warp_error_ratio": result.warp_error_ratio,
        "int8_num_pairs": float(_NUM_TRIAL_PAIRS),
    }
    sealed = dataclasses.replace(
        contract, float_layers=result.float_layers, verification=contract.verification | figures
    )
    with PartialFile(target) as partial:
        partial.path.write_bytes(seal_contract(result.model, sealed))
        partial.commit()
    return result


@dataclass(frozen=True)
class _Trial:
    """Frame pairs with what the float model paints of them."""

    pairs: Sequence[FramePair]
    painted: Sequence[FramesNCHW]
    """(2, 3, H, W) of each pair: previous and current."""

    def psnr_db(self, painted: Sequence[FramesNCHW]) -> tuple[float, ...]:
        """Against the float model, for each pair's current frame."""
        return tuple(_psnr_db(first[1], second[1]) for first, second in zip(painted, self.painted, strict=True))

    def warp_error(self, painted: Sequence[FramesNCHW]) -> float:
        """Root of the mean over pairs of mean M |O_t - W(O_t-1)|^2, hidden pixels counting as 0."""
        squares = []
        for pair, frames in zip(self.pairs, painted, strict=True):
            previous, current = torch.from_numpy(frames[:1]), torch.from_numpy(frames[1:])
            change = current - warp_backward(previous, pair.flow[None])
            squares.append((pair.visible * change.square()).mean())
        return float(torch.stack(squares).mean().sqrt())


def quantize(
    model: onnx.ModelProto,
    *,
    calibration: Sequence[FramePair],
    trial: Sequence[FramePair],
    floor: Int8Floor = INT8_FLOOR,
) -> Int8Model:
    """The model with as many convolutions in int8 as the floor allows.

    All are tried first; then the one that alone did the most harm goes back to float, until the floor is met.

    Args:
        model: a float32 graph of `onnx_from_network`; left as it is.
        calibration: frames whose activations set the scales.
        trial: other frames, to measure what it costs.
        floor: what must be reached.

    Raises:
        ValueError: the floor is not met before every convolution is back in float.
    """
    convolutions = _convolutions(model)
    candidates = [*convolutions][1:-1]
    ranges = _activation_ranges(model, [_frames(pair) for pair in calibration])
    wanted = _Trial(trial, _painted(model, trial))
    by_harm = _most_harmful_first(model, ranges, candidates, wanted)
    reached = "it has no convolution between the first and the last"
    for num_float in range(len(candidates)):
        in_float = {*convolutions} - {*by_harm[num_float:]}
        quantized = _with_integers(model, ranges, in_float=in_float)
        painted = _painted(quantized, trial)
        result = Int8Model(
            model=quantized,
            float_layers=tuple(layer for name, layer in convolutions.items() if name in in_float),
            psnr_db=wanted.psnr_db(painted),
            warp_error_ratio=wanted.warp_error(painted) / wanted.warp_error(wanted.painted),
        )
        if min(result.psnr_db) >= floor.psnr_db and result.warp_error_ratio <= floor.max_warp_error_ratio:
            return result
        reached = (
            f"with {len(candidates) - num_float} convolutions in int8 it reaches {min(result.psnr_db):.1f} dB (at "
            f"least {floor.psnr_db:g}) and {result.warp_error_ratio:.3f} of the temporal error (at most "
            f"{floor.max_warp_error_ratio:g})"
        )
    raise ValueError(f"this network does not stand int8: {reached}; nothing was written, export without --int8")


def _convolutions(model: onnx.ModelProto) -> dict[str, str]:
    """The layer of each convolution, named after its weights, by node in the order of the graph."""
    return {node.name: node.input[1].removesuffix(".weight") for node in model.graph.node if node.op_type == "Conv"}


def _most_harmful_first(
    model: onnx.ModelProto, ranges: TensorsData, candidates: Sequence[str], trial: _Trial
) -> list[str]:
    """The candidates by the PSNR that is left with each alone in int8, the lowest first."""
    few = _Trial(trial.pairs[:_NUM_RANKING_PAIRS], trial.painted[:_NUM_RANKING_PAIRS])
    psnr_db: dict[str, float] = {}
    for name in candidates:
        quantized = _with_integers(model, ranges, in_float={*_convolutions(model)} - {name})
        psnr_db[name] = min(few.psnr_db(_painted(quantized, few.pairs)))
    return sorted(candidates, key=lambda name: psnr_db[name])


def _activation_ranges(model: onnx.ModelProto, batches: Sequence[FramesNCHW]) -> TensorsData:
    """Smallest and largest value of every activation over all frames."""
    with tempfile.TemporaryDirectory(prefix="stylize-") as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        calibrator = create_calibrator(path, ["Conv", "Pad"], str(path.with_name("augmented.onnx")))
        calibrator.collect_data(_CalibrationFrames(model.graph.input[0].name, batches))
        return calibrator.compute_data()


class _CalibrationFrames(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Frames one after the other, as ONNX Runtime's calibrator takes them."""

    def __init__(self, input_name: str, batches: Sequence[FramesNCHW]) -> None:
        self._batches = iter([{input_name: batch} for batch in batches])

    def get_next(self) -> Mapping[str, FramesNCHW] | None:
        """The next batch, None at the end."""
        return next(self._batches, None)


def _with_integers(model: onnx.ModelProto, ranges: TensorsData, *, in_float: Collection[str]) -> onnx.ModelProto:
    """The graph with every convolution in int8 but those named, and the padding in front of each."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    producers = {output: node for node in copied.graph.node for output in node.output}
    float_convolutions = [node for node in copied.graph.node if node.op_type == "Conv" and node.name in in_float]
    float_pads = [producers[node.input[0]].name for node in float_convolutions if node.input[0] in producers]
    quantizer = QDQQuantizer(
        copied,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        # Signed and symmetric even for what is never negative: TensorRT takes nothing else.
        activation_qType=QuantType.QInt8,
        tensors_range=ranges,
        nodes_to_quantize=[],
        nodes_to_exclude=[*in_float, *float_pads],
        # Padding too: in float between the integers it would cost more than the convolution gains.
        op_types_to_quantize=["Conv", "Pad"],
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    quantized: onnx.ModelProto = quantizer.model.model
    onnx.checker.check_model(quantized, full_check=True)
    return quantized


def _frames(pair: FramePair) -> FramesNCHW:
    """Both frames of a pair as the network sees them: (2, 3, H, W)."""
    return torch.stack([pair.previous, pair.current]).numpy()


def _painted(model: onnx.ModelProto, pairs: Sequence[FramePair]) -> list[FramesNCHW]:
    """What a model makes of each pair: (2, 3, H, W)."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return [np.concatenate([session.run(None, {name: frame[None]})[0] for frame in _frames(pair)]) for pair in pairs]


def _psnr_db(first: FramesNCHW, second: FramesNCHW) -> float:
    mean_square = float(np.square(first - second, dtype=np.float64).mean())
    return float(-10 * np.log10(mean_square)) if mean_square else float("inf")
