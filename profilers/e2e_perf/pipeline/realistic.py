"""The pipeline paradigm, realistic: a stage of its own for each layer, all busy at once."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from ehdnas.core.errors import MeasurementError
from ehdnas.core.layers import Layer, LayerTable
from ehdnas.profilers.e2e_perf.boards import Board, find_board
from ehdnas.profilers.e2e_perf.paradigm import Explorable, Figures, Paradigm
from ehdnas.profilers.e2e_perf.pipeline.allocation import (
    Limits,
    Table,
    allocate,
    candidate_table,
    controllers,
    needs_of,
    options_of,
)
from ehdnas.profilers.e2e_perf.pipeline.fold import fastest
from ehdnas.profilers.e2e_perf.pipeline.stages import (
    WEIGHTED,
    Options,
    edge_bytes,
    fill_share,
)
from ehdnas.profilers.e2e_perf.simulation import (
    Costs,
    Resources,
    Simulation,
    energy_45nm_mj,
    layer_costs,
)
from ehdnas.profilers.e2e_perf.workload import Workload, modelled, unnamed

MOST_REPLICAS = 16


class Pipeline(Paradigm, Explorable):
    """Stages after DNNBuilder (Zhang et al., ICCAD 2018), built anew for every network on one board.

    By DNNBuilder's rule each stage gets the fewest DSP slices that keep up with the slowest, whose cycles go
    in powers of two, and there are `replicas` copies of the pipeline. With `explore` the slowest stage's
    cycles go in finer steps, and there are as many copies as the board holds.

    All layers compute at `bits`. `utilisation` is how much of a board's resources a design can use before it
    no longer routes, and `ddr_efficiency` how much of the external bandwidth transfers reach: assumptions.
    Latency sums the stages' fills, as if the layers were a chain: an upper bound where branches run side by
    side. The buffers that branches need while they wait for one another hold one column of each addition.
    """

    paradigm: ClassVar[str] = "pipeline"
    mode: ClassVar[str] = "realistic"
    free_options: ClassVar[dict[str, Any]] = {"explore": True}

    board: Board
    bits: Literal[4, 8, 16] = 8
    explore: bool = False
    replicas: int = Field(default=1, ge=1, le=MOST_REPLICAS)
    widest: int = Field(default=64, ge=1, le=4096)
    utilisation: float = Field(default=0.95, gt=0, le=1)
    ddr_efficiency: float = Field(default=0.8, gt=0, le=1)

    @field_validator("board", mode="before")
    @classmethod
    def _named_board(cls, value: Any) -> Any:
        return find_board(value, "option 'board'") if isinstance(value, str | dict) else value

    @property
    def limits(self) -> Limits:
        """What a design may use."""
        board = self.board
        return Limits(
            dsp=np.floor(board.dsp * self.utilisation),
            bram18=np.floor(board.bram18 * self.utilisation),
            lut=np.floor(board.lut * self.utilisation),
            bytes_per_cycle=board.ddr_gbps * self.ddr_efficiency * 1e3 / self.clock_mhz,
            replicas=MOST_REPLICAS if self.explore else self.replicas,
        )

    def table(self, layers: tuple[Layer, ...]) -> Table:
        """Return the candidates' options for these layers.

        Raises:
            MeasurementError: a layer is not modelled; the message names it.
        """
        return candidate_table(layers, self.bits, self.widest, self.explore)

    def figures(self, workload: Workload) -> Figures:
        """Return the figures of n networks, each on a pipeline of its own; NaN where none fits the board.

        Raises:
            MeasurementError: a layer is not modelled; the message names it.
        """
        found = allocate(workload, self.table(workload.layers), self.limits, self.bits)
        scale = np.where(found.replicas > 0, 1 / (self.clock_mhz * 1e6), np.nan)
        return Figures(found.latency * scale, found.interval * scale, found.replicas)

    def simulate(self, table: LayerTable) -> Simulation:
        """Return everything about one network.

        Raises:
            MeasurementError: a layer is not modelled, or the network does not fit; the message says what is
                short, and by how much.
        """
        layers = modelled(table).layers
        workload = Workload.of_networks([table])
        candidates = self.table(workload.layers)
        found = allocate(workload, candidates, self.limits, self.bits)
        if found.replicas[0] < 1:
            raise MeasurementError(self._shortage(workload, candidates, 0))
        chosen = dict(zip(map(unnamed, workload.layers), candidates.option[found.candidate[0]], strict=True))
        picks = [int(chosen[unnamed(layer)]) for layer in layers]
        return self.built(layers, picks, int(found.replicas[0]))

    def built(self, layers: tuple[Layer, ...], picks: list[int], replicas: int) -> Simulation:
        """Return everything about a network whose stages are built by `picks`, copied `replicas` times."""
        stages = [options_of(unnamed(layer), self.bits, self.widest) for layer in layers]
        cycles = np.array([stage.cycles[pick] for stage, pick in zip(stages, picks, strict=True)])
        streamed = np.array([stage.stream[pick] for stage, pick in zip(stages, picks, strict=True)])
        per_image = streamed / replicas + edge_bytes(layers, self.bits)
        memory = per_image * replicas / self.limits.bytes_per_cycle
        interval = max(float(cycles.max()), float(memory.sum()))
        fills = cycles * np.array([fill_share(layer) for layer in layers])
        nothing = np.zeros_like(cycles)
        costs = Costs(np.maximum(cycles, memory), cycles, memory, nothing, per_image)
        hertz = self.clock_mhz * 1e6
        designs = [_design(*one) for one in zip(layers, stages, picks, strict=True)]
        rows = layer_costs(layers, costs, designs, fills)
        slowest = rows[int(cycles.argmax())]
        return Simulation(
            clock_hz=hertz,
            latency_s=(float(fills.sum()) + interval) / hertz,
            interval_s=interval / hertz,
            replicas=replicas,
            layers=rows,
            image_cycles=0.0,
            bottleneck=f"the stage of {slowest.name}" if interval <= cycles.max() else "external bandwidth",
            peak_macs_per_s=hertz * replicas * _macs_per_cycle(stages, picks),
            dram_bytes_per_s=hertz * self.limits.bytes_per_cycle,
            design={**self.model_dump(), "replicas": replicas},
            resources=_resources(layers, stages, picks, replicas),
            energy_45nm_mj=energy_45nm_mj(layers, float(per_image.sum())),
        )

    def explored(self, table: LayerTable) -> Simulation:
        """Return the network on the fastest pipeline that was found for it on the board.

        Exact for small networks: no combination of the stages' options and of replicas is faster. On any
        network a better board is never slower. Raises as `simulate` does.
        """
        free = self.model_copy(update={"explore": True})
        first = free.simulate(table)
        layers = modelled(table).layers
        found = fastest(layers, free.bits, free.widest, free.limits)
        if found is None:
            return first
        other = free.built(layers, found.picks, found.replicas)
        return other if other.throughput_fps > first.throughput_fps else first

    def _shortage(self, workload: Workload, table: Table, at: int) -> str:
        """Return the line that says what the smallest pipeline needs and the board lacks."""
        counts = workload.counts[at : at + 1].astype(float)
        needs = needs_of(table, counts, workload.layers)
        limits, short = self.limits, []
        feasible = (counts @ table.infeasible.T == 0)[0]
        for name, limit, shared, each in (
            ("DSP slices", limits.dsp, needs.dsp_shared, needs.dsp_each),
            ("blocks of 18 Kbit", limits.bram18, needs.bram_shared, needs.bram_each),
            ("LUTs", limits.lut, needs.lut_shared, needs.lut_each),
        ):
            least = float(np.broadcast_to(shared + each, (1, len(feasible)))[0, feasible].min())
            if least > limit:
                short.append(f"{least:,.0f} {name} at least, {limit:,.0f} usable, {least - limit:,.0f} short")
        detail = "; ".join(short) or "no pipeline meets all of the board's limits at once"
        return f"the network does not fit the board as a pipeline: {detail}"


def _design(layer: Layer, stage: Options, pick: int) -> dict[str, Any]:
    """Return a stage's parallelism, for people and for whoever builds it."""
    if layer.operator not in WEIGHTED:
        return {"kpf": int(stage.kpf[pick])} if stage.kpf[pick] else {}
    return {
        "cpf": int(stage.cpf[pick]),
        "kpf": int(stage.kpf[pick]),
        "weights": "streamed" if stage.stream[pick] else "on chip",
    }


def _resources(
    layers: tuple[Layer, ...], stages: list[Options], picks: list[int], replicas: int
) -> Resources:
    dsp, lut = (float(part.sum()) for part in controllers(layers))
    blocks = 0.0
    for stage, pick in zip(stages, picks, strict=True):
        dsp += replicas * stage.dsp[pick]
        lut += replicas * stage.lut[pick]
        blocks += stage.weights[pick] + replicas * stage.columns[pick]
    return Resources(dsp=int(dsp), bram18=int(blocks), lut=int(lut))


def _macs_per_cycle(stages: list[Options], picks: list[int]) -> float:
    weighted = [(stage, pick) for stage, pick in zip(stages, picks, strict=True) if stage.dsp[pick] > 0]
    return sum(float(stage.cpf[pick] * stage.kpf[pick]) for stage, pick in weighted)
