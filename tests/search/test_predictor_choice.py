"""Choosing what to measure next: different networks, those first that nothing measured tells about."""

import numpy as np
import pytest
import torch

from ehdnas.search.predictor import regression
from ehdnas.search.predictor.choice import choose
from ehdnas.search.predictor.facts import SpaceFacts
from ehdnas.search.predictor.features import whole
from ehdnas.search.predictor.process import Fit, View
from ehdnas.search.spaces.base import Architecture
from ehdnas.search.spaces.nasbench201.space import NasBench201Space

SPACE = NasBench201Space()
FACTS = SpaceFacts(SPACE.graphs)
COST = torch.tensor([0.0, 0.1, 1.0, 4.0, 0.5], dtype=torch.float64) * torch.linspace(0.5, 1.5, 6)[:, None]
CONV3 = 3


@pytest.fixture(autouse=True)
def _brief(monkeypatch):
    monkeypatch.setattr(regression, "_ROUNDS", (10, 5, 5))


def drawn(count, seed, without=()):
    rng, found = np.random.default_rng(seed), []
    while len(found) < count:
        one = SPACE.sample(rng)
        if not set(without) & set(one.choices):
            found.append(one)
    return SPACE.encode_all(found)


def value(gates):
    return 3 + (gates * COST).sum((1, 2))


def chosen(count, candidates, without=(), seed=0, facts=FACTS):
    gates = drawn(30, 0, without)
    return choose(gates, value(gates), candidates, count, seed, facts)


@pytest.mark.parametrize("facts", [FACTS, SpaceFacts()])
@pytest.mark.parametrize("count", [0, 1, 7, 40])
def test_as_many_as_asked_are_chosen_and_none_twice(count, facts):
    rows = chosen(count, drawn(40, 1), facts=facts)
    assert len(rows) == len(set(rows)) == count
    assert all(type(row) is int and 0 <= row < 40 for row in rows)


def test_more_than_there_are_cannot_be_chosen():
    assert sorted(chosen(50, drawn(8, 1))) == list(range(8))


def test_the_choice_is_fixed_by_what_goes_in():
    torch.manual_seed(1)
    first = chosen(10, drawn(40, 1))
    torch.manual_seed(2)
    assert chosen(10, drawn(40, 1)) == first
    assert chosen(5, drawn(40, 1)) == first[:5], "greedily"


def test_an_operation_that_was_never_measured_comes_before_a_copy():
    copies = drawn(30, 0, without=[CONV3])
    unseen = SPACE.encode_all([Architecture((CONV3,) * 6), Architecture((CONV3, 1, CONV3, 2, CONV3, 2))])
    rows = chosen(2, torch.cat([copies[:10], unseen, copies[10:20]]), without=[CONV3])
    assert rows[0] in (10, 11)


def test_a_network_is_not_followed_by_its_twin():
    others = drawn(20, 1)
    rows = chosen(20, torch.cat([others, others]))
    assert len({row % 20 for row in rows[:5]}) == 5


def test_what_is_chosen_tells_more_of_the_rest_than_what_is_not():
    gates, candidates, view = drawn(30, 0), drawn(80, 1), View(whole)
    rows = torch.tensor(chosen(10, candidates))
    every = torch.cat([gates, candidates]).double()
    fit = Fit(view, view.features(every, FACTS), value(every), "value", 0)

    def left(more):
        known = torch.cat([torch.arange(30), 30 + more])
        return float(fit.left_over(known, torch.arange(30, 110))[0].diagonal().mean())

    randomly = [torch.randperm(80, generator=torch.Generator().manual_seed(seed))[:10] for seed in range(5)]
    assert left(rows) < np.mean([left(more) for more in randomly])
