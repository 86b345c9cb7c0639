"""The networks to measure, a round at a time: a sequence fixed by the seed, or chosen from what is next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count, islice

import numpy as np
import torch

from ehdnas.pipeline.context import Context
from ehdnas.pipeline.meter import Records
from ehdnas.search.loop import step_seed
from ehdnas.search.spaces.base import Architecture, Space

FIRST = 30
"""Networks as drawn, from where on what tells most is judged by these."""
_POOL = 600  # networks to choose among
_IN_VAIN = 1000  # draws in a row that bring nothing new, after which a space counts as exhausted

Choose = Callable[[list[Architecture], int], list[Architecture]]
"""Returns, of some networks, as many as it is told, the most telling first."""


def sample_architectures(context: Context) -> Iterator[Architecture]:
    """Yield the reference network and then random ones, each fixed by the seed and its number.

    Every other one leans towards a few choices, as the networks do that a search under a budget arrives
    at: uniform samples alone leave those outside of what the predictor has seen. It ends where the space
    has no more.
    """
    space, seed = context.space, context.settings.seed
    seen = {space.reference}
    yield space.reference
    in_vain = 0
    for number in count():
        at = step_seed(seed, "profile", number)
        drawn = _leaning(space, at) if number % 2 else space.sample(np.random.default_rng(at))
        in_vain += 1
        if drawn not in seen:
            seen.add(drawn)
            in_vain = 0
            yield drawn
        if in_vain == _IN_VAIN:
            return


def _leaning(space: Space, seed: int) -> Architecture:
    """Return a draw from the space's own distribution with each choice made likelier or rarer throughout."""
    generator = torch.Generator().manual_seed(seed)
    strength = 4 * torch.rand(1, generator=generator)
    bias = strength * torch.randn(space.choices, generator=generator)
    return space.decode(space.relax(space.initial_logits() + bias, generator))


@dataclass
class Targets:
    """The networks to measure, a round at a time: never one that is stored, nor one given before.

    Attributes:
        sequence: the networks in the order in which they are drawn.
        choose: picks networks among what comes next in the sequence; None takes them as drawn.
        as_drawn: how many are known before any are chosen.
    """

    records: Records
    sequence: Iterator[Architecture]
    choose: Choose | None = None
    as_drawn: int = FIRST
    _drawn: list[Architecture] = field(default_factory=list)
    _given: set[Architecture] = field(default_factory=set)

    def next(self, number: int) -> list[Architecture]:
        """Return the next networks, fewer than `number` where the space has no more."""
        known = self._given | {architecture for architecture, _ in self.records.measured()}
        if self.choose is None or len(known) < self.as_drawn:
            found = self._waiting(known, number)
        else:
            found = self._chosen(self.choose, known, number)
        self._given.update(found)
        return found

    def _chosen(self, choose: Choose, known: set[Architecture], number: int) -> list[Architecture]:
        waiting = self._waiting(known, max(_POOL, number))
        # The first drawn is the reference network, which is wanted whatever it tells.
        must = [one for one in waiting[:1] if one == self._drawn[0]]
        return must + choose(waiting[len(must) :], number - len(must))

    def _waiting(self, known: set[Architecture], number: int) -> list[Architecture]:
        """Return the first networks of the sequence that are not known."""
        waiting = [one for one in self._drawn if one not in known][:number]
        while len(waiting) < number:
            more = list(islice(self.sequence, number - len(waiting)))
            if not more:
                break
            self._drawn += more
            waiting += [one for one in more if one not in known]
        return waiting
