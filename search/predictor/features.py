"""What a predictor sees of an architecture: differentiable features of its slots, its graph and its costs.

Which work a compiler leaves out differs from one to the next: edges whose result nobody reads, edges that
get nothing but zeros, both, or neither. So a choice is described four times, as it stands and by what it is
connected to, and the fit decides which description the device follows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ehdnas.search.predictor.facts import SpaceFacts
from ehdnas.search.predictor.liveness import fed, present, wanted
from ehdnas.search.spaces.base import CellGraph

_Block = tuple[Tensor, list[int], bool]
"""Features [n, d], which of the block's groups each is in, and whether they tell of single edges."""


@dataclass(frozen=True)
class Features:
    """Features [n, d] of architectures; those of a group [d] are about as important as one another.

    `single` [d] says which tell of one edge of a cell: how often counts for more than where.
    """

    values: Tensor
    groups: Tensor
    single: Tensor

    def beside(self, more: Tensor) -> Features:
        """Return these features and, each a group of its own, more of them [n, k]."""
        groups = int(self.groups.max()) + 1 + torch.arange(more.shape[1])
        single = torch.cat([self.single, torch.zeros(more.shape[1], dtype=torch.bool)])
        return Features(torch.cat([self.values, more], 1), torch.cat([self.groups, groups]), single)


def whole(gates: Tensor, facts: SpaceFacts) -> Features:
    """Return all there is to know of architectures, for gates [n, slots, choices]."""
    blocks = [_slots(gates, bool(facts.graphs)), *_spans(gates, facts.graphs)]
    for graph in facts.graphs:
        edges = Edges(gates, graph)
        for kept in (edges.read, edges.live, edges.idle):
            blocks += [_slots(edges.gates * kept[:, :, None], True), _counts(edges.gates * kept[:, :, None])]
        blocks += [_each(edges.structure), _each(edges.fan_in)]
    return _joined([*blocks, *_costs(gates, facts)])


def effective(gates: Tensor, facts: SpaceFacts) -> Features:
    """Return only what the work depends on that cannot be left out, for gates [n, slots, choices]."""
    if not facts.graphs:
        return _joined([_slots(gates, False), _counts(gates), *_costs(gates, facts)])
    blocks = []
    for graph in facts.graphs:
        edges = Edges(gates, graph)
        kept = edges.gates * edges.live[:, :, None]
        blocks += [_slots(kept, True), _counts(kept), _each(edges.structure)]
    inside = {slot for graph in facts.graphs for _, _, slot in graph.edges}
    outside = [slot for slot in range(gates.shape[1]) if slot not in inside]
    if outside:
        blocks.append(_slots(gates[:, outside], False))
    return _joined([*blocks, *_costs(gates, facts)])


def alone(gates: Tensor, facts: SpaceFacts) -> Features:
    """Return what is effective, or in a space without graphs every choice by itself."""
    return effective(gates, facts) if facts.graphs else _joined([_slots(gates, False), *_costs(gates, facts)])


class Edges:
    """The edges of one kind of cell, as differentiable functions of gates [n, slots, choices]."""

    def __init__(self, gates: Tensor, graph: CellGraph) -> None:
        self.graph = graph
        self.slots = [slot for _, _, slot in graph.edges]
        there, sources, targets = present(gates, graph), fed(gates, graph), wanted(gates, graph)
        kept = torch.ones(gates.shape[2]).to(gates)
        kept[sorted(graph.absent)] = 0
        self.gates = gates[:, self.slots] * kept
        """[n, edges, choices], absent choices left out"""
        columns = [(there[slot], sources[source], targets[target]) for source, target, slot in graph.edges]
        self.present = torch.stack([column[0] for column in columns], 1)
        self.read = torch.stack([column[0] * column[2] for column in columns], 1)
        """[n, edges]: whether somebody reads the result"""
        self.live = torch.stack([column[0] * column[1] * column[2] for column in columns], 1)
        self.idle = self.present * (1 - self.read) * self._alone()
        """[n, edges]: edges that nobody reads and that end in no addition, which some converters keep"""

    def _alone(self) -> Tensor:
        columns = []
        for own, (_, target, _) in enumerate(self.graph.edges):
            others = [i for i, edge in enumerate(self.graph.edges) if edge[1] == target and i != own]
            columns.append((1 - self.present[:, others]).prod(1))
        return torch.stack(columns, 1)

    @property
    def fan_in(self) -> Tensor:
        """How many edges enter each node, [n, nodes]."""
        return self._entering(self.present)

    @property
    def structure(self) -> Tensor:
        """Depth in live edges, depth in live operations, additions, live nodes, live edges: [n, 5]."""
        entering = self._entering(self.live)
        additions = (entering - 1).clamp_min(0).sum(1)
        working = 1 - self.gates[:, :, sorted(self.graph.identity)].sum(2)
        depths = self._depth(torch.ones_like(working)), self._depth(working)
        return torch.stack([*depths, additions, entering.clamp_max(1).sum(1), self.live.sum(1)], 1)

    def _entering(self, kept: Tensor) -> Tensor:
        columns = [torch.zeros_like(kept[:, 0]) for _ in range(self.graph.nodes)]
        for own, (_, target, _) in enumerate(self.graph.edges):
            columns[target] = columns[target] + kept[:, own]
        return torch.stack(columns, 1)

    def _depth(self, length: Tensor) -> Tensor:
        """Return the longest live path [n], edges being as long as `length` [n, edges] says."""
        depth = [torch.zeros_like(length[:, 0]) for _ in range(self.graph.nodes)]
        for own, (source, target, _) in sorted(enumerate(self.graph.edges), key=lambda item: item[1][:2]):
            longer = self.live[:, own] * (depth[source] + length[:, own])
            depth[target] = torch.maximum(depth[target], longer)
        return torch.stack(depth, 1).max(1).values


def _slots(gates: Tensor, single: bool) -> _Block:
    """Every (slot, choice) by itself, grouped by choice."""
    slots, choices = gates.shape[1:]
    return gates.flatten(1), list(range(choices)) * slots, single


def _counts(gates: Tensor) -> _Block:
    """How often each choice is taken, each a group."""
    return gates.sum(1), list(range(gates.shape[2])), False


def _spans(gates: Tensor, graphs: tuple[CellGraph, ...]) -> list[_Block]:
    """Counts over the slots of each cell or, in a space without graphs, over halves, quarters and so on.

    Neighbouring slots of a chain work on tensors of about the same size, so their choices cost about alike.
    """
    if graphs:
        return [_counts(gates[:, [slot for _, _, slot in graph.edges]]) for graph in graphs]
    blocks, parts = [_counts(gates)], 2
    while parts < gates.shape[1]:
        counts = torch.cat([part.sum(1) for part in gates.tensor_split(parts, dim=1)], 1)
        blocks.append((counts, [0] * counts.shape[1], False))
        parts *= 2
    return blocks


def _each(values: Tensor) -> _Block:
    return values, list(range(values.shape[1])), False


def _costs(gates: Tensor, facts: SpaceFacts) -> list[_Block]:
    return [] if facts.costs is None else [_each(facts.totals(gates))]


def _joined(blocks: list[_Block]) -> Features:
    groups, singles, first = [], [], 0
    for _, own, single in blocks:
        groups += [first + group for group in own]
        singles += [single] * len(own)
        first += max(own) + 1
    values = torch.cat([values for values, _, _ in blocks], 1)
    return Features(values, torch.tensor(groups), torch.tensor(singles))
