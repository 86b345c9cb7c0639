"""The relaxation of every space: valid samples, honest probabilities, gradients that point right."""

import math
from collections import Counter
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ehdnas.search.relaxation import entropies
from ehdnas.search.spaces.base import Architecture
from ehdnas.search.spaces.darts.space import DartsSpace
from ehdnas.search.spaces.mobile.space import MobileSpace
from ehdnas.search.spaces.nasbench201.space import NasBench201Space
from ehdnas.search.spaces.sized.space import SizedDartsSpace

SPACES = {space.name: space for space in (DartsSpace(), NasBench201Space(), MobileSpace(), SizedDartsSpace())}
# Spaces cut down until every architecture of the distribution can be counted.
_FEWER = frozenset(("max_pool_3x3", "avg_pool_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"))
CUT = {
    "darts": SPACES["darts"].without(_FEWER),
    "darts-sized": SPACES["darts-sized"].without(_FEWER | {"width_1.25"}),
    "nasbench201": SPACES["nasbench201"].without(frozenset(("nor_conv_1x1", "avg_pool_3x3"))),
    "mobile": SPACES["mobile"].without(
        frozenset(("mbconv_e3_k5", "mbconv_e3_k7", "mbconv_e6_k5", "mbconv_e6_k7", "narrow", "wide"))
    ),
}
DECISIONS = {"darts": 22, "darts-sized": 24, "nasbench201": 6, "mobile": 33}
EVERY = pytest.mark.parametrize("name", SPACES)
seeds = st.integers(0, 2**32)
strengths = st.sampled_from([0.0, 0.1, 1.0, 10.0, 1e3, 1e6])


def all_connected(space):
    """Return every architecture of a NAS-Bench-201 space."""
    return [one for one in map(Architecture, product(range(space.choices), repeat=6)) if space.allows(one)]


def logits_of(space, seed, strength):
    noise = torch.randn(space.slots, space.choices, generator=torch.Generator().manual_seed(seed))
    return space.initial_logits() + strength * noise


def draws(space, logits, count, seed):
    generator = torch.Generator().manual_seed(seed)
    return [space.decode(space.relax(logits, generator)) for _ in range(count)]


@EVERY
@settings(max_examples=40, deadline=None)
@given(seed=seeds, strength=strengths)
def test_samples_are_valid_one_hot_and_of_the_space(name, seed, strength):
    for space in (SPACES[name], CUT[name]):
        logits = logits_of(space, seed, strength).requires_grad_()
        gates = space.relax(logits, torch.Generator().manual_seed(seed))
        assert torch.equal(gates.detach(), space.encode(space.decode(gates.detach())))
        assert space.allows(space.decode(gates))
        gates.square().sum().backward()
        assert logits.grad.isfinite().all()


@EVERY
@settings(max_examples=20, deadline=None)
@given(seed=seeds, strength=strengths)
def test_the_mode_is_valid_and_as_likely_as_any_other(name, seed, strength):
    space = SPACES[name]
    logits = logits_of(space, seed, strength)
    mode = space.most_likely(logits)
    highest = float(space.log_prob(mode, logits))
    assert space.allows(mode)
    assert highest <= 1e-4
    slack = 1e-4 * max(1.0, abs(highest))
    for other in [*draws(space, logits, 5, seed), *list(space.neighbours(mode))[::7]]:
        assert float(space.log_prob(other, logits)) <= highest + slack


@EVERY
def test_one_way_to_have_a_choice_forced_is_a_logit_far_above_the_others(name):
    space = SPACES[name]
    wanted = space.reference
    logits = 1e4 * space.encode(wanted)
    if name == "darts":  # column 0 scores leaving an edge out
        logits[:, 0] = torch.where(logits[:, 0] > 0, 1e4, -1e4)
    assert set(draws(space, logits, 5, 0)) == {wanted} == {space.most_likely(logits)}
    assert float(space.log_prob(wanted, logits)) == pytest.approx(0, abs=1e-5)
    assert space.entropy(logits) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(("strength", "count"), [(0.0, 5000), (1.0, 2000)])
def test_every_architecture_comes_as_often_as_log_prob_says(strength, count):
    """Chi-square over all that are connected in a cut-down NAS-Bench-201."""
    space = CUT["nasbench201"]
    logits = logits_of(space, 1, strength)
    every = all_connected(space)
    log = torch.stack([space.log_prob(one, logits) for one in every]).double()
    assert float(log.exp().sum()) == pytest.approx(1, abs=1e-5)
    assert_counts_follow(Counter(draws(space, logits, count, 2)), dict(zip(every, log.exp(), strict=True)))


@EVERY
@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_log_prob_of_what_is_drawn_averages_to_the_entropy(name, strength):
    """The mean of −log_prob is the entropy only if samples follow it; 5 standard errors are allowed."""
    space, count = SPACES[name], 400
    logits = logits_of(space, 3, strength)
    values = -torch.stack([space.log_prob(one, logits) for one in draws(space, logits, count, 4)]).double()
    error = float(values.std()) / math.sqrt(count)
    assert DECISIONS[name] * space.entropy(logits) == pytest.approx(
        float(values.mean()), abs=5 * error + 1e-4
    )


@pytest.mark.parametrize("name", ["darts", "mobile"])
def test_what_is_drawn_of_one_part_follows_log_prob(name):
    """Chi-square over the architectures that differ in a few slots only, all else being forced."""
    space = CUT[name]
    logits = forced_but_for_a_node(space) if name == "darts" else forced_but_for_a_stage(space)
    counted = Counter(draws(space, logits, 1500, 5))
    every = {one: space.log_prob(one, logits).double().exp() for one in one_at_a_time(space, logits)}
    assert float(sum(every.values())) == pytest.approx(1, abs=1e-4)
    assert_counts_follow(counted, every)


def forced_but_for_a_node(space):
    """Return logits that settle all but the second node of the normal cell: 3 pairs, 2 · 2 operations."""
    logits = 40.0 * space.encode(space.most_likely(space.initial_logits()))
    logits[:, 0] = torch.where(logits[:, 0] > 0, 40.0, -40.0)
    logits[2:5] = torch.randn(3, 8, generator=torch.Generator().manual_seed(6))
    return logits


def forced_but_for_a_stage(space):
    """Return logits that settle everything but the layers of the second stage, four deep at most."""
    logits = 40.0 * space.encode(space.most_likely(space.initial_logits()))
    slots = [slot for _, _, slot in space.graphs[1].edges]
    logits[slots] = torch.randn(len(slots), space.choices, generator=torch.Generator().manual_seed(7))
    return logits


def one_at_a_time(space, logits):
    """Return every architecture of noticeable probability, by changing the slots that are not settled."""
    mode = space.most_likely(logits).choices
    open_slots = [slot for slot, row in enumerate(logits) if float(row.max() - row.min()) < 30]
    options = [range(space.choices) if slot in open_slots else (mode[slot],) for slot in range(space.slots)]
    every = map(Architecture, product(*options))
    return [one for one in every if space.allows(one)]


def assert_counts_follow(counted, probabilities):
    """Pearson's chi-square against the probabilities; cells expected less than 5 times are put together.

    Its mean is the degrees of freedom k and its variance about 2 k; the seeds are fixed.
    """
    assert set(counted) <= set(probabilities)
    count = sum(counted.values())
    pairs = [(counted[one], count * float(share)) for one, share in probabilities.items()]
    common = [pair for pair in pairs if pair[1] >= 5]
    rare = [sum(column) for column in zip(*(pair for pair in pairs if pair[1] < 5), strict=True)]
    cells = [*common, tuple(rare)] if rare and rare[1] >= 5 else common
    assert len(cells) > 5
    chi_square = sum((seen - expected) ** 2 / expected for seen, expected in cells)
    freedom = len(cells) - 1
    assert chi_square < freedom + 5 * math.sqrt(2 * freedom)


@EVERY
def test_a_likelier_choice_has_a_higher_logit(name):
    """The gradient of an expected count of a choice is towards it: the straight-through sign, on average."""
    space = SPACES[name]
    slot, choice = 0, space.reference.choices[0] or 1
    logits = space.initial_logits().requires_grad_()
    generator = torch.Generator().manual_seed(8)
    total = sum(space.relax(logits, generator)[slot, choice] for _ in range(100))
    (gradient,) = torch.autograd.grad(total, logits)
    own = [at for at in range(space.choices) if at != choice and (name != "darts" or at)]
    assert gradient[slot, choice] > 0
    assert all(gradient[slot, at] <= 0 for at in own)


def pairs_of(space, seed):
    """Return a function of gates [n, slots, choices] that gives every two choices a value of their own."""
    size = space.slots * space.choices
    values = torch.randn(size, size, generator=torch.Generator().manual_seed(seed))
    return lambda gates: ((gates.flatten(1) @ values) * gates.flatten(1)).sum(dim=1)


def exact_and_found(space, logits, every, seed, count=6000):
    """Return the gradient of the expectation of `pairs_of`, enumerated, and the mean of samples of it."""
    logits, worth = logits.requires_grad_(), pairs_of(space, seed)
    probabilities = torch.stack([space.log_prob(one, logits) for one in every]).exp()
    assert float(probabilities.detach().sum()) == pytest.approx(1, abs=1e-3)
    (exact,) = torch.autograd.grad((probabilities * worth(space.encode_all(every))).sum(), logits)
    generator = torch.Generator().manual_seed(seed)
    copies = logits.detach().expand(count, -1, -1).clone().requires_grad_()
    drawn = torch.stack([space.relax(one, generator) for one in copies.unbind()])
    (gradients,) = torch.autograd.grad(worth(drawn).sum(), copies)
    return exact, gradients


@pytest.mark.slow
@pytest.mark.parametrize("name", ["darts", "nasbench201"])
def test_the_gradient_of_samples_is_within_5_percent_of_that_of_the_expectation(name):
    """All operations and pairs of edges of a node of DARTS, or all of a cut-down NAS-Bench-201.

    What the noise of the mean adds to the squared distance is taken out.
    """
    space = CUT[name]
    if name == "darts":
        logits = forced_but_for_a_node(space)
        every = one_at_a_time(space, logits)
    else:
        logits, every = 0.5 * logits_of(space, 9, 1.0), all_connected(space)
    exact, gradients = exact_and_found(space, logits, every, 10)
    found = gradients.mean(dim=0)
    noise = float(gradients.var(dim=0).sum()) / len(gradients)
    assert torch.cosine_similarity(found.flatten(), exact.flatten(), dim=0) > 0.99
    assert float((found - exact).square().sum()) - noise < (0.05 * float(exact.norm())) ** 2


@given(st.integers(2, 9), seeds)
def test_entropies_lie_between_decided_and_even(choices, seed):
    logits = torch.randn(4, choices, generator=torch.Generator().manual_seed(seed))
    assert (entropies(logits) > 0).all()
    assert (entropies(logits) <= math.log(choices) + 1e-6).all()
    decided = torch.full((2, choices), -1e9)
    decided[1] = -torch.inf
    decided[:, 0] = 0.0
    assert entropies(decided).tolist() == [0.0, 0.0]


@EVERY
def test_skips_are_counted_by_cell(name):
    space = SPACES[name]
    counts = space.identities(space.reference)
    # MOBILENET_V2 leaves 2, 1, 0, 1 and 1 of four layers out, and has the one layer of its last stage.
    wanted = {"darts": (2, 3), "nasbench201": (2,), "mobile": (2, 1, 0, 1, 1, 0)}
    assert counts == {**wanted, "darts-sized": wanted["darts"]}[name]
