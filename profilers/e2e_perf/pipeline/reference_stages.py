"""What the stages of EH-DNAS's pipeline cost, for every number of multipliers that they can have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ehdnas.profilers.e2e_perf.packing import bram18
from ehdnas.profilers.e2e_perf.workload import Array, Columns

WEIGHTED = ("conv", "linear")
POOLS = ("max_pool", "avg_pool", "global_pool")
OPERATORS = frozenset({*WEIGHTED, *POOLS, "relu", "add", "mul", "concat"})

BITS = 16
BRAM18_BITS = 18_432
# Input and output channels that a stage computes at once, at most: 64 each (DNNBuilder).
MAX_FACTOR = 64
POOL_LANES = 16
STREAM_PORT_BITS = 128
# The smallest integers whose nearest power of two, on a logarithmic scale, is 2, 4, 8 and so on.
FIRST_OF_FACTOR = np.ceil(2.0 ** (np.arange(1, 13) - 0.5))


@dataclass(frozen=True)
class Stages:
    """d stages with 2^0 to 2^12 multipliers: `cycles` [d, 13] and `resources` [d, 13, 3].

    Resources are DSP slices and blocks of 18 Kbit that each pipeline needs, and blocks that the pipelines
    share. `thresholds` [d, 12]: a stage has at least 2^e multipliers where T0 is below threshold e - 1.
    `fill` [d] is the share of its cycles that a stage works before the next one can begin.
    """

    thresholds: Array
    fill: Array
    cycles: Array
    resources: Array

    def at(self, values: Array, target: float) -> Array:
        """Return the rows of `values` [d, 13, ...] that a T0 of `target` cycles gives, [d, ...]."""
        factor = (self.thresholds > target).sum(axis=1)
        chosen: Array = values[np.arange(len(factor)), factor]
        return chosen


def weighted_operations(columns: Columns) -> Array:
    """Return the multiply-accumulates [d], groups respected; 0 for what has no weights."""
    return np.where(columns.is_a(*WEIGHTED), columns.macs, 0)


def stages_of(columns: Columns) -> Stages:
    """Return the stages of d layers; the layers without a stage of their own cost nothing.

    A stage computes CPF input channels for KPF output channels at once, powers of two that divide Cin/groups
    and Cout; CPF as large as it can be. An image of 3 channels is padded to 4. The mechanisms are those of
    DNNBuilder (Zhang et al., ICCAD 2018) and of its published code:

    - cycles = ops / (CPF·KPF); a pool has 16 lanes, so K²·C·Ho·Wo / 16.
    - each pipeline has its multipliers, KPF more for a batch norm, and every stage's column buffer.
    - the pipelines share the weights of the KPF filters in use, double-buffered and written at 128 bits, and
      the batch norm's scales and biases (without one, the biases).

    A convolution with groups is taken to have no batch norm, as in DARTS. Fitted were the choices among such
    mechanisms, on 100,000 published labels: slices for the controllers or none, CPF or the balance of CPF
    and KPF first, the ports' widths, and what is rounded up to whole blocks. On the other 100,000 the total
    variation of (T, B) is 0.030 (of B alone 0.015), where the published labels' halves differ by 0.010.
    """
    operations = weighted_operations(columns)[:, None]
    cpf, kpf = _factors(columns)
    weighted = columns.is_a(*WEIGHTED)[:, None]
    pool = columns.is_a(*POOLS)[:, None]
    normed = (columns.is_a("conv") & (columns.groups == 1))[:, None]
    windows = (columns.cout * columns.h_out * columns.w_out * columns.kernel_h * columns.kernel_w)[:, None]
    cycles = np.where(weighted, operations / (cpf * kpf), np.where(pool, windows / POOL_LANES, 0))
    dsp = np.where(weighted, cpf * kpf + np.where(normed, kpf, 0), 0)
    replicated = np.where(weighted | pool, _column_buffer(columns, pool), 0)
    shared = np.where(weighted, _weights(columns, cpf, kpf) + _norm(columns, kpf, normed), 0)
    resources = np.stack([dsp, np.broadcast_to(replicated, dsp.shape), shared], axis=2)
    fill = np.minimum(columns.kernel_w, columns.w) / columns.w
    return Stages(operations / (FIRST_OF_FACTOR - 1), fill, cycles, resources)


def _factors(columns: Columns) -> tuple[Array, Array]:
    """Return CPF and KPF, each [d, 13]."""
    inputs = np.where(columns.cin == 3, 4, columns.cin) / columns.groups
    wanted = np.broadcast_to(2.0 ** np.arange(13), (len(inputs), 13))
    cpf = np.minimum(wanted, _power_of_two_in(inputs)[:, None])
    return cpf, np.minimum(wanted / cpf, _power_of_two_in(columns.cout)[:, None])


def _power_of_two_in(size: Array) -> Array:
    whole = size.astype(np.int64)
    largest: Array = np.minimum(whole & -whole, MAX_FACTOR).astype(np.float64)
    return largest


def _column_buffer(columns: Columns, pool: NDArray[np.bool_]) -> Array:
    """Return the blocks [d, 1] of Cin·H·(K + stride) words; a pool's are packed, POOL_LANES words wide."""
    # A stage reads whole steps of its stride: the shifted half of a factorised reduce 32 rows, not 31.
    height = np.maximum(columns.h, columns.stride_h * columns.h_out)
    words = (columns.cin * height * (columns.kernel_w + columns.stride_w))[:, None]
    packed = bram18(np.array(BITS * POOL_LANES), words / POOL_LANES)
    return np.where(pool, packed, words * BITS / BRAM18_BITS)


def _weights(columns: Columns, cpf: Array, kpf: Array) -> Array:
    """Return the blocks [d, 13] of the double buffer of weights, read CPF·KPF at once.

    Pairs of blocks, 72 bits by 512 words, are not rounded up to whole ones.
    """
    taps = (columns.kernel_h * columns.kernel_w * columns.cin / columns.groups)[:, None]
    width = np.maximum(BITS * cpf * kpf, STREAM_PORT_BITS)
    depth = 2 * np.ceil(BITS * kpf * taps / width)
    return 2 * width / 72 * np.ceil(depth / 512) + np.ceil(depth / 16_384)


def _norm(columns: Columns, kpf: Array, normed: NDArray[np.bool_]) -> Array:
    """Return the blocks [d, 13] of the scales and biases of a batch norm, or else of the biases."""
    width = BITS * kpf * np.where(normed, 2, 1)
    return bram18(width, np.maximum(columns.cout[:, None] / kpf, 2))
