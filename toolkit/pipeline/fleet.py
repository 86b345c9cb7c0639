"""The boards of a device at work on what is to be measured: exported here, timed there, stored at once."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, replace
from pathlib import Path

from ehdnas.core.device import Device
from ehdnas.core.errors import DeviceError, DeviceSetupError, MeasurementError, UsageError
from ehdnas.core.measurement import Measurement
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.meter import Meter
from ehdnas.profilers.base import FileProfiler, find_profiler
from ehdnas.profilers.farm import Outcome, Worker, run_jobs
from ehdnas.profilers.protocol import Protocol
from ehdnas.profilers.store.jobs import JobTable
from ehdnas.profilers.store.store import Key, MeasurementStore
from ehdnas.workspace import Workspace

Make = Callable[[str, Path], Path]
"""Writes, into a folder, the file of what a key's subject names; returns its path."""


class BoardWorker(Worker):
    """One board: makes the file of a job here, and has it timed there."""

    def __init__(self, board: Device, protocol: Protocol, make: Make, scratch: Path) -> None:
        profiler = find_profiler(board)
        if not isinstance(profiler, FileProfiler):
            raise UsageError(f"device '{board.name}' is simulated and takes no files")
        self.name = board.name
        self._profiler, self._protocol, self._make = profiler, protocol, make
        self._scratch, self._closed = scratch, False

    def measure(self, key: Key) -> Measurement:
        """Return the measurement of what `key` names; see `Worker.measure`."""
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            with self._own_faults():
                self._profiler.connect()  # before the seconds that an export takes
            path = self._make(key.subject, Path(folder))
            with self._own_faults():
                return self._profiler.measure(path, self._protocol)

    def close(self) -> None:
        """Hang up."""
        self._closed = True
        self._profiler.close()

    @contextmanager
    def _own_faults(self) -> Iterator[None]:
        """What this board's description gets wrong is its own affair, not that of the others."""
        if self._closed:
            raise DeviceError(f"board {self.name} is closed")
        try:
            yield
        except UsageError as error:
            raise DeviceSetupError(str(error)) from error


def measure_on_boards(
    context: Context, meter: Meter, keys: Sequence[Key], make: Make, until: Callable[[], bool],
    on_done: Callable[[], None],
) -> Outcome:  # fmt: skip
    """Measure what is not in the store yet, on all boards at once; every result is stored as it comes.

    Args:
        keys: what to measure, all of one space and shape; `make` knows their subjects.
        until: says when to stop early.
        on_done: told, in this thread, of each that is done.

    Raises:
        DeviceError: every board is set aside; what was finished is kept.
        MeasurementError: none could be measured, now or before.
    """
    boards = meter.instrument.boards
    path, batch = context.workspace.database, " ".join(astuple(replace(keys[0], subject="")))
    with context.workspace.alone(f"profile-{meter.device.family}", "measuring on " + meter.device.family):
        with MeasurementStore(path) as store:
            jobs = JobTable(store)
            jobs.reopen(batch, failed=True)  # what a killed command had begun, and what failed before
            jobs.add(batch, keys)
            jobs.drop_others(batch, keys)
        with _scratch(context.workspace, meter.device.family) as scratch:
            protocol = meter.instrument.protocol
            workers = [BoardWorker(board, protocol, make, scratch) for board in boards]
            outcome = run_jobs(
                path, batch, workers, until=until, on_done=lambda *_: on_done(), say=context.reporter.warn
            )
    one = keys[0]
    if outcome.failed and not meter.store.all(one.device, one.space, one.shape, one.precision, one.protocol):
        subject, error = outcome.failed[0]
        raise MeasurementError(f"none of {len(keys)} could be measured; the first, {subject}: {error}")
    for subject, error in outcome.failed:
        context.reporter.warn(f"profile: {subject} could not be measured: {error}")
    return outcome


@contextmanager
def _scratch(workspace: Workspace, family: str) -> Iterator[Path]:
    """Give a folder for files on their way to a board; what a killed command left there goes first."""
    folder = workspace.folder / f"scratch-{family}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
