"""What is known of a space before anything is measured: its graphs, and what each choice costs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from ehdnas.core.layers import Layer
from ehdnas.search.predictor.liveness import live
from ehdnas.search.spaces.base import CellGraph, Decision, NetworkShape, Part, Space
from ehdnas.search.spaces.tables import part_tables

MACS = "macs"
OP_LATENCY = "op_latency_ms"


@dataclass(frozen=True)
class Costs:
    """Costs of every choice alone, `chosen` [slots, choices, kinds], and of what is in every network.

    `names` [kinds] says what they are, `fixed` [kinds] holds the stem's, the classifier's and the like.
    `together` [keys, kinds] holds what the decisions of each of the `keys` cost when all of them are taken.
    """

    names: tuple[str, ...]
    chosen: Tensor
    fixed: Tensor
    keys: tuple[tuple[Decision, ...], ...] = ()
    together: Tensor = field(default_factory=lambda: torch.zeros(0))

    def totals(self, gates: Tensor) -> Tensor:
        """Return the networks' sums [n, kinds] of every cost, for gates [n, slots, choices] of live slots."""
        alone = [
            (gates * self.chosen[:, :, column].to(gates)).sum((1, 2)) + fixed
            for column, fixed in enumerate(self.fixed.to(gates))
        ]
        if not self.keys:
            return torch.stack(alone, 1)
        padded = torch.cat([gates.flatten(1), torch.ones_like(gates[:, 0, :1])], 1)
        taken = torch.ones_like(padded[:, self._places[0]])
        for place in self._places:
            taken = taken * padded[:, place]
        return torch.stack(alone, 1) + taken @ self.together.to(gates)

    @cached_property
    def _places(self) -> list[Tensor]:
        """The keys' first, second, ... decisions as positions [keys] in flat gates with a 1 after them."""
        slots, choices, _ = self.chosen.shape
        flat = [[slot * choices + choice for slot, choice in key] for key in self.keys]
        longest = max(map(len, flat))
        columns = zip(*(own + [slots * choices] * (longest - len(own)) for own in flat), strict=True)
        return [torch.tensor(column) for column in columns]


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
            if self.costs.keys:
                told.update(repr(self.costs.keys).encode())
            for costs in (self.costs.chosen, self.costs.fixed, self.costs.together):
                told.update(costs.double().contiguous().numpy().tobytes())
        return told.hexdigest()[:16]

    def total(self, gates: Tensor, name: str) -> Tensor | None:
        """Return the networks' sums [n] of one cost, dead edges left out; None where it is not known.

        Args:
            gates: [n, slots, choices].
        """
        if self.costs is None or name not in self.costs.names:
            return None
        return self.totals(gates)[:, self.costs.names.index(name)]

    def totals(self, gates: Tensor) -> Tensor:
        """Return the networks' sums [n, kinds] of every cost, dead edges left out; [n, 0] if none is known.

        Args:
            gates: [n, slots, choices].
        """
        if self.costs is None:
            return gates.new_zeros(len(gates), 0)
        return self.costs.totals(gates * live(gates, self.graphs)[:, :, None])


def facts_of(space: Space, shape: NetworkShape) -> SpaceFacts:
    """Return the facts of a space at a network shape, costs from the layer tables of its parts."""
    tables = part_tables(space, shape)
    parts = tables.parts

    def cost(group: tuple[Part, ...]) -> Tensor:
        costs = [_costs(tables.of(part).layers) for part in group]
        return torch.tensor(costs, dtype=torch.float64).view(-1, len(_KINDS)).sum(0)

    chosen = torch.zeros(space.slots, space.choices, len(_KINDS), dtype=torch.float64)
    for (slot, choice), group in parts.chosen.items():
        chosen[slot, choice] = cost(group)
    keys = tuple(parts.together)
    together = (
        torch.stack([cost(parts.together[key]) for key in keys]) if keys else chosen.new_zeros(0, len(_KINDS))
    )
    return SpaceFacts(space.graphs, Costs(_KINDS, chosen, cost(parts.fixed), keys, together))


_KINDS = (MACS, "weights", "elements", "layers")


def _costs(layers: tuple[Layer, ...]) -> list[float]:
    elements = sum(layer.cout * layer.h_out * layer.w_out for layer in layers)
    return [
        float(sum(layer.macs for layer in layers)),
        float(sum(layer.weights for layer in layers)),
        float(elements),
        float(len(layers)),
    ]
