"""A Ctrl-C that is not lost: a library that swallows it while it imports or traces only delays it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_asked = threading.Event()


@contextmanager
def heeded() -> Iterator[None]:
    """Remember every Ctrl-C while a command runs, besides raising KeyboardInterrupt as usual."""
    _asked.clear()
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread receives signals
        return

    def ask(number: int, frame: object) -> None:
        _asked.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def check() -> None:
    """Raise KeyboardInterrupt if it was asked for and came to nothing."""
    if _asked.is_set():
        raise KeyboardInterrupt
