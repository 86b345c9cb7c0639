"""What every search space offers, and nothing about any one of them."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ehdnas.core.errors import UsageError
from ehdnas.core.plugins import load_plugin
from ehdnas.search.relaxation import entropies
from ehdnas.search.spaces.relaxations import Kind, Relaxation, SinglePath


@dataclass(frozen=True)
class Architecture:
    """One choice for every slot of a space; immutable and hashable."""

    choices: tuple[int, ...]


@dataclass(frozen=True)
class NetworkShape:
    """How large the networks of a space are built: the same for the supernet and the final network."""

    channels: int
    cells: int
    image: tuple[int, int, int]
    classes: int
    stem: str = "cifar"

    def __str__(self) -> str:
        image = "x".join(str(size) for size in self.image)
        return f"c{self.channels}x{self.cells}-{image}-{self.classes}-{self.stem}"


Image = tuple[int, int, int]
Decision = tuple[int, int]
"""(slot, choice)"""


@dataclass(frozen=True)
class Part:
    """A piece of a network that can be costed, exported and timed alone.

    `inputs` are the [c, h, w] the module is fed: one, but for a cell.
    """

    name: str
    module: nn.Module
    inputs: tuple[Image, ...]


@dataclass(frozen=True)
class Parts:
    """A space cut into pieces: `fixed` ones, and those that each (slot, choice) adds when chosen.

    What a network computes is the fixed parts and those of its `effective` choices. Where a piece depends
    on several slots, such as a convolution on its own slot and on one that sets its width, it is under
    `together`: added when all decisions of the key are taken, and called after the first of them.
    """

    fixed: tuple[Part, ...]
    chosen: dict[Decision, tuple[Part, ...]] = field(default_factory=dict)
    together: dict[tuple[Decision, ...], tuple[Part, ...]] = field(default_factory=dict)

    def of(self, choices: Sequence[int]) -> list[Part]:
        """Return what effective choices, one a slot, add to the fixed parts."""
        taken = set(enumerate(choices))
        chosen = [part for decision in enumerate(choices) for part in self.chosen.get(decision, ())]
        return chosen + [part for key, own in self.together.items() if taken.issuperset(key) for part in own]

    def by_decision(self) -> Iterator[tuple[Decision, tuple[Part, ...]]]:
        """Yield all parts that are not fixed, each group with the decision it is called after."""
        yield from self.chosen.items()
        yield from ((key[0], parts) for key, parts in self.together.items())


@dataclass(frozen=True)
class CellGraph:
    """One kind of cell as a directed acyclic graph; nodes are numbered in topological order.

    `nodes`: how many. `inputs`: nodes fed from outside the cell. `outputs`: nodes whose values leave it.
    `edges`: (source, target, slot) of every edge that a slot chooses an operation for. `absent`: choices
    (by index) that carry nothing, such as `none`. `identity`: choices that hand their input on at no
    depth, such as `skip_connect`.
    """

    nodes: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    edges: tuple[tuple[int, int, int], ...]
    absent: frozenset[int]
    identity: frozenset[int]

    def live(self, choices: Sequence[int]) -> frozenset[int]:
        """Return the slots whose edges lie on a path from an input to an output, no edge of it absent.

        Args:
            choices: one a slot, of the whole space.
        """
        present = [edge for edge in self.edges if choices[edge[2]] not in self.absent]
        fed, wanted = set(self.inputs), set(self.outputs)
        # An edge's source comes before its target, so one pass in each direction sees every path.
        for source, target, _ in sorted(present):
            if source in fed:
                fed.add(target)
        for source, target, _ in sorted(present, key=lambda edge: -edge[1]):
            if target in wanted:
                wanted.add(source)
        return frozenset(slot for source, target, slot in present if source in fed and target in wanted)


class Supernet(nn.Module, ABC):
    """The network that contains every architecture of a space, its weights shared between them."""

    skip_beside = 0.0
    """Weight of a skip beside every operation that keeps the resolution. A search sets it (see
    `Recipe.skip_beside`); a supernet that has skips in any case need not heed it."""

    @abstractmethod
    def forward(self, images: Tensor, gates: Tensor) -> Tensor:
        """Return logits [n, classes] of the one architecture that `gates` selects.

        Args:
            images: [n, c, h, w].
            gates: [slots, choices], one-hot in value; gradients flow into them.
        """


class Space(ABC):
    """A search space: slots with choices, and the rules that tie them together.

    Nothing outside a space assumes that slots are independent: validity, sampling, the relaxation
    and the neighbours of an architecture are all asked of the space.
    """

    name: str
    slots: int
    choices: int
    sizes: Mapping[str, tuple[int, int]] = MappingProxyType({})
    """Usual channels and cells by kind of data (`digits`, `cifar10`, `images`; `imagenet` from 128 pixels
    up), where those of the DARTS space would not do."""

    @property
    @abstractmethod
    def reference(self) -> Architecture:
        """The published network that relative budgets refer to."""

    def named(self) -> dict[str, Architecture]:
        """Return the published networks of the space by name; by default none is known."""
        return {}

    @property
    def decisions(self) -> int:
        """How many decisions a draw takes; by default every slot is one."""
        return self.slots

    @property
    def graphs(self) -> tuple[CellGraph, ...]:
        """The kinds of cell as graphs; empty where the space has none, and slots are all that is known."""
        return ()

    @abstractmethod
    def is_valid(self, architecture: Architecture) -> bool:
        """Return whether the choices obey the rules of the space."""

    @abstractmethod
    def sample(self, rng: np.random.Generator) -> Architecture:
        """Return an architecture drawn from the whole of the space."""

    def sample_many(self, rng: np.random.Generator, count: int) -> NDArray[np.integer]:
        """Return the choices [count, slots] of networks drawn as `sample` draws them."""
        return np.array([self.sample(rng).choices for _ in range(count)], dtype=np.uint8)

    def effective_many(self, choices: NDArray[np.integer]) -> NDArray[np.integer]:
        """Return the `effective` choices [n, slots] of architectures given by theirs."""
        rows = [self.effective(Architecture(tuple(row))).choices for row in choices.tolist()]
        return np.array(rows, dtype=choices.dtype).reshape(choices.shape)

    @abstractmethod
    def initial_logits(self) -> Tensor:
        """Return the logits [slots, choices] of the distribution a search starts from."""

    @abstractmethod
    def relax(self, logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return gates [slots, choices] of a valid architecture drawn from `logits`.

        One-hot in value; the gradient is on average near that of the expectation over what may be drawn (see
        `relaxation.reinmax`). With no `generator` the global one is used.
        """

    def relax_many(self, logits: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Return gates [count, slots, choices] of architectures, each drawn as `relax` draws one."""
        return torch.stack([self.relax(logits, generator) for _ in range(count)])

    @abstractmethod
    def most_likely(self, logits: Tensor) -> Architecture:
        """Return the architecture of the highest probability under `logits`."""

    @abstractmethod
    def log_prob(self, architecture: Architecture, logits: Tensor) -> Tensor:
        """Return the log-probability, a scalar, that `relax` draws this architecture."""

    @abstractmethod
    def neighbours(self, architecture: Architecture) -> Iterator[Architecture]:
        """Yield every valid architecture one decision away, in a fixed order."""

    @abstractmethod
    def parse(self, text: str) -> Architecture:
        """Return the architecture a genotype describes, by name or in any text form of the space.

        Raises:
            UsageError: not a genotype of this space; the message says what is wrong with it.
        """

    @abstractmethod
    def genotype(self, architecture: Architecture) -> dict[str, Any]:
        """Return the genotype as JSON-able data that people can read."""

    @abstractmethod
    def text(self, architecture: Architecture) -> str:
        """Return the shortest text form; `parse` reads it back."""

    @abstractmethod
    def check_shape(self, shape: NetworkShape) -> None:
        """Raise UsageError where networks of this shape cannot be built, saying what would do."""

    @abstractmethod
    def network(self, architecture: Architecture, shape: NetworkShape, auxiliary: bool = False) -> nn.Module:
        """Return the network, to be trained from scratch: [n, c, h, w] to logits [n, classes].

        With `auxiliary` it returns (logits, auxiliary logits) while training.
        """

    @abstractmethod
    def supernet(self, shape: NetworkShape) -> Supernet:
        """Return the supernet of this shape."""

    @abstractmethod
    def parts(self, shape: NetworkShape) -> Parts:
        """Return the space cut into pieces that can be costed alone."""

    @abstractmethod
    def choice_name(self, slot: int, choice: int) -> str:
        """Return what a choice is called, such as `sep_conv_3x3`; an operation has one name everywhere."""

    def relaxation(self, kind: Kind) -> Relaxation:
        """Return what a supernet computes at a step of a search; by default the single path alone.

        Raises:
            UsageError: the space has no such mixture.
        """
        if kind == "single":
            return SinglePath(self)
        raise UsageError(f"space '{self.name}' has no {kind} relaxation; search with --relaxation single")

    def allows(self, architecture: Architecture) -> bool:
        """Return whether a valid architecture has none of the choices that were left out."""
        return self.is_valid(architecture)

    def effective(self, architecture: Architecture) -> Architecture:
        """Return the architecture with every edge absent that no output depends on.

        Its network computes the same, and its choices are those whose `parts` are the network's work.
        """
        choices = list(architecture.choices)
        for graph in self.graphs:
            live = graph.live(choices)
            for slot in (slot for _, _, slot in graph.edges if slot not in live and graph.absent):
                choices[slot] = min(graph.absent)
        return Architecture(tuple(choices))

    def each_size(self) -> Iterator[tuple[Space, Architecture]]:
        """Yield the space cut down to networks of one size after another, with the reference in that size.

        By default it has one size, and there is nothing to cut down.
        """
        yield self, self.reference

    def identities(self, architecture: Architecture) -> tuple[int, ...]:
        """Return how many choices of each kind of cell hand their input on as it is, such as skips.

        Those on edges that no output depends on are left out. Empty for a space without `graphs`.
        """
        return tuple(
            sum(architecture.choices[slot] in graph.identity for slot in graph.live(architecture.choices))
            for graph in self.graphs
        )

    def entropy(self, logits: Tensor) -> float:
        """Return the entropy of the distribution that `relax` draws from, in nats a decision.

        It is the mean of −`log_prob`, over the number of decisions that a draw takes. By default every slot
        is a decision, independent of the others and with all choices.
        """
        return float(entropies(logits.detach()).mean())

    def cells(self, architecture: Architecture, shape: NetworkShape) -> tuple[Part, ...]:
        """Return the cells of a network, where the space has such; weights are random."""
        return ()

    def without(self, names: frozenset[str]) -> Space:
        """Return the space with choices, given by `choice_name`, never sampled; what it can parse stays.

        Raises:
            UsageError: the space has no such choice, or nothing would be left.
        """
        if not names:
            return self
        raise UsageError(f"space '{self.name}' cannot leave choices out; search without --exclude")

    def encode(self, architecture: Architecture) -> Tensor:
        """Return the one-hot form [slots, choices], float32."""
        chosen = torch.tensor(architecture.choices)
        return torch.nn.functional.one_hot(chosen, self.choices).float()

    def encode_all(self, architectures: list[Architecture]) -> Tensor:
        """Return the one-hot form of many at once, [n, slots, choices]."""
        chosen = torch.tensor([architecture.choices for architecture in architectures])
        return torch.nn.functional.one_hot(chosen.reshape(-1, self.slots), self.choices).float()

    def decode(self, gates: Tensor) -> Architecture:
        """Return the architecture that gates [slots, choices] select.

        Raises:
            UsageError: the gates are of another shape, or select no valid architecture.
        """
        if tuple(gates.shape) != (self.slots, self.choices):
            raise UsageError(
                f"{self.name}: gates must be {self.slots}x{self.choices}, not {tuple(gates.shape)}"
            )
        architecture = Architecture(tuple(gates.argmax(dim=1).tolist()))
        if not self.is_valid(architecture):
            raise UsageError(f"{self.name}: the gates select no valid architecture")
        return architecture

    def seed_of(self, architecture: Architecture) -> int:
        """Return a number fixed by the architecture, for weights that must not depend on order."""
        return int.from_bytes(hashlib.sha256(self.text(architecture).encode()).digest()[:4])


@cache
def find_space(name: str) -> Space:
    """Return the space registered under a name, the same one each time: a space has no state.

    Raises:
        UsageError: no such space; the message lists those there are. Or somebody's space cannot be made.
    """
    try:
        space = load_plugin("ehdnas.spaces", name)()
    except TypeError as error:  # Python names the methods that an abstract class still lacks
        raise UsageError(f"space '{name}' cannot be made: {error}") from error
    if not isinstance(space, Space) or space.name != name:
        called = f"is called '{space.name}'" if isinstance(space, Space) else "is no subclass of Space"
        raise UsageError(f"space '{name}' {called}; mend its class, or its entry point")
    return space
