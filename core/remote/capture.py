"""A stream drained by a thread of its own: a program that fills one pipe must not wait for the other."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ehdnas.core.remote.base import OUTPUT_CAP_BYTES


class Capture(threading.Thread):
    """Calls `read(size)` until it returns nothing or fails, and keeps the first `cap_bytes` bytes.

    The rest is read and let go: a full pipe would stop the program.
    """

    def __init__(self, read: Callable[[int], bytes], cap_bytes: int = OUTPUT_CAP_BYTES) -> None:
        super().__init__(daemon=True)
        self._read, self._cap_bytes = read, cap_bytes
        self._kept = bytearray()
        self.truncated = False
        self.start()

    def run(self) -> None:
        """Drain the stream; the thread's body."""
        try:
            while data := self._read(2**16):
                room = self._cap_bytes - len(self._kept)
                self._kept += data[:room]
                self.truncated |= len(data) > room
        except (OSError, EOFError, ValueError):
            return  # the stream was closed under us: what came is what there is

    def bytes(self, wait_s: float) -> bytes:
        """Return what was kept, after waiting at most `wait_s` seconds for the stream's end."""
        self.join(wait_s)
        return bytes(self._kept)
