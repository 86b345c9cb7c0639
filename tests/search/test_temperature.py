"""How sharply paths are drawn: with as much entropy as is wanted, and with a gradient."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ehdnas.search.spaces.base import find_space
from ehdnas.search.temperature import decided, explored

SPACES = {name: find_space(name) for name in ("darts", "darts-sized", "nasbench201", "mobile")}


def some_logits(space, seed, strength):
    noise = torch.randn(space.slots, space.choices, generator=torch.Generator().manual_seed(seed))
    return space.initial_logits() + strength * noise


def coldest(sharper, logits):
    """Return whether no lower temperature was to be had: choices that are all but equal are never decided."""
    return torch.allclose(sharper, 1.5**12 * logits)


@pytest.mark.parametrize("name", SPACES)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), strength=st.floats(0.1, 3), share=st.floats(0.01, 1))
def test_the_entropy_is_what_the_schedule_says(name, seed, strength, share):
    space = SPACES[name]
    logits, most = some_logits(space, seed, strength), space.entropy(space.initial_logits())
    for wanted, sharper in (
        (1 - 0.7 * share, explored(space, logits, share)),
        (0.15, decided(space, logits)),
    ):
        assert space.entropy(sharper) <= wanted * most + 1e-5 or coldest(sharper, logits)
        warmer = sharper / 1.5
        assert torch.equal(sharper, logits) or space.entropy(warmer) > wanted * most - 1e-5


def test_the_beginning_of_a_search_is_drawn_as_it_stands_and_decided_logits_are_left_alone():
    space = SPACES["darts"]
    logits = some_logits(space, 0, 0.1)
    assert explored(space, logits, 0.0) is logits
    assert explored(space, logits, -0.5) is logits  # while weights alone are trained
    order = torch.randperm(logits.numel(), generator=torch.Generator().manual_seed(0))
    firm = 100.0 * order.view_as(logits)
    assert torch.equal(decided(space, firm), firm)


@pytest.mark.parametrize("name", SPACES)
def test_an_even_distribution_stays_even(name):
    space = SPACES[name]
    even = torch.zeros(space.slots, space.choices)
    assert torch.equal(explored(space, even, 1.0), even)


def test_the_gradient_goes_through_the_logits():
    space = SPACES["nasbench201"]
    logits = some_logits(space, 1, 0.2).requires_grad_()
    sharper = decided(space, logits)
    (slope,) = torch.autograd.grad(sharper.sum(), [logits])
    factor = float((sharper / logits).detach().mean())
    assert factor > 1
    assert torch.allclose(slope, torch.full_like(slope, factor))
