"""The tables of the measurements database, and how an older file is brought up to date."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from ehdnas.core.errors import DataError

SCHEMA_VERSION = 2
_MEASUREMENTS = (
    """CREATE TABLE measurements (
        id INTEGER PRIMARY KEY,
        device TEXT NOT NULL, space TEXT NOT NULL, shape TEXT NOT NULL, subject TEXT NOT NULL,
        precision TEXT NOT NULL, protocol TEXT NOT NULL,
        model_sha256 TEXT NOT NULL, created_at TEXT NOT NULL, basis TEXT NOT NULL,
        metrics TEXT NOT NULL, statistics TEXT NOT NULL, samples_ms TEXT NOT NULL,
        passport TEXT NOT NULL, flags TEXT NOT NULL,
        origin TEXT NOT NULL DEFAULT '', uid TEXT)""",
    """CREATE INDEX by_key ON measurements (device, space, shape, precision, protocol, subject, id)""",
)
_NO_UPDATE = """CREATE TRIGGER no_update BEFORE UPDATE ON measurements
    BEGIN SELECT RAISE(ABORT, 'measurements are never changed'); END"""
_NO_DELETE = """CREATE TRIGGER no_delete BEFORE DELETE ON measurements
    BEGIN SELECT RAISE(ABORT, 'measurements are never deleted'); END"""
_BY_UID = "CREATE UNIQUE INDEX by_uid ON measurements (uid)"
_JOBS = (
    """CREATE TABLE jobs (
        id INTEGER PRIMARY KEY,
        batch TEXT NOT NULL,
        device TEXT NOT NULL, space TEXT NOT NULL, shape TEXT NOT NULL, subject TEXT NOT NULL,
        precision TEXT NOT NULL, protocol TEXT NOT NULL,
        state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'leased', 'done', 'failed')),
        tries INTEGER NOT NULL DEFAULT 0,
        board TEXT, boards_broken TEXT NOT NULL DEFAULT '[]',
        lease_until REAL, token TEXT, error TEXT,
        UNIQUE (batch, device, space, shape, subject, precision, protocol))""",
    """CREATE INDEX by_state ON jobs (batch, state, id)""",
)
_VERSION = f"PRAGMA user_version = {SCHEMA_VERSION}"
_NEW = (*_MEASUREMENTS, _NO_UPDATE, _NO_DELETE, _BY_UID, *_JOBS, _VERSION)
_FROM_1 = (
    "ALTER TABLE measurements ADD COLUMN origin TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE measurements ADD COLUMN uid TEXT",
    "DROP TRIGGER no_update",
    "UPDATE measurements SET uid = lower(hex(randomblob(16)))",
    _NO_UPDATE,
    _BY_UID,
    *_JOBS,
    _VERSION,
)


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables, or bring those of an older version up to date; inside the caller's transaction.

    Raises:
        DataError: the file is some other program's database, or comes from a newer version.
    """
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise DataError(
            f"{path} was written by a newer version (schema {version}, this one reads up to "
            f"{SCHEMA_VERSION}); upgrade with `pip install -U ehdnas`"
        )
    if version == 0 and connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
        raise DataError(f"{path} is some other program's database; choose another workspace")
    for statement in {0: _NEW, 1: _FROM_1}.get(version, ()):
        connection.execute(statement)
