"""`stylize-run` in this process: a new one takes half a second to load what it needs."""

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stylize.runtime.cli import main

RunHere = Callable[..., subprocess.CompletedProcess[str]]
"""From a folder to be in and arguments to the exit code and what was printed."""


@contextmanager
def running_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[RunHere]:
    """The command as a function; its handler of SIGTERM is gone afterwards."""
    handler = signal.getsignal(signal.SIGTERM)

    def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(folder)
        monkeypatch.setattr("sys.argv", ["stylize-run", *arguments])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    try:
        yield run
    finally:
        signal.signal(signal.SIGTERM, handler)
