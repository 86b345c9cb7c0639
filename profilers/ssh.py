"""The `ssh` device kind: a board reached with the user's keys, its host key verified."""

from __future__ import annotations

from ehdnas.core.remote import SshOptions, SshTransport, Transport
from ehdnas.profilers.board.profiler import BoardProfiler


class SshProfiler(BoardProfiler):
    """Runs files on `device.host`, `[user@]host[:port]` or an alias of ~/.ssh/config.

    Raises:
        UsageError: the host, the runtime or an option cannot be right.
    """

    def open(self) -> Transport:
        """Return a connection over SSH, made at its first use."""
        return SshTransport(self.device.host, SshOptions(allow_proxy_command=self.options.proxy_command))
