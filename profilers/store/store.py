"""The measurement store: an append-only SQLite file of everything ever measured or simulated."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from ehdnas.core.errors import DataError, EhdnasError
from ehdnas.core.measurement import Measurement
from ehdnas.profilers.store.mounts import network_file_system

SCHEMA_VERSION = 1
_BUSY_S = 60.0
_SCHEMA = (
    """CREATE TABLE measurements (
        id INTEGER PRIMARY KEY,
        device TEXT NOT NULL, space TEXT NOT NULL, shape TEXT NOT NULL, subject TEXT NOT NULL,
        precision TEXT NOT NULL, protocol TEXT NOT NULL,
        model_sha256 TEXT NOT NULL, created_at TEXT NOT NULL, basis TEXT NOT NULL,
        metrics TEXT NOT NULL, statistics TEXT NOT NULL, samples_ms TEXT NOT NULL,
        passport TEXT NOT NULL, flags TEXT NOT NULL)""",
    """CREATE INDEX by_key ON measurements (device, space, shape, precision, protocol, subject, id)""",
    """CREATE TRIGGER no_update BEFORE UPDATE ON measurements
        BEGIN SELECT RAISE(ABORT, 'measurements are never changed'); END""",
    """CREATE TRIGGER no_delete BEFORE DELETE ON measurements
        BEGIN SELECT RAISE(ABORT, 'measurements are never deleted'); END""",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
_COLUMNS = "device, basis, metrics, statistics, samples_ms, passport, flags"
_INSERT = f"""INSERT INTO measurements (device, space, shape, subject, precision, protocol, model_sha256,
    created_at, basis, metrics, statistics, samples_ms, passport, flags) VALUES ({", ".join("?" * 14)})"""  # noqa: S608
_FIND = f"""SELECT subject, {_COLUMNS} FROM measurements WHERE device = ? AND space = ? AND shape = ?
    AND subject = ? AND precision = ? AND protocol = ? ORDER BY id DESC LIMIT 1"""  # noqa: S608
_ALL = f"""SELECT subject, {_COLUMNS} FROM measurements WHERE id IN (
    SELECT max(id) FROM measurements WHERE device = ? AND space = ? AND shape = ? AND precision = ?
    AND protocol = ? GROUP BY subject) ORDER BY id"""  # noqa: S608


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
        _refuse_network(path)
        with self._plain_errors():
            self._connection = _open(path)
        try:
            with self._plain_errors():
                self._prepare()
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
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        rows = [_row(key, measurement, now) for key, measurement in pairs]
        with self._plain_errors(), self._transaction():
            self._connection.executemany(_INSERT, rows)

    def find(self, key: Key) -> Measurement | None:
        """Return the latest measurement of a key, or None.

        Raises:
            DataError: the database is damaged.
        """
        with self._plain_errors():
            row = self._connection.execute(_FIND, astuple(key)).fetchone()
        return None if row is None else self._measurement(row)

    def all(
        self, device: str, space: str, shape: str, precision: str, protocol: str
    ) -> list[tuple[str, Measurement]]:
        """Return (subject, its latest measurement), in the order those were added.

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

    def _prepare(self) -> None:
        _use_wal(self._connection)
        # FULL: a measurement on a board costs seconds to minutes, a sync milliseconds.
        self._connection.execute("PRAGMA synchronous = FULL")
        with self._transaction():
            version = self._connection.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                raise DataError(
                    f"{self.path} was written by a newer version (schema {version}, this one reads up to "
                    f"{SCHEMA_VERSION}); upgrade with `pip install -U ehdnas`"
                )
            if version == 0:
                self._create()

    def _create(self) -> None:
        if self._connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
            raise DataError(f"{self.path} is some other program's database; choose another workspace")
        for statement in _SCHEMA:
            self._connection.execute(statement)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        # IMMEDIATE takes the write lock at once, so that the busy timeout covers the whole wait.
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
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
            raise DataError(f"{self.path}: the measurement of '{subject}' is damaged; {_MEND}") from error

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _plain(self.path, error) from error


_MEND = "move the file away to start afresh, or restore a copy"


def _plain(path: Path, error: sqlite3.Error) -> EhdnasError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return DataError(f"measurement database {path} is damaged ({error}); {_MEND}")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return EhdnasError(f"measurement database {path} is held by another process; wait for it, or end it")
    if code == sqlite3.SQLITE_FULL:
        return EhdnasError(f"cannot write {path}: the disk is full; free some space")
    return EhdnasError(
        f"measurement database {path}: {error}; check that the folder is writable and the disk not full"
    )


def _refuse_network(path: Path) -> None:
    kind = network_file_system(path.parent)
    if kind is not None:
        raise EhdnasError(
            f"{path.parent} is on a network file system ({kind}), where the measurement database is not "
            "safe; put the workspace on a local disk"
        )


def _open(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EhdnasError(f"cannot write {path}: {error.strerror}; choose a writable folder") from error
    return sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to write-ahead logging; SQLite does not wait for its locks here by itself."""
    deadline = time.monotonic() + _BUSY_S
    while True:
        try:
            with closing(connection.execute("PRAGMA journal_mode = WAL")) as cursor:
                cursor.fetchone()
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _row(key: Key, measurement: Measurement, now: str) -> tuple[str, ...]:
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
    return (*astuple(key), digest, now, measurement.basis, *encoded)
