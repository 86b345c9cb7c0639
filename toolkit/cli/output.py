"""Results, on stdout: for people as tables and pairs, for programs as JSON."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

JSON_VERSION = 1
_GAP = 2  # blanks between columns
LEAST = 12  # what a column keeps of a word that is too long for the terminal


def emit_json(command: str, value: dict[str, Any]) -> None:
    """Write one versioned JSON object to stdout, on one line."""
    sys.stdout.write(json.dumps({"version": JSON_VERSION, "command": command, **value}) + "\n")


def emit_table(columns: list[str], rows: list[list[str]], title: str | None = None) -> None:
    """Write a table to stdout: as wide as its content, or on a terminal no wider than that."""
    cells = [[" ".join(cell.split()) for cell in row] for row in (columns, *rows)]
    widths = _widths(cells, terminal_width())
    heads = [*([title] if title else []), *_lines(cells[0], widths)]
    from rich.console import Console  # here, since commands that show no table are quicker without

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
    if room and len(text) > room > indent + LEAST:
        head, rest = text[:indent], text[indent:]
        lines = wrapped(rest, room - indent)
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
    for least in ([max(word, 1) for word in words], [min(word, LEAST) for word in words], [1] * len(words)):
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
    return [_shortened(line, width) for line in wrapped(cell, width)] or [""]


def _shortened(line: str, width: int) -> str:
    # The middle goes: names that begin alike are told apart by how they end.
    head = width // 2
    return line if len(line) <= width else line[:head] + "…" + line[len(line) - (width - head - 1) :]


def wrapped(text: str, width: int) -> list[str]:
    """Return a text as lines of at most `width`, broken between words only."""
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
