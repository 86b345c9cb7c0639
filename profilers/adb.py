"""The `adb` device kind: an Android phone on a cable or on the network, through Android's own bridge."""

from __future__ import annotations

from ehdnas.core.remote import AdbTransport, Transport
from ehdnas.profilers.board.profiler import BoardProfiler


class AdbProfiler(BoardProfiler):
    """Runs files on the phone whose serial number is `device.host`, or on the only one there is.

    Raises:
        UsageError: the serial number, the runtime or an option cannot be right.
    """

    def open(self) -> Transport:
        """Return a connection over adb, made at its first use."""
        return AdbTransport(self.device.host)

    @property
    def where(self) -> str:
        """The phone, for people to read."""
        return self.device.host or "the phone on adb"
