"""Keeps an encoder from taking the machine for itself."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["ordinary_threads"]


@contextmanager
def ordinary_threads() -> Iterator[None]:
    """Whatever opens an encoder meanwhile: its threads, and the calling one, are scheduled as the latter was before.

    Run by root, as in most containers, SVT-AV1 gives its threads and the one that opens it real-time priority
    (SCHED_FIFO 99), which threads started later inherit. Nothing else on the machine runs beside them, not even the
    threads of the network that they wait for: two cores stood still for minutes. Only Linux is looked after.
    """
    if sys.platform != "linux":
        yield
        return
    threads = set(_threads())
    policy, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        for thread in {0, *_threads()} - threads:
            with suppress(ProcessLookupError):  # it has ended
                if os.sched_getscheduler(thread) != policy:
                    os.sched_setscheduler(thread, policy, parameter)


def _threads() -> list[int]:
    return [int(path.name) for path in Path("/proc/self/task").iterdir()]
