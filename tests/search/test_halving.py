"""Successive halving: each round costs alike, and the one that is best in every round wins."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehdnas.search.halving import halved
from ehdnas.search.spaces.base import Architecture


def networks(count):
    return [Architecture((number,)) for number in range(count)]


class Told:
    """Accuracies by a table, the same after any number of epochs; remembers what it was asked."""

    def __init__(self, accuracies):
        self.accuracies, self.asked = accuracies, []

    def __call__(self, architectures, epochs):
        self.asked.append((len(architectures), epochs))
        return [self.accuracies[one.choices[0]] for one in architectures]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20), st.integers(1, 5), st.integers(2, 4))
def test_the_most_accurate_wins_and_of_equal_ones_the_first(accuracies, epochs, factor):
    told = Told(accuracies)
    trials = halved(networks(len(accuracies)), epochs, told, factor)
    assert trials[-1].architecture.choices[0] == accuracies.index(max(accuracies))
    assert trials[-1].epochs == told.asked[-1][1]
    assert len(trials) == sum(count for count, _ in told.asked)


def test_each_round_halves_the_networks_and_doubles_their_epochs():
    told = Told([0.1 * number for number in range(8)])
    halved(networks(8), 2, told, 2)
    assert told.asked == [(8, 2), (4, 4), (2, 8)]


def test_a_round_can_keep_a_smaller_share():
    told = Told([0.5] * 16)
    halved(networks(16), 1, told, factor=4)
    assert told.asked == [(16, 1), (4, 4)]


def test_a_later_round_overrules_an_earlier_one():
    later = {1: [0.2, 0.3, 0.1], 3: [0.9, 0.4]}
    trials = halved(networks(3), 1, lambda some, epochs: later[epochs][: len(some)], factor=3)
    assert trials[-1].architecture.choices == (1,)
    later = {1: [0.4, 0.3, 0.2, 0.1], 2: [0.2, 0.8]}
    best = halved(networks(4), 1, lambda some, epochs: later[epochs], 2)[-1]
    assert (best.architecture.choices, best.epochs, best.accuracy) == ((1,), 2, 0.8)


@pytest.mark.parametrize(("count", "factor"), [(1, 2), (0, 2), (4, 1)])
def test_what_cannot_be_halved_is_refused(count, factor):
    with pytest.raises(ValueError, match="halving needs"):
        halved(networks(count), 1, Told([]), factor)
