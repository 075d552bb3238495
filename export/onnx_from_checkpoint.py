"""Checkpoint to model file: graph, proof and contract in one step."""

import dataclasses
import hashlib
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stylize.export.onnx_from_network import LARGEST_SIDE_PX, onnx_from_network, seal_contract
from stylize.export.verify import FrameFidelity, check_floor, compare_on_frames, figures_of, verification_frames
from stylize.runtime.contract import ModelContract, Precision
from stylize.runtime.decode import Decoder
from stylize.runtime.frame import Frame
from stylize.runtime.partial_file import PartialFile
from stylize.train.checkpoint import Checkpoint, load_checkpoint, network_from_checkpoint
from stylize.train.style_network import StyleNetwork

__all__ = ["export_checkpoint", "frames_of_file"]

_MAX_GIVEN_FRAMES = 4  # of one file: more say little more about a graph


def export_checkpoint(
    checkpoint: Path,
    target: Path,
    *,
    precision: Precision = "fp32",
    size: tuple[int, int] | None = None,
    style: str | None = None,
    given_frames: tuple[Path, ...] = (),
) -> list[FrameFidelity]:
    """Export, verify and write one model.

    Args:
        checkpoint: what `stylize-train` wrote.
        target: the ONNX file; appears only when the model is proven.
        precision: element type of the model.
        size: (width, height) in pixels of the only frames to accept; rounded up to the network's
            multiple inside, since the runtime pads. None accepts any.
        style: name of the style in the contract; None takes that of the style picture.
        given_frames: pictures or videos to verify on, besides drawn ones.

    Returns:
        The measured fidelity, frame by frame.

    Raises:
        ValueError: not a checkpoint, or the model differs from the network.
        StylizeError: a given frame cannot be read, or the target cannot be written.
    """
    loaded = load_checkpoint(checkpoint)
    network = network_from_checkpoint(loaded)
    multiple = network.facts.size_multiple
    fixed_size = None if size is None else (_round_up(size[0], multiple), _round_up(size[1], multiple))
    contract = _contract(loaded, network, precision=precision, fixed_size=fixed_size, style=style)
    frames = verification_frames(size)
    for path in given_frames:
        frames |= frames_of_file(path, size)
    with PartialFile(target) as partial:
        model = onnx_from_network(network, precision=precision, fixed_size=fixed_size)
        partial.path.write_bytes(seal_contract(model, contract))
        results = list(compare_on_frames(network, partial.path, frames))
        check_floor(results, precision)
        sealed = dataclasses.replace(contract, verification=figures_of(results))
        partial.path.write_bytes(seal_contract(model, sealed))
        partial.commit()
    return results


def _contract(
    checkpoint: Checkpoint,
    network: StyleNetwork,
    *,
    precision: Precision,
    fixed_size: tuple[int, int] | None,
    style: str | None,
) -> ModelContract:
    weights = hashlib.sha256()
    for name, tensor in sorted(checkpoint.weights.items()):
        weights.update(name.encode())
        weights.update(tensor.contiguous().numpy().tobytes())
    return ModelContract(
        network=network.signature,
        style=style or checkpoint.style,
        style_names=checkpoint.style_names,
        takes_noise=network.takes_noise,
        makes_textures=network.makes_textures,
        size_multiple=network.facts.size_multiple,
        precision=precision,
        fixed_size=fixed_size,
        training_size_px=checkpoint.config.get("crop_px"),
        style_size_px=checkpoint.config.get("style_size_px"),
        content_size_px=checkpoint.config.get("content_size_px"),
        hashes={"weights": weights.hexdigest()}
        | ({"style_picture": checkpoint.style_sha256} if checkpoint.style_sha256 else {}),
    )


def frames_of_file(path: Path, size: tuple[int, int] | None) -> dict[str, NDArray[np.uint8]]:
    """The first frames of a picture or video, cropped to the model's size where it has one."""
    width, height = size or (LARGEST_SIDE_PX, LARGEST_SIDE_PX)
    with Decoder(path) as decoder:
        frames = (item for item in decoder if isinstance(item, Frame))
        return {
            f"{path.name} #{number}": frame.to_array()[:height, :width]
            for number, frame in enumerate(islice(frames, _MAX_GIVEN_FRAMES))
        }


def _round_up(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple
