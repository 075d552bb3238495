"""`stylize-export`: from a checkpoint to a proven model file."""

import dataclasses
import hashlib
import math
import re
import sys
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from stylize.export.onnx_from_network import onnx_from_network, seal_contract
from stylize.export.verify import FrameFidelity, check_floor, compare_on_frames, verification_frames
from stylize.runtime.contract import ModelContract, Precision
from stylize.runtime.decode import Decoder
from stylize.runtime.errors import StylizeError
from stylize.runtime.frame import Frame
from stylize.runtime.partial_file import PartialFile
from stylize.train.checkpoint import Checkpoint, load_checkpoint, network_from_checkpoint
from stylize.train.networks import StyleNetwork

__all__ = ["export_checkpoint", "main"]

_LARGEST_SIDE_PX = 16_384
_MAX_GIVEN_FRAMES = 4  # of one file: more say little more about a graph


class _SizeType(click.ParamType[tuple[int, int]]):
    """`WxH` in pixels."""

    name = "WxH"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Parse one value; click reports what `fail` says."""
        match = re.fullmatch(r"(\d+)x(\d+)", value)
        size = (int(match[1]), int(match[2])) if match else (0, 0)
        if not all(1 <= side <= _LARGEST_SIDE_PX for side in size):
            self.fail(f"{value!r} is not a size such as 1280x720, each side 1 to {_LARGEST_SIDE_PX}", param, ctx)
        return size


@click.command(context_settings={"max_content_width": 110})
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Model to write. Default: <checkpoint>.onnx.")
@click.option("--fp16", is_flag=True, help="Half precision; norm statistics stay float32.")
@click.option("--size", type=_SizeType(), help="Accept only this frame size. Default: any size.")
@click.option("--style", help="Name sealed in the model. Default: that of the style picture.")
@click.option(
    "--frames",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Picture or video to verify on, besides the drawn frames; repeatable.",
)
@click.version_option(version("stylize"), package_name="stylize")
def main(
    checkpoint: Path,
    output: Path | None,
    fp16: bool,
    size: tuple[int, int] | None,
    style: str | None,
    frames: tuple[Path, ...],
) -> None:
    """Turn CHECKPOINT into an ONNX model that stylize-run needs nothing else for.

    The model is run against the trained network on several frames and written only when both paint
    the same.
    """
    try:
        target = output or checkpoint.with_suffix(".onnx")
        precision: Precision = "fp16" if fp16 else "fp32"
        results = export_checkpoint(
            checkpoint, target, precision=precision, size=size, style=style, given_frames=frames
        )
    except (ValueError, OSError, StylizeError) as error:
        click.echo(f"stylize-export: error: {error}", err=True)
        sys.exit(1)
    Console().print(_table(results))
    click.echo(f"{target}: {precision}, {target.stat().st_size / 1e6:.2f} MB")
    click.echo(f"next: stylize-run {target} in.mp4 out.mp4")


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
        frames |= _frames_from_file(path, size)
    with PartialFile(target) as partial:
        model = onnx_from_network(network, precision=precision, fixed_size=fixed_size)
        partial.path.write_bytes(seal_contract(model, contract))
        results = list(compare_on_frames(network, partial.path, frames))
        check_floor(results, precision)
        figures = {
            "max_abs_error": max(result.max_abs_error for result in results),
            "min_psnr_db": min(result.psnr_db for result in results),
            "num_frames": float(len(results)),
        }
        partial.path.write_bytes(seal_contract(model, dataclasses.replace(contract, verification=figures)))
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
    options = ", ".join(f"{name}={value}" for name, value in network.options.items())
    return ModelContract(
        network=f"{network.name}({options})",
        style=style or checkpoint.style,
        size_multiple=network.facts.size_multiple,
        precision=precision,
        fixed_size=fixed_size,
        training_size_px=checkpoint.config.get("crop_px"),
        hashes={"weights": weights.hexdigest()}
        | ({"style_picture": checkpoint.style_sha256} if checkpoint.style_sha256 else {}),
    )


def _frames_from_file(path: Path, size: tuple[int, int] | None) -> dict[str, NDArray[np.uint8]]:
    """The first frames of a picture or video, cropped to the model's size where it has one."""
    width, height = size or (_LARGEST_SIDE_PX, _LARGEST_SIDE_PX)
    with Decoder(path) as decoder:
        frames = (item for item in decoder if isinstance(item, Frame))
        return {
            f"{path.name} #{number}": frame.to_array()[:height, :width]
            for number, frame in enumerate(islice(frames, _MAX_GIVEN_FRAMES))
        }


def _round_up(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple


def _table(results: list[FrameFidelity]) -> Table:
    table = Table(title="model against network", title_justify="left")
    table.add_column("frame")
    for heading in ("size", "max error", "PSNR dB"):
        table.add_column(heading, justify="right")
    for result in results:
        psnr = "equal" if math.isinf(result.psnr_db) else f"{result.psnr_db:.1f}"
        table.add_row(result.name, f"{result.width}x{result.height}", f"{result.max_abs_error:.1e}", psnr)
    return table


if __name__ == "__main__":
    main()
