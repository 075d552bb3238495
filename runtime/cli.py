"""`stylize-run`: a style on a video or picture, from file to file."""

import logging
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import FrameType, TracebackType

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from stylize.runtime.artifact import builtin_styles, open_artifact
from stylize.runtime.cli_types import ASSIGNMENT, RATE, SIZE, TIME, VALUE_RANGE
from stylize.runtime.demo import write_demo_clip
from stylize.runtime.encode import EncodeOptions
from stylize.runtime.errors import OptionError, OutputMediaError, StylizeError
from stylize.runtime.finish import FinishOptions
from stylize.runtime.report import RunReport
from stylize.runtime.runner import Backend, ComputePrecision
from stylize.runtime.selection import Selection
from stylize.runtime.self_test import run_self_test
from stylize.runtime.source import PIPE
from stylize.runtime.stylizer import Stylizer, stylize_video

__all__ = ["main"]

EXIT_ERROR = 1
EXIT_DAMAGED_SOURCE = 3
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
EXIT_TERMINATED = 143  # 128 + SIGTERM


def _list_styles(context: click.Context, _parameter: click.Parameter, is_asked: bool) -> None:
    if not is_asked or context.resilient_parsing:
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("STYLE", no_wrap=True)
    table.add_column("DESCRIPTION")
    for style in builtin_styles():
        table.add_row(style.name, style.description)
    Console().print(table)
    context.exit()


def _self_test(context: click.Context, _parameter: click.Parameter, is_asked: bool) -> None:
    if not is_asked or context.resilient_parsing:
        return
    is_ok = True
    for result in run_self_test():
        is_ok &= result.is_ok
        click.echo(f"{'ok' if result.is_ok else 'FAILED':8}{result.name:32}{result.finding}")
    sys.exit(0 if is_ok else EXIT_ERROR)


class _GroupedCommand(click.Command):
    """Shows the options under headings."""

    GROUPS = (
        ("Model", ("backend", "precision", "threads", "input_range", "list_styles")),
        (
            "Look",
            (
                "strength",
                "keep_colors",
                "style_scale",
                "mask",
                "mask_feather_px",
                "fade_in_seconds",
                "fade_out_seconds",
            ),
        ),
        ("Selection", ("start_seconds", "end_seconds", "frame_rate", "size", "picture_rate")),
        ("Encoding", ("codec", "crf", "preset", "pix_fmt", "encoder_options", "container")),
        ("Reporting", ("report_path", "quiet", "verbose")),  # and --version and --help
    )

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections."""
        titles = {name: title for title, names in self.GROUPS for name in names}
        sections: dict[str, list[tuple[str, str]]] = {title: [] for title, _ in self.GROUPS}
        for param in self.get_params(ctx):
            row = param.get_help_record(ctx)
            if row is not None and isinstance(param, click.Option):
                sections[titles.get(param.name or "", "Reporting")].append(row)
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)


@click.command(cls=_GroupedCommand, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("model")
@click.argument("source", metavar="INPUT")
@click.argument("target", metavar="OUTPUT", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--strength", type=click.FloatRange(0, 1), default=1.0, show_default=True, help="0 source, 1 style.")
@click.option("--keep-colors", is_flag=True, help="Brightness from the style, colours from the source.")
@click.option(
    "--style-scale",
    type=click.FloatRange(0, 4, min_open=True),
    default=1.0,
    show_default=True,
    help="Size at which the network works; 0.5 makes strokes twice as large.",
)
@click.option("--mask", metavar="FILE", type=click.Path(path_type=Path), help="Picture or video; white is stylized.")
@click.option(
    "--mask-feather", "mask_feather_px", metavar="PX", type=click.FloatRange(0), default=0.0, help="Soften its edges."
)
@click.option(
    "--fade-in",
    "fade_in_seconds",
    metavar="SECONDS",
    type=click.FloatRange(0),
    default=0.0,
    help="From source to style.",
)
@click.option(
    "--fade-out",
    "fade_out_seconds",
    metavar="SECONDS",
    type=click.FloatRange(0),
    default=0.0,
    help="And back at the end.",
)
@click.option("--start", "start_seconds", type=TIME, default="0", help="Begin there: seconds or hh:mm:ss.")
@click.option("--end", "end_seconds", type=TIME, help="Stop before that moment of the input.")
@click.option("--fps", "frame_rate", type=RATE, help="Repeat or leave out frames to an even rate.")
@click.option("--scale", "size", type=SIZE, help="Output size; -1 for a side keeps the proportions.")
@click.option("--input-fps", "picture_rate", type=RATE, default="25", show_default=True, help="Rate of pictures read.")
@click.option("--codec", metavar="NAME", help="FFmpeg video encoder.  [default: libx264]")
@click.option("--crf", type=float, help="Constant quality, lower is better.  [default: 17 for libx264]")
@click.option("--preset", metavar="NAME", help="Speed against size, such as slow.  [default: veryfast for libx264]")
@click.option("--pix-fmt", metavar="NAME", help="Pixel format of the output.  [default: yuv420p]")
@click.option("--encoder-option", "encoder_options", type=ASSIGNMENT, multiple=True, help="Any other; repeatable.")
@click.option("--format", "container", metavar="NAME", help="Container.  [default: by suffix; matroska for -]")
@click.option(
    "--backend",
    type=click.Choice([backend.value for backend in Backend]),
    default=Backend.AUTO.value,
    show_default=True,
    help="What executes the network; auto: OpenVINO where installed, else ONNX Runtime.",
)
@click.option(
    "--precision",
    type=click.Choice([precision.value for precision in ComputePrecision]),
    default=ComputePrecision.AUTO.value,
    show_default=True,
    help="What it is computed in; auto: bf16 where backend and CPU have it.",
)
@click.option("--threads", type=click.IntRange(0), default=0, help="Threads of the network; 0: one per core.")
@click.option("--input-range", type=VALUE_RANGE, help="Black and white of a foreign model, such as 0..255.")
@click.option("--json", "report_path", metavar="PATH", help="Write the run report there; - for stdout.")
@click.option(
    "--list-styles",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_styles,
    help="Show the built-in styles and exit.",
)
@click.option(
    "--self-test",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_self_test,
    help="Render generated clips on this machine, say what survived, and exit.",
)
@click.option("-q", "--quiet", is_flag=True, help="Errors only.")
@click.option("-v", "--verbose", is_flag=True, help="Also say what is read and written, and how.")
@click.version_option(package_name="stylize")
def run(
    model: str,
    source: str,
    target: Path,
    strength: float,
    keep_colors: bool,
    style_scale: float,
    mask: Path | None,
    mask_feather_px: float,
    fade_in_seconds: float,
    fade_out_seconds: float,
    start_seconds: Fraction,
    end_seconds: Fraction | None,
    frame_rate: Fraction | None,
    size: tuple[int | None, int | None] | None,
    picture_rate: Fraction,
    codec: str | None,
    crf: float | None,
    preset: str | None,
    pix_fmt: str | None,
    encoder_options: tuple[tuple[str, str], ...],
    container: str | None,
    backend: str,
    precision: str,
    threads: int,
    input_range: tuple[float, float] | None,
    report_path: str | None,
    quiet: bool,
    verbose: bool,
) -> None:
    """Stylize INPUT, a video or a picture, into OUTPUT.

    MODEL is an ONNX file or a built-in style (--list-styles). INPUT may be a file, an address, a folder of
    pictures, numbered pictures (frames/%04d.png), - for standard input, or `demo`, a clip drawn on the spot.
    OUTPUT may be a file, numbered pictures (out/%04d.png), or - for standard output. Sound, subtitles and
    timestamps are kept. OUTPUT is replaced when the new file is complete.

    Exit codes: 0 done, 1 error, 2 usage, 3 done as far as a damaged input went, 130 interrupted.
    """
    if report_path == PIPE and str(target) == PIPE:
        raise OptionError("--json - and OUTPUT - would both write to standard output: give one of them a file")
    console = Console(stderr=True)
    _configure_logging(console, quiet=quiet, verbose=verbose)
    options = EncodeOptions(
        codec=codec, crf=crf, preset=preset, pix_fmt=pix_fmt, container=container, encoder_options=encoder_options
    )
    finish = FinishOptions(
        keep_colors=keep_colors,
        mask=mask,
        mask_feather_px=mask_feather_px,
        fade_in_seconds=fade_in_seconds,
        fade_out_seconds=fade_out_seconds,
    )
    width, height = size or (None, None)
    selection = Selection(
        start_seconds=start_seconds,
        end_seconds=end_seconds,
        frame_rate=frame_rate,
        width=width,
        height=height,
        picture_rate=picture_rate,
    )
    artifact = open_artifact(model, input_range=input_range)
    progress = _ProgressBar(console, artifact.name, is_shown=console.is_terminal and not quiet)
    with (
        Stylizer(
            artifact,
            backend=Backend(backend),
            num_threads=threads,
            precision=ComputePrecision(precision),
            strength=strength,
            style_scale=style_scale,
        ) as stylizer,
        _demo_or(source) as path,
        progress,
    ):
        report = stylize_video(
            stylizer, path, target, selection=selection, encode=options, finish=finish, on_progress=progress.update
        )
    _tell(report, report_path=report_path, console=console, quiet=quiet)
    if report.problems:
        sys.exit(EXIT_DAMAGED_SOURCE)


def main() -> None:
    """Entry point: every expected error is one line and an exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        run.main(prog_name="stylize-run", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except StylizeError as error:
        click.echo(f"stylize-run: error: {error}", err=True)
        sys.exit(EXIT_ERROR)
    except (KeyboardInterrupt, click.Abort):
        click.echo("stylize-run: interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    """Leave by way of an exception, so that files are closed."""
    sys.exit(EXIT_TERMINATED)


@contextmanager
def _demo_or(source: str) -> Iterator[str]:
    """The input itself, or for `demo` a clip that lives until the end of the run."""
    if source != "demo":
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="stylize-") as folder:
        clip = Path(folder) / "demo.mp4"
        write_demo_clip(clip)
        yield str(clip)


def _tell(report: RunReport, *, report_path: str | None, console: Console, quiet: bool) -> None:
    """Say what was done, and write the report where it was asked for."""
    if not quiet:
        for note in report.notes:
            console.print(f"note: {note}", style="dim", markup=False, highlight=False)
        console.print(
            f"{report.target}: {report.num_frames} frames, {report.width}x{report.height}, "
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


def _configure_logging(console: Console, *, quiet: bool, verbose: bool) -> None:
    if quiet and verbose:
        raise OptionError("--quiet and --verbose exclude each other")
    level = logging.ERROR if quiet else logging.DEBUG if verbose else logging.WARNING
    package = logging.getLogger("stylize")
    package.setLevel(level)
    package.addHandler(_ConsoleHandler(console))


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


class _ProgressBar:
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
