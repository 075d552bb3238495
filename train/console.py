"""What `stylize-train` shows while it works, and how it is stopped."""

import logging
import math
import os
import signal
from pathlib import Path
from types import FrameType
from typing import Any, Self

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from stylize.train.checkpoint import Checkpoint
from stylize.train.config import TrainConfig
from stylize.train.diagnosis import diagnosis
from stylize.train.gatys import PictureLosses, losses_of_network, optimize_picture
from stylize.train.loop import Progress as TrainProgress
from stylize.train.loop import train
from stylize.train.preflight import preflight, suggestion, write_contact_sheet

__all__ = [
    "LineHandler",
    "is_first_process",
    "losses_text",
    "optimize_with_report",
    "preflight_with_report",
    "train_with_progress",
]

_FIRST_DIAGNOSIS = 0.5  # of the run: early enough to save the rest, late enough for the losses to tell
_SECONDS_PER_LOG_LINE = 30  # where no progress bar can be drawn
_LOSS_NAMES = (
    "content", "style", "teacher", "teacher_features", "diversity", "temporal", "features", "difference", "variation",
)  # fmt: skip


def is_first_process() -> bool:
    """Whether this is the one process that talks, of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def train_with_progress(
    config: TrainConfig, output: Path, *, console: Console, resume: bool, device: str | None
) -> Checkpoint:
    """Train with a progress bar, or a line every now and then where none can be drawn."""
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
    is_first = is_first_process()
    with (
        Progress(*columns, console=console, transient=True, disable=not (is_drawn and is_first)) as bar,
        _StopBetweenSteps() as stop,
    ):
        task = bar.add_task("training", total=1.0, step=0, losses="")

        told, told_seconds = 0.0, -math.inf

        def show(progress: TrainProgress) -> None:
            nonlocal told, told_seconds
            stop.between_steps()
            if is_first and told < _FIRST_DIAGNOSIS <= progress.fraction:
                for line in diagnosis(config, progress.losses):
                    console.print(f"at {progress.fraction:.0%}: {line}", soft_wrap=True)
            told = progress.fraction
            losses = losses_text(progress.losses)
            bar.update(task, completed=progress.fraction, step=progress.step, losses=losses)
            if is_first and not is_drawn and progress.elapsed_seconds >= told_seconds + _SECONDS_PER_LOG_LINE:
                told_seconds = progress.elapsed_seconds
                line = f"step {progress.step} ({progress.fraction:.1%}, {progress.elapsed_seconds:.0f} s) {losses}"
                console.print(line, soft_wrap=True)

        return train(config, output, resume=resume, on_step=show, device=device)


def preflight_with_report(config: TrainConfig, output: Path, *, console: Console, device: str | None) -> None:
    """Try several settings, write the contact sheet and print what to train with."""
    columns = (SpinnerColumn(), BarColumn(bar_width=20), TimeElapsedColumn(), TextColumn("eta"), TimeRemainingColumn())
    is_drawn = console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=not is_drawn) as bar, _StopBetweenSteps() as stop:
        task = bar.add_task("preflight", total=1.0)

        told = 0

        def show(fraction: float) -> None:
            nonlocal told
            stop.between_steps()
            bar.update(task, completed=fraction)
            if not is_drawn and int(10 * fraction) > told:
                told = int(10 * fraction)
                console.print(f"preflight {told}0%")

        trials, sources = preflight(config, device=device, on_progress=show)
    best = suggestion(trials)
    write_contact_sheet(output, trials, sources, config.style[0], best)
    table = Table()
    for heading in ("style weight", "style size", "style error", "content error"):
        table.add_column(heading, justify="right")
    for trial in trials:
        numbers = (f"{trial.style_weight:g}", str(trial.style_size_px))
        table.add_row(*numbers, f"{trial.style_error:.2f}", f"{trial.content_error:.2f}")
    Console().print(table)
    click.echo(f"{output}: look at it; short trainings show palette, stroke size and how much content is left")
    click.echo(f"suggested: --style-weight {best.style_weight:g} --style-size-px {best.style_size_px}")


def losses_text(losses: dict[str, float]) -> str:
    """One line: `content 0.721 style 1.012 ...`."""
    return " ".join(f"{name} {losses[name]:.3f}" for name in _LOSS_NAMES if name in losses)


def optimize_with_report(
    content: Path, config: TrainConfig, output: Path, *, device: str | None, against: tuple[Path, ...]
) -> None:
    """Optimise one picture and print its losses, beside those of trained networks on the same picture."""

    def report(losses: PictureLosses) -> None:
        click.echo(f"iteration {losses.iteration}: {losses.text()}", err=True)

    beside = {checkpoint: losses_of_network(checkpoint, content, config) for checkpoint in against}
    reached = optimize_picture(content, config, output, device=device, on_report=report)
    for losses in reached:
        click.echo(f"{output}: {losses.iteration} iterations: {losses.text()}")
    for checkpoint, losses in beside.items():
        click.echo(f"{checkpoint}: {losses.text()}")


class LineHandler(logging.Handler):
    """Prints each message as one line above the progress bar, and the same one once."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._printed: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print `record`."""
        line = record.getMessage()
        if record.levelno > logging.INFO:
            line = f"stylize-train: {record.levelname.lower()}: {line}"
        if line not in self._printed:  # a damaged picture is met again and again
            self._printed.add(line)
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class _StopBetweenSteps:
    """Turns the first Ctrl-C, or a polite kill, into a wish that is granted at the end of the step.

    Stopped inside a step, some weights would be updated and others not. Before the first step, where clips are
    measured, and at a second Ctrl-C it stops at once; the checkpoint on disk stays as it was.
    """

    def __init__(self) -> None:
        self._is_asked = self._has_begun = False
        self._previous: dict[int, Any] = {}

    def between_steps(self) -> None:
        """Raise KeyboardInterrupt where one was wished for."""
        self._has_begun = True
        if self._is_asked:
            raise KeyboardInterrupt

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._is_asked or not self._has_begun:
            signal.default_int_handler(number, frame)
        self._is_asked = True

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
