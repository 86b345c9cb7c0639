"""What is known of a space before anything is measured: its graphs, and what each choice costs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from ehdnas.core.graph import layer_table
from ehdnas.search.predictor.liveness import live
from ehdnas.search.spaces.base import CellGraph, NetworkShape, Part, Space

MACS = "macs"
OP_LATENCY = "op_latency_ms"


@dataclass(frozen=True)
class Costs:
    """Costs of every choice alone, `chosen` [slots, choices, kinds], and of what is in every network.

    `names` [kinds] says what they are, `fixed` [kinds] holds the stem's, the classifier's and the like.
    """

    names: tuple[str, ...]
    chosen: Tensor
    fixed: Tensor


@dataclass(frozen=True)
class SpaceFacts:
    """The graphs of a space's cells and the costs of its choices, each where there are such."""

    graphs: tuple[CellGraph, ...] = ()
    costs: Costs | None = None

    @property
    def digest(self) -> str:
        """What tells facts apart; a predictor fitted with others would misread its features."""
        told = hashlib.sha256(repr(self.graphs).encode())
        if self.costs is not None:
            told.update(repr(self.costs.names).encode())
            for costs in (self.costs.chosen, self.costs.fixed):
                told.update(costs.double().contiguous().numpy().tobytes())
        return told.hexdigest()[:16]

    def total(self, gates: Tensor, name: str) -> Tensor | None:
        """Return the networks' sums [n] of one cost, dead edges left out; None where it is not known.

        Args:
            gates: [n, slots, choices].
        """
        if self.costs is None or name not in self.costs.names:
            return None
        return self.totals(gates)[self.costs.names.index(name)]

    def totals(self, gates: Tensor) -> list[Tensor]:
        """Return the networks' sums [n] of each cost that is known, dead edges left out.

        Args:
            gates: [n, slots, choices].
        """
        if self.costs is None:
            return []
        effective = gates * live(gates, self.graphs)[:, :, None]
        chosen, fixed = self.costs.chosen.to(gates), self.costs.fixed.to(gates)
        kinds = range(len(self.costs.names))
        return [(effective * chosen[:, :, kind]).sum((1, 2)) + fixed[kind] for kind in kinds]


def facts_of(space: Space, shape: NetworkShape) -> SpaceFacts:
    """Return the facts of a space at a network shape, costs from the layer tables of its parts."""
    with torch.device("meta"):  # layer tables read shapes alone: weights would only take memory
        parts = space.parts(shape)
    tables: dict[tuple[int, tuple[int, int, int]], list[float]] = {}

    def cost(group: tuple[Part, ...]) -> Tensor:
        total = torch.zeros(len(_KINDS), dtype=torch.float64)
        for part in group:
            key = (id(part.module), part.inputs[0])
            if key not in tables:
                tables[key] = _costs(part)
            total += torch.tensor(tables[key], dtype=torch.float64)
        return total

    chosen = torch.zeros(space.slots, space.choices, len(_KINDS), dtype=torch.float64)
    for (slot, choice), group in parts.chosen.items():
        chosen[slot, choice] = cost(group)
    return SpaceFacts(space.graphs, Costs(_KINDS, chosen, cost(parts.fixed)))


_KINDS = (MACS, "weights", "elements", "layers")


def _costs(part: Part) -> list[float]:
    layers = layer_table(part.module, part.inputs[0]).layers
    elements = sum(layer.cout * layer.h_out * layer.w_out for layer in layers)
    return [
        float(sum(layer.macs for layer in layers)),
        float(sum(layer.weights for layer in layers)),
        float(elements),
        float(len(layers)),
    ]
