"""Measurements handed on between machines, as CSV or Parquet files: merged, they are each there once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ehdnas.core.errors import DataError, EhdnasError, UsageError
from ehdnas.profilers.store.exchange_row import (
    JSONS,
    METRIC,
    STATISTICS,
    TEXTS,
    check_columns,
    parse_row,
    shareable,
)
from ehdnas.profilers.store.store import INSERT, ROW, MeasurementStore
from ehdnas.profilers.store.table_files import FIRST_ROW, Cell, read_table, write_table

_OF = "FROM measurements WHERE id <= ? AND (? IS NULL OR device = ?)"
_METRICS = f"SELECT DISTINCT metrics {_OF}"
_ROWS = f"SELECT {', '.join(ROW)} {_OF} ORDER BY id"
MERGE = f"{INSERT} ON CONFLICT (uid) DO NOTHING"
"""Adds a row by the columns of `ROW`, unless it is there."""
_MOST_ORIGIN = 100


def export(store: MeasurementStore, path: Path, device: str | None = None, raw: bool = False) -> int:
    """Write every measurement, or a device's, to a .csv or .parquet file, and return how many.

    Passports leave out who measured and where, but for `raw`: a copy that stays with you.

    Raises:
        UsageError: another suffix, or a Parquet file where pyarrow is not installed.
        DataError: the database is damaged.
        EhdnasError: the folder cannot be written, or the disk is full.
    """
    require_suffix(path)
    # Nothing up to this row changes any more, whatever is added meanwhile.
    ((last,),) = store.select("SELECT coalesce(max(id), 0) FROM measurements")
    of = (last, device, device)
    try:
        metrics = {name for (text,) in store.select(_METRICS, of) for name in json.loads(text)}
        named = sorted({"latency_ms", *metrics})
        columns = {
            **dict.fromkeys(TEXTS, str),
            **dict.fromkeys((f"{METRIC}{name}" for name in named), float),
            **STATISTICS,
            **dict.fromkeys(JSONS, str),
        }
        rows = (_cells(dict(zip(ROW, row, strict=True)), named, raw) for row in store.select(_ROWS, of))
        return write_table(path, columns, rows)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{store.path}: a measurement is damaged ({error}); restore a copy, or export another device's"
        ) from error


def read_exchange(path: Path, origin: str = "") -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield the rows of an exported file, checked, by the columns of `ROW`, each with its number in the file.

    Raises:
        DataError: something in it cannot be right; the message names row and column, as a spreadsheet does.
        UsageError: another suffix, or a Parquet file where pyarrow is not installed.
    """
    require_suffix(path)
    checked = False
    for number, cells in read_table(path):
        if not checked:
            check_columns(cells, f"{path}, row {FIRST_ROW - 1}")
            checked = True
        yield number, parse_row(cells, f"{path}, row {number}", origin)


def import_(
    store: MeasurementStore, path: Path, origin: str = "", check: Callable[[str, str], None] | None = None
) -> tuple[int, int]:
    """Add a file's measurements, all or none; return how many were added, and how many known before.

    Args:
        origin: where they come from, the file's name without its suffix by default.
        check: raises an EhdnasError for a (space, subject) that cannot be right.

    Raises:
        DataError, UsageError: as `read_exchange`, or an origin that is no short text.
    """
    origin = origin or path.stem
    require_origin(origin)
    count = 0

    def counted() -> Iterator[tuple[str, ...]]:
        nonlocal count
        for number, row in read_exchange(path, origin):
            count += 1
            if check is not None:
                _check(check, row, f"{path}, row {number}")
            yield row

    with store.transaction() as connection:
        before = connection.total_changes
        connection.executemany(MERGE, counted())
        added = connection.total_changes - before
    return added, count - added


def require_origin(origin: str) -> None:
    """Raise UsageError where what says the rows' origin is no short text."""
    if not origin.isprintable() or len(origin) > _MOST_ORIGIN:
        raise UsageError(f"the origin must be a text of up to {_MOST_ORIGIN} printable characters")


def _check(check: Callable[[str, str], None], row: tuple[str, ...], where: str) -> None:
    try:
        check(row[ROW.index("space")], row[ROW.index("subject")])
    except EhdnasError as error:
        raise DataError(f"{where}, column 'subject': {error}; nothing was imported") from error


def require_suffix(path: Path) -> None:
    """Raise UsageError where a file is neither of those that tables are read from."""
    if path.suffix not in (".csv", ".parquet"):
        raise UsageError(f"'{path.name}': measurements are handed on as .csv or .parquet files")


def _cells(row: dict[str, Any], metrics: list[str], raw: bool) -> list[Cell]:
    found = json.loads(row["metrics"])
    statistics = json.loads(row["statistics"]) or {}
    passport = row["passport"] if raw else _encoded(shareable(json.loads(row["passport"])))
    return [
        *(row[name] for name in TEXTS),
        *(found.get(name) for name in metrics),
        *(statistics.get(name) for name in STATISTICS),
        *({**row, "passport": passport}[name] for name in JSONS),
    ]


def _encoded(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
