"""A space whose networks come in several widths and depths: those of another space, and two slots more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ehdnas.core.errors import UsageError
from ehdnas.search.relaxation import entropies, sample_one_hot
from ehdnas.search.spaces.base import Architecture, CellGraph, NetworkShape, Part, Parts, Space, Supernet
from ehdnas.search.spaces.darts.space import DartsSpace
from ehdnas.search.spaces.reading import option, read_json, require_short
from ehdnas.search.spaces.sized.parts import cut
from ehdnas.search.spaces.sized.sizes import (
    DEPTH_NAMES,
    SIZES,
    WIDTH_NAMES,
    Size,
    require_distinct,
    resized,
)
from ehdnas.search.spaces.sized.supernet import SizedSupernet

_NAMES = (WIDTH_NAMES, DEPTH_NAMES)
_AT = "@"


class SizedSpace(Space):
    """A space's slots, then one for the width and one for the depth of a network, as shares of what is asked.

    A subclass sets `name`, and `plain` to the space of networks of one size.
    """

    plain: ClassVar[Space]

    def __init__(self, inner: Space | None = None, excluded: frozenset[str] = frozenset()) -> None:
        self._inner = self.plain if inner is None else inner
        self._excluded = excluded
        self._open = tuple(
            tuple(choice for choice, name in enumerate(names) if name not in excluded) for names in _NAMES
        )
        self.slots = self._inner.slots + len(_NAMES)
        self.choices = max(self._inner.choices, *map(len, _NAMES))
        self.sizes = self._inner.sizes

    @property
    def decisions(self) -> int:
        """Those of the space of one size, width and depth."""
        return self._inner.decisions + len(_NAMES)

    @property
    def reference(self) -> Architecture:
        """The published network, as wide and as deep as is asked."""
        return self._with(self._inner.reference, (0, 0))

    def named(self) -> dict[str, Architecture]:
        """Return those of the space of one size, as wide and as deep as is asked."""
        return {name: self._with(one, (0, 0)) for name, one in self._inner.named().items()}

    @property
    def graphs(self) -> tuple[CellGraph, ...]:
        """Those of the space of one size."""
        return self._inner.graphs

    def is_valid(self, architecture: Architecture) -> bool:
        """Return whether there is such a network of one size, and such a size."""
        if len(architecture.choices) != self.slots:
            return False
        network, size = self._split(architecture)
        return self._inner.is_valid(network) and size in SIZES

    def allows(self, architecture: Architecture) -> bool:
        """Return whether the architecture is valid and has none of the choices that were left out."""
        if not self.is_valid(architecture):
            return False
        network, size = self._split(architecture)
        open_size = all(one in own for one, own in zip(size, self._open, strict=True))
        return self._inner.allows(network) and open_size

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Return a network as the space of one size draws it, every width and depth as likely."""
        width, depth = (own[int(rng.integers(len(own)))] for own in self._open)
        return self._with(self._inner.sample(rng), (width, depth))

    def each_size(self) -> Iterator[tuple[Space, Architecture]]:
        """Yield the space of each size that is not left out, and the published network in it."""
        for width, depth in product(*self._open):
            others = {
                name
                for names, kept in zip(_NAMES, (width, depth), strict=True)
                for choice, name in enumerate(names)
                if choice != kept
            }
            yield self.without(frozenset(others)), self._with(self._inner.reference, (width, depth))

    def initial_logits(self) -> Tensor:
        """Return those of the space of one size, and zeros for widths and depths."""
        logits = torch.zeros(self.slots, self.choices)
        logits[: self._inner.slots, : self._inner.choices] = self._inner.initial_logits()
        return logits

    def relax(self, logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return straight-through gates [slots, choices] of a valid architecture drawn from `logits`."""
        return self.relax_many(logits, 1, generator)[0]

    def relax_many(self, logits: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Return gates [count, slots, choices] of networks as the space of one size draws many at once."""
        network = self._inner.relax_many(self._of_network(logits), count, generator)
        rows = [sample_one_hot(own.expand(count, 1, -1), generator) for own in self._of_size(logits)]
        padded = [F.pad(part, (0, self.choices - part.shape[2])) for part in (network, *rows)]
        return torch.cat(padded, dim=1)

    def most_likely(self, logits: Tensor) -> Architecture:
        """Return the architecture of the highest probability under `logits`."""
        width, depth = (int(own.argmax()) for own in self._of_size(logits))
        return self._with(self._inner.most_likely(self._of_network(logits)), (width, depth))

    def log_prob(self, architecture: Architecture, logits: Tensor) -> Tensor:
        """Return the log-probability, a scalar, that `relax` draws this architecture."""
        network, size = self._split(architecture)
        total = self._inner.log_prob(network, self._of_network(logits))
        for own, choice in zip(self._of_size(logits), size, strict=True):
            total = total + own.log_softmax(dim=0)[choice]
        return total

    def entropy(self, logits: Tensor) -> float:
        """Return the mean entropy in nats of the decisions of a draw."""
        logits = logits.detach()
        network = self._inner.entropy(self._of_network(logits)) * self._inner.decisions
        return (network + sum(float(entropies(own)) for own in self._of_size(logits))) / self.decisions

    def neighbours(self, architecture: Architecture) -> Iterator[Architecture]:
        """Yield the neighbours of the same size, then the network in another width or another depth."""
        network, size = self._split(architecture)
        for other in self._inner.neighbours(network):
            yield self._with(other, size)
        for at, own in enumerate(self._open):
            for choice in own:
                if choice != size[at]:
                    yield self._with(network, (choice, size[1]) if at == 0 else (size[0], choice))

    def parse(self, text: str) -> Architecture:
        """Return the architecture of any form of the space of one size, in that size or after `@` another."""
        text = require_short(text)
        if text.startswith("{"):
            return self._from_json(read_json(text), text)
        genotype, at, size = text.rpartition(_AT)
        if not at:
            return self._with(self._inner.parse(text), (0, 0))
        names = size.split(",")
        if len(names) != len(_NAMES):
            raise UsageError(
                f"'{text[:80]}': after '{_AT}' comes a size such as {WIDTH_NAMES[0]},{DEPTH_NAMES[0]}"
            )
        return self._with(self._inner.parse(genotype), self._size(names))

    def genotype(self, architecture: Architecture) -> dict[str, Any]:
        """Return what the space of one size gives, with the names of `width` and `depth`."""
        network, (width, depth) = self._split(architecture)
        sizes = {"width": WIDTH_NAMES[width], "depth": DEPTH_NAMES[depth]}
        return {**self._inner.genotype(network), **sizes}

    def text(self, architecture: Architecture) -> str:
        """Return the text of the space of one size, `@`, and the width's and the depth's name."""
        network, (width, depth) = self._split(architecture)
        return f"{self._inner.text(network)}{_AT}{WIDTH_NAMES[width]},{DEPTH_NAMES[depth]}"

    def check_shape(self, shape: NetworkShape) -> None:
        """Raise UsageError where networks cannot be built in one of the sizes, or two are the same."""
        require_distinct(shape)
        for size in SIZES:
            self._inner.check_shape(resized(shape, size))

    def network(self, architecture: Architecture, shape: NetworkShape, auxiliary: bool = False) -> nn.Module:
        """Return the network, in its own width and depth."""
        network, size = self._split(architecture)
        return self._inner.network(network, resized(shape, size), auxiliary)

    def supernet(self, shape: NetworkShape) -> Supernet:
        """Return the supernet: one for each size."""
        self.check_shape(shape)
        return SizedSupernet([self._inner.supernet(resized(shape, size)) for size in SIZES], self._inner)

    def parts(self, shape: NetworkShape) -> Parts:
        """Return the parts of all sizes, each under its width and its depth."""
        self.check_shape(shape)
        width, depth = range(self._inner.slots, self.slots)
        return cut({
            ((width, size[0]), (depth, size[1])): self._inner.parts(resized(shape, size)) for size in SIZES
        })  # fmt: skip

    def cells(self, architecture: Architecture, shape: NetworkShape) -> tuple[Part, ...]:
        """Return the cells of a network, where the space of one size has such."""
        network, size = self._split(architecture)
        return self._inner.cells(network, resized(shape, size))

    def choice_name(self, slot: int, choice: int) -> str:
        """Return the name of an operation, a width or a depth."""
        after = slot - self._inner.slots
        return self._inner.choice_name(slot, choice) if after < 0 else _NAMES[after][choice]

    def without(self, names: frozenset[str]) -> SizedSpace:
        """Return the space with some choices never sampled; a width and a depth must be left."""
        sizes = frozenset(name for own in _NAMES for name in own)
        excluded = self._excluded | names & sizes
        for own in _NAMES:
            if excluded.issuperset(own):
                raise UsageError(f"space '{self.name}': {', '.join(own)} cannot all be left out")
        return type(self)(self._inner.without(names - sizes), excluded) if names else self

    def _split(self, architecture: Architecture) -> tuple[Architecture, Size]:
        *network, width, depth = architecture.choices
        return Architecture(tuple(network)), (width, depth)

    def _with(self, network: Architecture, size: Size) -> Architecture:
        return Architecture((*network.choices, *size))

    def _of_network(self, logits: Tensor) -> Tensor:
        return logits[: self._inner.slots, : self._inner.choices]

    def _of_size(self, logits: Tensor) -> list[Tensor]:
        """Return the logits [widths] and [depths]; what is left out is far below the others."""
        rows = []
        for slot, (names, own) in enumerate(zip(_NAMES, self._open, strict=True), self._inner.slots):
            mask = torch.full((len(names),), -1e9)  # finite, since gradients go through it
            mask[list(own)] = 0.0
            rows.append(logits[slot, : len(names)] + mask)
        return rows

    def _from_json(self, given: dict[str, Any], text: str) -> Architecture:
        names = [given.pop("width", WIDTH_NAMES[0]), given.pop("depth", DEPTH_NAMES[0])]
        return self._with(self._inner.parse(json.dumps(given)), self._size(names))

    def _size(self, names: list[Any]) -> Size:
        width, depth = (
            option(name, own, what)
            for name, own, what in zip(names, _NAMES, ("the width", "the depth"), strict=True)
        )
        return width, depth


class SizedDartsSpace(SizedSpace):
    """The DARTS space in several widths and depths."""

    name = "darts-sized"
    plain = DartsSpace()
