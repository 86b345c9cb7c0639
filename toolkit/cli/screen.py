"""The reporter of the command line: what a stage says while it works, on stderr."""

from __future__ import annotations

import atexit
import math
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from ehdnas.cli.epochs import EpochProgress, table
from ehdnas.cli.epochs import line as line_of
from ehdnas.cli.interrupt import check
from ehdnas.cli.output import LEAST, wrapped
from ehdnas.core.text import duration

_EVERY_S = (10.0, 60.0)  # least and most between progress lines where there is no terminal to draw a bar on


class Screen:
    """Lines and bars on stderr, plain lines when it is no terminal."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar: EpochProgress | None = None
        self._records: list[dict[str, Any]] | None = None
        self._spoke: tuple[float, int] | None = None
        self._wait = _EVERY_S[0]

    def say(self, text: str) -> None:
        """Show a line."""
        check()
        self.console.print(self._fitted(text), markup=False)

    def warn(self, text: str) -> None:
        """Show a line that should not be missed."""
        self.console.print(self._fitted(text), style="yellow", markup=False)

    def _fitted(self, text: str) -> str:
        """Return a line as it is or, on a terminal too narrow for it, broken between words."""
        if not self.console.is_terminal or len(text) <= self.console.width:
            return text
        return "\n  ".join(wrapped(text, max(self.console.width - 2, LEAST)))

    def progress(self, done: int, total: int, text: str) -> None:
        """Show how far the stage is: a bar on a terminal, a line every few seconds elsewhere."""
        check()
        if self.console.is_terminal:
            self._draw(done, total, text)
            return
        if self._records is not None:  # its epochs are told instead, a line each at most
            if done >= total:
                self._records, self._wait = None, _EVERY_S[0]
            return
        now = time.monotonic()
        # The first call only starts the clock: what came before it, and warming up, would distort the rate.
        since, before = self._spoke = self._spoke or (now, done)
        if now - since > self._wait and before < done < total:
            left = (now - since) * (total - done) / (done - before)
            self.say(f"  {done}/{total} {text}, about {duration(left)} left")
            self._spoke, self._wait = (now, done), min(2 * self._wait, _EVERY_S[1])
        if done >= total:
            self._spoke, self._wait = None, _EVERY_S[0]

    def epochs(self, total: int) -> Callable[[dict[str, Any]], None]:
        """Return what shows an epoch's record: a row of a table, elsewhere a line now and then."""
        begin, spoke = time.monotonic(), -math.inf
        shown = self._records = []

        def show(record: dict[str, Any]) -> None:
            nonlocal spoke
            check()
            shown.append(record)
            now, epoch = time.monotonic(), record["epoch"] + 1
            if not self.console.is_terminal and (now - spoke > self._wait or epoch == total):
                left = (now - begin) * (total - epoch) / len(shown)
                self.say(f"  {line_of(record, total)}" + (f"; about {duration(left)} left" if left else ""))
                spoke = now

        return show

    def _draw(self, done: int, total: int, text: str) -> None:
        if self._bar is None:
            columns = (
                TextColumn("  {task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self._bar = EpochProgress(*columns, console=self.console, transient=True)
            self._bar.records = self._records or ()
            self._bar.add_task(text, total=total)
            atexit.register(self._bar.stop)  # an error leaves it drawn, and the cursor hidden
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=done, total=total, description=text)
        if done >= total:
            self._bar.stop()
            atexit.unregister(self._bar.stop)
            self._bar = None
            if self._records:
                self.console.print(table(self._records))
            self._records = None
