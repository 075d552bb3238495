"""Post-training int8: scales from real frames, the sensitive layers left in float, nothing kept unproven.

Convolutions and the padding before them become int8 between QuantizeLinear and DequantizeLinear, symmetric,
weights per output channel. What a convolution gives is float again, for norms divide by it, and so is what goes
around convolutions to be added. The first convolution and the last always stay in float: they read and write the
picture itself, with three channels.

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

__all__ = ["INT8_FLOOR", "Int8Floor", "Int8Model", "Int8Quality", "quantize", "quantize_file"]

FramesNCHW = NDArray[np.float32]
"""float32, RGB in [0, 1]; H and W multiples of the network's."""

# Half the height of a 512-line picture: what style networks normalise over is the picture, not its size.
_CROP_PX = 256
# 12 and 24 pairs gave a trained network 42.0 and 43.1 dB.
_NUM_CALIBRATION_PAIRS = 24
_NUM_TRIAL_PAIRS = 8
# Layers are ranked on this many frames: their order hardly depends on more.
_NUM_RANKING_PAIRS = 2
# Layers whose shares of what is allowed add up to more than this are not tried together.
_HOPELESS_HARM = 2.0
# What each frame of a static camera differs by. Integers move in steps, so the less a picture moves the more restless
# they are beside floats. Photographs with this noise make a trained `reconet` as restless (0.0048) as frames of
# filmed H.264 without motion do (0.0050).
_STILL_NOISE = 0.5 / 255


@dataclass(frozen=True, kw_only=True)
class Int8Floor:
    """What an int8 model must reach on frames it was not calibrated on."""

    psnr_db: float = 32.0
    """Against the float model, for each frame: an error of 2.5 % of the range in the mean square."""
    max_restlessness: float = 1.05
    """Temporal error over that of the float model, moving and still: at most 5 % less steady."""


INT8_FLOOR = Int8Floor()


@dataclass(frozen=True, kw_only=True)
class Int8Quality:
    """How an int8 model does beside its float model."""

    psnr_db: tuple[float, ...]
    """Of each frame it was tried on."""
    warp_error_ratio: float
    """Temporal error over that of the float model, where things move."""
    still_error_ratio: float
    """The same where nothing does but noise."""

    @property
    def restlessness(self) -> float:
        """The larger of the two ratios."""
        return max(self.warp_error_ratio, self.still_error_ratio)

    def meets(self, floor: Int8Floor) -> bool:
        """Whether it is good enough."""
        return min(self.psnr_db) >= floor.psnr_db and self.restlessness <= floor.max_restlessness

    def harm(self, floor: Int8Floor) -> float:
        """Share of the mean square error that `floor` allows, of the picture or over time; layers' shares add up."""
        error = 10 ** ((floor.psnr_db - min(self.psnr_db)) / 10)
        allowed = max(floor.max_restlessness**2 - 1, np.finfo(float).eps)
        return max(error, (self.restlessness**2 - 1) / allowed)


@dataclass(frozen=True, kw_only=True)
class Int8Model:
    """A quantized model and how well it does."""

    model: onnx.ModelProto
    float_layers: tuple[str, ...]
    """Convolutions computed in float, by the names of their weights, in the order of the graph."""
    quality: Int8Quality


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
        "int8_min_psnr_db": min(result.quality.psnr_db),
        "int8_warp_error_ratio": result.quality.warp_error_ratio,
        "int8_still_error_ratio": result.quality.still_error_ratio,
        "int8_num_pairs": float(_NUM_TRIAL_PAIRS),
    }
    sealed = dataclasses.replace(
        contract, float_layers=result.float_layers, verification=contract.verification | figures
    )
    with PartialFile(target) as partial:
        partial.path.write_bytes(seal_contract(result.model, sealed))
        partial.commit()
    return result


class _Trial:
    """Frame pairs, moving and still, with what the float model paints of them."""

    def __init__(self, model: onnx.ModelProto, pairs: Sequence[FramePair]) -> None:
        self._moving, self._still = pairs, [_still_pair(number, pair) for number, pair in enumerate(pairs)]
        self._painted = _painted(model, self._moving)
        self._restlessness = self._warp_errors(self._painted, _painted(model, self._still))

    def quality(self, model: onnx.ModelProto) -> Int8Quality:
        """Of a quantized model."""
        painted = _painted(model, self._moving)
        errors = self._warp_errors(painted, _painted(model, self._still))
        # A network that paints one colour whatever it sees is perfectly calm.
        least = float(np.finfo(float).eps)
        warp, still = (error / max(of_float, least) for error, of_float in zip(errors, self._restlessness, strict=True))
        psnr_db = tuple(_psnr_db(first[1], second[1]) for first, second in zip(painted, self._painted, strict=True))
        return Int8Quality(psnr_db=psnr_db, warp_error_ratio=warp, still_error_ratio=still)

    def _warp_errors(self, moving: Sequence[FramesNCHW], still: Sequence[FramesNCHW]) -> tuple[float, float]:
        return _warp_error(self._moving, moving), _warp_error(self._still, still)


def _still_pair(number: int, pair: FramePair) -> FramePair:
    """The current frame twice, each time with sensor noise of its own."""
    rng = np.random.default_rng(number)
    clean = pair.current_clean
    noise = torch.from_numpy(rng.normal(0, _STILL_NOISE, (2, 1, *clean.shape[1:])).astype(np.float32))
    first, second = (clean + noise).clamp(0, 1)
    return FramePair(first, second, clean, clean, torch.zeros_like(pair.flow), torch.ones_like(pair.visible))


def _warp_error(pairs: Sequence[FramePair], painted: Sequence[FramesNCHW]) -> float:
    """Root of the mean over pairs of mean M |O_t - W(O_t-1)|^2, hidden pixels counting as 0."""
    squares = []
    for pair, frames in zip(pairs, painted, strict=True):
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

    Those that alone do the most harm go back to float one after the other, until the floor is met.

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

    def with_integers(layers: Collection[str]) -> onnx.ModelProto:
        return _with_integers(model, ranges, in_float={*convolutions} - {*layers})

    ranking = _Trial(model, trial[:_NUM_RANKING_PAIRS])
    harm = {name: ranking.quality(with_integers([name])).harm(floor) for name in candidates}
    by_harm = sorted(candidates, key=lambda name: -harm[name])
    num_float = 0
    while num_float < len(candidates) - 1 and sum(harm[name] for name in by_harm[num_float:]) > _HOPELESS_HARM:
        num_float += 1
    wanted = _Trial(model, trial)
    reached = "it has no convolution between the first and the last"
    for num_integers in range(len(candidates) - num_float, 0, -1):
        in_integers = by_harm[-num_integers:]
        quantized = with_integers(in_integers)
        quality = wanted.quality(quantized)
        if quality.meets(floor):
            float_layers = tuple(layer for name, layer in convolutions.items() if name not in in_integers)
            return Int8Model(model=quantized, float_layers=float_layers, quality=quality)
        reached = (
            f"with {num_integers} convolutions in int8 it reaches {min(quality.psnr_db):.1f} dB (at least "
            f"{floor.psnr_db:g}) and {quality.warp_error_ratio:.3f} of the temporal error, "
            f"{quality.still_error_ratio:.3f} where nothing moves (at most {floor.max_restlessness:g})"
        )
    raise ValueError(f"this network does not stand int8: {reached}; nothing was written, export without --int8")


def _convolutions(model: onnx.ModelProto) -> dict[str, str]:
    """The layer of each convolution, named after its weights, by node in the order of the graph."""
    return {node.name: node.input[1].removesuffix(".weight") for node in model.graph.node if node.op_type == "Conv"}


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
    excluded = {*in_float, *float_pads}
    quantizer = QDQQuantizer(
        copied,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        # Signed and symmetric even for what is never negative: TensorRT takes nothing else.
        activation_qType=QuantType.QInt8,
        tensors_range=ranges,
        nodes_to_quantize=[],
        nodes_to_exclude=[*excluded],
        # Padding too: in float between the integers it would cost more than the convolution gains.
        op_types_to_quantize=["Conv", "Pad"],
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            # One scale for all channels, of which a norm then enlarges the small ones, steps and all.
            "OpTypesToExcludeOutputQuantization": ["Conv"],
        },
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    quantized: onnx.ModelProto = quantizer.model.model
    _keep_float_around_integers(quantized, excluded)
    onnx.checker.check_model(quantized, full_check=True)
    return quantized


def _keep_float_around_integers(quantized: onnx.ModelProto, excluded: Collection[str]) -> None:
    """Give what is computed in float the values before they were rounded."""
    source: dict[str, str] = {}
    for node in quantized.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            source[node.output[0]] = source.get(node.input[0], node.input[0])
    for node in quantized.graph.node:
        if node.op_type not in ("Conv", "Pad", "QuantizeLinear", "DequantizeLinear") or node.name in excluded:
            node.input[:] = [source.get(name, name) for name in node.input]


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
