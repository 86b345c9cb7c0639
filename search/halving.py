"""Successive halving: the most accurate of several networks, by trainings that grow as fewer are left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ehdnas.search.spaces.base import Architecture


@dataclass(frozen=True)
class Trial:
    """How accurate a network became, a share of 1, when trained for so many epochs."""

    architecture: Architecture
    epochs: int
    accuracy: float


def halved(
    architectures: Sequence[Architecture],
    epochs: int,
    tried: Callable[[Sequence[Architecture], int], Sequence[float]],
    factor: int,
) -> list[Trial]:
    """Return the trials of all rounds, the winner's last one last (Jamieson, Talwalkar, AISTATS 2016).

    A round trains those that are left, each from scratch. The best share of one in `factor` goes on to a
    round of as many times the epochs, so that all rounds cost alike; of equal ones those that came first.

    Args:
        architectures: the networks, at least two.
        epochs: of the first round.
        tried: gives the accuracies of networks after so many epochs.
        factor: 2 to halve and to double.

    Raises:
        ValueError: as `rounds`.
    """
    left, trials = list(architectures), list[Trial]()
    for count, length in rounds(len(architectures), epochs, factor):
        left = left[:count]
        accuracies = tried(left, length)
        trials += map(Trial, left, [length] * count, accuracies)
        order = sorted(range(count), key=lambda row: -accuracies[row])
        left = [left[row] for row in order]
    last = [one for one in trials if one.architecture == left[0]][-1]
    return [*(one for one in trials if one is not last), last]


def rounds(count: int, epochs: int, factor: int) -> list[tuple[int, int]]:
    """Return how many networks each round of `halved` trains, and for how many epochs.

    Raises:
        ValueError: fewer than two networks, or a factor that leaves all in.
    """
    if count < 2 or factor < 2:
        raise ValueError(f"{count} networks by {factor}: halving needs 2 of both at least")
    found = []
    while count > 1:
        found.append((count, epochs))
        count, epochs = count // factor or 1, epochs * factor
    return found
