"""What people and programs read: results on stdout, everything else on stderr."""

from __future__ import annotations

import atexit
import json
import math
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from ehdnas.cli.epochs import EpochProgress, table
from ehdnas.cli.epochs import line as line_of
from ehdnas.cli.interrupt import check
from ehdnas.core.text import duration

JSON_VERSION = 1
_EVERY_S = (10.0, 60.0)  # least and most between progress lines where there is no terminal to draw a bar on
_GAP = 2  # blanks between columns
_LEAST = 12  # what a column keeps of a word that is too long for the terminal


class Screen:
    """The reporter of the command line: lines and bars on stderr, plain lines when it is no terminal."""

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
        return "\n  ".join(_words(text, max(self.console.width - 2, _LEAST)))

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


def emit_json(command: str, value: dict[str, Any]) -> None:
    """Write one versioned JSON object to stdout, on one line."""
    sys.stdout.write(json.dumps({"version": JSON_VERSION, "command": command, **value}) + "\n")


def emit_table(columns: list[str], rows: list[list[str]], title: str | None = None) -> None:
    """Write a table to stdout: as wide as its content, or on a terminal no wider than that."""
    cells = [[" ".join(cell.split()) for cell in row] for row in (columns, *rows)]
    widths = _widths(cells, terminal_width())
    heads = [*([title] if title else []), *_lines(cells[0], widths)]
    console = Console(highlight=False, soft_wrap=True)
    console.print("\n".join(heads), style="bold", markup=False)
    sys.stdout.write("".join(f"{line}\n" for row in cells[1:] for line in _lines(row, widths)))


def emit_pairs(pairs: dict[str, str]) -> None:
    """Write aligned `name value` lines to stdout."""
    width = max(len(name) for name in pairs)
    for name, value in pairs.items():
        emit_indented(f"{name:<{width}}  {value}", width + _GAP)


def emit_indented(text: str, indent: int) -> None:
    """Write text to stdout; on a terminal its further lines begin `indent` in, and words stay whole."""
    room = terminal_width()
    if room and len(text) > room > indent + _LEAST:
        head, rest = text[:indent], text[indent:]
        lines = _words(rest, room - indent)
        text = head + f"\n{' ' * indent}".join(lines)
    sys.stdout.write(f"{text.rstrip()}\n")


def terminal_width() -> int | None:
    """Return the width of the terminal that stdout is, None when it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _widths(cells: list[list[str]], room: int | None) -> list[int]:
    """Return the columns' widths: the widest give way first, at first as long as their words stay whole."""
    columns = list(zip(*cells, strict=True))
    widths = [max(map(len, column)) for column in columns]
    if room is None:
        return widths
    words = [max((len(word) for cell in column for word in cell.split()), default=0) for column in columns]
    for least in ([max(word, 1) for word in words], [min(word, _LEAST) for word in words], [1] * len(words)):
        while sum(widths) + _GAP * (len(widths) - 1) > room:
            wide = [column for column, width in enumerate(widths) if width > least[column]]
            if not wide:
                break
            widths[max(wide, key=widths.__getitem__)] -= 1
    return widths


def _lines(row: list[str], widths: list[int]) -> Iterator[str]:
    parts = [_wrap(cell, width) for cell, width in zip(row, widths, strict=True)]
    for line in zip_longest(*parts, fillvalue=""):
        padded = (f"{part:<{width}}" for part, width in zip(line, widths, strict=True))
        yield (" " * _GAP).join(padded).rstrip()


def _wrap(cell: str, width: int) -> list[str]:
    return [_shortened(line, width) for line in _words(cell, width)] or [""]


def _shortened(line: str, width: int) -> str:
    # The middle goes: names that begin alike are told apart by how they end.
    head = width // 2
    return line if len(line) <= width else line[:head] + "…" + line[len(line) - (width - head - 1) :]


def _words(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
