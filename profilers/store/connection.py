"""One connection to the measurements database: safe against a kill, and errors people can read."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from ehdnas.core.errors import DataError, EhdnasError
from ehdnas.profilers.store.mounts import network_file_system

MEND = "move the file away to start afresh, or restore a copy"
_BUSY_S = 60.0


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection to the file, made if need be with its folder, that syncs what it commits.

    Raises:
        EhdnasError: the folder cannot be written, or lies on a network file system.
        sqlite3.Error: as SQLite says.
    """
    _refuse_network(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EhdnasError(f"cannot write {path}: {error.strerror}; choose a writable folder") from error
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
    try:
        _use_wal(connection)
        # FULL: a measurement on a board costs seconds to minutes, a sync milliseconds.
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def plain_error(path: Path, error: sqlite3.Error) -> EhdnasError:
    """Return what SQLite says as one line: what is wrong with the file at `path`, and what mends it."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return DataError(f"measurement database {path} is damaged ({error}); {MEND}")
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
