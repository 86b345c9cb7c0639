"""The DARTS space with operations left out: never chosen by any way of choosing, and still read."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ehdnas.core.errors import UsageError
from ehdnas.search.spaces.base import Architecture, NetworkShape
from ehdnas.search.spaces.darts.genotype import CHOICES
from ehdnas.search.spaces.darts.space import DartsSpace

SPACE = DartsSpace()
OPERATIONS = CHOICES[1:]
SHAPE = NetworkShape(4, 3, (1, 8, 8), 10)
some_left_out = st.sets(st.sampled_from(OPERATIONS), min_size=1, max_size=len(OPERATIONS) - 1)
seeds = st.integers(0, 2**32)


def left_out(architecture, names):
    """The names that an architecture has and should not have."""
    return {CHOICES[choice] for choice in architecture.choices} & set(names)


@given(names=some_left_out, seed=seeds)
def test_a_sample_never_holds_them_and_covers_the_rest(names, seed):
    space = SPACE.without(frozenset(names))
    rng = np.random.default_rng(seed)
    drawn = [space.sample(rng) for _ in range(40)]
    assert not any(left_out(one, names) for one in drawn)
    assert all(space.allows(one) and space.is_valid(one) for one in drawn)
    # 40 networks of 16 operations: the rarest of at most six is missed once in 10**50.
    seen = {CHOICES[choice] for one in drawn for choice in one.choices}
    assert seen == {"none", *OPERATIONS} - names


@given(names=some_left_out, seed=seeds, strength=st.floats(0, 200))
@settings(max_examples=60)
def test_the_relaxation_never_draws_them_and_its_gradients_are_finite(names, seed, strength):
    """Not even where the search has come to like them above all: `strength` is how much."""
    space = SPACE.without(frozenset(names))
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(28, 8, generator=generator)
    logits[:, [CHOICES.index(name) for name in names]] += strength
    logits.requires_grad_()
    gates = space.relax(logits, generator)
    drawn = space.decode(gates.detach())
    assert torch.equal(gates.detach(), space.encode(drawn))
    assert not left_out(drawn, names)
    (gates * torch.randn(28, 8, generator=generator)).sum().backward()
    assert torch.isfinite(logits.grad).all() and logits.grad.abs().sum() > 0
    assert not logits.grad[:, [CHOICES.index(name) for name in names]].any()
    likelihood = space.log_prob(drawn, logits)
    assert torch.isfinite(likelihood) and likelihood <= 0


@given(names=some_left_out, seed=seeds)
@settings(max_examples=20)
def test_the_most_likely_never_holds_them_and_is_the_likeliest_of_those_that_do_not(names, seed):
    space = SPACE.without(frozenset(names))
    logits = 3 * torch.randn(28, 8, generator=torch.Generator().manual_seed(seed))
    best = space.most_likely(logits)
    assert space.allows(best) and not left_out(best, names)
    others = [space.sample(np.random.default_rng([seed, number])) for number in range(5)]
    others += list(space.neighbours(best))
    assert all(space.log_prob(best, logits) >= space.log_prob(one, logits) - 1e-4 for one in others)


@given(names=some_left_out, seed=seeds)
@settings(max_examples=30)
def test_no_neighbour_holds_them_and_none_that_does_not_is_missing(names, seed):
    space = SPACE.without(frozenset(names))
    start = space.sample(np.random.default_rng(seed))
    around = list(space.neighbours(start))
    assert not any(left_out(one, names) for one in around)
    assert around == [one for one in SPACE.neighbours(start) if not left_out(one, names)]


def test_probabilities_of_what_is_left_add_up_to_one():
    """Edges 0 and 1 are always in use: with two operations left they can be had in four ways."""
    kept = [CHOICES.index("skip_connect"), CHOICES.index("sep_conv_3x3")]
    space = SPACE.without(frozenset(OPERATIONS) - {"skip_connect", "sep_conv_3x3"})
    logits = torch.randn(28, 8, generator=torch.Generator().manual_seed(3))
    one = space.sample(np.random.default_rng(0)).choices
    ways = [Architecture((first, second, *one[2:])) for first in kept for second in kept]
    together = sum(space.log_prob(way, logits).exp() for way in ways)
    of_two = logits[:2, kept].log_softmax(1)
    own = of_two[0, kept.index(one[0])] + of_two[1, kept.index(one[1])]
    without_them = (space.log_prob(Architecture(one), logits) - own).exp()
    assert float(together) == pytest.approx(float(without_them), rel=1e-4)


@pytest.mark.parametrize("name", ["DARTS_V2", "EHDNAS_GENERIC", "GDAS_V1"])
def test_what_was_published_can_still_be_read_and_built(name):
    space = SPACE.without(frozenset({"sep_conv_3x3", "skip_connect"}))
    assert space.parse(name) == SPACE.parse(name)
    assert space.reference == SPACE.reference
    architecture = space.parse(name)
    assert space.is_valid(architecture) and not space.allows(architecture)
    assert space.network(architecture, SHAPE).eval()(torch.randn(2, 1, 8, 8)).shape == (2, 10)
    # So that its latency can be known, as relative budgets need.
    assert torch.isfinite(space.log_prob(architecture, space.initial_logits()))
    assert space.parts(SHAPE).chosen.keys() == SPACE.parts(SHAPE).chosen.keys()


def test_leaving_out_more_leaves_out_what_was_before():
    twice = SPACE.without(frozenset({"sep_conv_3x3"})).without(frozenset({"sep_conv_5x5"}))
    drawn = [twice.sample(np.random.default_rng(seed)) for seed in range(20)]
    assert not any(left_out(one, {"sep_conv_3x3", "sep_conv_5x5"}) for one in drawn)
    most = SPACE.without(frozenset(OPERATIONS[1:]))
    assert most.without(frozenset()) is most
    with pytest.raises(UsageError, match="nothing to search"):
        most.without(frozenset({OPERATIONS[0]}))


def test_one_operation_is_still_a_space():
    space = SPACE.without(frozenset(OPERATIONS) - {"sep_conv_3x3"})
    generator = torch.Generator().manual_seed(0)
    logits = space.initial_logits().requires_grad_()
    gates = space.relax(logits, generator)
    assert set(space.decode(gates.detach()).choices) == {0, CHOICES.index("sep_conv_3x3")}
    (gates * torch.randn(28, 8, generator=generator)).sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[:, 0].any()  # which edges a node takes is still to be learnt
    start = space.most_likely(logits.detach())
    assert all(space.allows(one) for one in space.neighbours(start))


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ({"sep_conv_3x4"}, "no choice 'sep_conv_3x4'; did you mean 'sep_conv_3x3'"),
        ({"sep_conv_3x3", "unmapped"}, "no choice 'unmapped'; known: avg_pool_3x3"),
        ({"none"}, "no choice 'none'"),
        (set(OPERATIONS), "nothing to search"),
    ],
)
def test_what_cannot_be_left_out_is_refused(names, says):
    with pytest.raises(UsageError, match=says) as caught:
        SPACE.without(frozenset(names))
    assert "\n" not in str(caught.value)
