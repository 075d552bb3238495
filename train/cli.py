"""`stylize-train`: from one picture to a style network."""

import dataclasses
import logging
import sys
import types
import typing
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import click
import torch
from rich.console import Console

from stylize.train.config import TrainConfig
from stylize.train.console import (
    LineHandler,
    is_first_process,
    losses_text,
    optimize_with_report,
    preflight_with_report,
    train_with_progress,
)
from stylize.train.data import parse_data
from stylize.train.diagnosis import diagnosis
from stylize.train.loop import TrainingDivergedError
from stylize.train.pictures import PICTURE_SUFFIXES, picture_on_white
from stylize.train.presets import PRESETS
from stylize.train.preview import write_picture
from stylize.train.stained_glass import draw_stained_glass
from stylize.train.style_check import style_warnings
from stylize.train.whole_file import check_writable

__all__ = ["main"]

logger = logging.getLogger("stylize.train.cli")  # __name__ is __main__ where torchrun starts it

_DRAWN_STYLE = Path("stained-glass")  # a name in place of a file, as `demo` is for stylize-run
_EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
# Flags that change nothing but with another flag's value.
_ONLY_WITH = {
    "width": ("network", "fast"),
    "norm": ("network", "reconet"),
    "activation_after_add": ("network", "reconet"),
    "upsampling": ("network", "johnson"),
    "padding": ("network", "texture"),
    "diversity_weight": ("mode", "texture"),
}


class _Floats(click.ParamType[tuple[float, ...]]):
    """`0.3,0.7`."""

    name = "A,B,..."

    def convert(
        self, value: str | tuple[float, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Parse one value; click reports what `fail` says."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not numbers with commas between them", param, ctx)


_FLOATS = _Floats()


def _click_type(annotation: Any) -> tuple[Any, bool]:  # noqa: ANN401 - a type expression has no narrower type
    """The click type of a config field, and whether the flag may be repeated."""
    if isinstance(annotation, types.UnionType):
        annotation = next(member for member in typing.get_args(annotation) if member is not types.NoneType)
    if typing.get_origin(annotation) is Literal:
        return click.Choice(typing.get_args(annotation)), False
    if typing.get_origin(annotation) is tuple:
        member = typing.get_args(annotation)[0]
        return (_FLOATS, False) if member is float else (_click_type(member)[0], True)
    if annotation is Path:
        return click.Path(path_type=Path), False
    return annotation, False


def _config_options(command: Callable[..., None]) -> Callable[..., None]:
    """One flag for each field of `TrainConfig`, in its order; `_px` and the like stay in the name."""
    hints = typing.get_type_hints(TrainConfig)
    for field in reversed(dataclasses.fields(TrainConfig)):
        flag = "--" + field.name.replace("_", "-")
        kind, is_repeatable = _click_type(hints[field.name])
        declaration = f"{flag}/--no-{flag[2:]}" if kind is bool else flag
        command = click.option(
            declaration,
            field.name,
            type=None if kind is bool else kind,
            multiple=is_repeatable,
            default=field.default,
            show_default=field.default not in (None, ()),
            help=field.metadata["help"],
        )(command)
    return command


_EXAMPLES = """\b
Examples, of which the first is all that most need:
  stylize-train --style monet.jpg --data photos/ --minutes 60 -o monet.pth
  stylize-train --style monet.jpg --data photos/ --minutes 60 -o monet.pth --resume
  stylize-train --style monet.jpg --start-from starry-night.pth --minutes 20 -o monet.pth
  stylize-train --style monet.jpg --data photos/ --preflight -o sheet.png
"""


@click.command(
    context_settings={"show_default": False, "max_content_width": 110, "help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    epilog=_EXAMPLES,
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="Checkpoint to write (.pth)."
)
@click.option("--resume", is_flag=True, help="Go on from the output file if it is there.")
@click.option("--overwrite", is_flag=True, help="Start afresh although the output file is there.")
@click.option("--device", default=None, help="cpu, cuda, cuda:1, ... Default: CUDA when there is one.")
@click.option(
    "--optimize",
    type=click.Path(path_type=Path),
    help="Train nothing: paint this one picture by optimising its pixels (Gatys), into the output picture.",
)
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    multiple=True,
    help="With --optimize: checkpoint whose losses on the same picture are printed too; repeatable.",
)
@click.option(
    "--preflight",
    "is_preflight",
    is_flag=True,
    help="Only try: minutes of training at several style weights and sizes, shown in one output picture.",
)
@_config_options
@click.version_option(version("stylize"), package_name="stylize")
def main(
    output: Path,
    resume: bool,
    overwrite: bool,
    device: str | None,
    optimize: Path | None,
    against: tuple[Path, ...],
    is_preflight: bool,
    **fields: Any,  # noqa: ANN401 - one for each field of the config
) -> None:
    """Train a network that paints like one picture and does not flicker.

    Writes a checkpoint for stylize-export, and beside it <output>-preview.jpg, which shows content,
    stylized frame, next stylized frame and what flickers between them.
    """
    console = Console(stderr=True)
    package = logging.getLogger("stylize")
    package.setLevel(logging.INFO if is_first_process() else logging.ERROR)
    package.addHandler(LineHandler(console))
    try:
        if against and optimize is None:
            raise ValueError("--against is for --optimize: drop it, or give the picture that is optimised")
        _check_output(output, is_picture=is_preflight or optimize is not None, resume=resume, overwrite=overwrite)
        config = _with_drawn_style(_config(fields), output)
        _check_inputs(config)
        for path in config.style:
            for warning in style_warnings(picture_on_white(path)):
                logger.warning("%s %s", path, warning)
        if is_preflight:
            preflight_with_report(config, output, console=console, device=device)
            return
        if optimize is not None:
            if not optimize.is_file():
                raise ValueError(f"{optimize}: no such content picture")
            optimize_with_report(optimize, config, output, device=device, against=against)
            return
        checkpoint = train_with_progress(config, output, console=console, resume=resume, device=device)
    except KeyboardInterrupt:
        is_training = optimize is None and not is_preflight
        way_on = f"; go on with the same command and --resume ({output})" if is_training else ""
        click.echo(f"stylize-train: interrupted{way_on}", err=True)
        sys.exit(_EXIT_INTERRUPTED)
    except (ValueError, OSError, TrainingDivergedError, torch.cuda.OutOfMemoryError) as error:
        text = str(error)
        if isinstance(error, OSError) and error.filename is not None:
            text = f"{error.filename}: {error.strerror}"
        click.echo(f"stylize-train: error: {text}", err=True)
        sys.exit(1)
    if not is_first_process():
        return
    click.echo(
        f"{output}: {checkpoint.network} in the style {checkpoint.style!r} after {checkpoint.step} steps: "
        f"{losses_text(checkpoint.losses)}"
    )
    for line in diagnosis(config, checkpoint.losses):
        click.echo(line)
    click.echo(f"next: stylize-export {output} -o {output.with_suffix('.onnx')}")


def _config(fields: dict[str, Any]) -> TrainConfig:
    """The preset's config, changed where a flag was given."""
    context = click.get_current_context()
    given = {
        name: value
        for name, value in fields.items()
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
    }
    preset = PRESETS[fields["preset"]](fields["style"], fields["teacher"])
    config = dataclasses.replace(preset, **given)
    for name in given.keys() & _ONLY_WITH.keys():
        switch, wanted = _ONLY_WITH[name]
        if getattr(config, switch) != wanted:
            raise ValueError(f"--{name.replace('_', '-')} is for --{switch} {wanted}, which is not given: drop it")
    return config


def _with_drawn_style(config: TrainConfig, output: Path) -> TrainConfig:
    """The config with `--style stained-glass` made a picture beside the output, unless there is a file of that name."""
    if _DRAWN_STYLE not in config.style or _DRAWN_STYLE.is_file():
        return config
    picture = output.with_name(f"{_DRAWN_STYLE}.png")
    write_picture(picture, torch.from_numpy(draw_stained_glass()).permute(2, 0, 1) / 255)
    return dataclasses.replace(config, style=tuple(picture if path == _DRAWN_STYLE else path for path in config.style))


def _check_output(output: Path, *, is_picture: bool, resume: bool, overwrite: bool) -> None:
    """Find what would fail only at the end: a picture called .pth, an output that cannot be written."""
    if is_picture and output.suffix.lower() not in PICTURE_SUFFIXES:
        raise ValueError(f"{output}: this writes a picture; give a name ending in .png or .jpg")
    if not is_picture and output.suffix.lower() in PICTURE_SUFFIXES:
        raise ValueError(f"{output}: a training writes a checkpoint; give a name ending in .pth")
    if resume and overwrite:
        raise ValueError("--resume goes on with the output file and --overwrite replaces it: choose one of the two")
    if not output.absolute().parent.is_dir():
        raise ValueError(f"{output}: its folder does not exist; create it first")
    if output.exists() and not (resume or overwrite):
        raise ValueError(f"{output}: exists; add --resume to go on with it or --overwrite to replace it")
    check_writable(output)


def _check_inputs(config: TrainConfig) -> None:
    """Find at once what would fail after reading others."""
    for path in config.style:
        if not path.is_file():
            raise ValueError(f"{path}: no such style picture")
    for path, _ in map(parse_data, config.data):
        if not path.exists():
            raise ValueError(f"{path}: no such folder or file to train on")


if __name__ == "__main__":
    main()
