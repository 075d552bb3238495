"""Settings every test shares."""

import logging
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Tests compute little, and thread pools that spin on two cores cost more than they give. Set before
# the libraries are loaded; child processes inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Shells start background jobs with Ctrl-C ignored, and children inherit that; the tests that
# interrupt commands need it to arrive.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _logging_as_found() -> Iterator[None]:
    """Undo what a command run in this process has set: each adds its handler and level."""
    package = logging.getLogger("stylize")
    level, handlers = package.level, list(package.handlers)
    yield
    package.setLevel(level)
    package.handlers[:] = handlers


@pytest.fixture(scope="session")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that returns the frame it is given."""
    from helpers.networks import write_affine  # loads libraries, before which the environment is set above

    return write_affine(tmp_path_factory.mktemp("model") / "identity.onnx")


@pytest.fixture
def run_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """`stylize-run` in this process; see `helpers.commands`."""
    from helpers.commands import running_here

    with running_here(monkeypatch, capsys) as run:
        yield run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip `needs_gpu` tests without a GPU, unless FAIL_WITHOUT_GPU says that there must be one."""
    if os.environ.get("FAIL_WITHOUT_GPU") == "1" or os.path.exists("/dev/nvidiactl"):  # noqa: PTH110
        return
    skip = pytest.mark.skip(reason="no NVIDIA GPU on this machine")
    for item in items:
        if item.get_closest_marker("needs_gpu"):
            item.add_marker(skip)
