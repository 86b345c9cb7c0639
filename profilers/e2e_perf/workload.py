"""What the models of E2E-Perf work on: distinct layers as columns of numbers, and how often each is used.

A network's cycles are sums and maxima over its layers, so two networks that share a layer share its cost.
A population of a search space has a few dozen distinct layers, whatever its size: every formula runs once
for each of those, and each network is a row of counts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ehdnas.core.errors import MeasurementError
from ehdnas.core.layers import Layer, LayerTable
from ehdnas.core.text import nearest

Array = NDArray[np.float64]

# Networks whose layers are counted at once, and sums that a group of slots may have: both fit a cache.
_CHUNK, _JOINED = 4_096, 512


class Columns:
    """d layers as arrays [d] of floats, one for each size. Heights and widths without `_out` are inputs'."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        rows = np.array([_numbers(layer) for layer in layers], dtype=np.float64).reshape(-1, 18)
        self.layers = tuple(layers)
        self.operator = np.array([layer.operator for layer in layers], dtype="U32")
        (self.cin, self.cout, self.h, self.w, self.h_out, self.w_out, self.kernel_h, self.kernel_w,
         self.stride_h, self.stride_w, self.pad_h, self.pad_w, self.dilation_h, self.dilation_w,
         self.groups, self.bits, self.macs, self.weights) = rows.T  # fmt: skip

    def is_a(self, *operators: str) -> NDArray[np.bool_]:
        """Return which layers [d] are one of the operators."""
        return np.isin(self.operator, operators)


@dataclass(frozen=True)
class Workload:
    """n networks: `counts` [n, d] says how often each has each of the d distinct `layers`,
    which are named as they were where they first occurred.

    `edge_elements` [n] are those that come from and go to the world outside: of the input and the output.
    """

    layers: tuple[Layer, ...]
    counts: NDArray[np.int64]
    edge_elements: NDArray[np.int64]

    @cached_property
    def columns(self) -> Columns:
        """The distinct layers as arrays."""
        return Columns(self.layers)

    @classmethod
    def of_networks(cls, tables: Sequence[LayerTable]) -> Workload:
        """Return n networks given by their layer tables.

        Raises:
            MeasurementError: a table has operators that are not modelled, or no layer at all.
        """
        index: dict[Layer, tuple[int, Layer]] = {}
        rows = [_indices(modelled(table).layers, index) for table in tables]
        counts = np.stack([np.bincount(row, minlength=len(index)) for row in rows])
        edges = [_edge_elements(table.layers) for table in tables]
        return cls(tuple(layer for _, layer in index.values()), counts, np.array(edges, dtype=np.int64))

    @classmethod
    def of_population(
        cls,
        fixed: Sequence[Layer],
        chosen: Mapping[tuple[int, int], Sequence[Layer]],
        choices: NDArray[np.integer],
        edge_elements: int | None = None,
    ) -> Workload:
        """Return the n networks `choices` [n, slots] of a search space.

        Args:
            fixed: the layers that every network of the space has, its first and its last among them.
            chosen: (slot, choice) -> the layers that a network has if it takes that choice there.
            edge_elements: of every network, where `fixed` does not begin and end it.
        """
        index: dict[Layer, tuple[int, Layer]] = {}
        base = _indices(fixed, index)
        parts = {key: _indices(layers, index) for key, layers in chosen.items()}
        slots, widest = choices.shape[1], max((choice for _, choice in parts), default=0) + 1
        table = np.zeros((slots, max(widest, int(choices.max(initial=0)) + 1), len(index)), dtype=np.int64)
        for (slot, choice), part in parts.items():
            table[slot, choice] = np.bincount(part, minlength=len(index))
        counts = _gather(np.bincount(base, minlength=len(index)), table, choices)
        edge = _edge_elements(fixed) if edge_elements is None else edge_elements
        edges = np.full(len(choices), edge, dtype=np.int64)
        return cls(tuple(layer for _, layer in index.values()), counts, edges)


def _gather(
    base: NDArray[np.int64], table: NDArray[np.int64], choices: NDArray[np.integer]
) -> NDArray[np.int64]:
    """Return `base` [d] plus the sums [n, d] of rows of `table` [slots, k, d], several slots at a time."""
    counts = np.empty((len(choices), len(base)), dtype=np.int64)
    # Whole rows are added, so the narrowest type that holds the sums moves the least.
    kind = np.min_scalar_type(int((base + table.max(axis=1).sum(axis=0)).max(initial=0)))
    groups = _joined(table.astype(kind), max(len(choices), 1))
    for start in range(0, len(choices), _CHUNK):
        part = choices[start : start + _CHUNK]
        total = np.tile(base.astype(kind), (len(part), 1))
        for slots, places, sums in groups:
            total += sums.take(part[:, slots] @ places, axis=0)
        counts[start : start + _CHUNK] = total
    return counts


def _joined(table: NDArray[Any], networks: int) -> list[tuple[slice, NDArray[np.int64], NDArray[Any]]]:
    """Return, by neighbouring slots, their place values and the sums [k^slots, d] of all their choices.

    As many slots are joined as leave at most `_JOINED` sums, and no more than there are networks.
    """
    slots, width, distinct = table.shape
    span, most = 1, min(networks, _JOINED)
    while width > 1 and width ** (span + 1) <= most:
        span += 1
    groups = []
    for start in range(0, slots, span):
        sums = table[start]
        for own in table[start + 1 : start + span]:
            sums = (sums[:, None] + own).reshape(-1, distinct)
        places = width ** np.arange(min(span, slots - start))[::-1]
        groups.append((slice(start, start + span), places, sums))
    return groups


def _edge_elements(layers: Sequence[Layer]) -> int:
    first, last = layers[0], layers[-1]
    return first.cin * first.h * first.w + last.cout * last.h_out * last.w_out


def _indices(layers: Sequence[Layer], index: dict[Layer, tuple[int, Layer]]) -> NDArray[np.int64]:
    found = [index.setdefault(unnamed(layer), (len(index), layer))[0] for layer in layers]
    return np.array(found, dtype=np.int64)


def unnamed(layer: Layer) -> Layer:
    """Return the layer without its name: what it computes, and nothing else."""
    return replace(layer, name="")


def require_modelled(columns: Columns, operators: Collection[str]) -> None:
    """Raise MeasurementError, naming the layer, unless all operators are known and all sizes can be.

    Args:
        operators: what a model of an accelerator knows.
    """
    for layer in columns.layers:
        if layer.operator not in operators:
            known = nearest(layer.operator, operators)
            raise MeasurementError(f"layer '{layer.name}': E2E-Perf does not model '{layer.operator}'{known}")
    sizes = [columns.cin, columns.cout, columns.h_out, columns.w_out, columns.kernel_h, columns.kernel_w]
    sizes += [columns.stride_h, columns.stride_w, columns.dilation_h, columns.dilation_w, columns.groups]
    for at in np.flatnonzero(np.minimum.reduce([*sizes, columns.pad_h + 1, columns.pad_w + 1]) < 1)[:1]:
        layer = columns.layers[at]
        raise MeasurementError(
            f"layer '{layer.name}': a {layer.operator} of {layer.cin} to {layer.cout} channels, "
            f"kernel {layer.kernel}, on {layer.h}x{layer.w} has no output; check the layer table"
        )


def modelled(table: LayerTable) -> LayerTable:
    """Return the table itself.

    Raises:
        MeasurementError: it has operators that no row describes, or no row at all.
    """
    if table.unsupported:
        raise MeasurementError(table.refusal("E2E-Perf"))
    if not table.layers:
        raise MeasurementError("the layer table has nothing to time")
    return table


def _numbers(layer: Layer) -> tuple[float, ...]:
    return (
        layer.cin, layer.cout, layer.h, layer.w, layer.h_out, layer.w_out, *layer.kernel, *layer.stride,
        *layer.padding, *layer.dilation, layer.groups, layer.bits, layer.macs, layer.weights,
    )  # fmt: skip
