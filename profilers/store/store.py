"""The measurement store: an append-only SQLite file of everything ever measured or simulated."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from ehdnas.core.errors import DataError
from ehdnas.core.measurement import Measurement
from ehdnas.profilers.store.connection import MEND, connect, plain_error
from ehdnas.profilers.store.schema import prepare

_COLUMNS = "device, basis, metrics, statistics, samples_ms, passport, flags"
ROW = (
    *("device", "space", "shape", "subject", "precision", "protocol", "model_sha256", "created_at", "basis"),
    *("metrics", "statistics", "samples_ms", "passport", "flags", "origin", "uid"),
)
"""The columns of a measurement, in the order of `as_row`."""
INSERT = f"INSERT INTO measurements ({', '.join(ROW)}) VALUES ({', '.join('?' * len(ROW))})"  # noqa: S608
# What was measured here goes before what was imported, however late.
_FIND = f"""SELECT subject, {_COLUMNS} FROM measurements WHERE device = ? AND space = ? AND shape = ?
    AND subject = ? AND precision = ? AND protocol = ? ORDER BY origin <> '', id DESC LIMIT 1"""  # noqa: S608
_ALL = f"""SELECT subject, {_COLUMNS} FROM measurements WHERE id IN (
    SELECT coalesce(max(CASE WHEN origin = '' THEN id END), max(id)) FROM measurements
    WHERE device = ? AND space = ? AND shape = ? AND precision = ? AND protocol = ? GROUP BY subject)
    ORDER BY id"""  # noqa: S608
_GROUPS = """SELECT device, space, shape, precision, protocol, count(DISTINCT subject),
    count(DISTINCT CASE WHEN basis = 'measured' THEN subject END),
    count(DISTINCT CASE WHEN origin <> '' THEN subject END), min(latency_ms), max(latency_ms)
    FROM (SELECT *, CASE WHEN json_valid(metrics) THEN json_extract(metrics, '$.latency_ms') END AS latency_ms
        FROM measurements)
    GROUP BY device, space, shape, precision, protocol ORDER BY device, precision, protocol, space, shape"""


@dataclass(frozen=True)
class Key:
    """What a measurement is of. All text, so that a store outlives the code that wrote it.

    `subject` is the architecture's text form, `shape` says channels, cells, image and classes, and
    `protocol` is a protocol's settings hash, or the name of a model of the device when simulated.
    """

    device: str
    space: str
    shape: str
    subject: str
    precision: str
    protocol: str


@dataclass(frozen=True)
class Group:
    """What there is of one device, space, shape, precision and protocol: networks, and their latencies."""

    device: str
    space: str
    shape: str
    precision: str
    protocol: str
    networks: int
    measured: int
    imported: int
    fastest_ms: float | None
    slowest_ms: float | None


class MeasurementStore:
    """Measurements at `path`, for the thread that opened it; any number of stores may share one file.

    Nothing is ever changed or deleted, and what `add` has returned from survives a kill and a power cut.
    It is a context manager, and closes at the end.

    Raises:
        DataError: the file is damaged, is no measurement database, or comes from a newer version.
        EhdnasError: the folder cannot be written, or lies on a network file system.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._plain_errors():
            self._connection = connect(path)
        try:
            with self.transaction() as connection:
                prepare(connection, path)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the store cannot be used afterwards."""
        self._connection.close()

    def add(self, key: Key, measurement: Measurement) -> None:
        """Append one measurement.

        Raises:
            EhdnasError: the disk is full, or another process holds the database for over a minute.
        """
        self.add_many([(key, measurement)])

    def add_many(self, pairs: Iterable[tuple[Key, Measurement]]) -> None:
        """Append measurements in one transaction: all of them, or none. Raises as `add` does."""
        rows = [as_row(key, measurement) for key, measurement in pairs]
        with self.transaction() as connection:
            connection.executemany(INSERT, rows)

    def find(self, key: Key) -> Measurement | None:
        """Return the latest measurement of a key, or None; imported ones count where there is no own one.

        Raises:
            DataError: the database is damaged.
        """
        with self._plain_errors():
            row = self._connection.execute(_FIND, astuple(key)).fetchone()
        return None if row is None else self._measurement(row)

    def all(
        self, device: str, space: str, shape: str, precision: str, protocol: str
    ) -> list[tuple[str, Measurement]]:
        """Return (subject, the measurement `find` gives), in the order those were added.

        Raises:
            DataError: the database is damaged.
        """
        with self._plain_errors():
            rows = self._connection.execute(_ALL, (device, space, shape, precision, protocol)).fetchall()
        return [(row[0], self._measurement(row)) for row in rows]

    def devices(self) -> list[str]:
        """Return the names of the devices that have measurements, in alphabetical order."""
        with self._plain_errors():
            rows = self._connection.execute("SELECT DISTINCT device FROM measurements ORDER BY device")
            return [name for (name,) in rows]

    def groups(self) -> list[Group]:
        """Return what there is, a group for each device, space, shape, precision and protocol."""
        with self._plain_errors():
            return [Group(*row) for row in self._connection.execute(_GROUPS)]

    def select(self, statement: str, values: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a SELECT, one at a time: for the modules that share the file."""
        with self._plain_errors():
            yield from self._connection.execute(statement, values)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Make all changes in the block or, where it raises, none: for the modules that share the file."""
        with self._plain_errors():
            # IMMEDIATE takes the write lock at once, so that the busy timeout covers the whole wait.
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.rollback()
                raise
            self._connection.commit()

    def _measurement(self, row: tuple[Any, ...]) -> Measurement:
        subject, device, basis, *encoded = row
        fields = ("metrics", "statistics", "samples_ms", "passport", "flags")
        try:
            decoded = dict(zip(fields, map(json.loads, encoded), strict=True))
            return Measurement(device=device, basis=basis, **decoded)
        except (ValueError, TypeError, RecursionError) as error:
            raise DataError(f"{self.path}: the measurement of '{subject}' is damaged; {MEND}") from error

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise plain_error(self.path, error) from error


def as_row(key: Key, measurement: Measurement) -> tuple[str, ...]:
    """Return the row, by the columns of `ROW`, of a measurement taken now.

    Raises:
        DataError: a number in it is not finite.
    """
    statistics = measurement.statistics
    values: tuple[Any, ...] = (
        measurement.metrics,
        None if statistics is None else statistics.model_dump(),
        measurement.samples_ms,
        measurement.passport,
        measurement.flags,
    )
    try:
        encoded = [json.dumps(value, allow_nan=False, separators=(",", ":")) for value in values]
    except ValueError as error:
        raise DataError(f"the measurement of '{key.subject}' holds a number that is not finite") from error
    digest = str(measurement.passport.get("model_sha256", ""))
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return (*astuple(key), digest, now, measurement.basis, *encoded, "", secrets.token_hex(16))
