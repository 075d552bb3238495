"""Sources that fall silent hold nobody up, and nothing is closed under a reader."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from stylize.runtime.unattended import OneReader, made_in_thread

PATIENCE_SECONDS = 30


class Silent:
    """Yields one item, then waits to be woken."""

    def __init__(self) -> None:
        self.is_waiting, self.wakes = threading.Event(), threading.Event()
        self.closed_by: list[str] = []
        self.reader = OneReader(lambda: self.closed_by.append(threading.current_thread().name))

    def items(self) -> Iterator[int]:
        yield 1
        self.is_waiting.set()
        assert self.wakes.wait(PATIENCE_SECONDS)
        yield 2


def test_closing_waits_for_no_reader_who_then_closes_himself() -> None:
    source, got = Silent(), []
    thread = threading.Thread(target=lambda: got.extend(source.reader.items(source.items())), name="reader")
    thread.start()
    assert source.is_waiting.wait(PATIENCE_SECONDS)
    source.reader.close()
    assert source.closed_by == []  # the reader is inside
    source.wakes.set()
    thread.join(PATIENCE_SECONDS)
    assert source.closed_by == ["reader"]
    assert got == [1]  # what came after closing is not handed on


def test_closing_between_two_items_is_at_once() -> None:
    source = Silent()
    items = source.reader.items(source.items())
    assert next(items) == 1
    source.reader.close()
    assert source.closed_by == [threading.current_thread().name]
    assert list(items) == []


def test_all_items_come_through() -> None:
    source = Silent()
    source.wakes.set()
    assert list(source.reader.items(source.items())) == [1, 2]
    assert source.closed_by == []  # that is for who opened it


def test_made_in_thread_returns_and_raises_what_it_makes() -> None:
    discarded: list[int] = []
    assert made_in_thread(lambda: 7, discard=discarded.append) == 7
    with pytest.raises(FileNotFoundError, match="nowhere"):
        made_in_thread(lambda: [].append(open("nowhere")), discard=discarded.append)  # noqa: PTH123,SIM115
    assert discarded == []


def test_ctrl_c_ends_the_waiting_and_what_is_made_later_is_discarded() -> None:
    go_on, is_discarded = threading.Event(), threading.Event()

    def make() -> int:
        os.kill(os.getpid(), signal.SIGINT)
        assert go_on.wait(PATIENCE_SECONDS)
        return 7

    with pytest.raises(KeyboardInterrupt):
        made_in_thread(make, discard=lambda made: is_discarded.set() if made == 7 else None)
    assert not is_discarded.is_set()
    go_on.set()
    assert is_discarded.wait(PATIENCE_SECONDS)
