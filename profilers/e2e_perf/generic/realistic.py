"""The generic paradigm, realistic: one array runs the layers in turn, as accelerators of that kind do."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from ehdnas.core.errors import UsageError
from ehdnas.core.layers import LayerTable
from ehdnas.profilers.e2e_perf.boards import Board, find_board
from ehdnas.profilers.e2e_perf.generic.costs import design_costs
from ehdnas.profilers.e2e_perf.generic.design import Design, design_resources
from ehdnas.profilers.e2e_perf.generic.explore import Designs, best_design, designs_for, require_fit
from ehdnas.profilers.e2e_perf.paradigm import Explorable, Figures, Sequential
from ehdnas.profilers.e2e_perf.simulation import Costs, Resources, Simulation
from ehdnas.profilers.e2e_perf.workload import Columns, Workload, modelled

# Far beyond any accelerator: what lies further is a slip of the pen.
MOST_LANES = 1 << 16


class GenericRealistic(Sequential, Explorable):
    """An array of `pixel_parallel` output rows x `cpf` input x `kpf` output channels, with a shared buffer.

    | option | what |
    |---|---|
    | `vector_lanes` | elements a cycle of the engine for pools and elementwise operators |
    | `depthwise_macs_per_cycle` | of an engine for depthwise convolutions; 0: the array runs them |
    | `fold_kernel` | kernel taps fill idle channel lanes (DPU: channel augmentation) |
    | `bits` | of weights and feature maps, whatever a layer's own |
    | `buffer_kb` | on-chip KiB for inputs and weights, of which weights get `weight_share` |
    | `double_buffered` | the next tile loads while one computes, each in half of the buffer |
    | `maps_on_chip_kb` | KiB up to which a feature map stays on chip between layers |
    | `fused_add` | additions run as the layer before them writes, and only read the other map |
    | `ddr_gbps`, `ddr_efficiency` | external 1e9 bytes/s, and the share that transfers reach |
    | `compute_efficiency` | share of its cycles in which the array computes |
    | `layer_overhead_us`, `image_overhead_us` | launch of each layer, and host time of each image |
    | `dsp_clock_ratio` | clock of the DSP slices / `clock_mhz`; only resources depend on it |
    | `board` | what it is built on, `utilisation` of it at most; gives `ddr_gbps` where that is not given |
    | `explore` | design lanes and buffer anew for every network, on the board |

    `calibrate` fits the efficiencies and the overheads to a device's latencies; the transfer of the image
    itself counts as overhead where maps stay on chip. Costs add up over layers: branches run in turn.
    """

    paradigm: ClassVar[str] = "generic"
    mode: ClassVar[str] = "realistic"
    free_options: ClassVar[dict[str, Any]] = {"explore": True}

    cpf: int = Field(gt=0, le=MOST_LANES)
    kpf: int = Field(gt=0, le=MOST_LANES)
    pixel_parallel: int = Field(default=1, gt=0, le=MOST_LANES)
    vector_lanes: int = Field(gt=0, le=MOST_LANES)
    depthwise_macs_per_cycle: int = Field(default=0, ge=0, le=MOST_LANES)
    fold_kernel: bool = False
    bits: Literal[4, 8, 16] = 8
    buffer_kb: float = Field(gt=0, le=1 << 20, allow_inf_nan=False)
    weight_share: float = Field(default=0.5, gt=0, lt=1)
    double_buffered: bool = True
    maps_on_chip_kb: float = Field(default=0, ge=0, allow_inf_nan=False)
    fused_add: bool = False
    ddr_gbps: float = Field(gt=0, allow_inf_nan=False)
    ddr_efficiency: float = Field(default=1, gt=0, le=1)
    compute_efficiency: float = Field(default=1, gt=0, le=1)
    layer_overhead_us: float = Field(default=0, ge=0, allow_inf_nan=False)
    image_overhead_us: float = Field(default=0, ge=0, allow_inf_nan=False)
    dsp_clock_ratio: float = Field(default=1, ge=1, le=4)
    board: Board | None = None
    utilisation: float = Field(default=0.95, gt=0, le=1)
    explore: bool = False

    @model_validator(mode="before")
    @classmethod
    def _bandwidth_of_the_board(cls, options: dict[str, Any]) -> dict[str, Any]:
        board = options.get("board")
        if isinstance(board, str | dict):
            board = find_board(board, "option 'board'")
        elif board is not None and not isinstance(board, Board):
            raise UsageError(
                f"option 'board': give a board's name or a table of its resources, not {board!r}"
            )
        known = {} if board is None else {"ddr_gbps": board.ddr_gbps}
        return {**known, **options, "board": board}

    @model_validator(mode="after")
    def _fits_its_board(self) -> GenericRealistic:
        if self.explore and self.board is None:
            raise UsageError("option 'explore': to explore takes a board")
        if self.board is not None and self.ddr_gbps > self.board.ddr_gbps:
            raise UsageError(
                f"option 'ddr_gbps': {self.ddr_gbps:g}, but the board has {self.board.ddr_gbps:g}"
            )
        if self.board is not None and not self.explore:
            require_fit(self.design, self.board, self.utilisation)
        return self

    @property
    def design(self) -> Design:
        """The same parameters as plain numbers."""
        return Design(**{field.name: getattr(self, field.name) for field in fields(Design)})

    @property
    def image_cycles(self) -> float:
        """Cycles that every image takes besides its layers."""
        return self.image_overhead_us * self.clock_mhz

    @property
    def resources(self) -> Resources:
        """What the design takes of a board; its LUTs are an estimate."""
        return Resources(*(int(part) for part in design_resources(self.design)))

    @property
    def roof(self) -> tuple[float, float]:
        """MACs of the main array and bytes of external memory in a cycle."""
        design = self.design
        return float(design.macs_per_cycle), float(design.bytes_per_cycle)

    def figures(self, workload: Workload) -> Figures:
        """Return the figures of n networks; with `explore` each on the best design for it.

        Raises:
            MeasurementError: a layer is not modelled; the message names it.
        """
        if not self.explore:
            return super().figures(workload)
        _, cycles = best_design(workload.columns, workload.counts, self._designs())
        seconds = (cycles + self.image_cycles) / (self.clock_mhz * 1e6)
        return Figures(seconds, seconds, np.ones_like(seconds))

    def simulate(self, table: LayerTable) -> Simulation:
        """Return everything about one network; with `explore` on the best design for it.

        Raises:
            MeasurementError: a layer is not modelled, or no design fits the board.
        """
        return self.explored(table) if self.explore else super().simulate(table)

    def explored(self, table: LayerTable) -> Simulation:
        """Return the network on the design of the fewest cycles, of all that the board can hold.

        Raises:
            UsageError: the accelerator is not on a board.
            MeasurementError: a layer is not modelled, or no design fits the board.
        """
        designs = self._designs()
        columns = Columns(modelled(table).layers)
        found, _ = best_design(columns, np.ones((1, len(columns.layers)), dtype=np.int64), designs)
        chosen = {**designs.parameters(int(found[0])), "explore": False}
        return self.model_copy(update=chosen).simulate(table)

    def _designs(self) -> Designs:
        if self.board is None:
            raise UsageError("this accelerator is on no board, which exploring needs; give it a `board`")
        return designs_for(self.board, self.design, self.utilisation)

    def costs(self, columns: Columns) -> Costs:
        """Return what d layers cost, arrays [d].

        Raises:
            MeasurementError: a layer is not modelled; the message names it.
        """
        return design_costs(columns, self.design)
