"""How stages speak to whoever runs them: lines and bars, never a print."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Reporter(Protocol):
    """Receives what a stage has to say while it works. The command line shows it on stderr."""

    def say(self, text: str) -> None:
        """Show a line."""

    def warn(self, text: str) -> None:
        """Show a line that should not be missed."""

    def progress(self, done: int, total: int, text: str) -> None:
        """Show how far the current stage is; a bar starts at the first call and ends at `total`."""

    def epochs(self, total: int) -> Callable[[dict[str, Any]], None]:
        """Return what shows the record of each of a stage's `total` epochs, until its progress ends."""


class Silent:
    """A reporter that shows nothing, for use as a library."""

    def say(self, text: str) -> None:
        """Show nothing."""

    def warn(self, text: str) -> None:
        """Show nothing."""

    def progress(self, done: int, total: int, text: str) -> None:
        """Show nothing."""

    def epochs(self, total: int) -> Callable[[dict[str, Any]], None]:
        """Return what shows nothing."""
        return lambda record: None
