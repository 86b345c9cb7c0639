"""Ranges of activations, chosen from what a network makes of real images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ehdnas.core.errors import ExportError
from ehdnas.core.export_options import Method
from ehdnas.core.graph import Array, Graph, Value, batches, execute
from ehdnas.exporters.quantise.scheme import HIGH, LOW, Range, fixed_ranges, quantised_values, share_scales

Floats = NDArray[np.float64]

_BINS = 1024
_SAMPLED = 1 << 15  # elements of a value that a batch adds to its histogram
_SHRINK = np.linspace(0.25, 1.0, 31)  # of the largest range, tried by the methods that search
_NOTHING = 1e-12
_TAIL = 1e-4  # the share of elements that `percentile` gives up, half at each end


@dataclass
class Histogram:
    """What one value was seen to hold: its extremes, exactly, and the counts of a sample between them."""

    low: float
    high: float
    counts: Floats

    @cached_property
    def centres(self) -> Floats:
        """The middle of each bin."""
        edges = np.linspace(self.low, self.high, len(self.counts) + 1)
        return np.asarray((edges[1:] + edges[:-1]) / 2)


def observe(graph: Graph, images: Sequence[Array]) -> dict[str, Histogram]:
    """Return the histogram of each value that gets an int8 tensor, over images [n, C, H, W].

    Raises:
        ExportError: the network makes values that are no numbers.
    """
    wanted = set(quantised_values(graph))
    extremes: dict[str, tuple[float, float]] = {}

    def widen(name: str, x: Tensor) -> None:
        low, high = (float(one) for one in torch.aminmax(x))
        if not math.isfinite(high - low):
            raise ExportError(f"the network makes values that are no numbers (at {name}); check its weights")
        before = extremes.get(name, (low, high))
        extremes[name] = min(low, before[0]), max(high, before[1])

    _watch(graph, images, wanted, widen)
    counts = {name: np.zeros(_BINS) for name in wanted}

    def count(name: str, x: Tensor) -> None:
        low, high = extremes[name]
        sample = x.flatten()[:: max(1, x.numel() // _SAMPLED)]
        counts[name] += torch.histc(sample, _BINS, low, high).numpy() if low < high else 0

    _watch(graph, images, wanted, count)
    return {name: Histogram(*extremes[name], counts[name]) for name in wanted}


def _watch(
    graph: Graph, images: Sequence[Array], wanted: set[str], see: Callable[[str, Tensor], None]
) -> None:
    def watch(value: Value, made: Tensor) -> Tensor:
        if value.name in wanted:
            see(value.name, made)
        return made

    with torch.no_grad():
        for batch in batches(images):
            execute(graph, batch, watch=watch)


def choose_ranges(graph: Graph, seen: dict[str, Histogram], method: Method) -> dict[str, Range]:
    """Return a range for each value seen, by one method, with those that share a scale made equal."""
    fixed = fixed_ranges(graph)
    chosen = {
        name: fixed.get(name) or Range.around(*_METHODS[method](histogram))
        for name, histogram in seen.items()
    }
    return share_scales(graph, chosen)


def _minmax(seen: Histogram) -> tuple[float, float]:
    return seen.low, seen.high


def _percentile(seen: Histogram) -> tuple[float, float]:
    total = seen.counts.sum()
    if not total:
        return seen.low, seen.high
    share = np.cumsum(seen.counts) / total
    low, high = np.searchsorted(share, (_TAIL / 2, 1 - _TAIL / 2))
    return float(seen.centres[low]), float(seen.centres[min(high, _BINS - 1)])


def _mse(seen: Histogram) -> tuple[float, float]:
    """Return the range of the least mean squared error of rounding and clipping."""

    def error(low: float, high: float) -> float:
        return float((seen.counts * (_rounded(seen.centres, low, high) - seen.centres) ** 2).sum())

    return _least(seen, error)


def _entropy(seen: Histogram) -> tuple[float, float]:
    """Return the range that loses the least information (Migacz, 8-bit Inference with TensorRT, 2017)."""

    def divergence(low: float, high: float) -> float:
        levels = np.round((np.clip(seen.centres, low, high) - low) / (high - low) * (HIGH - LOW)).astype(int)
        inside = (seen.centres >= low) & (seen.centres <= high)
        # Fewer bins than levels lose nothing, whatever they clip. (Values that stay away from zero come to
        # that: the range must hold zero.)
        if inside.sum() < HIGH - LOW:
            return float("inf")
        kept = np.where(inside, seen.counts, 0.0)
        # What a level holds, spread evenly over the bins that fell into it and held anything.
        held = np.bincount(levels, kept > 0, HIGH - LOW + 1)[levels]
        mass = np.bincount(levels, kept, HIGH - LOW + 1)[levels]
        spread = np.where(kept > 0, mass / np.maximum(held, 1), 0.0)
        # What is clipped is found at the ends.
        reference, (first, last) = kept.copy(), np.flatnonzero(inside)[[0, -1]]
        reference[first] += seen.counts[seen.centres < low].sum()
        reference[last] += seen.counts[seen.centres > high].sum()
        p, q = reference / reference.sum(), spread / max(float(spread.sum()), _NOTHING)
        some = p > 0
        return float((p[some] * np.log(p[some] / np.maximum(q[some], _NOTHING))).sum())

    return _least(seen, divergence)


def _least(seen: Histogram, loss: Callable[[float, float], float]) -> tuple[float, float]:
    if not seen.counts.sum():
        return seen.low, seen.high
    tried = [(float(seen.low * share), float(seen.high * share)) for share in _SHRINK]
    losses = [loss(min(low, 0.0), max(high, 0.0)) for low, high in tried]
    return tried[int(np.argmin(losses))]


def _rounded(x: Floats, low: float, high: float) -> Floats:
    step = (high - low) / (HIGH - LOW)
    return np.asarray(np.round((np.clip(x, low, high) - low) / step) * step + low)


_METHODS: dict[Method, Callable[[Histogram], tuple[float, float]]] = {
    "minmax": _minmax,
    "percentile": _percentile,
    "mse": _mse,
    "entropy": _entropy,
}
METHODS: tuple[Method, ...] = tuple(_METHODS)
