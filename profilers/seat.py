"""A board's place in the farm: its thread claims jobs, measures them, and says what came of each."""

from __future__ import annotations

import queue
import random
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ehdnas.core.errors import DeviceError, DeviceSetupError, ExportError, MeasurementError
from ehdnas.core.measurement import Measurement
from ehdnas.profilers.store.jobs import Job, JobTable
from ehdnas.profilers.store.store import Key

if TYPE_CHECKING:
    from ehdnas.profilers.farm import Worker

POLL_S = 0.1
_LONGEST_BACK_OFF_S = 60.0
_STALL_LEASES = 6  # a measurement that takes longer than this many leases has stalled


@dataclass(frozen=True)
class Event:
    """What a board has to tell: a line, a job that ended, a network it refused, or an error of our own."""

    seat: Seat | None = None
    text: str = ""
    ended: Key | None = None
    measurement: Measurement | None = None
    refused: bool = False
    crash: BaseException | None = None


@dataclass(frozen=True)
class Shift:
    """What all boards of one batch share.

    After `stop` nothing more is begun. After `closed` the boards are being closed: what they raise then is
    no fault of theirs, nor of the network's.
    """

    batch: str
    lease_s: float
    max_failures: int
    back_off_s: float
    most_boards: int
    stop: threading.Event = field(default_factory=threading.Event)
    closed: threading.Event = field(default_factory=threading.Event)
    events: queue.SimpleQueue[Event] = field(default_factory=queue.SimpleQueue)

    def back_off(self, failures: int) -> float:
        """Return for how many seconds to leave a board alone that broke so many times in a row."""
        # Boards behind one switch break together, and should not all come back at the same moment.
        return random.uniform(0.5, 1.5) * min(self.back_off_s * 2.0 ** (failures - 1), _LONGEST_BACK_OFF_S)  # noqa: S311


class Seat:
    """A worker, the job it is at since when, why it is set aside if it is, and how it has done."""

    def __init__(self, worker: Worker, shift: Shift) -> None:
        self.worker = worker
        self.job: Job | None = None
        self.since = 0.0
        self.aside = ""
        self.done = self.refused = 0
        self.warned = False
        self._shift = shift
        self._failures = 0

    @property
    def stalled(self) -> bool:
        """Whether its measurement takes so long that no answer is expected any more."""
        limit_s = _STALL_LEASES * self._shift.lease_s
        return self.job is not None and time.monotonic() - self.since > limit_s

    def work(self, table: JobTable) -> None:
        """Measure one job after another until told to stop, or set aside."""
        shift = self._shift
        while not (shift.stop.is_set() or self.aside):
            job = table.claim(shift.batch, self.worker.name, shift.lease_s)
            if job is None:
                shift.stop.wait(POLL_S)
                continue
            self.since, self.job = time.monotonic(), job
            # Where this raises, the job stays the seat's, and is given back at the end.
            shift.events.put(self._measure(table, job))
            self.job = None
            if self._failures and not self.aside:
                shift.stop.wait(shift.back_off(self._failures))

    def _measure(self, table: JobTable, job: Job) -> Event:
        try:
            measurement = self.worker.measure(job.key)
        except (DeviceError, MeasurementError, ExportError) as error:
            if self._shift.closed.is_set():
                table.release(job)
                return Event()
            if isinstance(error, DeviceError):
                return self._broke(table, job, error)
            return self._refused(table, job, str(error))
        self._failures = 0
        if table.finish(job, measurement):
            return Event(self, ended=job.key, measurement=measurement)
        return Event(text=f"board {self.worker.name} answered too late; its network had gone to another")

    def _refused(self, table: JobTable, job: Job, error: str) -> Event:
        self._failures = 0
        return Event(self, ended=job.key if table.fail(job, error) else None, refused=True)

    def _broke(self, table: JobTable, job: Job, error: DeviceError) -> Event:
        self._failures += 1
        hopeless = isinstance(error, DeviceSetupError)
        # Where all boards break at once, such as behind a dead switch, no network is to blame.
        blame = self._failures == 1 and not hopeless
        failed = table.give_back(job, str(error), self._shift.most_boards, blame)
        ended = job.key if failed else None
        if hopeless:
            self.aside = str(error)
            text = f"board {self.worker.name} is set aside: {error}"
        elif self._failures >= self._shift.max_failures:
            self.aside = str(error)
            text = f"board {self.worker.name} is set aside after {self._failures} failures in a row: {error}"
        else:
            text = f"board {self.worker.name}: {error}; it is tried again in a while"
        return Event(self, text=text, ended=ended)
