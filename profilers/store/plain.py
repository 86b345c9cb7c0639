"""Plain tables: an architecture a row, with figures somebody took somewhere, as measurements of a store."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ehdnas.core.errors import DataError, EhdnasError, UsageError
from ehdnas.core.measurement import Measurement
from ehdnas.core.text import nearest
from ehdnas.profilers.store.exchange import MERGE, require_origin, require_suffix
from ehdnas.profilers.store.exchange_row import LEAST, MOST
from ehdnas.profilers.store.store import Key, MeasurementStore, as_row
from ehdnas.profilers.store.table_files import Cell, read_table

ARCHITECTURE = ("arch", "genotype", "architecture", "subject", "op_idx")
"""The columns that may name a row's network; the first of these that a table has does."""
_MEND = "correct it or leave it empty; nothing was imported"
_SHOWN = 120  # letters of a network that is left out: those of NAS-Bench-201's strings
FLAG = "imported (how it was measured is not known)"


@dataclass(frozen=True)
class Column:
    """Where a metric is: in the column `name`, in the metric's unit, or in percent where that is said.

    A `name` that ends in % is a column of that very name, or else the column without it.
    """

    metric: str
    name: str
    percent: bool = False


@dataclass(frozen=True)
class Target:
    """What a table's rows become measurements of; by the fields of `Key`, but for the subject."""

    device: str
    space: str
    shape: str
    precision: str
    protocol: str


@dataclass
class PlainTable:
    """A table that was read: metrics by subject, and how many rows had no figure or no valid network.

    `columns` says by metric where it was found; `first_invalid` is row and text of the first invalid network.
    """

    name: str
    columns: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    empty: int = 0
    invalid: int = 0
    first_invalid: str | None = None


@dataclass(frozen=True)
class Imported:
    """How many rows were added, were there before, had no figure, or named no valid network.

    `first_invalid` is row and text of the first that is not valid.
    """

    added: int
    known: int
    empty: int
    invalid: int
    first_invalid: str | None = None


def read_plain(path: Path, columns: list[Column], subject_of: Callable[[str], str | None]) -> PlainTable:
    """Return a .csv or .parquet file's networks and their figures, checked.

    Args:
        subject_of: gives what a store keeps a network under, from a text of the architecture column; None for
            one that is no valid network. It raises an EhdnasError where the text is no architecture.

    Raises:
        DataError: a row cannot be right, by its number as a spreadsheet counts; or there is none.
        UsageError: another suffix, or no such column.
    """
    require_suffix(path)
    table = PlainTable(path.name)
    first: dict[str, int] = {}
    found: list[Column] | None = None
    for number, cells in read_table(path):
        where = f"{path}, row {number}"
        if found is None:
            found = _found(columns, cells, path)
            table.columns = {column.metric: column.name for column in found}
        metrics = _metrics(cells, found, where)
        text = _text(cells, where)
        subject = _subject(text, cells, subject_of, where)
        if subject is None:
            table.invalid += 1
            table.first_invalid = table.first_invalid or f"row {number}, {' '.join(text.split())[:_SHOWN]}"
        elif not metrics:
            table.empty += 1
        elif subject in first:
            raise DataError(f"{where}: the network of row {first[subject]} again; nothing was imported")
        else:
            first[subject] = number
            table.metrics[subject] = metrics
    if found is None:
        raise DataError(f"{path} holds no rows; nothing was imported")
    return table


def add_plain(store: MeasurementStore, table: PlainTable, target: Target, origin: str) -> Imported:
    """Add a table's rows to a store, all or none; the same rows are there only once.

    What an earlier table told of a network, accuracy beside latency say, is taken along: of all that is
    stored of it, the latest row is what counts.

    Raises:
        UsageError: an origin that is no short text.
        EhdnasError: as `MeasurementStore.add`.
    """
    require_origin(origin)
    of = (target.device, target.space, target.shape, target.precision, target.protocol)
    before_it = dict(store.all(*of))
    rows = [
        _row(table, Key(subject=subject, **vars(target)), origin, metrics, before_it.get(subject))
        for subject, metrics in table.metrics.items()
    ]
    with store.transaction() as connection:
        before = connection.total_changes
        connection.executemany(MERGE, rows)
        added = connection.total_changes - before
    return Imported(added, len(rows) - added, table.empty, table.invalid, table.first_invalid)


def _row(
    table: PlainTable, key: Key, origin: str, metrics: dict[str, float], earlier: Measurement | None
) -> tuple[str, ...]:
    columns = table.columns
    if earlier is not None:
        metrics = {**earlier.metrics, **metrics}
        columns = {**earlier.passport.get("columns", {}), **columns}
    passport = {"table": table.name, "columns": columns, "protocol": "not known"}
    measurement = Measurement(
        device=key.device, basis="measured", metrics=metrics, passport=passport, flags=[FLAG]
    )
    told: list[Any] = [*vars(key).values(), sorted(metrics.items())]
    uid = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]
    return (*as_row(key, measurement)[:-2], origin, uid)


def _found(columns: list[Column], cells: Mapping[str, Cell], path: Path) -> list[Column]:
    """Return the columns by the names that they have in the table."""
    known = [name for name in cells if name]
    found = []
    for column in columns:
        bare = column.name.removesuffix("%").strip() if column.percent else column.name
        name = next((name for name in (column.name, bare) if name in cells), None)
        if name is None:
            raise UsageError(f"{path} has no column '{bare[:60]}'{nearest(bare, known)}")
        found.append(replace(column, name=name))
    if not any(name in cells for name in ARCHITECTURE):
        raise UsageError(
            f"{path} has no column that names the networks; call it one of {', '.join(ARCHITECTURE)}"
        )
    return found


def _text(cells: Mapping[str, Cell], where: str) -> str:
    """Return the text that names a row's network."""
    name = _naming(cells)
    value = cells[name]
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value)
    if not text.strip():
        raise DataError(f"{where}, column '{name}': is empty; nothing was imported")
    return text


def _subject(
    text: str, cells: Mapping[str, Cell], subject_of: Callable[[str], str | None], where: str
) -> str | None:
    try:
        return subject_of(text)
    except EhdnasError as error:
        raise DataError(f"{where}, column '{_naming(cells)}': {error}; nothing was imported") from error


def _naming(cells: Mapping[str, Cell]) -> str:
    """Return the column that names the networks."""
    return next(name for name in ARCHITECTURE if name in cells)


def _metrics(cells: Mapping[str, Cell], columns: list[Column], where: str) -> dict[str, float]:
    """Return a row's figures; an empty cell is one that was not taken."""
    return {
        column.metric: _number(cells[column.name], column, f"{where}, column '{column.name[:60]}'")
        for column in columns
        if not _is_blank(cells[column.name])
    }


def _is_blank(cell: Cell) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip())


def _number(cell: Cell, column: Column, where: str) -> float:
    try:
        number = float(cell)  # type: ignore[arg-type]  # what is no number is what is asked here
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"{where}: '{str(cell)[:50]}' is no number; {_MEND}") from error
    number = number / 100 if column.percent else number
    most = 1.0 if column.metric == "accuracy" else MOST
    if not math.isfinite(number) or not LEAST <= number <= most:
        unit = " %" if column.percent else ""
        hint = f" (a share of 1; {column.name}% says that the column is in percent)"
        raise DataError(
            f"{where}: {str(cell)[:50]}{unit} is not between {LEAST:g} and {most:g}"
            f"{hint if column.metric == 'accuracy' and not column.percent else ''}; {_MEND}"
        )
    return number
