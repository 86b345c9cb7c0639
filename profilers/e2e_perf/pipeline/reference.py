"""The pipeline paradigm as EH-DNAS times it: every layer a stage of its own, the whole replicated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ehdnas.core.errors import MeasurementError
from ehdnas.core.layers import LayerTable
from ehdnas.profilers.e2e_perf.paradigm import Figures, Paradigm
from ehdnas.profilers.e2e_perf.pipeline.reference_stages import (
    BITS,
    OPERATORS,
    Stages,
    stages_of,
    weighted_operations,
)
from ehdnas.profilers.e2e_perf.simulation import Costs, Resources, Simulation, energy_45nm_mj, layer_costs
from ehdnas.profilers.e2e_perf.workload import Array, Columns, Workload, modelled, require_modelled


@dataclass(frozen=True)
class Designs:
    """The pipelines of n networks, arrays [n]: all in cycles, but `replicas` and `resources` [n, 3].

    `target` is T0, `slowest` is T, `fill` what an image takes besides T; no pipeline fits where `replicas`
    is 0. Resources are those of `Stages`.
    """

    target: Array
    slowest: Array
    fill: Array
    replicas: NDArray[np.int64]
    resources: Array


class PipelineReference(Paradigm):
    """DNNBuilder's pipeline on a KU115, as EH-DNAS (arXiv 2111.12299) times it: made to reproduce its labels.

    The stages share the multipliers so that each streams its weights, once a column of output, within the
    external bandwidth: with ops = Cout·Ho·Wo·K²·Cin/groups, every stage is to take about

        T0 = Σ ops·(16 bits / Ho)·clock / bandwidth cycles

    and gets a power of two near ⌈ops / T0⌉ multipliers. T, the slowest stage, is what that leaves, and B
    pipelines fit side by side:

        throughput = clock·B / (T + 1),   B = min(⌊DSP / dsp⌋, ⌊(BRAM − shared) / replicated⌋).

    Both resources count at `utilisation`. If not one pipeline fits, T0 is doubled until one does.

    T reproduces the published labels: the total variation of its shares is within sampling noise. B is
    fitted; `stages_of` says to what and how well. The latency is not published: it is T plus, for every
    stage, the time to produce the columns that its window needs, as if the stages stood in one chain. Where
    branches run side by side that is an upper bound.
    """

    paradigm: ClassVar[str] = "pipeline"
    mode: ClassVar[str] = "reference"

    clock_mhz: float = Field(default=200, gt=0, le=100_000, allow_inf_nan=False)
    dsp: int = Field(default=5520, gt=0)
    bram18: int = Field(default=4320, gt=0)
    utilisation: float = Field(default=0.95, gt=0, le=1)
    bandwidth_gbps: float = Field(default=10, gt=0, allow_inf_nan=False)

    def figures(self, workload: Workload) -> Figures:
        """Return the figures of n networks at once; NaN for those that do not fit the accelerator.

        Raises:
            MeasurementError: a layer is not modelled; the message names it.
        """
        designs = self.designs(workload.columns, workload.counts)
        replicas = np.where(designs.replicas > 0, designs.replicas, np.nan)
        cycle_s = np.where(designs.replicas > 0, 1e-6 / self.clock_mhz, np.nan)
        latency = (designs.slowest + designs.fill) * cycle_s
        return Figures(latency, (designs.slowest + 1) * cycle_s, replicas)

    def simulate(self, table: LayerTable) -> Simulation:
        """Return everything about one network: the same figures, and each layer's.

        Raises:
            MeasurementError: a layer is not modelled, or the network does not fit.
        """
        layers = modelled(table).layers
        columns = Columns(layers)
        design = self.designs(columns, np.ones((1, len(layers)), dtype=np.int64))
        if not design.replicas[0]:
            raise MeasurementError(
                f"the network does not fit {self.dsp} DSP slices and {self.bram18} blocks of RAM at one "
                "multiplier a stage; describe a larger board"
            )
        replicas, cycle_s = int(design.replicas[0]), 1e-6 / self.clock_mhz
        costs = self._costs(columns, float(design.target[0]), replicas)
        dsp, replicated, shared = design.resources[0]
        rows = layer_costs(layers, costs, fills=costs.cycles * stages_of(columns).fill)
        used = Resources(int(replicas * dsp), int(np.ceil(replicas * replicated + shared)))
        return Simulation(
            clock_hz=self.clock_mhz * 1e6,
            latency_s=float(design.slowest[0] + design.fill[0]) * cycle_s,
            interval_s=float(design.slowest[0] + 1) * cycle_s,
            replicas=replicas,
            layers=rows,
            image_cycles=0.0,
            design={**self.model_dump(), "target_cycles": float(design.target[0])},
            resources=used,
            energy_45nm_mj=energy_45nm_mj(layers, float(costs.dram_bytes.sum())),
            bottleneck=f"the stage of {max(rows, key=lambda row: row.cycles).name}",
            peak_macs_per_s=self.dsp * self.clock_mhz * 1e6,
            dram_bytes_per_s=self.bandwidth_gbps * 1e9,
        )

    def designs(self, columns: Columns, counts: NDArray[np.int64]) -> Designs:
        """Return the pipelines of n networks that have the d layers `counts` [n, d] times.

        Raises:
            MeasurementError: a layer is not modelled; the message names it.
        """
        require_modelled(columns, OPERATORS)
        stages = stages_of(columns)
        streamed = BITS * weighted_operations(columns) / columns.h_out
        target = counts @ streamed * self.clock_mhz / (self.bandwidth_gbps * 8e3)
        # As many doublings as it takes to leave every stage one multiplier.
        last = max(float(stages.thresholds.max(initial=0)), 1.0)
        designs = self._designs(stages, counts, target)
        while len(rows := np.flatnonzero((designs.replicas < 1) & (designs.target <= last))):
            again = self._designs(stages, counts[rows], np.maximum(2 * designs.target[rows], 1))
            for name, values in vars(again).items():
                getattr(designs, name)[rows] = values
        return designs

    def _designs(self, stages: Stages, counts: NDArray[np.int64], target: Array) -> Designs:
        """Return the pipelines of n networks whose stages aim at `target` [n] cycles.

        Between two neighbouring thresholds every T0 gives the same stages: networks are taken together.
        """
        slowest, sums = np.zeros(len(counts)), np.zeros((len(counts), 4))
        bins = np.searchsorted(np.unique(stages.thresholds), target, side="right")
        for which in np.unique(bins):
            rows = np.flatnonzero(bins == which)
            chosen, at = counts[rows].astype(np.float64), float(target[rows[0]])
            cycles = stages.at(stages.cycles, at)
            slowest[rows] = np.where(chosen > 0, cycles, 0).max(axis=1, initial=0)
            sums[rows] = chosen @ np.column_stack([stages.at(stages.resources, at), cycles * stages.fill])
        dsp, replicated, shared = np.maximum(sums[:, :3], [[1, 1e-9, 0]]).T
        by_dsp = np.floor(self.utilisation * self.dsp / dsp)
        by_bram = np.floor((self.utilisation * self.bram18 - shared) / replicated)
        replicas = np.maximum(np.minimum(by_dsp, by_bram), 0).astype(np.int64)
        return Designs(target.copy(), np.floor(slowest), sums[:, 3], replicas, sums[:, :3])

    def _costs(self, columns: Columns, target: float, replicas: int) -> Costs:
        """Return the stages' cycles [d]; a weight is read once a column of output, for all replicas."""
        stages = stages_of(columns)
        cycles, nothing = stages.at(stages.cycles, target), np.zeros(len(columns.layers))
        moved = columns.weights * columns.w_out * BITS / 8 / replicas
        return Costs(cycles, cycles, nothing, nothing, moved)
