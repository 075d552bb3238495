"""The command behind `stylize-bench`: its options, and what it prints and writes."""

import itertools
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from stylize.benchmarks.cases import ModelUnderTest
from stylize.benchmarks.report import write_report
from stylize.benchmarks.results import read_results, write_results
from stylize.benchmarks.run import BenchOptions, run_benchmark
from stylize.benchmarks.sintel import RECONET_SCENES
from stylize.benchmarks.speed import SpeedOptions
from stylize.benchmarks.tables import comparison_table, results_tables
from stylize.runtime.artifact import builtin_styles, open_artifact
from stylize.runtime.errors import OptionError
from stylize.runtime.partial_file import PartialFile
from stylize.runtime.runner import Backend, ComputePrecision, automatic_backend
from stylize.runtime.stylizer import Stylizer

__all__ = ["bench"]

# Tables are wider than the 80 columns assumed for a pipe or a file.
_MIN_COLUMNS = 120


class _Size(click.ParamType[tuple[int, int]]):
    """`WxH` in pixels, for example `640x360`."""

    name = "WxH"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Parse the text of the option."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d+)x(\d+)", str(value))
        if match is None or 0 in (int(match[1]), int(match[2])):
            self.fail(f"{value!r} is not a size such as 640x360", param, ctx)
        return int(match[1]), int(match[2])


class _NamedFile(click.ParamType[tuple[str, Path]]):
    """`MODEL=FILE`, for example `starry-night=starry_night.jpg`."""

    name = "MODEL=FILE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Path]:
        """Parse the text of the option."""
        if isinstance(value, tuple):
            return value
        model, equals, path = str(value).partition("=")
        if not (model and equals and path):
            self.fail(f"{value!r} is not of the form MODEL=FILE", param, ctx)
        return model, Path(path)


_FILE = click.Path(dir_okay=False, path_type=Path)
# By value: click offers the names of enum members, which are upper case.
_BACKEND = click.Choice([backend.value for backend in Backend])
_PRECISION = click.Choice([precision.value for precision in ComputePrecision])


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--model", "model_names", multiple=True, metavar="FILE|STYLE", help="What to measure; repeatable.")
@click.option("--backend", "backends", multiple=True, type=_BACKEND, help="What runs it; repeatable.")
@click.option("--precision", "precisions", multiple=True, type=_PRECISION, help="What it computes in; repeatable.")
@click.option("--clip", type=_FILE, help="Measure on this video.  [default: the demo clip]")
@click.option("--size", "size_px", type=_Size(), help="Measure at this size.  [default: the clip's]")
@click.option("--frames", "num_frames", type=click.IntRange(2), help="Length of the clip.  [default: 8..48 by speed]")
@click.option("--rounds", "num_rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--seconds", type=click.FloatRange(0), default=90.0, show_default=True, help="No round would end later.")
@click.option("--style-picture", "pictures", multiple=True, type=_NamedFile(), help="For the style figure.")
@click.option("--baseline", type=click.Choice(["eager"]), help="Time PyTorch beside it, as scripts run it.")
@click.option("--checkpoint", "checkpoints", multiple=True, type=_NamedFile(), help="Weights of the baseline.")
@click.option("--sintel", type=click.Path(file_okay=False, path_type=Path), help="Folder of MPI-Sintel.")
@click.option(
    "--steady",
    type=click.FloatRange(0, 1),
    help="Measure each model steadied too, this strongly.  [default: 0.9 with --model, else 0: left out]",
)
@click.option("--flow-cache", type=click.Path(file_okay=False, path_type=Path), help="Keep optical flow there.")
@click.option("--json", "json_path", type=_FILE, help="Write the results there.")
@click.option("--report", "report_path", type=_FILE, help="Write a page with clips, heat maps and charts there.")
@click.option("--compare", "old_path", type=_FILE, help="Print ratios to earlier results.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.version_option(package_name="stylize")
def bench(
    model_names: Sequence[str],
    backends: Sequence[str],
    precisions: Sequence[str],
    clip: Path | None,
    size_px: tuple[int, int] | None,
    num_frames: int | None,
    num_rounds: int,
    seconds: float,
    pictures: Sequence[tuple[str, Path]],
    baseline: str | None,
    checkpoints: Sequence[tuple[str, Path]],
    sintel: Path | None,
    steady: float | None,
    flow_cache: Path | None,
    json_path: Path | None,
    report_path: Path | None,
    old_path: Path | None,
    quiet: bool,
) -> None:
    """Measure how fast, how steady and how faithful models are.

    Without --model one built-in style of each network is measured, on the fastest backend installed.

    Columns: frames per second of decoding, network and encoding alone and of the WHOLE pipeline, each the
    median ± half the middle half of the rounds; p50 p95 p99 of one frame through the network, and through
    the pipeline with its queues; peak resident memory of the pipeline in a process of its own; work per
    frame and its share of the machine's measured matrix product rate. All figures: docs/benchmarks.md.
    """
    old = None if old_path is None else read_results(old_path)
    for path in filter(None, (json_path, report_path)):
        with PartialFile(path):  # what cannot be written is said now, not after minutes of measuring
            pass
    options = BenchOptions(
        clip=clip,
        size_px=size_px,
        speed=SpeedOptions(num_rounds=num_rounds, budget_seconds=seconds, num_frames=num_frames),
        sintel=sintel,
        steady=_steady(steady, has_choice=bool(model_names)),
        style_pictures=dict(pictures),
        has_baseline=baseline is not None,
        checkpoints=dict(checkpoints),
        flow_cache=flow_cache,
        command=shlex.join(["stylize-bench", *sys.argv[1:]]),
    )
    with (
        _loaded(model_names, backends or [Backend.AUTO], precisions or [ComputePrecision.AUTO]) as models,
        tempfile.TemporaryDirectory(prefix="stylize-bench-") as folder,
        Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=quiet,
            transient=True,
        ) as progress,
    ):
        task = progress.add_task("clip", total=_num_steps(len(models), options))
        outcome = run_benchmark(
            models,
            options,
            folder=Path(folder),
            advance=lambda done: progress.update(task, advance=1, description=done),
        )
    console = Console()
    console.width = max(console.width, _MIN_COLUMNS)
    console.print(results_tables(outcome.results))
    if old is not None:
        console.print()
        console.print(comparison_table(outcome.results, old))
    if json_path is not None:
        write_results(json_path, outcome.results)
        click.echo(f"{json_path}: the results, for --compare", err=True)
    if report_path is not None:
        write_report(report_path, outcome)
        click.echo(f"{report_path}: the page, for a browser", err=True)


def _steady(asked: float | None, *, has_choice: bool) -> float:
    """Steadying everything too could take longer than the three minutes a bare run may."""
    if asked is not None:
        return asked
    return 0.9 if has_choice else 0.0


def _one_style_of_each_network() -> list[str]:
    """Built-in models that stand for all: styles of one network are equally fast."""
    names: dict[str, str] = {}
    for style in builtin_styles():
        for path in style.variants.values():
            names.setdefault(open_artifact(path).contract.network, path.stem)
    return list(names.values())


@contextmanager
def _loaded(names: Sequence[str], backends: Sequence[str], precisions: Sequence[str]) -> Iterator[list[ModelUnderTest]]:
    """Every model on every backend in every precision asked for."""
    chosen = list(names) or _one_style_of_each_network()
    if not chosen:
        raise OptionError("this installation has no built-in style: name a model with --model FILE")
    with ExitStack() as stack:
        models = []
        for name, asked_backend, asked_precision in itertools.product(chosen, backends, precisions):
            artifact, precision = open_artifact(name), ComputePrecision(asked_precision)
            backend = automatic_backend(artifact)[0] if asked_backend == Backend.AUTO else Backend(asked_backend)
            stylizer = stack.enter_context(Stylizer(artifact, backend=backend, precision=precision))
            models.append(ModelUnderTest(stylizer=stylizer, backend=backend, asked_precision=precision))
        labels = [model.label for model in models]
        repeated = sorted({label for label in labels if labels.count(label) > 1})
        if repeated:
            raise OptionError(f"{', '.join(repeated)}: named twice, or two files of one name; rename one")
        yield models


def _num_steps(num_models: int, options: BenchOptions) -> int:
    num_cases_per_model = 7 if options.has_baseline else 3
    num_timed = (3 + num_cases_per_model * num_models) * (1 + options.speed.num_rounds)
    num_clips = 2 if options.sintel is None else 1 + len(RECONET_SCENES)
    return 2 + num_timed + num_models + num_models * num_clips
