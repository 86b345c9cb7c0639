"""The DARTS space: 28 edges of 8 choices, exactly two edges a node in use."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ehdnas.core.errors import UsageError
from ehdnas.core.text import nearest
from ehdnas.search.relaxation import entropies, sample_one_hot
from ehdnas.search.spaces.base import Architecture, CellGraph, NetworkShape, Part, Parts, Space, Supernet
from ehdnas.search.spaces.darts import genotype
from ehdnas.search.spaces.darts.genotype import CHOICES, EDGES, EDGES_PER_CELL, NODE_SLOTS, NODES, SLOTS
from ehdnas.search.spaces.darts.mixed import Mixed, Partial
from ehdnas.search.spaces.darts.network import DartsNetwork, DartsSupernet
from ehdnas.search.spaces.darts.parts import Cutter
from ehdnas.search.spaces.relaxations import Kind, Relaxation

# The two previous cells are nodes 0 and 1; all four nodes after them are concatenated.
_GRAPHS = tuple(
    CellGraph(
        nodes=2 + NODES,
        inputs=(0, 1),
        outputs=tuple(range(2, 2 + NODES)),
        edges=tuple((source, 2 + node, offset + edge) for edge, (node, source) in enumerate(EDGES)),
        absent=frozenset({CHOICES.index("none")}),
        identity=frozenset({CHOICES.index("skip_connect")}),
    )
    for offset in (0, EDGES_PER_CELL)
)


class DartsSpace(Space):
    """The space of Liu, Simonyan, Yang (ICLR 2019): 2.4e18 architectures.

    Logits [28, 8]: columns 1 to 7 score an edge's operations, column 0 scores leaving it out. A node
    draws its *pair* of edges from a softmax over the sums of −column 0, then each edge its operation,
    so that a sample always has exactly two edges a node.
    """

    name = "darts"
    slots = SLOTS
    choices = len(CHOICES)

    def __init__(self, excluded: frozenset[int] = frozenset()) -> None:
        self._excluded = excluded
        self._operations = [choice for choice in range(1, len(CHOICES)) if choice not in excluded]
        # Added to the logits of operations 1 to 7; finite, since gradients go through it.
        self._mask = torch.tensor([-1e9 if choice in excluded else 0.0 for choice in range(1, len(CHOICES))])

    @property
    def reference(self) -> Architecture:
        """DARTS_V2, the second-order result of the paper."""
        return self.parse("DARTS_V2")

    def named(self) -> dict[str, Architecture]:
        """Return DARTS_V1, DARTS_V2, EH-DNAS's and others of papers."""
        return {name: self.parse(name) for name in genotype.published()}

    @property
    def decisions(self) -> int:
        """Of each node its pair of edges, and two operations; the first node has one pair only."""
        return sum(2 + (len(slots) > 2) for slots in NODE_SLOTS)

    @property
    def graphs(self) -> tuple[CellGraph, ...]:
        """The normal cell and the reduction cell."""
        return _GRAPHS

    def is_valid(self, architecture: Architecture) -> bool:
        """Return whether every node takes exactly two edges."""
        try:
            genotype.check(architecture.choices)
        except UsageError:
            return False
        return True

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Return an architecture drawn uniformly: pairs of edges, then operations, repeats allowed."""
        choices = [0] * SLOTS
        for slots in NODE_SLOTS:
            for slot in rng.choice(slots, size=2, replace=False):
                choices[slot] = self._operations[int(rng.integers(len(self._operations)))]
        return Architecture(tuple(choices))

    def sample_many(self, rng: np.random.Generator, count: int) -> NDArray[np.integer]:
        """Return the choices [count, 28] of networks drawn as `sample` draws them, all at once."""
        operations = np.array(self._operations, dtype=np.uint8)
        choices = operations[rng.integers(len(operations), size=(count, SLOTS))]
        for slots in NODE_SLOTS:
            # Of each network, the two edges with the least random numbers are in use.
            order = rng.random((count, len(slots))).argsort(axis=1).argsort(axis=1)
            choices[:, list(slots)] *= (order < 2).astype(np.uint8)
        return choices

    def effective_many(self, choices: NDArray[np.integer]) -> NDArray[np.integer]:
        """Return the choices [n, 28] as they are: a cell hands on all of its nodes, so no edge is idle."""
        return choices

    def initial_logits(self) -> Tensor:
        """Return zeros [28, 8]: every pair of edges and every operation as likely as any other."""
        return torch.zeros(SLOTS, len(CHOICES))

    def relax(self, logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return straight-through gates [28, 8] of a valid architecture drawn from `logits`."""
        return self.relax_many(logits, 1, generator)[0]

    def relax_many(self, logits: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Return gates [count, 28, 8] of so many, at the cost of little more than one."""
        operations = sample_one_hot((logits[:, 1:] + self._mask).expand(count, -1, -1), generator)
        used = torch.cat([
            sample_one_hot(_pair_logits(logits, slots).expand(count, -1), generator) @ _members(len(slots))
            for slots in NODE_SLOTS
        ], dim=1)[..., None]  # fmt: skip
        return torch.cat([1 - used, used * operations], dim=2)

    def most_likely(self, logits: Tensor) -> Architecture:
        """Return the architecture of the highest probability under `logits`."""
        choices = [0] * SLOTS
        operations = (logits[:, 1:] + self._mask).log_softmax(dim=1)
        for slots in NODE_SLOTS:
            scores = _pair_logits(logits, slots) + torch.stack(
                [operations[a].max() + operations[b].max() for a, b in combinations(slots, 2)]
            )
            for slot in list(combinations(slots, 2))[int(scores.argmax())]:
                choices[slot] = 1 + int(operations[slot].argmax())
        return Architecture(tuple(choices))

    def log_prob(self, architecture: Architecture, logits: Tensor) -> Tensor:
        """Return the log-probability, a scalar, that `relax` draws this architecture."""
        operations = (logits[:, 1:] + self._mask).log_softmax(dim=1)
        total = logits.new_zeros(())
        for slots in NODE_SLOTS:
            used = tuple(slot for slot in slots if architecture.choices[slot])
            pair = list(combinations(slots, 2)).index((used[0], used[1]))
            total = total + _pair_logits(logits, slots).log_softmax(dim=0)[pair]
            for slot in used:
                total = total + operations[slot, architecture.choices[slot] - 1]
        return total

    def entropy(self, logits: Tensor) -> float:
        """Return the entropy in nats over a draw's decisions: its nodes' pairs of edges, and operations.

        A node's first pair is no decision where it has no other.
        """
        logits = logits.detach()
        operations = entropies(logits[:, 1:] + self._mask)
        total = 0.0
        for slots in NODE_SLOTS:
            pairs = _pair_logits(logits, slots)
            used = pairs.softmax(dim=0) @ _members(len(slots))
            total += float(entropies(pairs) + used @ operations[list(slots)])
        return total / self.decisions

    def neighbours(self, architecture: Architecture) -> Iterator[Architecture]:
        """Yield every architecture with one operation changed, or one edge moved, in a fixed order."""
        choices = architecture.choices
        for slots in NODE_SLOTS:
            free = [slot for slot in slots if not choices[slot]]
            for slot in (slot for slot in slots if choices[slot]):
                for choice in self._operations:
                    if choice != choices[slot]:
                        yield _changed(choices, {slot: choice})
                for other in free:
                    yield _changed(choices, {slot: 0, other: choices[slot]})

    def parse(self, text: str) -> Architecture:
        """Return the architecture of a published name, 28 digits, JSON, or a `Genotype(...)` literal."""
        return Architecture(genotype.parse(text))

    def genotype(self, architecture: Architecture) -> dict[str, Any]:
        """Return {"normal": [[operation, input] * 8], "reduce": [...]}."""
        return dict(genotype.to_cells(architecture.choices))

    def text(self, architecture: Architecture) -> str:
        """Return the 28 digits."""
        return "".join(str(choice) for choice in architecture.choices)

    def check_shape(self, shape: NetworkShape) -> None:
        """Raise UsageError unless the sides divide by what the stem and the two reductions halve."""
        multiple = 32 if shape.stem == "imagenet" else 4
        _, height, width = shape.image
        if height % multiple or width % multiple:
            raise UsageError(
                f"images of {height}x{width}: the {shape.stem} stem needs sides that divide by {multiple}; "
                "set image_size"
            )
        if shape.channels < 2 or shape.channels % 2 or shape.cells < 3:
            raise UsageError(
                f"{shape.channels} channels and {shape.cells} cells: the DARTS space needs an even number of "
                "channels and at least 3 cells"
            )

    def network(self, architecture: Architecture, shape: NetworkShape, auxiliary: bool = False) -> nn.Module:
        """Return the network of an architecture, with or without the auxiliary head."""
        self.check_shape(shape)
        return DartsNetwork(architecture.choices, shape, auxiliary)

    def supernet(self, shape: NetworkShape) -> Supernet:
        """Return the supernet of this shape."""
        self.check_shape(shape)
        return DartsSupernet(shape)

    def relaxation(self, kind: Kind) -> Relaxation:
        """Return the single path, or the mixture of DARTS (`mixed`) or of PC-DARTS (`partial`)."""
        if kind == "single":
            return super().relaxation(kind)
        return Mixed(self._mask) if kind == "mixed" else Partial(self._mask)

    def parts(self, shape: NetworkShape) -> Parts:
        """Return the preprocessing, stem and classifier as fixed parts, each edge's operations as chosen."""
        self.check_shape(shape)
        return Cutter(shape, DartsNetwork(self.reference.choices, shape, auxiliary=False)).cut()

    def cells(self, architecture: Architecture, shape: NetworkShape) -> tuple[Part, ...]:
        """Return the cells, each fed by the two before it."""
        self.check_shape(shape)
        cutter = Cutter(shape, DartsNetwork(architecture.choices, shape, auxiliary=False))
        cutter.cut()
        return tuple(cutter.cells)

    def choice_name(self, slot: int, choice: int) -> str:
        """Return the operation's name."""
        return CHOICES[choice]

    def allows(self, architecture: Architecture) -> bool:
        """Return whether every edge in use has an operation that was not left out."""
        return self.is_valid(architecture) and set(architecture.choices) <= {0, *self._operations}

    def without(self, names: frozenset[str]) -> DartsSpace:
        """Return the space with some operations never sampled."""
        for name in names:
            if name not in CHOICES[1:]:
                raise UsageError(f"space '{self.name}' has no choice '{name}'{nearest(name, CHOICES[1:])}")
        excluded = self._excluded | {CHOICES.index(name) for name in names}
        if len(excluded) == len(CHOICES) - 1:
            raise UsageError(f"space '{self.name}': with every choice left out there is nothing to search")
        return DartsSpace(excluded) if names else self


def _pair_logits(logits: Tensor, slots: tuple[int, ...]) -> Tensor:
    return _members(len(slots)) @ -logits[slots[0] : slots[-1] + 1, 0]


@cache
def _members(edges: int) -> Tensor:
    """Return the matrix [pairs, edges] that says which of a node's edges each pair of them holds."""
    pairs = list(combinations(range(edges), 2))
    members = torch.zeros(len(pairs), edges)
    for row, pair in enumerate(pairs):
        members[row, list(pair)] = 1
    return members


def _changed(choices: tuple[int, ...], changes: dict[int, int]) -> Architecture:
    return Architecture(tuple(changes.get(slot, choice) for slot, choice in enumerate(choices)))
