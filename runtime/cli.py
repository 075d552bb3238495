"""`stylize-run`: a style on a video or picture, from file to file."""

import dataclasses
import inspect
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import click
from rich.console import Console

from stylize.runtime.artifact import Artifact, Quality, open_artifact
from stylize.runtime.cli_console import ProgressBar, configure_logging, tell
from stylize.runtime.cli_options import OPTIONS, GroupedCommand, filled
from stylize.runtime.demo import write_demo_clip
from stylize.runtime.encode import EncodeOptions
from stylize.runtime.errors import OptionError, StylizeError
from stylize.runtime.extra_inputs import write_noise
from stylize.runtime.finish import FinishOptions
from stylize.runtime.parts import gpu_workers, stylize_in_parts
from stylize.runtime.quality import choose_variant
from stylize.runtime.render import stylize_video
from stylize.runtime.resume import ResumeOptions
from stylize.runtime.selection import Selection
from stylize.runtime.source import PIPE
from stylize.runtime.stylizer import Stylizer

__all__ = ["main"]

logger = logging.getLogger(__name__)

_EXAMPLES = """\b
Examples:
  stylize-run starry-night demo out.mp4
  stylize-run starry-night in.mp4 out.mp4 --start 0:10 --end 0:25 --steady 0.9
  stylize-run great-wave photo.jpg painted.jpg --strength 0.7 --keep-colors
  stylize-run great-wave frames/ out/%04d.png
  stylize-run monet.onnx camera:0 out.mkv
"""
_NOISE = "noise:"
_DEFAULT_NOISE_SIZE = (1024, 1024)
DEMO = "demo"
EXIT_ERROR = 1
EXIT_DAMAGED_SOURCE = 3
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
EXIT_TERMINATED = 143  # 128 + SIGTERM


@click.command(
    cls=GroupedCommand,
    params=[
        click.Argument(["model"]),
        click.Argument(["source"], metavar="INPUT"),
        click.Argument(["target"], metavar="OUTPUT"),
        *(option for options in OPTIONS.values() for option in options),
    ],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=True,
    epilog=_EXAMPLES,
)
@click.version_option(package_name="stylize")
def run(
    model: str,
    source: str,
    target: str,
    quality: Quality | None,
    input_range: tuple[float, float] | None,
    size: tuple[int | None, int | None] | None,
    noise_size: tuple[int | None, int | None] | None,
    seed: int,
    gpus: tuple[int, ...] | None,
    resume: bool,
    live: bool | None,
    report_path: str | None,
    quiet: bool,
    verbose: bool,
    **values: object,
) -> None:
    """Stylize INPUT, a video or a picture, into OUTPUT.

    MODEL is an ONNX file or a built-in style (--list-styles). INPUT may be a file, an address, a folder of
    pictures, numbered pictures (frames/%04d.png), - for standard input, camera:0, `demo`, a clip drawn on the spot,
    or `noise:` for a model that paints textures.
    OUTPUT may be a file, numbered pictures (out/%04d.png), - for standard output, or an address that takes streams
    (rtmp://...). Sound, subtitles and timestamps are kept. OUTPUT is replaced when the new file is complete.

    Exit codes: 0 done, 1 error, 2 usage, 3 done as far as a damaged input went, 130 interrupted.
    """
    if report_path == PIPE and target == PIPE:
        raise OptionError("--json - and OUTPUT - would both write to standard output: give one of them a file")
    console = Console(stderr=True)
    configure_logging(console, quiet=quiet, verbose=verbose)
    values["width"], values["height"] = size or (None, None)
    # Options that contradict each other are refused before a model is loaded.
    selection, encode, finish = filled(Selection, values), filled(EncodeOptions, values), filled(FinishOptions, values)
    resume_options = filled(ResumeOptions, values) if resume or gpus else None
    if resume_options and source in {DEMO, _NOISE}:
        raise OptionError(f"{'--resume' if resume else '--gpus'}: `{source}` is drawn anew each time; give a file")
    if gpus and (values["gpu"] is not None or live):
        raise OptionError(f"--gpus divides a file among several: drop {'--live' if live else '--gpu'}")
    artifact, note = open_artifact(model, input_range=input_range), ""
    with _drawn(artifact, source, noise_size=noise_size, seed=seed) as path:

        def load(artifact: Artifact) -> Stylizer:
            return filled(Stylizer, values | {"model": artifact, "seed": seed})

        if quality is not None:
            artifact, note = choose_variant(model, quality, path, selection=selection, load=load)
        progress = ProgressBar(console, artifact.name, is_shown=console.is_terminal and not quiet)
        how: dict[str, Any] = {
            "selection": selection,
            "encode": encode,
            "finish": finish,
            "resume": resume_options,
            "on_progress": progress.update,
        }
        if gpus:
            shared = {name: values[name] for name in inspect.signature(Stylizer).parameters if name in values}
            workers = gpu_workers(artifact, gpus, shared | {"seed": seed})
            with progress:
                report = stylize_in_parts(artifact, path, target, workers=workers, **how)
        else:
            with load(artifact) as stylizer, progress:
                report = stylize_video(stylizer, path, target, live=live, **how)
    if note:
        report = dataclasses.replace(report, notes=(note, *report.notes))
    tell(report, report_path=report_path, console=console, quiet=quiet)
    if report.problems:
        sys.exit(EXIT_DAMAGED_SOURCE)


def main() -> None:
    """Entry point: every expected error is one line and an exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 prints its settings past every log; 1 leaves errors
    try:
        run.main(prog_name="stylize-run", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except StylizeError as error:
        click.echo(f"stylize-run: error: {error}", err=True)
        sys.exit(EXIT_ERROR)
    except MemoryError:
        click.echo("stylize-run: error: out of memory: make frames smaller with --scale, such as 1920x-1", err=True)
        sys.exit(EXIT_ERROR)
    except (KeyboardInterrupt, click.Abort):
        click.echo("stylize-run: interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    """Leave by way of an exception, so that files are closed."""
    sys.exit(EXIT_TERMINATED)


def _drawn(
    artifact: Artifact, source: str, *, noise_size: tuple[int | None, int | None] | None, seed: int
) -> AbstractContextManager[str]:
    """The input itself, or for `demo` and `noise:` a file that lives until the end of the run."""
    is_noise = source == _NOISE
    if is_noise != artifact.contract.makes_textures:
        raise OptionError(
            f"{_NOISE} is for models that paint textures, {artifact.name} paints pictures"
            if is_noise
            else f"{artifact.name} paints textures from noise: give {_NOISE} as the input"
        )
    if noise_size is not None and not is_noise:
        raise OptionError(f"--size is that of the picture painted from {_NOISE}; --scale sets that of other inputs")
    if is_noise:
        width, height = noise_size or _DEFAULT_NOISE_SIZE
        if width is None or height is None:
            raise OptionError("--size: noise has no proportions to keep, give both sides")
        multiple = artifact.contract.size_multiple
        if width % multiple or height % multiple:
            logger.warning("%dx%d: textures tile where both sides are multiples of %d", width, height, multiple)
        return _file("noise.ppm", partial(write_noise, width=width, height=height, seed=seed))
    return _file("demo.mp4", write_demo_clip) if source == DEMO else nullcontext(source)


@contextmanager
def _file(name: str, write: Callable[[Path], None]) -> Iterator[str]:
    """A file in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="stylize-") as folder:
        path = Path(folder) / name
        write(path)
        yield str(path)
