"""Small helpers for messages people read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_MOST = 12


def nearest(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for a near miss, else "; known: a, b, c", a dozen of them at most."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return f"; known: {', '.join(names[:_MOST])}{more}"


def duration(seconds: float) -> str:
    """Return a duration as people say it: "40 s", "3 min", "1 h 20 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def numbers(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield (name, number) of a record; those of a group or a list within it as `group.name`."""
    for key, value in record.items():
        if isinstance(value, bool | int | float):
            yield f"{prefix}{key}", float(value)
        elif isinstance(value, Mapping):
            yield from numbers(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            yield from numbers(dict(zip(map(str, range(len(value))), value, strict=True)), f"{prefix}{key}.")
