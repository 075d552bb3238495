"""What `stylize-train` shows while it works, and how it is stopped."""

import os
import signal
from pathlib import Path
from types import FrameType
from typing import Any, Self

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from stylize.train.checkpoint import Checkpoint
from stylize.train.config import TrainConfig
from stylize.train.gatys import PictureLosses, losses_of_network, optimize_picture
from stylize.train.loop import Progress as TrainProgress
from stylize.train.loop import train

__all__ = ["losses_text", "optimize_with_report", "train_with_progress"]

_STEPS_PER_LOG_LINE = 100  # where no progress bar can be drawn
_LOSS_NAMES = (
    "content", "style", "teacher", "teacher_features", "diversity", "temporal", "features", "difference", "variation",
)  # fmt: skip


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
    is_first = os.environ.get("RANK", "0") == "0"  # of several processes one talks
    with (
        Progress(*columns, console=console, transient=True, disable=not (is_drawn and is_first)) as bar,
        _StopBetweenSteps() as stop,
    ):
        task = bar.add_task("training", total=1.0, step=0, losses="")

        def show(progress: TrainProgress) -> None:
            if stop.is_asked:
                raise KeyboardInterrupt
            losses = losses_text(progress.losses)
            bar.update(task, completed=progress.fraction, step=progress.step, losses=losses)
            if is_first and not is_drawn and progress.step % _STEPS_PER_LOG_LINE == 0:
                line = f"step {progress.step} ({progress.fraction:.1%}, {progress.elapsed_seconds:.0f} s) {losses}"
                console.print(line, soft_wrap=True)

        return train(config, output, resume=resume, on_step=show, device=device)


def losses_text(losses: dict[str, float]) -> str:
    """One line: `content 0.721 style 1.012 ...`."""
    return " ".join(f"{name} {losses[name]:.3f}" for name in _LOSS_NAMES if name in losses)


def optimize_with_report(
    content: Path, config: TrainConfig, output: Path, *, device: str | None, against: tuple[Path, ...]
) -> None:
    """Optimise one picture and print its losses, beside those of trained networks on the same picture."""

    def report(losses: PictureLosses) -> None:
        click.echo(f"iteration {losses.iteration}: {losses.text()}", err=True)

    reached = optimize_picture(content, config, output, device=device, on_report=report)
    for losses in reached:
        click.echo(f"{output}: {losses.iteration} iterations: {losses.text()}")
    for checkpoint in against:
        click.echo(f"{checkpoint}: {losses_of_network(checkpoint, content, config).text()}")


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
