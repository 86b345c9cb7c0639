"""The metric of an architecture on a device: from the store, else measured or simulated and stored."""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from ehdnas.core.device import Device
from ehdnas.core.errors import UsageError
from ehdnas.core.graph import layer_table
from ehdnas.core.layers import Layer, LayerTable
from ehdnas.core.measurement import Measurement
from ehdnas.exporters.base import find_exporter
from ehdnas.profilers.base import FileProfiler, TableProfiler, find_profiler
from ehdnas.profilers.protocol import QUICK, STANDARD, Protocol
from ehdnas.profilers.store import Key, MeasurementStore
from ehdnas.search.spaces.base import Architecture, NetworkShape, Part, Space

PROTOCOLS = {protocol.name: protocol for protocol in (STANDARD, QUICK)}
TARGETS = {"litert": "tflite", "onnxruntime": "onnx"}
"""A device's runtime -> the export target it runs."""


class Instrument:
    """Takes measurements of architectures of one space and shape on one device."""

    def __init__(self, device: Device, space: Space, shape: NetworkShape, protocol: Protocol) -> None:
        self.device = device
        self.space = space
        self.shape = shape
        self.protocol = protocol
        self.profiler = find_profiler(device)
        self._tables: dict[tuple[int, tuple[int, int, int]], tuple[Layer, ...]] = {}
        self._parts = space.parts(shape) if isinstance(self.profiler, TableProfiler) else None

    def take(self, architecture: Architecture) -> Measurement:
        """Return a measurement taken now: simulated from the layers, or timed as an exported file."""
        if not isinstance(self.profiler, TableProfiler):
            return self._export_and_measure(architecture)
        published = self.profiler.published(self.space.name, str(self.shape), architecture.choices)
        return published or self.profiler.simulate(self.layers(architecture))

    def measure_file(self, path: Path) -> Measurement:
        """Return a measurement, taken now, of an exported file.

        Raises:
            UsageError: the device is simulated, and takes no files.
        """
        if not isinstance(self.profiler, FileProfiler):
            raise UsageError(f"device '{self.device.name}' is simulated and takes no files")
        return self.profiler.measure(path, self.protocol)

    def layers(self, architecture: Architecture) -> LayerTable:
        """Return the layer table of an architecture, put together from its parts."""
        assert self._parts is not None
        chosen = [self._parts.chosen.get(slot, ()) for slot in enumerate(architecture.choices)]
        parts = [*self._parts.fixed, *(part for group in chosen for part in group)]
        return LayerTable(
            tuple(
                replace(layer, name=f"{part.name}.{layer.name}")
                for part in parts
                for layer in self._layers(part)
            )
        )

    def _layers(self, part: Part) -> tuple[Layer, ...]:
        key = (id(part.module), part.image)
        if key not in self._tables:
            table = layer_table(part.module, part.image)
            assert not table.unsupported, table.unsupported
            self._tables[key] = table.layers
        return self._tables[key]

    def _export_and_measure(self, architecture: Architecture) -> Measurement:
        exporter = find_exporter(TARGETS[self.device.runtime])
        with tempfile.TemporaryDirectory(prefix="ehdnas-") as folder:
            path = Path(folder) / f"network{exporter.suffix}"
            exporter.export(untrained(self.space, architecture, self.shape), self.shape.image, path)
            return self.measure_file(path)


class Meter:
    """An instrument with a memory: what is in the store is never measured again."""

    def __init__(self, instrument: Instrument, store: MeasurementStore) -> None:
        self.instrument = instrument
        self.store = store

    @property
    def device(self) -> Device:
        """The device measured on."""
        return self.instrument.device

    def measure(self, architecture: Architecture) -> Measurement:
        """Return the measurement of an architecture, taken now unless it is in the store."""
        key = self._key(architecture)
        found = self.store.find(key)
        if found is None:
            found = self.instrument.take(architecture)
            self.store.add(key, found)
        return found

    def measure_many(self, architectures: list[Architecture]) -> None:
        """Measure architectures that are not in the store, and add them in one transaction."""
        self.store.add_many([(self._key(one), self.instrument.take(one)) for one in architectures])

    def measured(self) -> list[tuple[Architecture, Measurement]]:
        """Return all that is stored for this device, space, shape and protocol, oldest first."""
        one = self._key(self.instrument.space.reference)
        rows = self.store.all(one.device, one.space, one.shape, one.precision, one.protocol)
        return [(self.instrument.space.parse(subject), measurement) for subject, measurement in rows]

    def _key(self, architecture: Architecture) -> Key:
        of = self.instrument
        return Key(
            device=of.device.name,
            space=of.space.name,
            shape=str(of.shape),
            subject=of.space.text(architecture),
            precision=of.device.precision,
            protocol=conditions(of.device, of.protocol),
        )


def conditions(device: Device, protocol: Protocol) -> str:
    """Return what, besides the network, a measurement depends on: protocol, runtime, accelerator."""
    if device.simulated:
        options = json.dumps(device.options, sort_keys=True)
        return f"simulated-{hashlib.sha256(options.encode()).hexdigest()[:16]}"
    return f"{protocol.settings_hash}-{device.runtime}-t{device.threads}"


def untrained(space: Space, architecture: Architecture, shape: NetworkShape) -> nn.Module:
    """Return a network with random weights, fixed by its architecture: a clock does not care which."""
    with torch.random.fork_rng():
        torch.manual_seed(space.seed_of(architecture))
        return space.network(architecture, shape).eval()
