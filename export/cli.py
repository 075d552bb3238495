"""`stylize-export`: from a checkpoint to a proven model file."""

import math
import re
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from stylize.export.onnx_from_checkpoint import export_checkpoint
from stylize.export.onnx_from_network import LARGEST_SIDE_PX
from stylize.export.quantize import Int8Model, quantize_file
from stylize.export.verify import FrameFidelity
from stylize.runtime.contract import Precision
from stylize.runtime.errors import StylizeError

__all__ = ["main"]


class _SizeType(click.ParamType[tuple[int, int]]):
    """`WxH` in pixels."""

    name = "WxH"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Parse one value; click reports what `fail` says."""
        match = re.fullmatch(r"(\d+)x(\d+)", value)
        size = (int(match[1]), int(match[2])) if match else (0, 0)
        if not all(1 <= side <= LARGEST_SIDE_PX for side in size):
            self.fail(f"{value!r} is not a size such as 1280x720, each side 1 to {LARGEST_SIDE_PX}", param, ctx)
        return size


@click.command(context_settings={"max_content_width": 110})
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Model to write. Default: <checkpoint>.onnx.")
@click.option("--fp16", is_flag=True, help="Half precision; norm statistics stay float32.")
@click.option("--int8", is_flag=True, help="Convolutions in int8 where they stand it; needs --calibration.")
@click.option(
    "--calibration", type=click.Path(path_type=Path), help="Folder of pictures or clips that sets the int8 scales."
)
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
    int8: bool,
    calibration: Path | None,
    size: tuple[int, int] | None,
    style: str | None,
    frames: tuple[Path, ...],
) -> None:
    """Turn CHECKPOINT into an ONNX model that stylize-run needs nothing else for.

    The model is run against the trained network on several frames and written only when both paint
    the same. With --int8 it is then held against its own float model on frames it was not calibrated on, and
    convolutions that harm the picture or its steadiness most stay in float.
    """
    try:
        target = output or checkpoint.with_suffix(".onnx")
        precision: Precision = "fp16" if fp16 else "fp32"
        if int8 != (calibration is not None):
            raise ValueError("--int8 and --calibration DIR need each other: int8 scales come from real frames")
        if int8 and (fp16 or size is not None):
            raise ValueError("--int8 is made of a float32 model of any size: drop --fp16 and --size")
        int8_model = None
        with tempfile.TemporaryDirectory(prefix="stylize-") as folder:
            exported = Path(folder) / "float.onnx" if int8 else target
            results = export_checkpoint(
                checkpoint, exported, precision=precision, size=size, style=style, given_frames=frames
            )
            if calibration is not None:
                int8_model = quantize_file(exported, target, calibration=calibration)
    except (ValueError, OSError, StylizeError) as error:
        click.echo(f"stylize-export: error: {error}", err=True)
        sys.exit(1)
    Console().print(_table(results))
    if int8_model is not None:
        click.echo(_int8_text(int8_model))
    click.echo(f"{target}: {'int8' if int8 else precision}, {target.stat().st_size / 1e6:.2f} MB")
    click.echo(f"next: stylize-run {target} in.mp4 out.mp4")


def _int8_text(result: Int8Model) -> str:
    return (
        f"int8 against float on {len(result.psnr_db)} frame pairs: PSNR {min(result.psnr_db):.1f} dB and more, "
        f"{result.warp_error_ratio:.3f} of the temporal error; in float: {', '.join(result.float_layers)}"
    )


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
