"""What every paradigm of E2E-Perf is: an accelerator's parameters, checked when made, that time networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ehdnas.core.layers import LayerTable
from ehdnas.profilers.e2e_perf.simulation import (
    TOGETHER,
    Costs,
    LayerCost,
    Resources,
    Simulation,
    energy_45nm_mj,
    layer_costs,
)
from ehdnas.profilers.e2e_perf.workload import Array, Columns, Workload, modelled


@dataclass(frozen=True)
class Figures:
    """Figures of n networks, arrays [n]; `replicas` results leave together at the end of each interval."""

    latency_s: Array
    interval_s: Array
    replicas: Array

    @property
    def throughput_fps(self) -> Array:
        """Images a second."""
        return self.replicas / self.interval_s


class Paradigm(BaseModel, ABC):
    """An accelerator of one paradigm, timed in one mode. The fields are keys of a device's options."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    paradigm: ClassVar[str]
    mode: ClassVar[str]

    clock_mhz: float = Field(gt=0, le=100_000, allow_inf_nan=False)

    @abstractmethod
    def figures(self, workload: Workload) -> Figures:
        """Return the figures of n networks at once; NaN for those that do not fit the accelerator.

        Raises:
            MeasurementError: a layer is not modelled; the message names it.
        """

    @abstractmethod
    def simulate(self, table: LayerTable) -> Simulation:
        """Return everything about one network: the same figures, and each layer's.

        Raises:
            MeasurementError: a layer is not modelled, or the network does not fit.
        """

    def published(self, choices: NDArray[np.integer]) -> NDArray[np.int64] | None:
        """Return published cycles [n] of DARTS networks `choices` [n, 28]; None where there are none."""
        return None


class Explorable(ABC):
    """A paradigm whose accelerator can be designed for a network."""

    free_options: ClassVar[dict[str, Any]]
    """Options under which `figures` and `simulate` take, for every network, a design of its own."""

    @abstractmethod
    def explored(self, table: LayerTable) -> Simulation:
        """Return the network on the accelerator of the highest throughput that was found for it.

        Never slower than the device's own design, nor slower on a better board.

        Raises:
            MeasurementError: a layer is not modelled, or the network does not fit the board.
        """


class Sequential(Paradigm):
    """An accelerator that runs a network's layers one after another, one image at a time."""

    @abstractmethod
    def costs(self, columns: Columns) -> Costs:
        """Return what d layers cost, each by itself. Raises as `figures` does."""

    @property
    def image_cycles(self) -> float:
        """Cycles that every image takes besides its layers."""
        return 0.0

    @property
    def resources(self) -> Resources | None:
        """What the accelerator takes of a board, where that is modelled."""
        return None

    @property
    def roof(self) -> tuple[float | None, float | None]:
        """MACs and bytes of external memory that a cycle can hold at best, where they are modelled."""
        return None, None

    def figures(self, workload: Workload) -> Figures:
        """Return the figures of n networks: their layers' cycles, summed.

        Raises:
            MeasurementError: a layer is not modelled; the message names it.
        """
        cycles = workload.counts @ self.costs(workload.columns).cycles + self.image_cycles
        seconds = cycles / (self.clock_mhz * 1e6)
        return Figures(seconds, seconds, np.ones_like(seconds))

    def simulate(self, table: LayerTable) -> Simulation:
        """Return everything about one network. Raises as `figures` does."""
        layers = modelled(table).layers
        costs = self.costs(Columns(layers))
        hertz = self.clock_mhz * 1e6
        seconds = float(costs.cycles.sum() + self.image_cycles) / hertz
        rows = layer_costs(layers, costs)
        macs, moved = (None if most is None else most * hertz for most in self.roof)
        return Simulation(
            clock_hz=hertz,
            latency_s=seconds,
            interval_s=seconds,
            replicas=1,
            layers=rows,
            image_cycles=self.image_cycles,
            design=self.model_dump(),
            resources=self.resources,
            energy_45nm_mj=energy_45nm_mj(layers, float(costs.dram_bytes.sum())),
            bottleneck=_bottleneck(rows),
            peak_macs_per_s=macs,
            dram_bytes_per_s=moved,
        )


def _bottleneck(rows: tuple[LayerCost, ...]) -> str:
    """Return what most of the time goes to, and the layer that takes most of that."""
    total = sum(row.cycles for row in rows)
    shares = {
        bound: sum(row.cycles for row in rows if row.bound == bound) for bound in {row.bound for row in rows}
    }
    bound = max(shares, key=lambda name: shares[name])
    slowest = max((row for row in rows if row.bound == bound), key=lambda row: row.cycles)
    if bound == TOGETHER:
        return f"this mode does not tell compute from memory; most of the time in {slowest.name}"
    return f"{bound}, {shares[bound] / max(total, 1):.0%} of the time; most in {slowest.name}"
