"""The ways to build one pipeline stage: its parallelism, what it takes of a board, and its cycles.

After DNNBuilder (Zhang et al., ICCAD 2018): a stage computes CPF input by KPF output channels a cycle, keeps
K + stride columns of its input, and either holds its weights on chip or streams them, once for every column
of its output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from ehdnas.core.layers import Layer
from ehdnas.profilers.e2e_perf.packing import bram18
from ehdnas.profilers.e2e_perf.workload import Array

WEIGHTED = ("conv", "linear")
FREE = ("relu", "concat")
# Multiply-accumulates of one DSP slice a cycle, by bits: Xilinx WP486 at 8, WP521 at 4.
MACS_PER_DSP = {4: 4, 8: 2, 16: 1}
# Logic of a MAC unit, of a lane of a pooling or elementwise stage, and of a stage's control. [unverified]
LUT_PER_MAC, LUT_PER_LANE, LUT_PER_STAGE = 50, 32, 600
# DSP slices of a stage's address controllers: DNNBuilder.
DSP_WEIGHTED, DSP_OTHER = 6, 2


# How many columns of its input a stage keeps: a pool's window, one of the other operand's.
_BUFFERED: dict[str, Callable[[Layer], int]] = {
    "max_pool": lambda layer: layer.kernel[1] + layer.stride[1],
    "avg_pool": lambda layer: layer.kernel[1] + layer.stride[1],
    "global_pool": lambda layer: 1,
    "add": lambda layer: 1,
    "mul": lambda layer: 1,
    "activation": lambda layer: 0,
}
OPERATORS = frozenset({*WEIGHTED, *FREE, *_BUFFERED})


@dataclass(frozen=True)
class Options:
    """o ways to build a layer's stage, arrays [o].

    `dsp` slices, `lut` and `columns`, blocks of 18 Kbit for its input, are those of one replica; `weights`
    are blocks of 18 Kbit for its weights, which all replicas share, and `stream` the bytes of weights read
    from outside for one image of every replica. Elementwise and pooling stages work on KPF channels a cycle.
    """

    cpf: Array
    kpf: Array
    cycles: Array
    dsp: Array
    lut: Array
    columns: Array
    weights: Array
    stream: Array

    def __len__(self) -> int:
        return len(self.cycles)

    def take(self, chosen: NDArray[np.integer]) -> Options:
        """Return some of the options."""
        return Options(**{one.name: getattr(self, one.name)[chosen] for one in fields(self)})

    def costs(self) -> Array:
        """Return what is spent, [o, 5]: DSP slices, LUTs, column blocks, weight blocks, streamed bytes."""
        return np.stack([self.dsp, self.lut, self.columns, self.weights, self.stream], axis=1)


def stage_options(layer: Layer, bits: int, widest: int) -> Options:
    """Return the ways to build a layer's stage, those left out that another one beats in everything.

    Cycles: Ho·Wo·Kh·Kw·⌈(Cin/groups)/CPF⌉·⌈Cout/KPF⌉ for a convolution; H·W·⌈C/lanes⌉ for a pool or an
    elementwise operator.
    """
    if layer.operator in WEIGHTED:
        every = _weighted(layer, bits, widest)
    elif layer.operator in FREE:
        every = _other(layer, np.array([float("inf")]), 0, bits)
    else:
        every = _other(layer, _powers(layer.cin, widest), _BUFFERED[layer.operator](layer), bits)
    return every.take(undominated(np.column_stack([every.cycles, every.costs()])))


def fill_share(layer: Layer) -> float:
    """Return which share of its input a stage needs before it can begin: K of its columns, or all of it."""
    if layer.operator in ("linear", "global_pool"):
        return 1.0
    return min(1.0, layer.kernel[1] / layer.w)


def edge_bytes(layers: Sequence[Layer], bits: int) -> Array:
    """Return the bytes [d] of one image's input, with the first layer, and of its output, with the last."""
    moved = np.zeros(len(layers))
    moved[0] += layers[0].cin * layers[0].h * layers[0].w * bits / 8
    moved[-1] += layers[-1].cout * layers[-1].h_out * layers[-1].w_out * bits / 8
    return moved


def undominated(costs: Array) -> NDArray[np.int64]:
    """Return the rows of `costs` [o, m] that no other row is at most equal to in everything, sorted."""
    order = np.lexsort(costs.T[::-1])
    kept: list[int] = []
    for row in order:
        if not kept or not (costs[kept] <= costs[row]).all(axis=1).any():
            kept.append(int(row))
    return np.array(kept, dtype=np.int64)


def _weighted(layer: Layer, bits: int, widest: int) -> Options:
    deep = layer.cin // layer.groups
    cpf, kpf, streamed = (
        part.ravel()
        for part in np.meshgrid(
            _powers(deep, widest), _powers(layer.cout, widest), [False, True], indexing="ij"
        )
    )
    taps = layer.kernel[0] * layer.kernel[1]
    steps = taps * np.ceil(deep / cpf) * np.ceil(layer.cout / kpf)
    # Ping-pong halves, each with what one group of output channels needs, or every weight.
    words = np.where(streamed, 2 * taps * np.ceil(deep / cpf), steps)
    bias = bram18(kpf * bits, np.ceil(layer.cout / kpf))
    held = 1 if layer.operator == "linear" else layer.kernel[1] + layer.stride[1]
    return Options(
        cpf=cpf,
        kpf=kpf,
        cycles=layer.h_out * layer.w_out * steps,
        dsp=np.ceil(cpf * kpf / MACS_PER_DSP[bits]),
        lut=LUT_PER_MAC * cpf * kpf,
        columns=bram18(cpf * bits, np.ceil(layer.cin * layer.h * held / cpf)),
        weights=bram18(cpf * kpf * bits, words) + bias,
        stream=np.where(streamed, layer.weights * bits / 8 * layer.w_out, 0.0),
    )


def _other(layer: Layer, lanes: Array, held: int, bits: int) -> Options:
    nothing = np.zeros_like(lanes)
    free = np.isinf(lanes)
    width = np.where(free, 0, lanes)
    depth = np.ceil(layer.cin * layer.h * held / lanes)
    return Options(
        cpf=np.ones_like(lanes),
        kpf=width,
        cycles=layer.h * layer.w * np.where(free, 0, np.ceil(layer.cin / lanes)),
        dsp=nothing,
        lut=LUT_PER_LANE * width,
        columns=bram18(width * bits, depth),
        weights=nothing,
        stream=nothing,
    )


def _powers(size: int, widest: int) -> Array:
    """Return 1, 2, 4, ... up to the first power of two that covers `size`, `widest` at most."""
    return np.exp2(np.arange(int(np.ceil(np.log2(min(size, widest)))) + 1, dtype=np.float64))
