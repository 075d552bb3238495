"""`stylize-export`: from a checkpoint, an ONNX file or a style to a proven model file or engine."""

import math
import re
import sys
from importlib.metadata import version
from pathlib import Path

import click
from platformdirs import user_cache_path
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from stylize.export.checkpoint_from_onnx import checkpoint_from_onnx
from stylize.export.command import NEEDS_CALIBRATION, Exported, Request, default_target, run_export
from stylize.export.onnx_from_network import LARGEST_SIDE_PX
from stylize.export.plan_from_onnx import DEFAULT_SIZES, DEFAULT_TARGETS, PlanOptions
from stylize.export.quantize import Int8Model
from stylize.export.verify import FrameFidelity
from stylize.runtime.artifact import open_artifact
from stylize.runtime.cli_types import VALUE_RANGE
from stylize.runtime.errors import OptionError, StylizeError
from stylize.runtime.plan import EnginePrecision, EngineProfile
from stylize.train.checkpoint import save_checkpoint

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


_SIZE = _SizeType()
_SMALLEST, _FASTEST, _LARGEST = (f"{width}x{height}" for width, height in DEFAULT_SIZES)


_EXAMPLES = """\b
Examples:
  stylize-export monet.pth -o monet.onnx
  stylize-export monet.pth --int8 --calibration photos/ -o monet-int8.onnx
  stylize-export monet.pth --trt fp16 --rtx -o monet.plan
  stylize-export candy.onnx --input-range 0..255 -o candy-fp16.onnx --fp16
"""


@click.command(
    context_settings={"max_content_width": 110, "help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    epilog=_EXAMPLES,
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="File to write. Default: <model>.onnx, or .plan with --trt."
)
@click.option("--fp16", is_flag=True, help="Half precision; norm statistics stay float32.")
@click.option("--int8", is_flag=True, help="Convolutions in int8 where they stand it; needs --calibration.")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    help="Folder of pictures or clips like those to render; sets the int8 scales.",
)
@click.option("--size", type=_SIZE, help="Accept only this frame size. Default: any size.")
@click.option("--style", help="Name sealed in the model. Default: that of the style picture.")
@click.option(
    "--frames",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Picture or video to verify on, besides the drawn frames; repeatable.",
)
@click.option("--input-range", type=VALUE_RANGE, help="Black and white of a foreign ONNX file, such as 0..255.")
@click.option(
    "--rewrite/--no-rewrite",
    default=True,
    help="Exact rewrites of ONNX files and for engines: fewer operations, the same result.  [default: rewrite]",
)
@click.option("--trt", type=click.Choice(["fp16", "fp32", "int8"]), help="Build a TensorRT engine of this precision.")
@click.option("--rtx", is_flag=True, help="Build it with TensorRT-RTX: for RTX cards, on any machine, no GPU needed.")
@click.option("--static", type=_SIZE, help="Engine for this frame size only: faster to build and to run.")
@click.option("--min", "smallest", type=_SIZE, help=f"Smallest frame.  [default: {_SMALLEST}]")
@click.option("--opt", "fastest", type=_SIZE, help=f"Frame it is fastest at.  [default: {_FASTEST}]")
@click.option("--max", "largest", type=_SIZE, help=f"Largest frame; sets the memory.  [default: {_LARGEST}]")
@click.option(
    "--target",
    "targets",
    multiple=True,
    help=f"Compute capability for --rtx, repeatable.  [default: {' '.join(DEFAULT_TARGETS)}]",
)
@click.option("--portable", is_flag=True, help="Engine for later TensorRT versions and other GPUs too, slower.")
@click.option("--raw", is_flag=True, help="The bare engine, without the ONNX beside it.")
@click.option(
    "--workspace", "workspace_mb", metavar="MB", type=click.IntRange(1), help="Most scratch memory a layer gets."
)
@click.option(
    "--timing-cache",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where TensorRT keeps what it timed.  [default: the user's cache folder]",
)
@click.version_option(version("stylize"), package_name="stylize")
def main(
    model: Path,
    output: Path | None,
    fp16: bool,
    int8: bool,
    calibration: Path | None,
    size: tuple[int, int] | None,
    style: str | None,
    frames: tuple[Path, ...],
    input_range: tuple[float, float] | None,
    rewrite: bool,
    trt: EnginePrecision | None,
    rtx: bool,
    static: tuple[int, int] | None,
    smallest: tuple[int, int] | None,
    fastest: tuple[int, int] | None,
    largest: tuple[int, int] | None,
    targets: tuple[str, ...],
    portable: bool,
    raw: bool,
    workspace_mb: int | None,
    timing_cache: Path | None,
) -> None:
    """Turn MODEL into a file that stylize-run needs nothing else for.

    MODEL is a checkpoint, an ONNX file, a plan or a built-in style. The result is run against it on several
    frames and written only when both paint the same. With --int8 it is then held against its own float model on
    frames it was not calibrated on, and convolutions that harm the picture or its steadiness most stay in float.
    With --trt an engine is built from the proven ONNX, which stays beside it in the plan, and run against it where
    this machine has the GPU for it.
    With an OUTPUT that ends in .pth a model that was exported becomes a checkpoint again, for
    stylize-train --start-from.
    """
    try:
        if output is not None and output.suffix == ".pth":
            _restore(model, output)
            return
        sizes = (smallest or DEFAULT_SIZES[0], fastest or DEFAULT_SIZES[1], largest or DEFAULT_SIZES[2])
        _check_combination(
            engine_options={
                "--rtx": rtx,
                "--static": static,
                "--min": smallest,
                "--opt": fastest,
                "--max": largest,
                "--target": targets,
                "--portable": portable,
                "--raw": raw,
                "--workspace": workspace_mb,
                "--timing-cache": timing_cache,
            },
            onnx_options={"--fp16": fp16, "--int8": int8, "--size": size},
            is_engine=trt is not None,
            is_int8=int8 or trt == "int8",
            has_calibration=calibration is not None,
        )
        plan = None
        if trt is not None:
            plan = PlanOptions(
                builder="tensorrt_rtx" if rtx else "tensorrt",
                precision=trt,
                static=static,
                sizes=sizes,
                targets=targets,
                is_portable=portable,
                is_raw=raw,
                has_rewrites=rewrite,
                workspace_bytes=None if workspace_mb is None else workspace_mb << 20,
                timing_cache=None if rtx else timing_cache or user_cache_path("stylize") / "timing",
            )
        request = Request(
            model=model,
            target=output or default_target(model, is_engine=trt is not None),
            precision="fp16" if fp16 else "fp32",
            calibration=calibration,
            size=size,
            style=style,
            frames=frames,
            input_range=input_range,
            has_rewrites=rewrite,
            plan=plan,
        )
        with _BuildProgress() as progress:
            exported = run_export(request, on_progress=progress.update)
    except (ValueError, OSError, StylizeError) as error:
        click.echo(f"stylize-export: error: {error}", err=True)
        sys.exit(1)
    _tell(request, exported)


def _restore(model: Path, output: Path) -> None:
    """Write the checkpoint of a model; a training may have taken hours, so no file is replaced."""
    context = click.get_current_context()
    for name in context.params.keys() - {"model", "output"}:
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            raise OptionError(f"{output}: a checkpoint takes no option, but {name} was given: drop it")
    if output.exists():
        raise OptionError(f"{output}: exists; choose another name, or remove it first")
    checkpoint = checkpoint_from_onnx(open_artifact(model))
    save_checkpoint(checkpoint, output)
    click.echo(f"{output}: {checkpoint.network} in the style {checkpoint.style!r}")
    click.echo(f"next: stylize-train --style x.jpg --start-from {output} -o x.pth")


def _check_combination(
    *,
    engine_options: dict[str, object],
    onnx_options: dict[str, object],
    is_engine: bool,
    is_int8: bool,
    has_calibration: bool,
) -> None:
    """Raises OptionError for options that say nothing together."""
    for name, value in (onnx_options if is_engine else engine_options).items():
        if value:
            way_out = "--trt says the precision and --static the size" if is_engine else "it needs --trt"
            raise OptionError(f"{name} is for {'an ONNX file' if is_engine else 'engines'}: {way_out}")
    if is_engine and engine_options["--static"] and any(engine_options[name] for name in ("--min", "--opt", "--max")):
        raise OptionError("--static is one size, --min, --opt and --max are a range: choose one of the two")
    if (has_calibration and not is_int8) or (onnx_options["--int8"] and not has_calibration):
        raise OptionError(NEEDS_CALIBRATION)
    if onnx_options["--int8"] and (onnx_options["--fp16"] or onnx_options["--size"]):
        raise OptionError("--int8 is made of a float32 model of any size: drop --fp16 and --size")


class _BuildProgress:
    """A bar on stderr while an engine is built; nothing where stderr is no terminal."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task("", total=1.0)

    def update(self, phase: str, fraction: float) -> None:
        self._progress.start()
        self._progress.update(self._task, description=phase, completed=fraction)

    def __enter__(self) -> "_BuildProgress":
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def _tell(request: Request, exported: Exported) -> None:
    if exported.results:
        Console().print(_table(exported.results, title="model against original"))
    if exported.onnx is not None:
        click.echo(f"rewritten: {exported.onnx.rewrites}")
    if exported.int8 is not None:
        click.echo(_int8_text(exported.int8))
    megabytes = request.target.stat().st_size / 1e6
    if exported.plan is None:
        click.echo(f"{request.target}: {'int8' if exported.int8 else request.precision}, {megabytes:.2f} MB")
    else:
        plan = exported.plan
        if plan.engine_results:
            Console().print(_table(plan.engine_results, title="engine against model"))
        header = plan.header
        click.echo(
            f"{request.target}: {header.precision}, {_sizes_text(header.profile)}, {header.builder} "
            f"{header.builder_version} for {header.gpu or ', '.join(header.compute_capabilities)}, {megabytes:.2f} MB"
        )
        if header.precision == "int8" and header.builder == "tensorrt_rtx":
            click.echo(
                "NVIDIA promises int8 of TensorRT-RTX for matrix products, not for convolutions: compare its speed on "
                "the card with that of --trt fp16"
            )
        if plan.not_proven:
            click.echo(f"proven: the typed ONNX, on the CPU; not proven: the engine, since {plan.not_proven}")
    is_texture = open_artifact(request.target).contract.makes_textures
    click.echo(f"next: stylize-run {request.target} {'noise: out.png' if is_texture else 'in.mp4 out.mp4'}")


def _sizes_text(profile: EngineProfile) -> str:
    low, middle, high = (f"{shape[3]}x{shape[2]}" for shape in (profile.min, profile.opt, profile.max))
    return low if profile.is_static else f"{low} to {high}, fastest at {middle}"


def _int8_text(result: Int8Model) -> str:
    quality = result.quality
    return (
        f"int8 against float on {len(quality.psnr_db)} frame pairs: PSNR {min(quality.psnr_db):.1f} dB and more, "
        f"{quality.warp_error_ratio:.3f} of the temporal error, {quality.still_error_ratio:.3f} where nothing moves; "
        f"in float: {', '.join(result.float_layers)}"
    )


def _table(results: list[FrameFidelity], *, title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("frame")
    for heading in ("size", "max error", "PSNR dB"):
        table.add_column(heading, justify="right")
    for result in results:
        psnr = "equal" if math.isinf(result.psnr_db) else f"{result.psnr_db:.1f}"
        if not result.is_telling:
            psnr += "*"
            table.caption = "* left out: of a frame like this the network makes noise, and rounding changes it"
        table.add_row(result.name, f"{result.width}x{result.height}", f"{result.max_abs_error:.1e}", psnr)
    return table


if __name__ == "__main__":
    main()
