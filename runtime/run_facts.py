"""What the pictures of a run depend on, and how one input is told from another."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import av

from stylize.runtime.errors import InputMediaError, OptionError
from stylize.runtime.source import local_files

__all__ = ["fingerprint", "run_facts"]

_SAMPLED_BYTES: Final = 1 << 16
_NUM_SAMPLES: Final = 64


def fingerprint(source: str | Path) -> str:
    """What tells one input from another: size, time of change and a hash of samples.

    64 samples of 64 KiB over the length of a file, first and last bytes among them, find another file of the
    same size without reading a hundred gigabytes at each start; small changes in between move the time.

    Raises:
        InputMediaError: it is gone, or no file.
    """
    digest, num_bytes, changed_ns = hashlib.sha256(), 0, 0
    files = local_files(source)
    if not files:
        raise OptionError(f"--resume: {source} cannot be read a second time; give a file")
    try:
        for path in files:
            status = path.stat()
            num_bytes += status.st_size
            changed_ns = max(changed_ns, status.st_mtime_ns)
            digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
        for path in dict.fromkeys((files[0], files[-1])):  # in this order: a set's changes from run to run
            with path.open("rb") as file:
                room = path.stat().st_size - _SAMPLED_BYTES
                for index in range(_NUM_SAMPLES):
                    file.seek(max(0, room * index // (_NUM_SAMPLES - 1)))
                    digest.update(file.read(_SAMPLED_BYTES))
    except OSError as error:
        raise InputMediaError(source, f"cannot be read: {error.strerror}") from error
    changed = datetime.fromtimestamp(changed_ns / 1e9, UTC).isoformat(" ", "milliseconds")
    return f"{source} ({num_bytes} bytes of {changed}, {digest.hexdigest()[:12]})"


def run_facts(source: str | Path, model: Mapping[str, str], options: Sequence[Any]) -> dict[str, str]:
    """Everything on which the pictures of a run depend, by name.

    Args:
        source: the input.
        model: what a `Stylizer` says of itself.
        options: dataclasses; files named in them are told apart like the input.
    """
    facts = {"input": fingerprint(source), **model}
    for chosen in options:
        for name, value in asdict(chosen).items():
            facts[name] = fingerprint(value) if isinstance(value, Path) else str(value)
    return facts | {"version": f"stylize {version('stylize')}, PyAV {av.__version__}"}
