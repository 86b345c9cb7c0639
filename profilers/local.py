"""The `local` device kind: this machine, through the agent in fresh processes."""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Sequence
from pathlib import Path

from ehdnas.core.remote import LocalTransport, Transport
from ehdnas.profilers.board.profiler import BoardProfiler


class LocalProfiler(BoardProfiler):
    """Runs files on this machine, in the Python that runs this."""

    def open(self) -> Transport:
        """Return a temporary folder on this machine."""
        return LocalTransport()

    def python(self) -> Sequence[str]:
        """Return this Python, unless the device names another."""
        return () if self.options.python else (sys.executable, _isolation())


def _isolation() -> str:
    # -I keeps the user's PYTHON* variables and packages away from the measurement, so it must be left out
    # where the interpreters themselves come from there; -P still keeps the agent's own folder off the path.
    user_site = site.ENABLE_USER_SITE and Path(site.getusersitepackages()).is_dir()
    return "-P" if os.environ.get("PYTHONPATH") or user_site else "-I"
