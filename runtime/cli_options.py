"""The options of `stylize-run`, by the headings of its help.

An option is named like the parameter it fills: `filled` hands each value to whatever has a parameter of that
name, so a new option is one entry here and one field there.
"""

import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeVar

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stylize.runtime.artifact import Quality, builtin_styles
from stylize.runtime.cli_types import ASSIGNMENT, NUMBERS, RATE, SIZE, TIME, VALUE_RANGE, ChoiceOf
from stylize.runtime.runner import Backend, ComputePrecision
from stylize.runtime.selection import Hdr
from stylize.runtime.self_test import run_self_test
from stylize.runtime.thumbnail import thumbnail

__all__ = ["OPTIONS", "GroupedCommand", "filled"]

ResultT = TypeVar("ResultT")


def filled(kind: Callable[..., ResultT], values: Mapping[str, object]) -> ResultT:
    """Call `kind`, a dataclass or function, with those of `values` that have the name of one of its parameters."""
    parameters = inspect.signature(kind).parameters
    return kind(**{name: value for name, value in values.items() if name in parameters})


def _list_styles(context: click.Context, _parameter: click.Parameter, is_asked: bool) -> None:
    if not is_asked or context.resilient_parsing:
        return
    console = Console()
    shows_pictures = console.is_terminal and console.color_system == "truecolor"
    table = Table(box=None, pad_edge=False)
    table.add_column("STYLE", no_wrap=True)
    table.add_column("QUALITY", no_wrap=True)
    table.add_column("DESCRIPTION")
    if shows_pictures:
        table.add_column("THE DEMO CLIP IN IT", no_wrap=True)
    for style in builtin_styles():
        row: list[str | Text] = [style.name, ", ".join(style.variants), style.description]
        if shows_pictures and style.thumbnail.is_file():
            row.append(thumbnail(style.thumbnail))
        table.add_row(*row)
    console.print(table)
    context.exit()


def _self_test(context: click.Context, _parameter: click.Parameter, is_asked: bool) -> None:
    if not is_asked or context.resilient_parsing:
        return
    is_ok = True
    for result in run_self_test():
        is_ok &= result.is_ok
        click.echo(f"{'ok' if result.is_ok else 'FAILED':8}{result.name:32}{result.finding}")
    sys.exit(0 if is_ok else 1)


def _action(name: str, callback: Callable[[click.Context, click.Parameter, bool], None], text: str) -> click.Option:
    """An option that does something else instead of rendering."""
    return click.Option([name], is_flag=True, is_eager=True, expose_value=False, callback=callback, help=text)


_AT_LEAST_0: Final = click.FloatRange(0)

OPTIONS: Final[dict[str, tuple[click.Option, ...]]] = {
    "Look": (
        _action("--list-styles", _list_styles, "Show the built-in styles and exit."),
        click.Option(
            ["--quality"],
            type=ChoiceOf(Quality),
            help="Variant of a built-in style; auto: the best that keeps up with INPUT.  [default: balanced]",
        ),
        click.Option(
            ["--strength"], type=click.FloatRange(0, 1), default=1.0, show_default=True, help="0 source, 1 style."
        ),
        click.Option(["--keep-colors"], is_flag=True, help="Brightness from the style, colours from the source."),
        click.Option(
            ["--style-scale"],
            type=click.FloatRange(0, 4, min_open=True),
            default=1.0,
            show_default=True,
            help="Size at which the network works; 0.5 makes strokes twice as large.",
        ),
        click.Option(
            ["--style-mix"],
            metavar="SHARES",
            help="Of a model of several styles: 0.3,0.7, a name, or moments to change between, 0:1,0;5:0,1.",
        ),
        click.Option(
            ["--seed"],
            type=click.IntRange(0),
            default=0,
            show_default=True,
            help="Of the noise, where a model takes any.",
        ),
        click.Option(
            ["--mask"],
            metavar="FILE",
            type=click.Path(path_type=Path),
            help="Picture or video; white is stylized.",
        ),
        click.Option(
            ["--mask-feather", "mask_feather_px"],
            metavar="PX",
            type=_AT_LEAST_0,
            default=0.0,
            help="Soften its edges.",
        ),
        click.Option(
            ["--fade-in", "fade_in_seconds"],
            metavar="SECONDS",
            type=_AT_LEAST_0,
            default=0.0,
            help="From source to style.",
        ),
        click.Option(
            ["--fade-out", "fade_out_seconds"],
            metavar="SECONDS",
            type=_AT_LEAST_0,
            default=0.0,
            help="And back at the end.",
        ),
        click.Option(
            ["--steady"],
            type=click.FloatRange(0, 1),
            default=0.0,
            show_default=True,
            help="How strongly strokes are held in place from frame to frame; 0.9 suits most.",
        ),
    ),
    "Selection": (
        click.Option(["--start", "start_seconds"], type=TIME, default="0", help="Begin there: seconds or hh:mm:ss."),
        click.Option(["--end", "end_seconds"], type=TIME, help="Stop before that moment of the input."),
        click.Option(
            ["--size", "noise_size"], type=SIZE, help="Of the picture painted from noise:.  [default: 1024x1024]"
        ),
        click.Option(["--fps", "frame_rate"], type=RATE, help="Repeat or leave out frames to an even rate."),
        click.Option(["--scale", "size"], type=SIZE, help="Output size; -1 for a side keeps the proportions."),
        click.Option(
            ["--hdr"],
            type=ChoiceOf(Hdr),
            default=Hdr.SDR.value,
            show_default=True,
            help="What PQ and HLG become: ordinary video, or the same in 10 bits.",
        ),
        click.Option(
            ["--input-fps", "picture_rate"],
            type=RATE,
            default="25",
            show_default=True,
            help="Rate of pictures read.",
        ),
        click.Option(
            ["--input-option", "input_options"],
            type=ASSIGNMENT,
            multiple=True,
            help="FFmpeg's of the input, such as a camera's video_size=1280x720; repeatable.",
        ),
        click.Option(
            ["--live/--no-live"],
            default=None,
            help="Newest frame wins, or all are rendered.  [default: live for cameras and streams]",
        ),
    ),
    "Encoding": (
        click.Option(["--codec"], metavar="NAME", help="FFmpeg video encoder.  [default: libx264]"),
        click.Option(
            ["--crf"],
            type=float,
            help="Constant quality, lower is better.  [default: 17 for libx264, 22 for libx265, 20 for libsvtav1, "
            "23 for libvpx-vp9]",
        ),
        click.Option(
            ["--preset"],
            metavar="NAME",
            help="Speed against size, such as slow.  [default: veryfast for libx264]",
        ),
        click.Option(["--pix-fmt"], metavar="NAME", help="Pixel format of the output.  [default: yuv420p]"),
        click.Option(
            ["--encoder-option", "encoder_options"],
            type=ASSIGNMENT,
            multiple=True,
            help="Any other; repeatable.",
        ),
        click.Option(
            ["--format", "container"],
            metavar="NAME",
            help="Container.  [default: by suffix; matroska for -]",
        ),
    ),
    "Long jobs": (
        click.Option(
            ["--resume"], is_flag=True, help="Keep finished segments; the same command goes on after any stop."
        ),
        click.Option(
            ["--segment-frames"], type=click.IntRange(2), default=120, show_default=True, help="Frames in each."
        ),
    ),
    "Machine": (
        click.Option(
            ["--backend"],
            type=ChoiceOf(Backend),
            default=Backend.AUTO.value,
            show_default=True,
            help="What executes the network; auto: a GPU where driver and packages are there, else OpenVINO.",
        ),
        click.Option(
            ["--gpu"],
            metavar="N",
            type=click.IntRange(0),
            help="Which GPU, counted from 0.  [default: 0, where there is one]",
        ),
        click.Option(["--gpus"], type=NUMBERS, help="Several GPUs, a part of the video each; implies --resume."),
        click.Option(
            ["--precision"],
            type=ChoiceOf(ComputePrecision),
            default=ComputePrecision.AUTO.value,
            show_default=True,
            help="What it is computed in; auto: bf16 where backend and CPU have it.",
        ),
        click.Option(
            ["--threads", "num_threads"],
            type=click.IntRange(0),
            default=0,
            help="Threads of the network; 0: one per core.",
        ),
        click.Option(["--input-range"], type=VALUE_RANGE, help="Black and white of a foreign model, such as 0..255."),
    ),
    "Reporting": (
        click.Option(["--json", "report_path"], metavar="PATH", help="Write the run report there; - for stdout."),
        _action("--self-test", _self_test, "Render generated clips on this machine, say what survived, and exit."),
        click.Option(["-q", "--quiet"], is_flag=True, help="Errors only."),
        click.Option(["-v", "--verbose"], is_flag=True, help="Also say what is read and written, and how."),
    ),  # and --version and --help
}
"""Heading of the help to options."""


class GroupedCommand(click.Command):
    """Shows the options under the headings of `OPTIONS`."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections."""
        titles = {option.name: title for title, options in OPTIONS.items() for option in options}
        sections: dict[str, list[tuple[str, str]]] = {title: [] for title in OPTIONS}
        for param in self.get_params(ctx):
            row = param.get_help_record(ctx)
            if row is not None and isinstance(param, click.Option):
                sections[titles.get(param.name, "Reporting")].append(row)
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)
