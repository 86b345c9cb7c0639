"""What people and programs read: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ehdnas.cli.interrupt import check
from ehdnas.core.text import duration

JSON_VERSION = 1
_EVERY_S = (10.0, 60.0)  # least and most between progress lines where there is no terminal to draw a bar on


class Screen:
    """The reporter of the command line: lines and bars on stderr, plain lines when it is no terminal."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._spoke: tuple[float, int] | None = None
        self._wait = _EVERY_S[0]

    def say(self, text: str) -> None:
        """Show a line."""
        check()
        self.console.print(text, markup=False)

    def warn(self, text: str) -> None:
        """Show a line that should not be missed."""
        self.console.print(text, style="yellow", markup=False)

    def progress(self, done: int, total: int, text: str) -> None:
        """Show how far the stage is: a bar on a terminal, a line every few seconds elsewhere."""
        check()
        if self.console.is_terminal:
            self._draw(done, total, text)
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

    def _draw(self, done: int, total: int, text: str) -> None:
        if self._bar is None:
            columns = (
                TextColumn("  {task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=self.console, transient=True)
            self._bar.add_task(text, total=total)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=done, total=total, description=text)
        if done >= total:
            self._bar.stop()
            self._bar = None


def emit_json(command: str, value: dict[str, Any]) -> None:
    """Write one versioned JSON object to stdout, on one line."""
    sys.stdout.write(json.dumps({"version": JSON_VERSION, "command": command, **value}) + "\n")


def emit_table(columns: list[str], rows: list[list[str]], title: str | None = None) -> None:
    """Write a table to stdout; without a terminal its width is that of its content."""
    width = None if sys.stdout.isatty() else 200
    console = Console(highlight=False, width=width)
    table = Table(*columns, title=title, box=None, header_style="bold", title_justify="left", pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console.print(table, markup=False)


def emit_pairs(pairs: dict[str, str]) -> None:
    """Write aligned `name value` lines to stdout."""
    width = max(len(name) for name in pairs)
    for name, value in pairs.items():
        sys.stdout.write(f"{name:<{width}}  {value}\n")
