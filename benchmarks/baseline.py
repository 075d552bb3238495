"""What most research scripts do with the same weights, as the yardstick for every speed figure.

Decode to packed RGB arrays, run PyTorch eagerly in float32 on one frame at a time, convert back and
hand raw RGB frames to the encoder, one step after the other. Such scripts start an encoder process and
write to its pipe; here it runs in this process, which saves the baseline that copy. PyTorch and
the packages that know it are imported only when a baseline is asked for.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from stylize.benchmarks.cases import ModelUnderTest, PeerCases
from stylize.benchmarks.results import EAGER
from stylize.runtime.errors import ArtifactError, BackendUnavailableError, OptionError
from stylize.runtime.runner import Backend
from stylize.runtime.stylizer import Stylizer

if TYPE_CHECKING:
    from stylize.train.style_network import StyleNetwork

__all__ = ["eager_cases"]

# Mean difference from the exported model on one frame, in [0, 1]: float32 rounding through a dozen
# instance norms stays below a tenth of this; other weights give a hundred times as much.
_LARGEST_MEAN_DIFFERENCE = 1e-3
# int8 models are written at 32 dB PSNR and more, float16 at 45: 0.025 and 0.0056 in the root mean square; the mean
# is below that.
_LARGEST_MEAN_DIFFERENCE_INT8 = 0.025
_LARGEST_MEAN_DIFFERENCE_FP16 = 0.0056

Picture = NDArray[np.uint8]
"""(H, W, 3) RGB."""


def eager_cases(model: ModelUnderTest, clip: Path, *, checkpoint: Path | None) -> PeerCases:
    """The baseline of one model, checked to paint the same picture.

    Args:
        model: the exported model.
        clip: the video to render.
        checkpoint: the model's checkpoint; None takes the weights out of the ONNX file.

    Raises:
        BackendUnavailableError: PyTorch is not installed.
        OptionError: the weights are those of another model, or the ONNX file does not hold them.
        ValueError: the checkpoint is missing or damaged.
    """
    try:
        import torch
    except ImportError as error:
        raise BackendUnavailableError("--baseline eager needs PyTorch: pip install 'stylize[train]'") from error
    stylize = _eager_stylizer(_network(model, checkpoint), model.stylizer.artifact.contract.size_multiple)
    pictures = _decoded(clip)
    with Stylizer(model.stylizer.artifact, backend=Backend.ONNXRUNTIME) as stylizer:
        exported = stylizer.run(pictures[0][None])[0]
    difference = float(np.abs(stylize(pictures[0]).astype(np.float32) - exported).mean() / 255)
    contract = model.stylizer.artifact.contract
    largest = _LARGEST_MEAN_DIFFERENCE_FP16 if contract.precision == "fp16" else _LARGEST_MEAN_DIFFERENCE
    if contract.is_int8:
        largest = _LARGEST_MEAN_DIFFERENCE_INT8
    if difference > largest:
        raise OptionError(
            f"the baseline's weights are not those of {model.name}: pictures differ by {difference:.4f} on average, "
            f"at most {largest} is rounding; check --checkpoint"
        )
    stylized = [stylize(picture) for picture in pictures]
    target = clip.with_name("baseline.mp4")
    return PeerCases(
        model=model.name,
        backend=f"{EAGER} {torch.__version__}",
        precision="fp32",
        by_stage={
            "decode": lambda: _timed_decode(clip),
            "network": lambda: _timed_network(stylize, pictures),
            "encode": lambda: _timed_encode(target, stylized),
            "pipeline": lambda: _timed_script(clip, target, stylize),
        },
    )


def _network(model: ModelUnderTest, checkpoint: Path | None) -> "StyleNetwork":
    from stylize.export.checkpoint_from_onnx import checkpoint_from_onnx
    from stylize.train.blocks import fold_upsampling
    from stylize.train.checkpoint import load_checkpoint, network_from_checkpoint

    try:
        weights = checkpoint_from_onnx(model.stylizer.artifact) if checkpoint is None else load_checkpoint(checkpoint)
    except ArtifactError as error:
        raise OptionError(f"{error}; give --checkpoint") from error
    network = network_from_checkpoint(weights)
    fold_upsampling(network)  # as exported graphs have it
    return network


def _eager_stylizer(network: "StyleNetwork", size_multiple: int) -> Callable[[Picture], Picture]:
    """One picture through the network, array to array."""
    import torch
    from torch.nn import functional

    def stylize(picture: Picture) -> Picture:
        height, width = picture.shape[:2]
        with torch.inference_mode():
            frame: torch.Tensor = torch.from_numpy(picture).permute(2, 0, 1).float().div(255).unsqueeze(0)
            padded = functional.pad(frame, (0, -width % size_multiple, 0, -height % size_multiple), mode="reflect")
            result = network(padded)[0, :, :height, :width].clamp(0, 1).mul(255).round().byte()
            return np.ascontiguousarray(result.permute(1, 2, 0).numpy())

    return stylize


def _decoded(clip: Path) -> list[Picture]:
    with av.open(str(clip)) as container:
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in container.decode(video=0)]


def _timed_decode(clip: Path) -> Sequence[float]:
    begin = time.perf_counter()
    num_frames = len(_decoded(clip))
    return [(time.perf_counter() - begin) / num_frames] * num_frames


def _timed_network(stylize: Callable[[Picture], Picture], pictures: Sequence[Picture]) -> Sequence[float]:
    seconds = []
    for picture in pictures:
        begin = time.perf_counter()
        stylize(picture)
        seconds.append(time.perf_counter() - begin)
    return seconds


class _RawWriter:
    """An encoder fed with packed RGB, at the quality `stylize-run` uses by default."""

    def __init__(self, target: Path, picture: Picture) -> None:
        self._container = av.open(str(target), "w")
        stream = self._container.add_stream("libx264", rate=25, options={"crf": "18"})
        assert isinstance(stream, VideoStream), "libx264 encodes video"
        self._stream = stream
        context = stream.codec_context
        context.height, context.width = (side - side % 2 for side in picture.shape[:2])
        context.pix_fmt = "yuv420p"

    def write(self, picture: Picture) -> None:
        even = np.ascontiguousarray(picture[: self._stream.codec_context.height, : self._stream.codec_context.width])
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))

    def close(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()


def _timed_encode(target: Path, pictures: Sequence[Picture]) -> Sequence[float]:
    begin = time.perf_counter()
    writer = _RawWriter(target, pictures[0])
    for picture in pictures:
        writer.write(picture)
    writer.close()
    return [(time.perf_counter() - begin) / len(pictures)] * len(pictures)


def _timed_script(clip: Path, target: Path, stylize: Callable[[Picture], Picture]) -> Sequence[float]:
    """The whole script: every frame decoded, stylized and encoded before the next one is touched."""
    begin = time.perf_counter()
    writer: _RawWriter | None = None
    num_frames = 0
    with av.open(str(clip)) as container:
        for frame in container.decode(video=0):
            picture = stylize(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
            writer = writer or _RawWriter(target, picture)
            writer.write(picture)
            num_frames += 1
    if writer is not None:
        writer.close()
    return [(time.perf_counter() - begin) / num_frames] * num_frames
