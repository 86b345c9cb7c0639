"""The generic paradigm, realistic: one array runs the layers in turn, as accelerators of that kind do."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ehdnas.profilers.e2e_perf.design import Design, design_resources
from ehdnas.profilers.e2e_perf.paradigm import Sequential
from ehdnas.profilers.e2e_perf.simulation import Costs, Resources
from ehdnas.profilers.e2e_perf.tiling import dram_bytes
from ehdnas.profilers.e2e_perf.workload import Array, Columns, require_modelled

WEIGHTED = ("conv", "conv_transpose", "linear", "matmul")
FREE = ("relu", "concat")
POOLS = ("max_pool", "avg_pool", "global_pool")
# Times a vector engine goes over each element; of `norm` and `softmax` an estimate.
PASSES = {"add": 1, "mul": 1, "activation": 1, "upsample": 1, "norm": 2, "softmax": 3}
OPERATORS = frozenset({*WEIGHTED, *FREE, *POOLS, *PASSES})


def design_costs(columns: Columns, design: Design) -> Costs:
    """Return what d layers cost on one design, arrays [d], or on m designs of arrays [m, 1], arrays [m, d].

    A layer takes the longer of its compute and its memory time, their sum if nothing is double-buffered,
    and a launch. `relu` and `concat` cost nothing; a fused addition has no launch of its own.

    Raises:
        MeasurementError: a layer is not modelled; the message names it.
    """
    require_modelled(columns, OPERATORS)
    compute = compute_cycles(columns, design)
    moved = dram_bytes(columns, design, columns.is_a(*WEIGHTED))
    memory = moved / design.bytes_per_cycle
    launched = ~columns.is_a(*FREE) & ~_fused(columns, design)
    overhead = np.where(launched, np.asarray(design.layer_overhead_us) * design.clock_mhz, 0.0)
    busy = np.where(design.double_buffered, np.maximum(compute, memory), compute + memory)
    every = np.broadcast_arrays(busy + overhead, compute, memory, overhead, moved)
    return Costs(*every)


def compute_cycles(columns: Columns, design: Design) -> Array:
    """Return the cycles [d], or [m, d], in which layers compute.

    A weighted layer takes Wo·⌈Ho/PP⌉·Kh·Kw·⌈(Cin/groups)/CPF⌉·⌈(Cout/groups)/KPF⌉·groups: groups share no
    channel lanes. With `fold_kernel`, taps of a row fill channel lanes that the input leaves idle, and
    Kw·⌈Cin/CPF⌉ is ⌈Kw·Cin/CPF⌉. A transposed convolution takes each input pixel through the whole kernel.
    Depthwise convolutions, pools and elementwise operators take their operations / lanes of their engine.
    """
    weighted = columns.is_a(*WEIGHTED)
    array = _pixels(columns, design) * _channel_steps(columns, design)
    lanes = np.asarray(design.depthwise_macs_per_cycle)
    apart = _depthwise(columns) & (lanes > 0)
    cycles = np.where(apart, np.ceil(columns.macs / np.maximum(lanes, 1)), np.where(weighted, array, 0.0))
    vector = np.ceil(_vector_operations(columns) / np.asarray(design.vector_lanes))
    vector = np.where(_fused(columns, design), 0.0, vector)
    busy: Array = np.where(weighted, cycles, vector) / design.compute_efficiency
    return busy


def _pixels(columns: Columns, design: Design) -> Array:
    grown = columns.is_a("conv_transpose")
    height, width = np.where(grown, columns.h, columns.h_out), np.where(grown, columns.w, columns.w_out)
    pixels: Array = width * np.ceil(height / design.pixel_parallel)
    return pixels


def _channel_steps(columns: Columns, design: Design) -> Array:
    deep, wide = columns.cin / columns.groups, columns.cout / columns.groups
    whole = columns.kernel_w * np.ceil(deep / design.cpf)
    folded = np.ceil(columns.kernel_w * deep / design.cpf)
    taps = columns.kernel_h * np.where(design.fold_kernel, folded, whole)
    steps: Array = taps * np.ceil(wide / design.kpf) * columns.groups
    return steps


def _depthwise(columns: Columns) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = columns.is_a("conv") & (columns.groups == columns.cin) & (columns.cin > 1)
    return found


def _fused(columns: Columns, design: Design) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = columns.is_a("add") & np.asarray(design.fused_add, dtype=bool)
    return found


def _vector_operations(columns: Columns) -> Array:
    outputs = columns.cout * columns.h_out * columns.w_out
    passes = np.array([PASSES.get(str(operator), 0) for operator in columns.operator], dtype=float)
    window = np.where(columns.is_a(*POOLS), columns.kernel_h * columns.kernel_w, passes)
    operations: Array = outputs * window
    return operations


class GenericRealistic(Sequential):
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

    `calibrate` fits the efficiencies and the overheads to a device's latencies; the transfer of the image
    itself counts as overhead where maps stay on chip. Costs add up over layers: branches run in turn.
    """

    paradigm: ClassVar[str] = "generic"
    mode: ClassVar[str] = "realistic"

    cpf: int = Field(gt=0)
    kpf: int = Field(gt=0)
    pixel_parallel: int = Field(default=1, gt=0)
    vector_lanes: int = Field(gt=0)
    depthwise_macs_per_cycle: int = Field(default=0, ge=0)
    fold_kernel: bool = False
    bits: Literal[4, 8, 16] = 8
    buffer_kb: float = Field(gt=0, allow_inf_nan=False)
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

    @property
    def design(self) -> Design:
        """The same parameters as plain numbers."""
        return Design(**self.model_dump())

    @property
    def image_cycles(self) -> float:
        """Cycles that every image takes besides its layers."""
        return self.image_overhead_us * self.clock_mhz

    @property
    def resources(self) -> Resources:
        """What the design takes of a board; its LUTs are an estimate."""
        return Resources(*(int(part) for part in design_resources(self.design)))

    def costs(self, columns: Columns) -> Costs:
        """Return what d layers cost, arrays [d].

        Raises:
            MeasurementError: a layer is not modelled; the message names it.
        """
        return design_costs(columns, self.design)
