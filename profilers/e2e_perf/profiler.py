"""The `e2e_perf` device kind: an accelerator that exists only as a description."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from ehdnas.core.device import Device
from ehdnas.core.errors import MeasurementError, UsageError
from ehdnas.core.layers import Layer, LayerTable
from ehdnas.core.measurement import Measurement
from ehdnas.core.text import nearest
from ehdnas.profilers.base import Check, TableProfiler
from ehdnas.profilers.e2e_perf.generic import GenericReference
from ehdnas.profilers.e2e_perf.paradigm import Paradigm
from ehdnas.profilers.e2e_perf.slots import SLOT_TABLE_OF

_PARADIGMS: dict[tuple[str, str], type[Paradigm]] = {
    (model.paradigm, model.mode): model for model in (GenericReference,)
}


class E2EPerfProfiler(TableProfiler):
    """Times networks on the accelerator that the device's options describe.

    Raises:
        UsageError: an option is unknown, missing or impossible; the message names the key and the device.
    """

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self._model = _paradigm(device)

    @property
    def clock_mhz(self) -> float:
        """The accelerator's clock, in MHz."""
        return self._model.clock_mhz

    def check(self) -> list[Check]:
        """Return one passed check: a description that could be read has nothing left to fail."""
        model = self._model
        detail = f"{model.paradigm} paradigm, {model.mode} mode, {model.clock_mhz:g} MHz"
        return [Check("accelerator", True, detail)]

    def simulate(self, table: LayerTable) -> Measurement:
        """Return `latency_ms` and `throughput_fps` of one network, with the modelled cycles in the passport.

        Raises:
            MeasurementError: the table is empty, or a layer or operator in it is not modelled.
        """
        if table.unsupported:
            names = ", ".join(f"{name} ({count})" for name, count in sorted(table.unsupported.items()))
            raise MeasurementError(f"device '{self.device.name}': E2E-Perf does not model {names}")
        latency, interval = self._model.timing(table.layers)
        if min(latency, interval) <= 0:
            raise MeasurementError(f"device '{self.device.name}': the layer table has nothing to time")
        return self._measurement(latency, interval, "the layer formulas")

    def _measurement(self, latency: float, interval: float, by: str) -> Measurement:
        return Measurement(
            device=self.device.name,
            basis="simulated",
            metrics={
                "latency_ms": latency / (self.clock_mhz * 1e3),
                "throughput_fps": self.clock_mhz * 1e6 / interval,
            },
            passport={
                "paradigm": self._model.paradigm,
                "mode": self._model.mode,
                "options": self._model.model_dump(),
                "cycles": latency,
                "by": by,
            },
        )

    def cycles(self, layers: Sequence[Layer]) -> NDArray[np.int64]:
        """Return the cycles [n] of each of n layers.

        Raises:
            MeasurementError: a layer is not modelled; the message names it and its operator.
        """
        return self._model.cycles(layers)

    def published(self, space: str, shape: str, choices: Sequence[int]) -> Measurement | None:
        """Return the figures by the published slot table, where the options name one of this shape."""
        if (space, shape) != SLOT_TABLE_OF:
            return None
        cycles = self._model.published(np.array([choices]))
        if cycles is None:
            return None
        return self._measurement(float(cycles[0]), float(cycles[0]), "the published slot table")


def _paradigm(device: Device) -> Paradigm:
    options = dict(device.options)
    paradigm = _take(device, options, "paradigm", {name for name, _ in _PARADIGMS})
    mode = _take(device, options, "mode", {mode for name, mode in _PARADIGMS if name == paradigm})
    model = _PARADIGMS[paradigm, mode]
    for key in options:
        if key not in model.model_fields:
            known = nearest(key, model.model_fields)
            raise UsageError(f"device '{device.name}': unknown option '{key}'{known}")
    try:
        return model(**options)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"device '{device.name}': option '{key}': {first['msg']}") from error


def _take(device: Device, options: dict[str, Any], key: str, known: set[str]) -> str:
    value = str(options.pop(key, ""))
    if value not in known:
        raise UsageError(f"device '{device.name}': option '{key}' is '{value}'{nearest(value, known)}")
    return value
