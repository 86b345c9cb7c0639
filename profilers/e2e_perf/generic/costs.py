"""What layers cost on a generic accelerator: one array that runs them in turn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ehdnas.profilers.e2e_perf.generic.design import Design
from ehdnas.profilers.e2e_perf.generic.tiling import dram_bytes
from ehdnas.profilers.e2e_perf.simulation import Costs
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
    cycles, compute, memory, overhead, moved = every
    return Costs(cycles, compute, memory, overhead, moved)


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
