"""Where the boxes of a small directed graph go: layers from left to right, with few crossings.

The layered method of Sugiyama, Tagawa and Toda (IEEE Trans. SMC 11(2), 1981): a link over several layers
passes through a place of its own in each, layers are ordered by barycentres, heights are then relaxed.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

_SWEEPS = 12


@dataclass(frozen=True)
class Layout:
    """Layer `rank` and height `y` of every vertex, those put in included, and the vertices of each link."""

    rank: list[int]
    y: list[float]
    paths: list[list[int]]


def arrange(rank: list[int], room: list[float], links: list[tuple[int, int]], passing: float) -> Layout:
    """Place vertices that are in layers `rank` and need `room` in height; links go to later layers.

    Args:
        passing: the room that a link needs in a layer it only passes.
    """
    rank, room = list(rank), list(room)
    paths = []
    for start, end in links:
        between = range(rank[start] + 1, rank[end])
        added = list(range(len(rank), len(rank) + len(between)))
        rank.extend(between)
        room.extend([passing] * len(added))
        paths.append([start, *added, end])
    steps = [step for path in paths for step in pairwise(path)]
    layers = [[v for v in range(len(rank)) if rank[v] == layer] for layer in range(max(rank) + 1)]
    layers = _order(layers, steps)
    return Layout(rank, _heights(layers, room, steps), paths)


def _order(layers: list[list[int]], steps: list[tuple[int, int]]) -> list[list[int]]:
    """Return the layers in the order, of those that barycentre sweeps pass through, with fewest crossings."""
    best = layers
    for sweep in range(_SWEEPS):
        forwards = sweep % 2 == 0
        near = _neighbours(steps, forwards)
        layers = [list(layer) for layer in layers]
        sequence = range(1, len(layers)) if forwards else range(len(layers) - 2, -1, -1)
        for index in sequence:
            before = layers[index - 1 if forwards else index + 1]
            place = {v: float(at) for at, v in enumerate(before)}
            own = {v: float(at) for at, v in enumerate(layers[index])}
            layers[index].sort(key=lambda v: _mean([place[n] for n in near.get(v, [])], own[v]))
        if _crossings(layers, steps) < _crossings(best, steps):
            best = layers
    return best


def _crossings(layers: list[list[int]], steps: list[tuple[int, int]]) -> int:
    place = {v: (index, at) for index, layer in enumerate(layers) for at, v in enumerate(layer)}
    ends = [(*place[start], place[end][1]) for start, end in steps]
    return sum(
        a[0] == b[0] and (a[1] - b[1]) * (a[2] - b[2]) < 0 for i, a in enumerate(ends) for b in ends[:i]
    )


def _heights(layers: list[list[int]], room: list[float], steps: list[tuple[int, int]]) -> list[float]:
    """Return heights near those of the neighbours, with every vertex's room kept free."""
    near = [_neighbours(steps, True), _neighbours(steps, False)]
    y = [0.0] * len(room)
    for _ in range(4 * _SWEEPS):
        for layer in layers:
            wanted = [_mean([y[n] for side in near for n in side.get(v, [])], y[v]) for v in layer]
            for v, height in zip(layer, _apart(wanted, [room[v] for v in layer]), strict=True):
                y[v] = height
    return y


def _apart(wanted: list[float], room: list[float]) -> list[float]:
    """Return heights in the same order, moved apart as far as `room` asks, about the same middle."""
    placed: list[float] = []
    for at, height in enumerate(wanted):
        floor = placed[-1] + (room[at - 1] + room[at]) / 2 if placed else height
        placed.append(max(height, floor))
    shift = _mean([want - got for want, got in zip(wanted, placed, strict=True)], 0.0)
    return [height + shift for height in placed]


def _neighbours(steps: list[tuple[int, int]], before: bool) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for start, end in steps:
        vertex, other = (end, start) if before else (start, end)
        found.setdefault(vertex, []).append(other)
    return found


def _mean(values: list[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
