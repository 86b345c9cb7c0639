"""CSV files as people and spreadsheets write them: numbered rows, and one line where they are none."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from io import TextIOWrapper
from typing import IO

from ehdnas.core.errors import DataError

_MOST_LETTERS = 32 * 2**20
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_OTHER_SEPARATORS = {";": "';'", "\t": "tabs"}


def csv_rows(file: IO[bytes], where: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the columns' names, then every row of data, each with its number as a spreadsheet counts.

    Rows of blanks are left out, but counted; names come without the blanks around them, and each row has as
    many cells as there are columns. Nothing is yielded for a file without a row.

    Args:
        file: what was opened for reading bytes, at its beginning; it can seek.
        where: the file's name, for messages.

    Raises:
        DataError: it is no CSV file in UTF-8, has a column twice, is separated by something other than
            commas, or a row has more or fewer cells than there are columns.
    """
    before = csv.field_size_limit(_MOST_LETTERS)
    try:
        if file.read(2) in _UTF16:
            raise DataError(f"{where} is no CSV file in UTF-8 but in UTF-16; save it as UTF-8")
        file.seek(0)
        columns: list[str] | None = None
        reader = csv.reader(TextIOWrapper(file, encoding="utf-8-sig", newline=""), strict=True)
        for number, cells in enumerate(reader, 1):
            if not any(cell.strip() for cell in cells):
                continue
            if columns is None:
                columns = cells = _columns(cells, where)
            if len(cells) != len(columns):
                told = f"{len(cells)} cells where there are {len(columns)} columns"
                raise DataError(f"{where}, row {number}: {told}; correct that row, or export the file again")
            yield number, cells
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is no CSV file in UTF-8; save it as UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{where} is no CSV file ({error}); correct it, or export it again") from error
    finally:
        csv.field_size_limit(before)


def require_single(columns: list[str], where: str) -> None:
    """Raise DataError where a table names a column twice."""
    for column in columns:
        if columns.count(column) > 1:
            raise DataError(f"{where} has two columns '{column[:100]}'; rename one, or export it again")


def _columns(cells: list[str], where: str) -> list[str]:
    if "\0" in cells[0]:
        raise DataError(f"{where} is no CSV file in UTF-8; save it as UTF-8")
    if len(cells) == 1:
        for separator, name in _OTHER_SEPARATORS.items():
            if separator in cells[0]:
                raise DataError(
                    f"{where}: its columns are separated by {name}; separate the columns by commas"
                )
    columns = [cell.strip() for cell in cells]
    require_single(columns, where)
    return columns
