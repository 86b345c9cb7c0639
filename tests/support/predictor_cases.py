"""Predictors fitted to made-up costs, in spaces that are known and in one of which nothing is."""

import functools
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from ehdnas.search.predictor.base import Identity
from ehdnas.search.predictor.facts import MACS, OP_LATENCY, Costs, SpaceFacts
from ehdnas.search.predictor.methods import METHODS, make_predictor
from ehdnas.search.relaxation import sample_one_hot
from ehdnas.search.spaces.base import Space, find_space

SAMPLES = 60
OF_COST = ("flops", "op-sum")  # which can say nothing of a space whose costs are not known
KNOWN, CHAIN = ("darts", "nasbench201", "mobile"), "table"
PAIRS = [(method, where) for method in METHODS for where in KNOWN]
PAIRS += [(method, CHAIN) for method in METHODS if method not in OF_COST]
each_method = pytest.mark.parametrize("method", METHODS)
each_pair = pytest.mark.parametrize(("method", "where"), PAIRS)


@dataclass(frozen=True)
class Case:
    """A space to predict in, or, with `space` None, a table of 22 decisions of which nothing is known."""

    identity: Identity
    facts: SpaceFacts
    space: Space | None

    def drawn(self, count, seed=0):
        """Architectures, one-hot."""
        rng = np.random.default_rng(seed)
        if self.space is not None:
            return self.space.encode_all([self.space.sample(rng) for _ in range(count)])
        chosen = torch.from_numpy(rng.integers(self.identity.choices, size=(count, self.identity.slots)))
        return torch.nn.functional.one_hot(chosen, self.identity.choices).float()

    def relaxed(self, logits, seed=0):
        """One-hot gates through which gradients reach the logits."""
        generator = torch.Generator().manual_seed(seed)
        if self.space is not None:
            return self.space.relax(logits, generator)
        return sample_one_hot(logits, generator)

    def samples(self, count, seed=0):
        """Architectures, and what they cost: a sum over their choices, with 2 % of noise."""
        gates, size = self.drawn(count, seed), (self.identity.slots, self.identity.choices)
        each = torch.rand(size, generator=seeded(7)) + 9 * torch.linspace(0, 1, size[1]).square()
        noise = 1 + 0.02 * torch.randn(count, generator=seeded(seed))
        return gates, ((20 + (gates * each).sum((1, 2))) * noise).double()


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@functools.cache
def case(where):
    if where == CHAIN:
        return Case(Identity("", CHAIN, 22, 9, "", "board", "threads 1", "latency_ms"), SpaceFacts(), None)
    space = find_space(where)
    alone = torch.linspace(0, 4, space.choices).double().expand(space.slots, -1)
    costs = Costs((MACS, OP_LATENCY), torch.stack([1e6 * alone, alone], 2), torch.tensor([5e6, 2.0]).double())
    who = Identity("", where, space.slots, space.choices, "c4x3", "board", "threads 1", "latency_ms")
    return Case(who, SpaceFacts(space.graphs, costs), space)


def make(method, where, **others):
    who = replace(case(where).identity, method=method, **others)
    return make_predictor(who, case(where).facts)


@functools.cache
def fitted(method, where):
    """A fitted predictor, the same one for every test: none of them changes it."""
    predictor = make(method, where)
    predictor.fit(*case(where).samples(SAMPLES), seed=3)
    return predictor
