"""The generic paradigm: one reusable array of multiply-accumulate units runs the layers in turn."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ehdnas.profilers.e2e_perf.generic.slots import published_cycles
from ehdnas.profilers.e2e_perf.paradigm import Sequential
from ehdnas.profilers.e2e_perf.simulation import Costs
from ehdnas.profilers.e2e_perf.workload import Array, Columns, require_modelled

# On-chip buffer of a feature map, in elements: the published shapes change tiling between 32768 and 36992.
TILE_ELEMENTS = 32_768
FREE = ("relu", "add", "mul", "concat")
POOLS = ("max_pool", "avg_pool", "global_pool")
OPERATORS = frozenset({*FREE, *POOLS, "conv", "linear"})


class GenericReference(Sequential):
    """The array as EH-DNAS (arXiv 2111.12299) times it: made to reproduce the paper's figures.

    `macs_per_cycle` and `elements_per_cycle` are multiply-accumulates and 16-bit elements of external
    memory a cycle. The mode charges a depthwise convolution as a dense one, which real accelerators need
    not, and always moves 16-bit elements, whatever a layer's `bits`. `relu`, `add`, `mul` and `concat`
    cost nothing.

    The formulas were recovered from the published per-operation tables, with L = elements /
    `elements_per_cycle`, H and W of the input, and the kernel K, stride s and padding p:

    - pool: ⌈((H+2p)(W+2p)·C + Ho·Wo·C) / elements_per_cycle⌉; a global pool has K−1 rows of padding in all.
    - conv: ⌈Lw⌉ + ⌈Lin/n⌉ + ⌈max(Lin, compute, Lout)⌉ + ⌈Lout/n⌉ + ⌈Lhalo⌉, `in` with its padding,
      compute = Ho·Wo·K²·Cin·Cout / macs_per_cycle with groups ignored, weights with groups respected.
      The halo is the (K−s)(W+2p+K)·Cin elements that two neighbouring tiles share; where s > K it is
      what they both skip, and negative. n = ⌈max(in + |halo|, out) / 32768⌉ tiles.
    - linear: ⌈Lw⌉ + ⌈Lin⌉ + max(⌈Lw⌉+⌈Lin⌉, compute, Lout) + ⌈Lout⌉: no pixel reuses a weight, so the
      weights stream like the input does.

    The published table charges a dilated convolution as an undilated one, so `padding` counts divided by
    `dilation`. Against the table: pointwise within 0.04 %, pools and the classifier exact, stem 0.1 %,
    depthwise with pointwise 0.3 %, factorised reduce 0.2 %, but −6.1 % for 64 channels at 32×32.
    """

    paradigm: ClassVar[str] = "generic"
    mode: ClassVar[str] = "reference"

    macs_per_cycle: int = Field(gt=0)
    elements_per_cycle: float = Field(gt=0, allow_inf_nan=False)
    slot_table: Literal["ehdnas-c16x8"] | None = None

    def costs(self, columns: Columns) -> Costs:
        """Return the cycles of d layers, each [d]; what computes and what moves is not told apart.

        Raises:
            MeasurementError: a layer's operator or its sizes are not modelled; the message names it.
        """
        require_modelled(columns, OPERATORS)
        total = np.zeros(len(columns.layers))
        vector = columns.is_a("linear") & (columns.h * columns.w == 1)
        # A matrix product of several rows is a pointwise convolution of as many pixels.
        product = columns.is_a("conv", "linear") & ~vector
        for which, formula in (
            (product, self._conv),
            (columns.is_a(*POOLS), self._pool),
            (vector, self._linear),
        ):
            chosen = np.flatnonzero(which)
            if len(chosen):
                total[chosen] = formula(Columns([columns.layers[index] for index in chosen]))
        nothing = np.zeros_like(total)
        moved = 2.0 * (_padded_area(columns) * columns.cin + columns.weights + _outputs(columns))
        return Costs(total, total, nothing, nothing, np.where(total > 0, moved, 0.0), apart=False)

    def published(self, choices: NDArray[np.integer]) -> NDArray[np.int64] | None:
        """Return the cycles [n] of DARTS networks `choices` [n, 28] by the slot table, if one is named."""
        return None if self.slot_table is None else published_cycles(choices, self.slot_table)

    def _conv(self, columns: Columns) -> Array:
        load, store = _padded_area(columns) * columns.cin, _outputs(columns)
        width = columns.w + 2 * (columns.pad_w // columns.dilation_w)
        halo = (columns.kernel_h - columns.stride_h) * (width + columns.kernel_w) * columns.cin
        tiles = np.ceil(np.maximum(load + np.abs(halo), store) / TILE_ELEMENTS)
        taps = columns.kernel_h * columns.kernel_w
        compute = columns.h_out * columns.w_out * taps * columns.cin * columns.cout / self.macs_per_cycle
        load, store = load / self.elements_per_cycle, store / self.elements_per_cycle
        stream = _ceil(np.maximum(np.maximum(load, compute), store))
        total = self._load(columns.weights) + _ceil(load / tiles) + stream + _ceil(store / tiles)
        return np.maximum(total + self._load(halo), 1)

    def _pool(self, columns: Columns) -> Array:
        return self._load(_padded_area(columns) * columns.cin + _outputs(columns))

    def _linear(self, columns: Columns) -> Array:
        weights, load = self._load(columns.weights), self._load(columns.cin)
        store, compute = self._load(columns.cout), _ceil(columns.weights / self.macs_per_cycle)
        return weights + load + np.maximum(np.maximum(weights + load, compute), store) + store

    def _load(self, elements: Array) -> Array:
        return _ceil(elements / self.elements_per_cycle)


def _padded_area(columns: Columns) -> Array:
    """Return the pixels [d] of the padded input; a global pool is charged K−1 rows of padding in all."""
    whole = columns.is_a("global_pool")
    height = columns.h + np.where(whole, columns.h - 1, 2 * (columns.pad_h // columns.dilation_h))
    width = columns.w + np.where(whole, columns.w - 1, 2 * (columns.pad_w // columns.dilation_w))
    return height * width


def _outputs(columns: Columns) -> Array:
    return columns.h_out * columns.w_out * columns.cout


def _ceil(value: Array) -> Array:
    # A quotient that is a whole number but for its last bits must not be charged a cycle more.
    return np.ceil(value - 1e-9)
