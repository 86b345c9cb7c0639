"""One measurement as a row of a table that is handed on: what it says, and what is checked on its return."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from ehdnas.core.errors import DataError
from ehdnas.core.measurement import Statistics
from ehdnas.profilers.store.store import ROW
from ehdnas.profilers.store.table_files import Cell

METRIC = "metric_"
TEXTS = (
    *("uid", "device", "space", "shape", "subject", "precision", "protocol", "basis", "created_at"),
    *("origin", "model_sha256"),
)
STATISTICS: dict[str, type] = {
    name: int if name in ("runs", "processes") else float for name in Statistics.model_fields
}
JSONS = ("flags", "passport", "samples_ms")
REQUIRED = (*TEXTS, f"{METRIC}latency_ms", *STATISTICS, *JSONS)

_MAY_BE_EMPTY = ("origin", "model_sha256")
_MOST_TEXT = 500
# A nanosecond to a fortnight in milliseconds, which does for the other units too.
LEAST, MOST = 1e-6, 1.2e9
_MAY_BE_0 = (f"{METRIC}memory_mb",)  # a model that adds nothing to its interpreter
_MOST_JSON = {"flags": 100_000, "passport": 1_000_000, "samples_ms": 30_000_000}
_MOST_SAMPLES = 1_000_000
_METRIC_NAME = re.compile(rf"{METRIC}[A-Za-z0-9_.-]{{1,100}}")
_PRIVATE = ("host", "user", "address", "board_host", "serial", "hostname")


class _WrongError(Exception):
    """What is wrong with the cell of a column."""

    def __init__(self, column: str, what: str) -> None:
        super().__init__(f"column '{column[:100]}': {what}")


def check_columns(columns: Mapping[str, Any], where: str) -> None:
    """Raise DataError where a column is missing or unknown."""
    missing = [column for column in REQUIRED if column not in columns]
    if missing:
        raise DataError(
            f"{where}: no column {', '.join(missing)}; give a file that `export` wrote, or say "
            "what a table of your own holds with --column METRIC=COLUMN"
        )
    for column in columns:
        if column not in REQUIRED and not _METRIC_NAME.fullmatch(str(column)):
            raise DataError(f"{where}: unknown column '{str(column)[:100]}'; remove it, or export again")


def parse_row(cells: Mapping[str, Cell], where: str, origin: str) -> tuple[str, ...]:
    """Return a table's row as the store's, by the columns of `ROW`.

    Raises:
        DataError: something in it cannot be right; the message begins with `where`, and names the column.
    """
    try:
        found = {name: _text(cells, name) for name in TEXTS} | {name: _json(cells, name) for name in JSONS}
        _check_form(found)
        found["metrics"] = json.dumps(_metrics(cells), separators=(",", ":"))
        found["statistics"] = _statistics(cells)
    except _WrongError as wrong:
        raise DataError(f"{where}, {wrong}; nothing was imported") from wrong
    return tuple({**found, "origin": origin}[name] for name in ROW)


def shareable(passport: Any) -> Any:
    """Return a passport without the entries that say who measured and where, and texts that repeat them."""
    return _without(passport, set(_private_texts(passport)))


def _private_texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value[name] for name in _PRIVATE if isinstance(value.get(name), str) and value[name]]
        return own + [text for inner in value.values() for text in _private_texts(inner)]
    return [text for inner in value for text in _private_texts(inner)] if isinstance(value, list) else []


def _without(value: Any, private: set[str]) -> Any:
    if isinstance(value, dict):
        return {
            name: _without(inner, private)
            for name, inner in value.items()
            if name not in _PRIVATE and not (isinstance(inner, str) and inner in private)
        }
    if isinstance(value, list):
        kept = [inner for inner in value if not (isinstance(inner, str) and inner in private)]
        return [_without(inner, private) for inner in kept]
    return value


def _text(cells: Mapping[str, Cell], name: str) -> str:
    value = cells[name]
    if value is None and name in _MAY_BE_EMPTY:
        return ""
    if value is None:
        raise _WrongError(name, "is empty")
    if not isinstance(value, str) or not value.isprintable():
        raise _WrongError(name, "is no text of printable characters")
    if len(value) > _MOST_TEXT:
        raise _WrongError(name, f"is longer than {_MOST_TEXT} characters")
    return value


def _check_form(found: dict[str, str]) -> None:
    if not re.fullmatch("[0-9a-f]{32}", found["uid"]):
        raise _WrongError("uid", "is not 32 hex digits")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", found["device"]):
        raise _WrongError("device", f"'{found['device'][:50]}' is no device's name")
    if found["basis"] not in ("measured", "simulated"):
        raise _WrongError("basis", f"'{found['basis'][:50]}' is neither measured nor simulated")
    try:
        datetime.fromisoformat(found["created_at"])
    except ValueError as error:
        raise _WrongError("created_at", "is no ISO date and time") from error


def _number(cells: Mapping[str, Cell], name: str) -> float | None:
    value = cells[name]
    if value is None:
        return None
    try:
        number = float(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise _WrongError(name, f"'{str(value)[:50]}' is no number") from error
    if not math.isfinite(number):
        raise _WrongError(name, f"{number} is not finite")
    return number


def _metrics(cells: Mapping[str, Cell]) -> dict[str, float]:
    numbers = {name: _number(cells, name) for name in cells if name.startswith(METRIC)}
    latency = numbers[f"{METRIC}latency_ms"]
    # A table that somebody imported may hold accuracies alone; what was measured has a latency.
    only_accuracy = latency is None and numbers.get(f"{METRIC}accuracy") is not None
    if not only_accuracy and (latency is None or latency <= 0):
        raise _WrongError(f"{METRIC}latency_ms", f"{latency} is not above 0")
    for name, number in numbers.items():
        least = 0.0 if name in _MAY_BE_0 else LEAST
        if number is not None and not least <= number <= MOST:
            raise _WrongError(name, f"{number} is not between {least:g} and {MOST:g}")
    return {name.removeprefix(METRIC): number for name, number in numbers.items() if number is not None}


def _statistics(cells: Mapping[str, Cell]) -> str:
    numbers = {name: _number(cells, name) for name in STATISTICS}
    if all(number is None for number in numbers.values()):
        return "null"
    try:
        return Statistics.model_validate(numbers).model_dump_json()
    except ValidationError as error:
        first = error.errors()[0]
        raise _WrongError(str(first["loc"][0]), f"is wrong ({first['msg']})") from error


def _json(cells: Mapping[str, Cell], name: str) -> str:
    text = cells[name]
    if not isinstance(text, str):
        raise _WrongError(name, "is empty")
    if len(text) > _MOST_JSON[name]:
        raise _WrongError(name, f"is longer than {_MOST_JSON[name]} characters")
    try:
        value = json.loads(text)
        encoded = json.dumps(value, allow_nan=False, separators=(",", ":"))
    except (ValueError, RecursionError) as error:
        raise _WrongError(name, "is not valid JSON") from error
    if not _CHECKS[name](value):
        raise _WrongError(name, f"is not {_EXPECTED[name]}")
    return encoded


def _are_samples(value: Any) -> bool:
    if not isinstance(value, list) or not all(isinstance(runs, list) for runs in value):
        return False
    if sum(map(len, value)) > _MOST_SAMPLES:
        return False
    return all(type(run) in (int, float) and LEAST <= run <= MOST for runs in value for run in runs)


def _are_flags(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(flag, str) and flag.isprintable() and len(flag) <= _MOST_TEXT for flag in value
    )


_CHECKS = {"flags": _are_flags, "passport": lambda value: isinstance(value, dict), "samples_ms": _are_samples}
_EXPECTED = {
    "flags": f"a list of texts of up to {_MOST_TEXT} characters",
    "passport": "an object",
    "samples_ms": f"a list of lists of times above 0, {_MOST_SAMPLES} at most",
}
