"""`stylize-train`: from one picture to a style network."""

import dataclasses
import logging
import signal
import sys
import types
import typing
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, Literal, Self

import click
import torch
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from stylize.train.checkpoint import Checkpoint
from stylize.train.config import TrainConfig
from stylize.train.loop import Progress as TrainProgress
from stylize.train.loop import TrainingDivergedError, train

__all__ = ["main"]

_EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
_STEPS_PER_LOG_LINE = 100  # where no progress bar can be drawn
_LOSS_NAMES = (
    "content", "style", "teacher", "teacher_features", "diversity", "temporal", "features", "variation",
)  # fmt: skip


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
        is_required = field.default is dataclasses.MISSING
        declaration = f"{flag}/--no-{flag[2:]}" if kind is bool else flag
        command = click.option(
            declaration,
            field.name,
            type=None if kind is bool else kind,
            required=is_required,
            multiple=is_repeatable,
            default=None if is_required else field.default,
            show_default=field.default not in (None, (), dataclasses.MISSING),
            help=field.metadata["help"],
        )(command)
    return command


@click.command(context_settings={"show_default": False, "max_content_width": 110})
@_config_options
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="Checkpoint to write (.pth)."
)
@click.option("--resume", is_flag=True, help="Go on from the output file if it is there.")
@click.option("--overwrite", is_flag=True, help="Start afresh although the output file is there.")
@click.option("--device", default=None, help="cpu, cuda, cuda:1, ... Default: CUDA when there is one.")
@click.version_option(version("stylize"), package_name="stylize")
def main(output: Path, resume: bool, overwrite: bool, device: str | None, **fields: Any) -> None:  # noqa: ANN401
    """Train a network that paints like one picture and does not flicker.

    Writes a checkpoint for stylize-export, and beside it <output>-preview.jpg, which shows content,
    stylized frame, next stylized frame and what flickers between them.
    """
    console = Console(stderr=True)
    package = logging.getLogger("stylize")
    package.setLevel(logging.INFO)
    package.addHandler(RichHandler(console=console, show_time=False, show_path=False))
    try:
        config = TrainConfig(**fields)
        _check_paths(config, output, resume=resume, overwrite=overwrite)
        checkpoint = _train_with_progress(config, output, console=console, resume=resume, device=device)
    except KeyboardInterrupt:
        click.echo(f"stylize-train: interrupted; go on with the same command and --resume ({output})", err=True)
        sys.exit(_EXIT_INTERRUPTED)
    except (ValueError, OSError, TrainingDivergedError, torch.cuda.OutOfMemoryError) as error:
        click.echo(f"stylize-train: error: {error}", err=True)
        sys.exit(1)
    click.echo(
        f"{output}: {checkpoint.network} in the style {checkpoint.style!r} after {checkpoint.step} steps: "
        f"{_losses_text(checkpoint.losses)}"
    )
    click.echo(f"next: stylize-export {output} -o {output.with_suffix('.onnx')}")


def _check_paths(config: TrainConfig, output: Path, *, resume: bool, overwrite: bool) -> None:
    """Find what would fail only after minutes of work."""
    for path in config.style:
        if not path.is_file():
            raise ValueError(f"{path}: no such style picture")
    if not output.absolute().parent.is_dir():
        raise ValueError(f"{output}: its folder does not exist; create it first")
    if output.is_dir():
        raise ValueError(f"{output}: is a folder; give a file name ending in .pth")
    if output.exists() and not (resume or overwrite):
        raise ValueError(f"{output}: exists; add --resume to go on with it or --overwrite to replace it")


def _train_with_progress(
    config: TrainConfig, output: Path, *, console: Console, resume: bool, device: str | None
) -> Checkpoint:
    columns = (
        SpinnerColumn(),
        BarColumn(bar_width=20),
        TextColumn("step {task.fields[step]}"),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}"),
    )
    is_drawn = console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=not is_drawn) as bar, _StopBetweenSteps() as stop:
        task = bar.add_task("training", total=1.0, step=0, losses="")

        def show(progress: TrainProgress) -> None:
            if stop.is_asked:
                raise KeyboardInterrupt
            losses = _losses_text(progress.losses)
            bar.update(task, completed=progress.fraction, step=progress.step, losses=losses)
            if not is_drawn and progress.step % _STEPS_PER_LOG_LINE == 0:
                line = f"step {progress.step} ({progress.fraction:.1%}, {progress.elapsed_seconds:.0f} s) {losses}"
                console.print(line, soft_wrap=True)

        return train(config, output, resume=resume, on_step=show, device=device)


def _losses_text(losses: dict[str, float]) -> str:
    return " ".join(f"{name} {losses[name]:.3f}" for name in _LOSS_NAMES if name in losses)


class _StopBetweenSteps:
    """Turns the first Ctrl-C, or a polite kill, into a wish that is granted at the end of the step.

    Stopped inside a step, some weights would be updated and others not. A second Ctrl-C stops at once,
    and the checkpoint on disk stays as it was.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self._previous: dict[int, Any] = {}

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.is_asked:
            signal.default_int_handler(number, frame)
        self.is_asked = True

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    main()
