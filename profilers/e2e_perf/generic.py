"""The generic paradigm: one reusable array of multiply-accumulate units runs the layers in turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ehdnas.core.errors import MeasurementError
from ehdnas.core.layers import Layer
from ehdnas.core.text import nearest
from ehdnas.profilers.e2e_perf.paradigm import Paradigm
from ehdnas.profilers.e2e_perf.slots import published_cycles

# On-chip buffer of a feature map, in elements: the published shapes change tiling between 32768 and 36992.
TILE_ELEMENTS = 32_768
FREE = frozenset({"relu", "add", "mul", "concat"})
POOLS = frozenset({"max_pool", "avg_pool", "global_pool"})
OPERATORS = FREE | POOLS | {"conv", "linear"}

Array = NDArray[np.float64]


class GenericReference(Paradigm):
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

    def cycles(self, layers: Sequence[Layer]) -> NDArray[np.int64]:
        """Return the cycles [n] of each of n layers.

        Raises:
            MeasurementError: a layer's operator or its sizes are not modelled; the message names it.
        """
        for layer in layers:
            _check(layer)
        total = np.zeros(len(layers), dtype=np.int64)
        for operators, formula in (({"conv"}, self._conv), (POOLS, self._pool), ({"linear"}, self._linear)):
            chosen = [index for index, layer in enumerate(layers) if layer.operator in operators]
            if chosen:
                total[chosen] = formula([layers[index] for index in chosen])
        return total

    def timing(self, layers: Sequence[Layer]) -> tuple[float, float]:
        """Return the layers' cycles summed, twice: one image is through before the next one starts."""
        total = float(self.cycles(layers).sum())
        return total, total

    def published(self, choices: NDArray[np.integer]) -> NDArray[np.int64] | None:
        """Return the cycles [n] of DARTS networks `choices` [n, 28] by the slot table, if one is named."""
        return None if self.slot_table is None else published_cycles(choices, self.slot_table)

    def _conv(self, layers: list[Layer]) -> Array:
        cin, cout, w, area, out_area = _columns(layers)
        k0, k1, stride, groups = _window(layers)
        halo = (k0 - stride) * (w + k1) * cin
        tiles = np.ceil(np.maximum(area * cin + np.abs(halo), out_area * cout) / TILE_ELEMENTS)
        weights = self._load(k0 * k1 * cin * cout / groups)
        load, store = area * cin / self.elements_per_cycle, out_area * cout / self.elements_per_cycle
        compute = out_area * k0 * k1 * cin * cout / self.macs_per_cycle
        stream = _ceil(np.maximum(np.maximum(load, compute), store))
        total = _ceil(weights) + _ceil(load / tiles) + stream + _ceil(store / tiles) + self._load(halo)
        return np.maximum(total, 1)

    def _pool(self, layers: list[Layer]) -> Array:
        cin, _, _, area, out_area = _columns(layers)
        return self._load((area + out_area) * cin)

    def _linear(self, layers: list[Layer]) -> Array:
        cin, cout, *_ = _columns(layers)
        weights, load, store = self._load(cin * cout), self._load(cin), self._load(cout)
        compute = _ceil(cin * cout / self.macs_per_cycle)
        return weights + load + np.maximum(np.maximum(weights + load, compute), store) + store

    def _load(self, elements: Array) -> Array:
        return _ceil(elements / self.elements_per_cycle)


def _columns(layers: list[Layer]) -> tuple[Array, Array, Array, Array, Array]:
    """Return Cin, Cout, the padded input's width and its area, and the output's area, each [n]."""
    rows = []
    for layer in layers:
        if layer.operator == "global_pool":
            rows.append((layer.cin, layer.cout, layer.w, (2 * layer.h - 1) * (2 * layer.w - 1), 1))
            continue
        pads = [2 * (pad // gap) for pad, gap in zip(layer.padding, layer.dilation, strict=True)]
        height, width = layer.h + pads[0], layer.w + pads[1]
        rows.append((layer.cin, layer.cout, width, height * width, layer.h_out * layer.w_out))
    cin, cout, width_, area, out_area = np.array(rows, dtype=np.float64).T
    return cin, cout, width_, area, out_area


def _window(layers: list[Layer]) -> tuple[Array, Array, Array, Array]:
    rows = [(*layer.kernel, layer.stride[0], layer.groups) for layer in layers]
    k0, k1, stride, groups = np.array(rows, dtype=np.float64).T
    return k0, k1, stride, groups


def _ceil(value: Array) -> Array:
    # A quotient that is a whole number but for its last bits must not be charged a cycle more.
    return np.ceil(value - 1e-9)


def _check(layer: Layer) -> None:
    if layer.operator not in OPERATORS:
        known = nearest(layer.operator, OPERATORS)
        raise MeasurementError(f"layer '{layer.name}': E2E-Perf does not model '{layer.operator}'{known}")
    sizes = (
        layer.cin,
        layer.cout,
        layer.h,
        layer.w,
        *layer.kernel,
        *layer.stride,
        *layer.dilation,
        layer.groups,
    )
    if min(sizes) < 1 or min(layer.padding) < 0 or min(layer.h_out, layer.w_out) < 1:
        raise MeasurementError(
            f"layer '{layer.name}': a {layer.operator} of {layer.cin} to {layer.cout} channels, "
            f"kernel {layer.kernel}, on {layer.h}x{layer.w} has no output; check the layer table"
        )
