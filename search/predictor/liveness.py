"""Which edges of a cell do work that counts, as differentiable functions of the gates."""

from __future__ import annotations

import torch
from torch import Tensor

from ehdnas.search.spaces.base import CellGraph


def present(gates: Tensor, graph: CellGraph) -> dict[int, Tensor]:
    """Return by slot how much of each edge is there at all, [n], for gates [n, slots, choices]."""
    there = (1 - gates[:, :, sorted(graph.absent)].sum(2)).unbind(1)
    return {slot: there[slot] for _, _, slot in graph.edges}


def fed(gates: Tensor, graph: CellGraph) -> list[Tensor]:
    """Return for every node [n] whether a path reaches it from an input; between 0 and 1 for soft gates."""
    there = present(gates, graph)
    reached = [torch.full_like(gates[:, 0, 0], float(node in graph.inputs)) for node in range(graph.nodes)]
    for source, target, slot in sorted(graph.edges):
        reached[target] = _either(reached[target], reached[source] * there[slot])
    return reached


def wanted(gates: Tensor, graph: CellGraph) -> list[Tensor]:
    """Return for every node [n] whether a path leads from it to an output; between 0 and 1 for soft gates."""
    there = present(gates, graph)
    leads = [torch.full_like(gates[:, 0, 0], float(node in graph.outputs)) for node in range(graph.nodes)]
    for source, target, slot in sorted(graph.edges, key=lambda edge: -edge[1]):
        leads[source] = _either(leads[source], leads[target] * there[slot])
    return leads


def live(gates: Tensor, graphs: tuple[CellGraph, ...]) -> Tensor:
    """Return by slot [n, slots] whether it lies on a path from an input to an output; 1 outside any graph."""
    columns = [torch.ones_like(gates[:, 0, 0])] * gates.shape[1]
    for graph in graphs:
        sources, targets, there = fed(gates, graph), wanted(gates, graph), present(gates, graph)
        for source, target, slot in graph.edges:
            columns[slot] = sources[source] * targets[target] * there[slot]
    return torch.stack(columns, 1)


def _either(one: Tensor, other: Tensor) -> Tensor:
    """Return the probabilistic or; exact for 0 and 1."""
    return one + other - one * other
