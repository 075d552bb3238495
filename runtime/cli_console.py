"""What `stylize-run` says: log lines, a progress bar, the result."""

import logging
from pathlib import Path
from types import TracebackType

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from stylize.runtime.errors import OptionError, OutputMediaError
from stylize.runtime.report import RunReport
from stylize.runtime.source import PIPE

__all__ = ["ProgressBar", "configure_logging", "tell"]


def configure_logging(console: Console, *, quiet: bool, verbose: bool) -> None:
    """Print this package's log messages on `console`, as many as asked for.

    Raises:
        OptionError: both fewer and more are asked for.
    """
    if quiet and verbose:
        raise OptionError("--quiet and --verbose exclude each other")
    level = logging.ERROR if quiet else logging.DEBUG if verbose else logging.WARNING
    package = logging.getLogger("stylize")
    package.setLevel(level)
    package.addHandler(_ConsoleHandler(console))


def tell(report: RunReport, *, report_path: str | None, console: Console, quiet: bool) -> None:
    """Say what was done, and write the report where it was asked for.

    Raises:
        OutputMediaError: the report cannot be written.
    """
    if not quiet:
        for note in report.notes:
            console.print(f"note: {note}", style="dim", markup=False, highlight=False, soft_wrap=True)
        if report.latency_p50_ms is not None and report.latency_p95_ms is not None:
            console.print(
                f"live: {report.num_dropped_frames} frames dropped, {report.latency_p50_ms:.0f} ms from arrival to "
                f"encoded (p50), {report.latency_p95_ms:.0f} ms (p95)",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
        frames = "1 frame" if report.num_frames == 1 else f"{report.num_frames} frames"
        if report.num_resumed_frames:
            frames += f" ({report.num_resumed_frames} of them from before)"
        console.print(
            f"{report.target}: {frames}, {report.width}x{report.height}, "
            f"{report.frames_per_second:.1f} fps ({report.backend}; {report.encoder})",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    if report_path == PIPE:
        click.echo(report.to_json())
    elif report_path is not None:
        try:
            Path(report_path).write_text(report.to_json() + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputMediaError(report_path, f"cannot be written: {error.strerror}") from error


class _ConsoleHandler(logging.Handler):
    """Prints each message as one line, above the progress bar."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print `record`."""
        self._console.print(
            f"stylize-run: {record.levelname.lower()}: {record.getMessage()}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


class ProgressBar:
    """A bar that appears with the first finished frame, so that early errors stay one line, and leaves no trace."""

    def __init__(self, console: Console, title: str, *, is_shown: bool) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f} frames"),
            _RateColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not is_shown,
        )
        self._task = self._progress.add_task(title, total=None)

    def update(self, done: int, total: int | None) -> None:
        """Show `done` of `total` frames; may be called from any thread."""
        self._progress.start()
        self._progress.update(self._task, completed=done, total=total)

    def __enter__(self) -> None:
        """Nothing to do: the first `update` shows the bar."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()


class _RateColumn(ProgressColumn):
    """Frames per second, once there is one."""

    def render(self, task: Task) -> Text:
        """The rate as text."""
        return Text(f"{task.speed:.1f} fps" if task.speed else "")
