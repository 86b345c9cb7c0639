"""Tables of measured networks, read with care: anybody's CSV file may be given to bench/predictor.py."""

from __future__ import annotations

import gzip
import io
import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ehdnas.core.csv_file import csv_rows
from ehdnas.core.errors import DataError, UsageError
from ehdnas.core.text import nearest
from ehdnas.search.predictor.base import MIN_SAMPLES
from ehdnas.search.predictor.facts import SpaceFacts, facts_of
from ehdnas.search.spaces.base import NetworkShape, find_space

TEST_AT_LEAST = 20
ARCH, OP_IDX = "arch", "op_idx"
_BENCHMARK = NetworkShape(16, 15, (3, 32, 32), 10)  # of NAS-Bench-201; costs are needed up to a factor
_MAX_BYTES = 100 * 2**20
_MAX_SLOTS, _MAX_CHOICES = 4096, 256
_MAX_GATES = 10**8
_RANGE = 1e-30, 1e30  # of targets: their squares are still finite
_FEW = 10


@dataclass(frozen=True)
class Table:
    """Networks and one value each.

    `chosen` [rows, slots] holds each slot's choice, `values` [rows] what was measured, all positive.
    `repeated` is how many networks the file has more than once.
    """

    space: str
    choices: int
    facts: SpaceFacts
    chosen: np.ndarray
    values: np.ndarray
    repeated: int = 0

    @property
    def slots(self) -> int:
        """How many decisions a network is."""
        return self.chosen.shape[1]

    def gates(self, rows: np.ndarray) -> Tensor:
        """Return some networks one-hot, [n, slots, choices], float32."""
        chosen = torch.from_numpy(self.chosen[rows])
        return torch.nn.functional.one_hot(chosen, self.choices).float()


def read_table(path: Path, target: str) -> Table:
    """Return the networks of a .csv or .csv.gz file that have a value in the column `target`.

    A network is NAS-Bench-201's string in a column `arch`, those that are not connected left out, or a JSON
    list of choice indices in a column `op_idx`. A network that occurs more than once counts once, with the
    median of its values, or it could be fitted to and judged on.

    Raises:
        UsageError: what cannot be right in the file; rows are counted as a spreadsheet does.
    """
    header, rows = read_rows(path)
    kind = _kind(path, header)
    if target not in header:
        known = [name for name in header if name not in (ARCH, OP_IDX)]
        raise UsageError(f"{path} has no column '{target[:60]}'{nearest(target[:60], known)}")
    at, of = header.index(kind), header.index(target)
    told = [(number, row[at], row[of].strip()) for number, row in rows if row[of].strip()]
    values = _values(path, target, [(number, text) for number, _, text in told])
    networks = [(number, text) for number, text, _ in told]
    if kind == OP_IDX:
        chosen = _index_lists(path, networks)
        choices = int(chosen.max(initial=0)) + 1
        return _checked(path, target, Table("table", choices, SpaceFacts(), *_once(chosen, values)))
    space = find_space("nasbench201")
    found = [_parsed(path, number, text) for number, text in networks]
    kept = [row for row, architecture in enumerate(found) if space.is_valid(architecture)]
    chosen = np.array([found[row].choices for row in kept], np.int64).reshape(-1, space.slots)
    facts = facts_of(space, _BENCHMARK)
    return _checked(path, target, Table(space.name, space.choices, facts, *_once(chosen, values[kept])))


def _once(chosen: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Return each network [n, slots] once, in the order of the table, with the median of its values [n].

    The last is how many of them the table has more than once.
    """
    if not len(chosen):
        return chosen, values, 0
    _, first, of, times = np.unique(
        chosen, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    if len(first) == len(chosen):
        return chosen, values, 0
    medians = np.array([np.median(values[of.ravel() == network]) for network in range(len(first))])
    order = np.argsort(first)
    return chosen[first[order]], medians[order], int((times > 1).sum())


def require_enough(table: Table, counts: Sequence[int], where: str) -> None:
    """Raise UsageError unless the table is long enough to fit to so many and test on the rest."""
    for n in counts:
        if n < MIN_SAMPLES:
            raise UsageError(f"--n {n}: a predictor needs at least {MIN_SAMPLES} samples")
        if len(table.values) < n + TEST_AT_LEAST:
            raise UsageError(
                f"{where}: {len(table.values)} networks with a value; --n {n} needs at least "
                f"{n + TEST_AT_LEAST}, {TEST_AT_LEAST} of them to test on"
            )


def read_rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header, and every row with its number as a spreadsheet counts.

    Raises:
        UsageError: the file cannot be read, is too large, or is no table.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file") from error
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    if len(data) > _MAX_BYTES:
        raise UsageError(f"{path}: more than {_MAX_BYTES // 2**20} MB; give a smaller table")
    try:
        rows = list(csv_rows(io.BytesIO(data), str(path)))
    except DataError as error:
        raise UsageError(str(error)) from error
    if not rows:
        raise UsageError(f"{path} is empty; the first line names the columns")
    return rows[0][1], rows[1:]


def _kind(path: Path, header: list[str]) -> str:
    kinds = [name for name in (ARCH, OP_IDX) if name in header]
    if len(kinds) == 2:
        raise UsageError(f"{path} has both columns '{ARCH}' and '{OP_IDX}'; leave one")
    if not kinds:
        raise UsageError(
            f"{path} has neither a column '{ARCH}' (NAS-Bench-201 strings) nor '{OP_IDX}' (lists of indices)"
        )
    return kinds[0]


def _values(path: Path, target: str, texts: list[tuple[int, str]]) -> np.ndarray:
    values = [_number(text) for _, text in texts]
    low, high = _RANGE
    bad = [
        f"{number} ('{text[:40]}')"
        for (number, text), value in zip(texts, values, strict=True)
        if not low <= value <= high
    ]
    if bad:
        rows = ", ".join(bad[:_FEW]) + (f" and {len(bad) - _FEW} more" if len(bad) > _FEW else "")
        raise UsageError(
            f"{path}, column '{target[:60]}': no positive number in row {rows}; correct it or leave it empty"
        )
    return np.array(values, np.float64)


def _number(text: str) -> float:
    try:
        return float(text) if "_" not in text else math.nan
    except ValueError:
        return math.nan


def _parsed(path: Path, number: int, text: str):
    if not text.strip().startswith("|"):
        raise UsageError(f"{path}, row {number}: '{text[:40]}' is no string of NAS-Bench-201, |op~0|+|...|")
    try:
        return find_space("nasbench201").parse(text)
    except UsageError as error:
        raise UsageError(f"{path}, row {number}: {error}") from error


def _index_lists(path: Path, texts: list[tuple[int, str]]) -> np.ndarray:
    lists: list[list[int]] = []
    for number, text in texts:
        found = _index_list(f"{path}, row {number}", text)
        if lists and len(found) != len(lists[0]):
            raise UsageError(
                f"{path}, row {number}: {len(found)} indices; the first network has {len(lists[0])}"
            )
        lists.append(found)
    return np.array(lists, np.int64).reshape(len(lists), -1) if lists else np.zeros((1, 1), np.int64)[:0]


def _index_list(where: str, text: str) -> list[int]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not found:
        raise UsageError(f"{where}: '{text[:40]}' is no list of indices such as [0, 3, 1]")
    if len(found) > _MAX_SLOTS:
        raise UsageError(f"{where}: {len(found)} indices; at most {_MAX_SLOTS}")
    for index in found:
        if type(index) is not int or not 0 <= index < _MAX_CHOICES:
            raise UsageError(
                f"{where}: {str(index)[:40]} is no index; they are whole numbers from 0 to {_MAX_CHOICES - 1}"
            )
    return found


def _checked(path: Path, target: str, table: Table) -> Table:
    if len(table.values) and np.ptp(table.values) == 0:
        raise UsageError(
            f"{path}, column '{target[:60]}': all {len(table.values)} values are {table.values[0]:g}; "
            "there is nothing to predict"
        )
    if table.chosen.size * table.choices > _MAX_GATES:
        raise UsageError(
            f"{path}: {len(table.values)} networks of {table.slots} slots and {table.choices} choices are "
            "too many to hold; give fewer rows"
        )
    return table
