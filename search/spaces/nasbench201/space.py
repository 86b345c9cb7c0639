"""The NAS-Bench-201 space: 6 edges of 5 choices, with a path from the cell's input to its output."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ehdnas.core.errors import UsageError
from ehdnas.core.text import nearest
from ehdnas.search.spaces.base import Architecture, CellGraph, NetworkShape, Part, Parts, Space, Supernet
from ehdnas.search.spaces.nasbench201 import distribution, genotype, parts
from ehdnas.search.spaces.nasbench201.genotype import CHOICES, GRAPH, SLOTS
from ehdnas.search.spaces.nasbench201.network import STAGES, NasBench201Network, NasBench201Supernet


class NasBench201Space(Space):
    """The space of Dong and Yang (ICLR 2020): 15,625 architectures, 15,284 of them connected.

    In the others `none` cuts the output off from the image. A connected architecture is drawn with the
    product of the slots' softmaxes, given that it is connected.

    Networks are those of the benchmark: stem, three stages of cells at C, 2·C and 4·C channels with
    residual blocks between them, classifier. `NetworkShape.cells` counts the cells of all stages, not the
    residual blocks; they are spread evenly, the first stages taking one more where three does not divide
    them. The benchmark has C = 16 and 15 cells. Larger images take the ImageNet stem of DARTS.
    """

    name = "nasbench201"
    slots = SLOTS
    choices = len(CHOICES)

    def __init__(self, excluded: frozenset[int] = frozenset()) -> None:
        self._allowed = [choice for choice in range(len(CHOICES)) if choice not in excluded]
        # Added to the logits; finite, since gradients go through it.
        self._mask = torch.tensor([-1e9 if choice in excluded else 0.0 for choice in range(len(CHOICES))])

    @property
    def reference(self) -> Architecture:
        """RESNET, the block of ResNet, which the paper compares with."""
        return self.parse("RESNET")

    def named(self) -> dict[str, Architecture]:
        """Return RESNET and the benchmark's best."""
        return {name: self.parse(name) for name in genotype.PUBLISHED}

    @property
    def graphs(self) -> tuple[CellGraph, ...]:
        """The one cell."""
        return (GRAPH,)

    def is_valid(self, architecture: Architecture) -> bool:
        """Return whether a path of edges, none of them `none`, joins the cell's input to its output."""
        choices = architecture.choices
        known = len(choices) == SLOTS and all(0 <= choice < len(CHOICES) for choice in choices)
        return known and genotype.is_connected(choices)

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Return a connected architecture drawn uniformly: again until one is, which is soon."""
        while True:
            drawn = rng.integers(len(self._allowed), size=SLOTS)
            architecture = Architecture(tuple(self._allowed[index] for index in drawn))
            if self.is_valid(architecture):
                return architecture

    def initial_logits(self) -> Tensor:
        """Return zeros [6, 5]: every connected architecture as likely as any other."""
        return torch.zeros(SLOTS, len(CHOICES))

    def relax(self, logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return straight-through gates [6, 5] of a connected architecture drawn from `logits`."""
        return distribution.relax(logits + self._mask, generator)

    def most_likely(self, logits: Tensor) -> Architecture:
        """Return the connected architecture of the highest probability under `logits`."""
        return Architecture(distribution.most_likely(logits + self._mask))

    def log_prob(self, architecture: Architecture, logits: Tensor) -> Tensor:
        """Return the log-probability, a scalar, that `relax` draws this architecture; −∞ if not connected."""
        if not self.is_valid(architecture):
            return logits.new_full((), -torch.inf)
        return distribution.log_prob(torch.tensor(architecture.choices), logits + self._mask)

    def entropy(self, logits: Tensor) -> float:
        """Return the entropy of the connected architectures in nats, over the 6 edges."""
        return float(distribution.entropy(logits.detach() + self._mask)) / SLOTS

    def neighbours(self, architecture: Architecture) -> Iterator[Architecture]:
        """Yield every connected architecture with one edge's choice changed, in a fixed order."""
        choices = architecture.choices
        for slot in range(SLOTS):
            for choice in self._allowed:
                other = Architecture((*choices[:slot], choice, *choices[slot + 1 :]))
                if other != architecture and self.is_valid(other):
                    yield other

    def parse(self, text: str) -> Architecture:
        """Return the architecture of a name, the benchmark's string, 6 digits, or JSON.

        All 15,625 are read; `is_valid` tells which are connected, and `network` refuses the others.
        """
        return Architecture(genotype.parse(text))

    def genotype(self, architecture: Architecture) -> dict[str, Any]:
        """Return {"nodes": [...]}: for nodes 1, 2 and 3 an [operation, source] pair of every node before."""
        return {"nodes": genotype.to_nodes(architecture.choices)}

    def text(self, architecture: Architecture) -> str:
        """Return the string that the benchmark knows the architecture by."""
        return genotype.to_text(architecture.choices)

    def check_shape(self, shape: NetworkShape) -> None:
        """Raise UsageError unless the sides divide by what the stem and the residual blocks halve."""
        imagenet = shape.stem == "imagenet"
        multiple = 32 if imagenet else 4
        _, height, width = shape.image
        if height % multiple or width % multiple:
            raise UsageError(
                f"images of {height}x{width}: the {shape.stem} stem needs sides that divide by {multiple}; "
                "set image_size"
            )
        if shape.cells < STAGES:
            raise UsageError(f"{shape.cells} cells: the NAS-Bench-201 space needs at least {STAGES}")
        if imagenet and shape.channels % 2:
            raise UsageError(f"{shape.channels} channels: the imagenet stem needs an even number")

    def network(self, architecture: Architecture, shape: NetworkShape, auxiliary: bool = False) -> nn.Module:
        """Return the network of an architecture, with or without an auxiliary head.

        Raises:
            UsageError: the architecture is not connected, or networks of the shape cannot be built.
        """
        return self._body(architecture, shape, auxiliary)

    def supernet(self, shape: NetworkShape) -> Supernet:
        """Return the supernet of this shape."""
        self.check_shape(shape)
        return NasBench201Supernet(shape)

    def parts(self, shape: NetworkShape) -> Parts:
        """Return the stem, residual blocks and classifier as fixed, each edge's operations as chosen."""
        return parts.cut(shape, self._body(self.reference, shape))

    def cells(self, architecture: Architecture, shape: NetworkShape) -> tuple[Part, ...]:
        """Return the cells, each fed by what is before it."""
        return parts.cells(shape, self._body(architecture, shape))

    def choice_name(self, slot: int, choice: int) -> str:
        """Return the operation's name."""
        return CHOICES[choice]

    def allows(self, architecture: Architecture) -> bool:
        """Return whether every edge has a choice that was not left out."""
        return self.is_valid(architecture) and set(architecture.choices) <= set(self._allowed)

    def without(self, names: frozenset[str]) -> NasBench201Space:
        """Return the space with some choices never sampled; `none` may be one of them."""
        for name in names:
            if name not in CHOICES:
                raise UsageError(f"space '{self.name}' has no choice '{name}'{nearest(name, CHOICES)}")
        left = [choice for choice in self._allowed if CHOICES[choice] not in names]
        if not any(left):  # `none` alone joins nothing
            raise UsageError(f"space '{self.name}': with every operation left out there is nothing to search")
        return NasBench201Space(frozenset(range(len(CHOICES))) - set(left)) if names else self

    def _body(
        self, architecture: Architecture, shape: NetworkShape, auxiliary: bool = False
    ) -> NasBench201Network:
        self.check_shape(shape)
        if not self.is_valid(architecture):
            raise UsageError(
                f"{self.text(architecture)}: `none` cuts the cell's output off from its input; "
                "leave a path of other operations"
            )
        return NasBench201Network(architecture.choices, shape, auxiliary)
