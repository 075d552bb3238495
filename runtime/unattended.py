"""Waiting for sources that may fall silent, without being held up by them.

FFmpeg waits for a camera, a pipe or a network where neither Ctrl-C nor another thread reaches it, up to a minute.
So it waits in threads of its own. Whoever is interrupted meanwhile goes on at once; the thread comes back when its
waiting ends, closes what it holds and is gone, or ends with the process.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from typing import TypeVar

__all__ = ["OneReader", "made_in_thread"]

T = TypeVar("T")


def made_in_thread(make: Callable[[], T], *, discard: Callable[[T], None], seconds: float | None = None) -> T:
    """What `make()` returns, or raises, in a thread of its own.

    Args:
        make: may wait for long.
        discard: gets what was made when nobody waits for it any more, because Ctrl-C or SIGTERM was raised here.
        seconds: how long to wait; None for any time.

    Raises:
        TimeoutError: it takes longer.
    """
    made: Future[T] = Future()

    def work() -> None:
        try:
            result = make()
        except BaseException as error:  # noqa: BLE001 - the thread boundary: raised again below
            if not made.cancelled():
                made.set_exception(error)
            return
        try:
            made.set_result(result)
        except InvalidStateError:
            discard(result)

    try:
        threading.Thread(target=work, name="open", daemon=True).start()
        return made.result(seconds)
    except BaseException:
        if not made.cancel() and made.exception() is None:
            discard(made.result())
        raise


class OneReader:
    """Lets one thread read what another closes; closing never waits for the reader.

    Nothing is yielded after `close`, and what was being read at that moment is closed by the reader's thread.
    """

    def __init__(self, close: Callable[[], None]) -> None:
        """Call `close` when nobody reads any more; it must be harmless when called again."""
        self._close = close
        self._is_closed = False
        self._is_reading = threading.Lock()

    def items(self, items: Iterator[T]) -> Iterator[T]:
        """`items`, none of which is None, until `close` is called."""
        try:
            while True:
                with self._is_reading:
                    item = None if self._is_closed else next(items, None)
                if item is None or self._is_closed:
                    return
                yield item
        finally:
            if self._is_closed:
                self.close()

    def close(self) -> None:
        """Close now, or when the reader's thread comes back."""
        self._is_closed = True
        if self._is_reading.acquire(blocking=False):
            try:
                self._close()
            finally:
                self._is_reading.release()
