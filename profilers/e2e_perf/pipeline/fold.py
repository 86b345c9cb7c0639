"""The pipelines of one network that nothing beats, stage by stage: the exact part of the exploration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ehdnas.core.layers import Layer
from ehdnas.profilers.e2e_perf.pipeline.allocation import Limits, Needs, controllers, options_of
from ehdnas.profilers.e2e_perf.pipeline.stages import Options, edge_bytes, undominated
from ehdnas.profilers.e2e_perf.workload import Array, unnamed

# Bottlenecks tried, and partial pipelines kept at each stage: enough to be exact on small networks.
_BOTTLENECKS = 64
_KEPT = 64
_APART = 8


@dataclass(frozen=True)
class Front:
    """p pipelines of one bottleneck: what they spend [p, 5], as `Options.costs`, and their options [p, d]."""

    bottleneck: float
    spent: Array
    picks: NDArray[np.int64]


@dataclass(frozen=True)
class Found:
    """The option of each of d layers, and how often the pipeline is copied."""

    picks: list[int]
    replicas: int


def fastest(layers: Sequence[Layer], bits: int, widest: int, limits: Limits) -> Found | None:
    """Return the pipeline of the highest throughput within the limits, or None if none was found.

    Layers that are alike are built alike, where the network has more than `_APART` layers.
    """
    distinct = (
        list(dict.fromkeys(map(unnamed, layers)))
        if len(layers) > _APART
        else [unnamed(one) for one in layers]
    )
    repeats = np.bincount(_positions(layers, distinct))
    stages = [options_of(layer, bits, widest) for layer in distinct]
    dsp, lut = (np.array(float(part @ repeats)) for part in controllers(distinct))
    edges = edge_bytes(layers, bits).sum()
    best, found = 0.0, None
    for front in fronts(stages, repeats.tolist()):
        spent = front.spent.T
        replicas = Needs(dsp, spent[0], spent[3], spent[2], lut, spent[1]).replicas(limits)
        moved = (spent[4] + replicas * edges) / limits.bytes_per_cycle
        rates = replicas / np.maximum(front.bottleneck, moved)
        at = int(rates.argmax())
        if rates[at] > best:
            best, found = float(rates[at]), (front.picks[at], int(replicas[at]))
    if found is None:
        return None
    return Found([int(found[0][position]) for position in _positions(layers, distinct)], found[1])


def _positions(layers: Sequence[Layer], distinct: Sequence[Layer]) -> list[int]:
    """Return, for each layer, which of the distinct ones it is; each its own where none were merged."""
    if len(distinct) == len(layers):
        return list(range(len(layers)))
    index = {layer: at for at, layer in enumerate(distinct)}
    return [index[unnamed(layer)] for layer in layers]


def fronts(stages: Sequence[Options], repeats: Sequence[int]) -> list[Front]:
    """Return, for every bottleneck that stages can have, the pipelines that no other one beats.

    Args:
        stages: the options of d distinct layers, each used `repeats` times with one option for all.

    What is kept depends on the network alone and on no board, so that a better board never has fewer.
    Exact until more than `_KEPT` partial pipelines are undominated; from there on those that spend least,
    by different weights of the five, are kept. Bottlenecks are thinned to `_BOTTLENECKS`.
    """
    slowest = max(float(stage.cycles.min()) for stage in stages)
    cycles = np.unique(np.concatenate([stage.cycles for stage in stages]))
    cycles = cycles[cycles >= slowest]
    if len(cycles) > _BOTTLENECKS:
        cycles = np.unique(cycles[np.geomspace(1, len(cycles), _BOTTLENECKS).astype(int) - 1])
    return [_front(stages, repeats, float(bottleneck)) for bottleneck in cycles]


def _front(stages: Sequence[Options], repeats: Sequence[int], bottleneck: float) -> Front:
    spent, picks = np.zeros((1, 5)), np.zeros((1, 0), dtype=np.int64)
    for stage, count in zip(stages, repeats, strict=True):
        fits = np.flatnonzero(stage.cycles <= bottleneck)
        own = stage.costs()[fits]
        best = undominated(own)
        fits, own = fits[best], own[best]
        total = (spent[:, None] + count * own[None]).reshape(-1, 5)
        kept = _thin(total)
        before, option = np.divmod(kept, len(fits))
        spent, picks = total[kept], np.column_stack([picks[before], fits[option]])
    return Front(bottleneck, spent, picks)


def _thin(total: Array) -> NDArray[np.int64]:
    """Return the rows of `total` [p, 5] to keep: the undominated ones, or a spread of `_KEPT` of them."""
    best = undominated(total)
    if len(best) <= _KEPT:
        return best
    scale = total[best] / np.maximum(total[best].mean(axis=0), 1e-9)
    weights = np.random.default_rng(0).dirichlet(np.full(total.shape[1], 0.5), size=2 * _KEPT)
    chosen: NDArray[np.int64] = np.unique((scale @ weights.T).argmin(axis=0))[:_KEPT]
    return best[chosen]
