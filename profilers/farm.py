"""Several boards that work through one batch of jobs at once, and lose none when boards or people go."""

from __future__ import annotations

import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ehdnas.core.errors import DeviceError
from ehdnas.core.measurement import Measurement
from ehdnas.core.text import duration
from ehdnas.profilers.seat import POLL_S, Event, Seat, Shift
from ehdnas.profilers.store.jobs import JobTable
from ehdnas.profilers.store.store import Key, MeasurementStore

_CLOSE_S = 4.0  # for boards to let go at the end
_POISONOUS_BOARDS = 3
_SUSPICIOUS = 5


class Worker(ABC):
    """One board, of a name of its own. `measure` is called in one thread, `close` in any, at any time."""

    name: str

    @abstractmethod
    def measure(self, key: Key) -> Measurement:
        """Return the measurement of one network.

        Raises:
            DeviceError: the board broke; it connects again when asked for the next measurement.
            MeasurementError, ExportError: this network cannot be measured, on this board at least.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the board, also while `measure` waits for it, which then raises; twice is as once."""


@dataclass(frozen=True)
class Outcome:
    """What came of a batch: jobs done now, (subject, error) of all that failed, boards set aside and why."""

    done: int
    failed: list[tuple[str, str]]
    set_aside: dict[str, str]
    left: int


OnDone = Callable[[Key, Measurement | None], None]
Say = Callable[[str], None]


def run_jobs(
    path: Path, batch: str, workers: Sequence[Worker], *,
    until: Callable[[], bool], on_done: OnDone, say: Say,
    lease_s: float = 600, max_failures: int = 6, back_off_s: float = 2.0,
) -> Outcome:  # fmt: skip
    """Measure a batch's jobs on all boards until none is left, or `until` says to end with those begun.

    A board that breaks is tried again after a while, and set aside after `max_failures` in a row. A job
    fails that broke three different boards (two, where there are no more; the only one three times), or that
    could not be measured twice. The workers are closed at the end, however it comes, and what they had begun
    is given back.

    Args:
        path: the measurements database, which the jobs are in.
        on_done: told of every job that ended, with None where it failed; called in this thread, as is `say`.
        lease_s: how long a job is kept from others should this process vanish.

    Raises:
        DeviceError: jobs are left, and every board is set aside; all that was finished is kept.
    """
    most_boards = min(_POISONOUS_BOARDS, len(workers))
    farm = _Farm(path, Shift(batch, lease_s, max_failures, back_off_s, most_boards), workers)
    with MeasurementStore(path) as store:
        table = JobTable(store)
        with farm.at_work(table):
            while farm.is_busy() and not table.is_over(batch):
                farm.tell(on_done, say, POLL_S)
                if until():
                    farm.shift.stop.set()
        while farm.tell(on_done, say):
            pass
        return farm.outcome(table)


class _Farm:
    """A thread for each board and one that renews their leases; the caller's hears of all they do."""

    def __init__(self, path: Path, shift: Shift, workers: Sequence[Worker]) -> None:
        self.path, self.shift = path, shift
        self.seats = [Seat(worker, shift) for worker in workers]
        self.threads = [self._thread(seat.work) for seat in self.seats]

    @contextmanager
    def at_work(self, table: JobTable) -> Iterator[None]:
        """Keep the threads running in the block; at its end close the boards and give back their jobs."""
        try:
            for thread in (self._thread(self._renew), *self.threads):
                thread.start()
            yield
        finally:
            self._close(table)

    def is_busy(self) -> bool:
        """Return whether a board is at work, or may begin something."""
        pairs = zip(self.seats, self.threads, strict=True)
        return any(thread.is_alive() and not seat.aside for seat, thread in pairs)

    def tell(self, on_done: OnDone, say: Say, wait_s: float = 0.0) -> bool:
        """Pass on what happened next, waiting up to `wait_s` for it; return whether anything did."""
        self._set_stalled_aside(say)
        try:
            event = self.shift.events.get(wait_s > 0, wait_s)
        except queue.Empty:
            return False
        self._pass_on(event, on_done, say)
        return True

    def outcome(self, table: JobTable) -> Outcome:
        """Return what came of it. Raises DeviceError where jobs are left and no board is."""
        aside = {seat.worker.name: seat.aside for seat in self.seats if seat.aside}
        counts = table.counts(self.shift.batch)
        left = counts["pending"] + counts["leased"]
        if left and len(aside) == len(self.seats):
            if len(aside) == 1:
                raise DeviceError(f"{self.seats[0].aside} ({left} networks left; what was measured is kept)")
            why = "; ".join(f"{name}: {reason}" for name, reason in aside.items())
            raise DeviceError(
                f"every board is set aside with {left} networks left to measure ({why}); mend one and start "
                "again, what was measured is kept"
            )
        return Outcome(sum(seat.done for seat in self.seats), table.failed(self.shift.batch), aside, left)

    def _pass_on(self, event: Event, on_done: OnDone, say: Say) -> None:
        if event.crash is not None:
            raise event.crash
        if event.seat is not None:
            event.seat.done += event.measurement is not None
            event.seat.refused += event.refused
        if event.text:
            say(event.text)
        if event.ended is not None:
            on_done(event.ended, event.measurement)
        for seat in self.seats:
            if seat.refused >= _SUSPICIOUS and not (seat.done or seat.warned) and self._others_do(seat):
                seat.warned = True
                say(
                    f"board {seat.worker.name} failed at each of its first {seat.refused} networks while "
                    "others measure theirs; check it with `ehdnas doctor`"
                )

    def _others_do(self, seat: Seat) -> bool:
        return any(other.done for other in self.seats if other is not seat)

    def _set_stalled_aside(self, say: Say) -> None:
        for seat in self.seats:
            if not seat.aside and seat.stalled:
                seat.aside = f"no answer in {duration(time.monotonic() - seat.since)}"
                say(f"board {seat.worker.name} is set aside: {seat.aside}; its network goes to another")

    def _thread(self, target: Callable[[JobTable], None]) -> threading.Thread:
        return threading.Thread(target=self._guard, args=(target,), daemon=True)

    def _guard(self, target: Callable[[JobTable], None]) -> None:
        try:
            with MeasurementStore(self.path) as store:
                target(JobTable(store))
        except BaseException as error:
            if not self.shift.closed.is_set():
                self.shift.events.put(Event(crash=error))

    def _renew(self, table: JobTable) -> None:
        while not self.shift.closed.wait(self.shift.lease_s / 3):
            for job in [seat.job for seat in self.seats if not seat.stalled]:
                if job is not None:
                    table.renew(job, self.shift.lease_s)

    def _close(self, table: JobTable) -> None:
        self.shift.stop.set()
        self.shift.closed.set()
        closing = [threading.Thread(target=_close, args=(seat.worker,), daemon=True) for seat in self.seats]
        for thread in closing:
            thread.start()
        end = time.monotonic() + _CLOSE_S
        for thread in (*closing, *self.threads):
            if thread.ident is not None:
                thread.join(max(0.0, end - time.monotonic()))
        for job in [seat.job for seat in self.seats]:
            if job is not None:
                table.release(job)


def _close(worker: Worker) -> None:
    with suppress(Exception):
        worker.close()
