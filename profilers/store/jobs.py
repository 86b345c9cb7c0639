"""The jobs still to do, in the measurements' own file: a result and its job's end are one transaction."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import Any

from ehdnas.core.measurement import Measurement
from ehdnas.profilers.store.store import INSERT, Key, MeasurementStore, as_row

_LEAST_BROKEN = 3
STATES = ("pending", "leased", "done", "failed")
_KEY = "device, space, shape, subject, precision, protocol"
_ADD = f"INSERT OR IGNORE INTO jobs (batch, {_KEY}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
_OLDEST = """SELECT min(id) FROM (
    SELECT min(id) AS id FROM jobs WHERE batch = :batch AND state = 'leased' AND lease_until < :now
    UNION ALL
    SELECT * FROM (SELECT id FROM jobs WHERE batch = :batch AND state = 'pending' {condition}
        ORDER BY id LIMIT 1))"""
# A job that this board has just given back goes to the others first, who may have more luck with it.
_ANY, _OTHERS = _OLDEST.format(condition=""), _OLDEST.format(condition="AND board IS NOT :board")
_CLAIM = f"""UPDATE jobs SET state = 'leased', board = :board, lease_until = :until, token = :token
    WHERE id = coalesce(({_OTHERS}), ({_ANY})) RETURNING id, {_KEY}, tries, boards_broken"""  # noqa: S608
_OURS = "WHERE id = ? AND token = ? AND state = 'leased'"
_END = f"UPDATE jobs SET state = ?, tries = ?, boards_broken = ?, error = ?, token = NULL {_OURS}"  # noqa: S608
_RENEW = f"UPDATE jobs SET lease_until = ? {_OURS}"  # noqa: S608
_FINISH = f"UPDATE jobs SET state = 'done', error = ?, token = NULL {_OURS}"  # noqa: S608
_RELEASE = f"UPDATE jobs SET state = 'pending', board = ?, token = NULL {_OURS}"  # noqa: S608
_REOPEN = "UPDATE jobs SET state = 'pending', board = NULL, token = NULL WHERE batch = ? AND state = 'leased'"
_RETRY = """UPDATE jobs SET state = 'pending', board = NULL, tries = 0, boards_broken = '[]', error = NULL
    WHERE batch = ? AND state = 'failed'"""

_WAITING = "SELECT id, subject FROM jobs WHERE batch = ? AND state = 'pending'"
_LEFT = "SELECT 1 FROM jobs WHERE batch = ? AND state IN ('pending', 'leased') LIMIT 1"


@dataclass(frozen=True)
class Job:
    """A network that one board has been given to measure, until its lease runs out or another is told to.

    `token` is this lease's own: once the job has gone to another board, nothing said with it counts.
    """

    id: int
    key: Key
    board: str
    token: str
    tries: int
    boards_broken: tuple[str, ...]


class JobTable:
    """The jobs of all batches, in the file of `store` and for its thread.

    Leases end by the wall clock, which is all that a later process shares with an earlier one. If it jumps
    forward, a job may be measured twice, and the first board's answer is refused; if it jumps back, a dead
    board's job waits that much longer, or for `reopen`. A lease that is renewed is right again at once.
    """

    def __init__(self, store: MeasurementStore) -> None:
        self.store = store

    def add(self, batch: str, keys: Iterable[Key]) -> int:
        """Add jobs to a batch, and return how many were not in it."""
        with self.store.transaction() as connection:
            before = connection.total_changes
            connection.executemany(_ADD, ((batch, *astuple(key)) for key in keys))
            return connection.total_changes - before

    def claim(self, batch: str, board: str, lease_s: float) -> Job | None:
        """Lease the oldest job that waits, or whose lease has run out, to a board; None if there is none."""
        now = time.time()
        token = secrets.token_hex(16)
        values = {"batch": batch, "board": board, "now": now, "until": now + lease_s, "token": token}
        with self.store.transaction() as connection:
            rows = connection.execute(_CLAIM, values).fetchall()
        return next((_job(row, board, token) for row in rows), None)

    def renew(self, job: Job, lease_s: float) -> bool:
        """Make a lease last `lease_s` from now; return whether the job is still this lease's."""
        return self._change(_RENEW, time.time() + lease_s, job)

    def finish(self, job: Job, measurement: Measurement) -> bool:
        """Store a job's measurement and mark it done, both or neither.

        Return whether the job was still this lease's; if not, nothing is stored: another board has it.
        """
        row = as_row(job.key, measurement)
        with self.store.transaction() as connection:
            ours = connection.execute(_FINISH, (None, job.id, job.token)).rowcount == 1
            if ours:
                connection.execute(INSERT, row)
        return ours

    def give_back(self, job: Job, error: str, most_boards: int = 3, blame: bool = True) -> bool:
        """Let others have a job whose board broke; the job fails if it broke `most_boards` different ones.

        Without `blame` the board was broken before, and says nothing about the job. Return whether it failed.
        """
        broken = [*job.boards_broken, job.board] if blame else [*job.boards_broken]
        boards = list(dict.fromkeys(broken))
        # Of an only board more than once is asked: it may have fallen for reasons of its own.
        failed = len(boards) >= most_boards and (most_boards > 1 or len(broken) >= _LEAST_BROKEN)
        told = f"broke {', '.join(boards)} {len(broken)} times: {error}" if failed else error
        return self._end(job, failed, job.tries, broken, told)

    def fail(self, job: Job, error: str, max_tries: int = 2) -> bool:
        """Count a try of a model that could not be measured; return whether it was the last."""
        tries = job.tries + 1
        return self._end(job, tries >= max_tries, tries, list(job.boards_broken), error)

    def release(self, job: Job) -> bool:
        """Let others have a job that nothing is wrong with; return whether it was still this lease's."""
        return self._change(_RELEASE, None, job)

    def reopen(self, batch: str, failed: bool = False) -> int:
        """Let others have what a dead predecessor had leased, and with `failed` what failed; return how many.

        Only for who knows to be alone at the batch, such as by holding the workspace's lock.
        """
        statements = [_REOPEN, _RETRY] if failed else [_REOPEN]
        with self.store.transaction() as connection:
            return sum(connection.execute(statement, (batch,)).rowcount for statement in statements)

    def drop_others(self, batch: str, keys: Iterable[Key]) -> int:
        """Drop the waiting jobs of a batch that are not of these keys: nobody asks for them any more."""
        wanted = {key.subject for key in keys}
        with self.store.transaction() as connection:
            waiting = connection.execute(_WAITING, (batch,)).fetchall()
            gone = [(number,) for number, subject in waiting if subject not in wanted]
            connection.executemany("DELETE FROM jobs WHERE id = ?", gone)
        return len(gone)

    def counts(self, batch: str) -> dict[str, int]:
        """Return how many jobs of a batch are in each of `STATES`."""
        rows = self.store.select("SELECT state, count(*) FROM jobs WHERE batch = ? GROUP BY state", (batch,))
        return {**dict.fromkeys(STATES, 0), **dict(rows)}

    def is_over(self, batch: str) -> bool:
        """Return whether every job of a batch is done or has failed."""
        return not any(self.store.select(_LEFT, (batch,)))

    def failed(self, batch: str) -> list[tuple[str, str]]:
        """Return (subject, error) of a batch's failed jobs, oldest first."""
        statement = "SELECT subject, error FROM jobs WHERE batch = ? AND state = 'failed' ORDER BY id"
        return [(subject, error) for subject, error in self.store.select(statement, (batch,))]

    def _end(self, job: Job, failed: bool, tries: int, broken: list[str], error: str) -> bool:
        values = ("failed" if failed else "pending", tries, json.dumps(broken), error, job.id, job.token)
        with self.store.transaction() as connection:
            return connection.execute(_END, values).rowcount == 1 and failed

    def _change(self, statement: str, value: float | None, job: Job) -> bool:
        with self.store.transaction() as connection:
            return connection.execute(statement, (value, job.id, job.token)).rowcount == 1


def _job(row: tuple[Any, ...], board: str, token: str) -> Job:
    number, *key, tries, broken = row
    return Job(number, Key(*key), board, token, tries, tuple(json.loads(broken)))
