"""From a distribution to candidates: near the budget, likely, and the same ones for the same seed."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ehdnas.core.budget import Budget
from ehdnas.search.objective import Constraint, Constraints
from ehdnas.search.selection import apart, can_be_spent, candidates, fitted
from ehdnas.search.spaces.base import Architecture
from ehdnas.search.spaces.darts.space import DartsSpace
from ehdnas.search.spaces.mobile.space import MobileSpace
from ehdnas.search.spaces.nasbench201.space import NasBench201Space
from ehdnas.search.spaces.sized.space import SizedDartsSpace

SPACES = {space.name: space for space in (DartsSpace(), NasBench201Space(), MobileSpace(), SizedDartsSpace())}
NEAR = math.log(1.05)


class Formula:
    """A latency of 20 ms and, for every slot, 1 ms more a choice, but choice 0 costs nothing."""

    def log_value(self, gates):
        return (20 + (gates * torch.arange(gates.shape[-1])).sum(dim=(1, 2))).log()

    def margin(self, confidence):
        return 0.0


def limit(space, bound, metric="latency_ms", step=0.0):
    """Return what networks break a budget by; with a `step` latencies take few values, as pipelines' do."""
    constraint = Constraint(Formula(), Budget(metric, bound), 0.9)

    def violations(networks):
        exact = constraint.violation(space.encode_all(networks))
        return (exact / step).round() * step + step / 3 if step else exact

    return violations


def decided(space, seed=0, strength=3.0):
    """Return logits that have made their mind up, about networks of any speed."""
    noise = torch.randn(space.slots, space.choices, generator=torch.Generator().manual_seed(seed))
    return space.initial_logits() + strength * noise


def fast(space):
    """Return logits that want the cheapest choices, so the mode is far faster than most budgets ask."""
    return space.initial_logits() - 3.0 * torch.arange(space.choices)


def extreme_latencies(space):
    fastest, slowest = (space.most_likely(sign * 9.0 * torch.arange(space.choices).float().expand(
        space.slots, -1)) for sign in (-1, 1))  # fmt: skip
    return [float(Formula().log_value(space.encode_all([one])).exp()) for one in (fastest, slowest)]


@pytest.mark.parametrize("name", SPACES)
def test_a_mode_that_is_too_fast_still_gives_candidates_close_under_the_budget(name):
    space = SPACES[name]
    low, high = extreme_latencies(space)
    bound = (low * high) ** 0.5
    violations = limit(space, bound)
    assert violations([space.most_likely(fast(space))]) < -NEAR  # the likeliest overshoots
    ranked = candidates(space, fast(space), violations, seed=0)
    assert all(-NEAR <= one.violation <= 0 for one in ranked[:16])


@pytest.mark.parametrize("name", SPACES)
def test_a_mode_that_breaks_the_budget_is_walked_under_it(name):
    space = SPACES[name]
    low, _ = extreme_latencies(space)
    slow = -fast(space)
    ranked = candidates(space, slow, limit(space, 1.2 * low), seed=0)
    assert limit(space, 1.2 * low)([space.most_likely(slow)]) > 0
    assert ranked[0].violation <= 0


def test_walks_find_likelier_networks_near_the_budget_than_draws_do():
    space = SPACES["darts"]
    logits, constraint = 0.2 * fast(space) + decided(space, strength=1.0), limit(space, 70.0)
    generator = torch.Generator().manual_seed(1)
    draws = [space.decode(space.relax(logits, generator)) for _ in range(500)]
    violations = constraint(draws).tolist()
    near = [one for one, violation in zip(draws, violations, strict=True) if -NEAR <= violation <= 0]
    drawn = max((float(space.log_prob(one, logits)) for one in near), default=-math.inf)
    assert candidates(space, logits, constraint, seed=0)[0].log_prob > drawn + 1


def test_the_likeliest_network_near_the_budget_is_found_where_all_can_be_looked_at():
    space = SPACES["nasbench201"]
    constraint = limit(space, 32.0)
    every = _all_connected(space)
    violations = constraint(every).tolist()
    near = [one for one, violation in zip(every, violations, strict=True) if -NEAR <= violation <= 0]
    for seed in range(4):
        logits = decided(space, seed)
        best = max(float(space.log_prob(one, logits)) for one in near)
        assert candidates(space, logits, constraint, seed)[0].log_prob == pytest.approx(best)


@pytest.mark.parametrize("name", SPACES)
def test_where_a_metric_takes_few_values_the_nearest_under_the_budget_is_found(name):
    space = SPACES[name]
    low, high = extreme_latencies(space)
    violations = limit(space, (low * high) ** 0.5, step=0.2)  # none is within 5 % under the budget
    for logits in (fast(space), decided(space), -fast(space)):
        quick = space.most_likely(100 * fast(space))
        ranked = candidates(space, logits, violations, seed=0, starts=[quick])
        assert ranked[0].violation == pytest.approx(0.2 / 3 - 0.2)
        assert ranked[0].violation == pytest.approx(ranked[15].violation)
        assert ranked[0].log_prob >= ranked[15].log_prob


def test_where_the_first_walks_end_far_under_the_budget_others_are_tried(monkeypatch):
    """As on a pipeline: where values are few, it is chance which of them a walk ends at."""
    space = SPACES["darts"]

    def violations(networks):
        """Too slow but for eight of choice 6, and then close under the budget only without 1 and 5."""
        choices = torch.tensor([one.choices for one in networks])
        sixes, others = (choices == 6).sum(dim=1), ((choices == 1) | (choices == 5)).sum(dim=1)
        met = torch.where(others == 0, -0.01, -1.0)
        return torch.where(sixes < 8, 0.1 * (8 - sixes), met).double()

    found = {}
    for walks in (0, 16):
        monkeypatch.setattr("ehdnas.search.selection._WALKS", walks)
        found[walks] = candidates(space, decided(space), violations, seed=0)[0].violation
    assert found == {0: -1.0, 16: pytest.approx(-0.01)}


def _all_connected(space):
    every = torch.cartesian_prod(*[torch.arange(space.choices)] * space.slots)
    return [one for one in map(_architecture, every.tolist()) if space.is_valid(one)]


def _architecture(choices):
    return Architecture(tuple(choices))


def test_a_throughput_is_a_budget_from_below():
    space = SPACES["nasbench201"]
    ranked = candidates(space, fast(space), limit(space, 26.0, "throughput_fps"), seed=0)
    assert -NEAR <= ranked[0].violation <= 0


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**32), st.floats(21, 60), st.floats(0, 20))
def test_candidates_are_distinct_valid_and_ranked(seed, bound, strength):
    space = SPACES["nasbench201"]
    ranked = candidates(space, decided(space, seed, strength), limit(space, bound), seed)
    keys = [(one.violation > 0, round(one.distance, 6), -one.log_prob) for one in ranked]
    assert keys == sorted(keys)
    assert len({one.architecture for one in ranked}) == len(ranked)
    assert all(space.is_valid(one.architecture) for one in ranked)


def test_the_same_seed_gives_the_same_candidates():
    space = SPACES["darts"]
    first, second = (candidates(space, fast(space), limit(space, 40.0), seed=3) for _ in range(2))
    assert first == second


def test_without_a_budget_the_likeliest_come_first():
    space = SPACES["nasbench201"]
    ranked = candidates(space, decided(space), None, seed=0)
    assert [one.log_prob for one in ranked] == sorted((one.log_prob for one in ranked), reverse=True)
    assert ranked[0].architecture == space.most_likely(decided(space))


@pytest.mark.parametrize("name", SPACES)
def test_those_that_are_apart_differ_in_more_than_a_decision(name):
    space = SPACES[name]
    ranked = [one.architecture for one in candidates(space, decided(space), None, seed=0)]
    around = [ranked[0], *space.neighbours(ranked[0]), *ranked[1:]]
    kept = apart(around, 4)
    assert kept[0] == ranked[0]
    assert len(set(kept)) == 4
    differing = [
        sum(a != b for a, b in zip(one.choices, two.choices, strict=True)) for one in kept for two in kept
    ]
    assert min(filter(None, differing)) > 1


def test_where_all_are_alike_those_count_that_there_are():
    space = SPACES["nasbench201"]
    alike = [space.reference, *space.neighbours(space.reference)]
    assert len(apart(alike, 5)) == 5
    assert apart(alike[:2], 5) == alike[:2]
    assert apart([], 3) == []


@pytest.mark.parametrize("name", SPACES)
def test_a_budget_beyond_the_slowest_network_cannot_be_spent(name):
    space = SPACES[name]
    _, slowest = extreme_latencies(space)
    for share, spent in ((0.5, True), (1.02, True), (1.5, False)):
        constraint = Constraint(Formula(), Budget("latency_ms", share * slowest), 0.9)
        assert can_be_spent(space, Constraints((constraint,))) == spent


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("share", [0.8, 1.2])
def test_the_reference_is_brought_to_the_budget_by_few_decisions(name, share):
    space = SPACES[name]
    own = float(Formula().log_value(space.encode_all([space.reference])).exp())
    violations = limit(space, share * own)
    logits = decided(space)
    near = fitted(space, logits, violations, space.reference)
    found = near.architecture
    assert space.is_valid(found) and near.distance <= 1e-6
    assert -NEAR - 1e-6 <= float(violations([found])) <= 0
    changed = sum(a != b for a, b in zip(found.choices, space.reference.choices, strict=True))
    assert changed < space.slots
    assert fitted(space, logits, violations, found) == near
