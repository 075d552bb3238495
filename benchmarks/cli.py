"""`stylize-bench`: speed, steadiness and fidelity of models as a table, as JSON and as a page."""

import sys

import click

from stylize.runtime.errors import StylizeError

__all__ = ["main"]

_EXIT_ERROR = 1
_EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
_EXTRA_MODULES = {"cv2", "jinja2", "jsonschema", "onnx", "onnxruntime"}


def main() -> None:
    """Entry point: every expected error is one line and an exit code."""
    try:
        # Imported here because all that measures needs the packages of an extra.
        from stylize.benchmarks.command import bench

        bench.main(prog_name="stylize-bench", standalone_mode=False)
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA_MODULES:
            raise
        _fail(f"{error.name} is not installed: pip install 'stylize[bench,cpu]'")
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (StylizeError, OSError, ValueError) as error:
        _fail(str(error))
    except (KeyboardInterrupt, click.Abort):
        click.echo("stylize-bench: interrupted", err=True)
        sys.exit(_EXIT_INTERRUPTED)


def _fail(problem: str) -> None:
    click.echo(f"stylize-bench: error: {problem}", err=True)
    sys.exit(_EXIT_ERROR)


if __name__ == "__main__":
    main()
