"""The metric of an architecture on a device: from the store, else measured or simulated and stored."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from ehdnas.core.device import Device
from ehdnas.core.errors import MeasurementError, UsageError
from ehdnas.core.measurement import Measurement
from ehdnas.pipeline.candidates import Candidates
from ehdnas.pipeline.conditions import conditions
from ehdnas.pipeline.costed import Costed, costed
from ehdnas.profilers.base import FileProfiler, TableProfiler, find_profiler
from ehdnas.profilers.protocol import QUICK, STANDARD, Protocol
from ehdnas.profilers.store.store import Key, MeasurementStore
from ehdnas.search.spaces.base import Architecture, NetworkShape, Space

PROTOCOLS = {protocol.name: protocol for protocol in (STANDARD, QUICK)}


def find_protocol(name: str) -> Protocol:
    """Return the protocol that the setting of this name means."""
    return PROTOCOLS[name]


class Instrument:
    """Takes measurements of architectures of one space and shape on one device.

    Args:
        boards: where the device is measured: the device itself, unless there are boards of it.
        candidates: what exports networks for it; needed for a device that times files alone.
    """

    def __init__(
        self,
        device: Device,
        space: Space,
        shape: NetworkShape,
        protocol: Protocol,
        boards: Sequence[Device] = (),
        candidates: Candidates | None = None,
    ) -> None:
        self.device = device
        self.space = space
        self.shape = shape
        self.protocol = protocol
        self.boards = tuple(boards) or (device,)
        self.candidates = candidates or Candidates(device, space, shape)
        self.profiler = find_profiler(self.boards[0])

    def take(self, architecture: Architecture) -> Measurement:
        """Return a measurement taken now: simulated from the layers, or timed as an exported file."""
        if not isinstance(self.profiler, TableProfiler):
            return self._export_and_measure(architecture)
        published = self.profiler.published(self.space.name, str(self.shape), architecture.choices)
        return published or self.profiler.simulate(self.costed.table(architecture))

    def measure_file(self, path: Path) -> Measurement:
        """Return a measurement, taken now, of an exported file.

        Raises:
            UsageError: the device is simulated, and takes no files.
        """
        if not isinstance(self.profiler, FileProfiler):
            raise UsageError(f"device '{self.device.name}' is simulated and takes no files")
        return self.profiler.measure(path, self.protocol)

    def take_many(self, architectures: list[Architecture]) -> list[Measurement | None]:
        """Return measurements as `take` does, simulated ones at once; None where a network does not fit."""
        if not isinstance(self.profiler, TableProfiler):
            return [self.take(one) for one in architectures]
        of = (self.space.name, str(self.shape))
        known = [self.profiler.published(*of, one.choices) for one in architectures]
        if all(known):
            return known
        return self.profiler.label(self.costed.workload(architectures))

    @property
    def costed(self) -> Costed:
        """The space as layer tables; only for a simulated device."""
        return costed(self.space, self.shape)

    def _export_and_measure(self, architecture: Architecture) -> Measurement:
        with tempfile.TemporaryDirectory(prefix="ehdnas-") as folder:
            return self.measure_file(self.candidates.export(architecture, Path(folder)))


class Records:
    """What is stored of networks of one space and shape on one device, by one protocol; nothing is taken.

    So they can be had of a board that is out of reach, and of a device that exists as a table alone.
    """

    def __init__(
        self, device: Device, space: Space, shape: NetworkShape, protocol: Protocol, store: MeasurementStore
    ) -> None:
        self.device = device
        self.space = space
        self.shape = shape
        self.protocol = protocol
        self.store = store

    def measured(self) -> list[tuple[Architecture, Measurement]]:
        """Return all that is stored, oldest first."""
        rows = self._all(self.space.name)
        return [(self.space.parse(subject), measurement) for subject, measurement in rows]

    def parts(self) -> dict[str, Measurement]:
        """Return, by what they are kept under, the parts of this space's networks that were timed alone."""
        return dict(self._all(self._parts))

    def key(self, architecture: Architecture) -> Key:
        """Return what the store keeps the measurement of an architecture under."""
        return self._key(self.space.name, self.space.text(architecture))

    def part_key(self, subject: str) -> Key:
        """Return what the store keeps the measurement of a part of this space's networks under."""
        return self._key(self._parts, subject)

    @property
    def _parts(self) -> str:
        return f"{self.space.name}:parts"

    def _all(self, space: str) -> list[tuple[str, Measurement]]:
        of = self._key(space, "")
        return self.store.all(of.device, of.space, of.shape, of.precision, of.protocol)

    def _key(self, space: str, subject: str) -> Key:
        return Key(
            device=self.device.family,
            space=space,
            shape=str(self.shape),
            subject=subject,
            precision=self.device.precision,
            protocol=conditions(self.device, self.protocol),
        )


class Meter(Records):
    """An instrument with a memory: what is in the store is never measured again."""

    def __init__(self, instrument: Instrument, store: MeasurementStore) -> None:
        super().__init__(instrument.device, instrument.space, instrument.shape, instrument.protocol, store)
        self.instrument = instrument

    def measure(self, architecture: Architecture) -> Measurement:
        """Return the measurement of an architecture, taken now unless it is in the store."""
        key = self.key(architecture)
        found = self.store.find(key)
        if found is None:
            found = self.instrument.take(architecture)
            self.store.add(key, found)
        return found

    def measure_if_fits(self, architecture: Architecture) -> Measurement | None:
        """Return the measurement of an architecture, or None where a simulated device cannot hold it."""
        try:
            return self.measure(architecture)
        except MeasurementError:
            if self.device.simulated:
                return None
            raise

    def measure_many(self, architectures: list[Architecture]) -> None:
        """Measure architectures that are not in the store, and add those that fit in one transaction."""
        found = zip(architectures, self.instrument.take_many(architectures), strict=True)
        self.store.add_many([(self.key(one), taken) for one, taken in found if taken is not None])
