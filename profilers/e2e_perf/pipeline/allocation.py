"""How a pipeline's resources are shared out among its stages, for whole populations at once.

For every bottleneck T of a fixed grid each stage takes the option with the fewest DSP slices that keeps up
with T, after DNNBuilder (Zhang et al., ICCAD 2018). That makes a few hundred candidate pipelines for any
network, the same ones on every board: a board only decides which of them fit, and how often.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ehdnas.core.layers import Layer
from ehdnas.profilers.e2e_perf.pipeline.stages import (
    DSP_OTHER,
    DSP_WEIGHTED,
    FREE,
    LUT_PER_STAGE,
    OPERATORS,
    WEIGHTED,
    Options,
    fill_share,
    stage_options,
)
from ehdnas.profilers.e2e_perf.workload import Array, Columns, Workload, require_modelled, unnamed

# Bottlenecks in cycles: an octave apart, as powers of two in the parallelism make them, and the finer grid of
# an exploration.
GRIDS = {False: 2.0 ** np.arange(4, 34), True: np.floor(2.0 ** (np.arange(4 * 4, 34 * 4) / 4))}
_CHUNK = 2_000
# Distinct layers whose options are kept: of one network all, or looking twice would make them twice.
_CACHED = 16_384


@dataclass(frozen=True)
class Limits:
    """What a design may use: DSP slices, blocks of 18 Kbit, LUTs, external bytes a cycle, and replicas."""

    dsp: float
    bram18: float
    lut: float
    bytes_per_cycle: float
    replicas: int


@dataclass(frozen=True)
class Needs:
    """What candidates take, arrays that broadcast: shared by all replicas, and for each replica."""

    dsp_shared: Array
    dsp_each: Array
    bram_shared: Array
    bram_each: Array
    lut_shared: Array
    lut_each: Array

    def replicas(self, limits: Limits) -> Array:
        """Return how many replicas fit; less than 1 where not even one does."""
        with np.errstate(divide="ignore", invalid="ignore"):
            fits = [
                np.where(each > 0, np.floor((limit - shared) / each), np.where(shared <= limit, np.inf, 0))
                for limit, shared, each in (
                    (limits.dsp, self.dsp_shared, self.dsp_each),
                    (limits.bram18, self.bram_shared, self.bram_each),
                    (limits.lut, self.lut_shared, self.lut_each),
                )
            ]
        fewest: Array = np.minimum.reduce([*fits, np.full_like(fits[0], limits.replicas)])
        return np.maximum(fewest, 0)


@dataclass(frozen=True)
class Table:
    """The option each of d layers takes in each of j candidates: arrays [j, d]."""

    option: NDArray[np.int64]
    infeasible: Array
    cycles: Array
    fill: Array
    dsp: Array
    lut: Array
    columns: Array
    weights: Array
    stream: Array


@dataclass(frozen=True)
class Allocation:
    """The best candidate of each of n networks: arrays [n]. `replicas` is 0 where none fits."""

    candidate: NDArray[np.int64]
    replicas: Array
    bottleneck: Array
    interval: Array
    latency: Array


def controllers(layers: Sequence[Layer]) -> tuple[Array, Array]:
    """Return the DSP slices and LUTs [d] of the stages' control, whatever their parallelism."""
    dsp = [
        0 if one.operator in FREE else DSP_WEIGHTED if one.operator in WEIGHTED else DSP_OTHER
        for one in layers
    ]
    lut = [0 if one.operator in FREE else LUT_PER_STAGE for one in layers]
    return np.array(dsp, dtype=float), np.array(lut, dtype=float)


def candidate_table(layers: Sequence[Layer], bits: int, widest: int, explored: bool) -> Table:
    """Return the candidates of these layers on the finer grid when `explored`."""
    require_modelled(Columns(layers), OPERATORS)
    columns = [_layer_column(unnamed(layer), bits, widest, explored) for layer in layers]
    return Table(*(np.stack(parts, axis=1) for parts in zip(*columns, strict=True)))


@lru_cache(maxsize=_CACHED)
def options_of(layer: Layer, bits: int, widest: int) -> Options:
    """Return `stage_options`, made once for each layer."""
    return stage_options(layer, bits, widest)


@lru_cache(maxsize=_CACHED)
def _layer_column(layer: Layer, bits: int, widest: int, explored: bool) -> tuple[Array, ...]:
    """Return the fields of a `Table` for one layer, each [j]."""
    options, grid = options_of(layer, bits, widest), GRIDS[explored][:, None]
    # The least logic, and so the fewest DSP slices; among equals the fewest blocks and streamed bytes.
    spent = options.lut + 1e-3 * (options.columns + options.weights + options.stream / grid)
    unusable = options.cycles > grid
    chosen = np.where(unusable, np.inf, spent).argmin(axis=1)
    fill = options.cycles * fill_share(layer)
    rows = (options.cycles, fill, options.dsp, options.lut, options.columns, options.weights, options.stream)
    return (chosen, unusable.all(axis=1).astype(float), *(row[chosen] for row in rows))


def needs_of(table: Table, counts: Array, layers: Sequence[Layer]) -> Needs:
    """Return what each candidate takes for each network, [n, j], of `counts` [n, d] layers."""
    dsp, lut = controllers(layers)
    return Needs(
        dsp_shared=(counts @ dsp)[:, None],
        dsp_each=counts @ table.dsp.T,
        bram_shared=counts @ table.weights.T,
        bram_each=counts @ table.columns.T,
        lut_shared=(counts @ lut)[:, None],
        lut_each=counts @ table.lut.T,
    )


def allocate(workload: Workload, table: Table, limits: Limits, bits: int) -> Allocation:
    """Return the candidate of the highest throughput for each network, the lowest bottleneck among equals.

    Throughput is B / max(T, external bytes / bytes a cycle) images a cycle: B replicas share the weights
    that are streamed, and each moves its own input and output.
    """
    chunks = range(0, len(workload.counts), _CHUNK)
    parts = [_allocate(workload, slice(at, at + _CHUNK), table, limits, bits) for at in chunks]
    return Allocation(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _allocate(
    workload: Workload, rows: slice, table: Table, limits: Limits, bits: int
) -> tuple[NDArray[np.int64], Array, Array, Array, Array]:
    counts = workload.counts[rows].astype(np.float64)
    replicas = needs_of(table, counts, workload.layers).replicas(limits)
    replicas[counts @ table.infeasible.T > 0] = 0
    bottleneck = np.zeros_like(replicas)
    for at, used in enumerate((counts > 0).T):
        bottleneck[used] = np.maximum(bottleneck[used], table.cycles[:, at])
    edges = workload.edge_elements[rows, None] * bits / 8
    moved = (counts @ table.stream.T + replicas * edges) / limits.bytes_per_cycle
    interval = np.maximum(bottleneck, moved)
    rate = np.where(replicas > 0, replicas / np.maximum(interval, 1), 0)
    best = rate.argmax(axis=1)
    chosen = (np.arange(len(best)), best)
    fills = np.einsum("nd,nd->n", counts, table.fill[best])
    return best, replicas[chosen], bottleneck[chosen], interval[chosen], fills + interval[chosen]
