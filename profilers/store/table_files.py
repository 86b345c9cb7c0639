"""Tables as CSV or, by the suffix `.parquet`, Parquet files: rows in and out, one at a time."""

from __future__ import annotations

import csv
import importlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ehdnas.core.csv_file import csv_rows, require_single
from ehdnas.core.errors import DataError, EhdnasError, UsageError
from ehdnas.core.files import atomic_path

Cell = str | float | int | None
FIRST_ROW = 2
"""The number of the first row of data, as a spreadsheet counts: the columns' names are row 1."""

_AT_ONCE = 500
# A spreadsheet takes a text that begins so for a formula, and runs it; behind an apostrophe it is a text.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")
_PARQUET_TYPES = {str: "string", float: "float64", int: "int64"}


def write_table(path: Path, columns: dict[str, type], rows: Iterable[Sequence[Cell]]) -> int:
    """Write rows to `path`, whole or not at all, and return how many; `columns` says each one's type.

    Raises:
        UsageError: a Parquet file is asked for, and pyarrow is not installed.
        EhdnasError: the folder cannot be written, or the disk is full.
    """
    parquet = _parquet() if path.suffix == ".parquet" else None
    with atomic_path(path) as temporary:
        if parquet is not None:
            return _write_parquet(parquet, temporary, columns, rows)
        return _write_csv(temporary, columns, rows)


def read_table(path: Path) -> Iterator[tuple[int, dict[str, Cell]]]:
    """Yield a file's rows by column name, each with its number as a spreadsheet counts.

    All cells of a CSV file are texts, and an empty one is None.

    Raises:
        DataError: the file is absent, damaged or no table, or names a column twice.
        UsageError: it is a Parquet file, and pyarrow is not installed.
    """
    if not path.is_file():
        raise DataError(f"{path} is not a file; give a .csv or .parquet file that `export` wrote")
    parquet = _parquet() if path.suffix == ".parquet" else None
    return _read_csv(path) if parquet is None else enumerate(_read_parquet(parquet, path), FIRST_ROW)


def _write_csv(path: Path, columns: Iterable[str], rows: Iterable[Sequence[Cell]]) -> int:
    count = 0
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        for row in rows:
            writer.writerow([_guarded(cell) for cell in row])
            count += 1
    return count


def _guarded(cell: Cell) -> Cell:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def _read_csv(path: Path) -> Iterator[tuple[int, dict[str, Cell]]]:
    try:
        with path.open("rb") as file:
            rows = csv_rows(file, str(path))
            _, columns = next(rows, (0, []))
            for number, cells in rows:
                texts = (cell.removeprefix("'") or None for cell in cells)
                yield number, dict(zip(columns, texts, strict=True))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def _parquet() -> Any:
    try:
        return importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise UsageError(
            "Parquet files need pyarrow: pip install 'ehdnas[parquet]', or use a .csv file"
        ) from error


def _write_parquet(parquet: Any, path: Path, columns: dict[str, type], rows: Iterable[Sequence[Cell]]) -> int:
    arrow = importlib.import_module("pyarrow")
    schema = arrow.schema([(name, _PARQUET_TYPES[kind]) for name, kind in columns.items()])
    count, left = 0, iter(rows)
    try:
        with parquet.ParquetWriter(path, schema) as writer:
            while batch := list(islice(left, _AT_ONCE)):
                count += len(batch)
                named = [dict(zip(columns, row, strict=True)) for row in batch]
                writer.write_table(arrow.Table.from_pylist(named, schema))
    except arrow.ArrowException as error:
        raise EhdnasError(f"cannot write {path}: {error}; write a .csv file") from error
    return count


def _read_parquet(parquet: Any, path: Path) -> Iterator[dict[str, Cell]]:
    arrow = importlib.import_module("pyarrow")
    try:
        with parquet.ParquetFile(path) as file:
            require_single(file.schema_arrow.names, str(path))
            for batch in file.iter_batches(_AT_ONCE):
                yield from batch.to_pylist()
    except (arrow.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no Parquet file, or damaged ({error}); export it again") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
