"""The `ssh` device kind: a board reached with the user's keys, its host key verified."""

from __future__ import annotations

from ehdnas.core.errors import EhdnasError
from ehdnas.core.remote import HostKeyError, SshOptions, SshTransport, Transport
from ehdnas.profilers.base import Check
from ehdnas.profilers.board.profiler import BoardProfiler, failed


class SshProfiler(BoardProfiler):
    """Runs files on `device.host`, `[user@]host[:port]` or an alias of ~/.ssh/config.

    Raises:
        UsageError: the host, the runtime or an option cannot be right.
    """

    def open(self) -> Transport:
        """Return a connection over SSH, made at its first use."""
        return SshTransport(self.device.host, SshOptions(allow_proxy_command=self.options.proxy_command))

    def reached(self) -> list[Check]:
        """Return that it answered, and as whom."""
        return [*super().reached(), Check("host key", True, "the one that known_hosts has")]

    def unreached(self, error: EhdnasError) -> list[Check]:
        """Return which of the two failed."""
        if isinstance(error, HostKeyError):
            return [*super().reached(), failed("host key", error)]
        return super().unreached(error)
