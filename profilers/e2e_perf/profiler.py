"""The `e2e_perf` device kind: an accelerator that exists only as a description."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from ehdnas.core.device import Device
from ehdnas.core.errors import MeasurementError, UsageError
from ehdnas.core.layers import LayerTable
from ehdnas.core.measurement import Measurement
from ehdnas.core.text import nearest
from ehdnas.profilers.base import Check, TableProfiler
from ehdnas.profilers.e2e_perf.generic.realistic import GenericRealistic
from ehdnas.profilers.e2e_perf.generic.reference import GenericReference
from ehdnas.profilers.e2e_perf.generic.slots import SLOT_TABLE_OF
from ehdnas.profilers.e2e_perf.paradigm import Explorable, Paradigm
from ehdnas.profilers.e2e_perf.pipeline.realistic import Pipeline
from ehdnas.profilers.e2e_perf.pipeline.reference import PipelineReference
from ehdnas.profilers.e2e_perf.simulation import Simulation
from ehdnas.profilers.e2e_perf.systolic.array import Systolic
from ehdnas.profilers.e2e_perf.workload import Workload

_PARADIGMS: dict[tuple[str, str], type[Paradigm]] = {
    (model.paradigm, model.mode): model
    for model in (GenericReference, GenericRealistic, PipelineReference, Pipeline, Systolic)
}


class E2EPerfProfiler(TableProfiler):
    """Times networks on the accelerator that the device's options describe.

    Raises:
        UsageError: an option is unknown, missing or impossible; the message names the key and the device.
    """

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.accelerator = _paradigm(device)

    def check(self) -> list[Check]:
        """Return one passed check: a description that could be read has nothing left to fail."""
        model = self.accelerator
        detail = f"{model.paradigm} paradigm, {model.mode} mode, {model.clock_mhz:g} MHz"
        return [Check("accelerator", True, detail)]

    def simulate(self, table: LayerTable) -> Measurement:
        """Return `latency_ms` and `throughput_fps` of one network.

        Raises:
            MeasurementError: the table is empty, a layer in it is not modelled, or the network does not fit.
        """
        simulation = self.explain(table)
        return self._measurement(simulation.latency_s, simulation.throughput_fps, simulation.by)

    def explain(self, table: LayerTable, explore: bool = False) -> Simulation:
        """Return everything about one network; with `explore` on the best accelerator found for it.

        Raises:
            UsageError: there is nothing to explore: the accelerator is a fixed one.
            MeasurementError: as `simulate`; or nothing in the network takes time.
        """
        found = self._explorable().explored(table) if explore else self.accelerator.simulate(table)
        if found.interval_s <= 0:
            raise MeasurementError(
                "no layer of the network takes time on this accelerator; give one that has convolutions"
            )
        return found

    def label(self, workload: Workload) -> list[Measurement | None]:
        """Return what `simulate` gives for each of n networks at once, None for those that do not fit.

        Raises:
            MeasurementError: a layer is not modelled; the message names it.
        """
        found = self.accelerator.figures(workload)
        return [
            None if np.isnan(fps) else self._measurement(seconds, fps)
            for seconds, fps in zip(found.latency_s.tolist(), found.throughput_fps.tolist(), strict=True)
        ]

    def figures(self, workload: Workload) -> dict[str, NDArray[np.float64]]:
        """Return `latency_ms` and `throughput_fps` as arrays [n], NaN for networks that do not fit.

        Raises:
            MeasurementError: a layer is not modelled; the message names it.
        """
        found = self.accelerator.figures(workload)
        return {"latency_ms": 1e3 * found.latency_s, "throughput_fps": found.throughput_fps}

    def codesigned(self) -> Device:
        """Return the device whose accelerator is designed anew for every network.

        Raises:
            UsageError: the accelerator is a fixed one.
        """
        options = {**self.device.options, **self._explorable().free_options}
        free = self.device.model_copy(update={"options": options})
        E2EPerfProfiler(free)  # says so if it cannot be
        return free

    def published(self, space: str, shape: str, choices: Sequence[int]) -> Measurement | None:
        """Return the figures by the published slot table, where the options name one of this shape."""
        if (space, shape) != SLOT_TABLE_OF:
            return None
        cycles = self.accelerator.published(np.array([choices]))
        if cycles is None:
            return None
        seconds = float(cycles[0]) / (self.accelerator.clock_mhz * 1e6)
        return self._measurement(seconds, 1 / seconds, "the published slot table")

    def _explorable(self) -> Explorable:
        if not isinstance(self.accelerator, Explorable):
            raise UsageError(
                f"device '{self.device.name}' is one fixed accelerator, with nothing to explore; choose one "
                "that has a board"
            )
        return self.accelerator

    def _measurement(self, latency_s: float, fps: float, by: str = "the layer formulas") -> Measurement:
        return Measurement(
            device=self.device.name,
            basis="simulated",
            metrics={"latency_ms": latency_s * 1e3, "throughput_fps": fps},
            passport={
                "paradigm": self.accelerator.paradigm,
                "mode": self.accelerator.mode,
                "options": self.accelerator.model_dump(),
                "by": by,
            },
        )


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
    except (UsageError, MeasurementError) as error:
        raise UsageError(f"device '{device.name}': {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"device '{device.name}': option '{key}': {first['msg']}") from error


def _take(device: Device, options: dict[str, Any], key: str, known: set[str]) -> str:
    value = str(options.pop(key, ""))
    if value not in known:
        raise UsageError(f"device '{device.name}': option '{key}' is '{value}'{nearest(value, known)}")
    return value
