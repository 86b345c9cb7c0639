"""Regularised evolution (Real, Aggarwal, Huang, Le, AAAI 2019) under several budgets at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import cycle
from statistics import median_low

import numpy as np

from ehdnas.core.budget import Budget
from ehdnas.search.loop import step_seed
from ehdnas.search.queried.ledger import Ledger, Seen
from ehdnas.search.queried.random import random_networks, spend_at_random
from ehdnas.search.queried.task import QueriedTask, best, rank, spend
from ehdnas.search.spaces.base import Architecture

_POPULATION = 40
_TOURNAMENT = 20


def regularised_evolution(
    task: QueriedTask, ledger: Ledger, population: int = _POPULATION, tournament: int = _TOURNAMENT
) -> None:
    """Spend all queries on mutants of good networks, the budgets taking turns.

    Each budget has a population, filled at first with the best of the same random networks. A mutant, one
    decision away from the winner of a tournament, joins the population of its budget, and those of others
    where it is in the better half; each time the oldest leaves. Tournaments go by accuracy, and to those
    that meet the budget before all others.

    Args:
        population: networks a budget keeps.
        tournament: networks drawn, with replacement, of which the best is the parent.
    """
    spend_at_random(task, ledger, task.start)
    rng = np.random.default_rng(step_seed(task.seed, "evolution"))
    alive = {budget: _first(ledger.seen, budget, population) for budget in task.budgets}
    for budget in cycle(task.budgets):
        if ledger.queries_left == 0:
            return
        drawn = rng.integers(len(alive[budget]), size=tournament)
        parent = best([alive[budget][row] for row in drawn], budget)
        child = spend(task, ledger, budget, _mutants(task, ledger, budget, parent.architecture, rng))
        for other, living in alive.items():
            if other == budget or rank(child, other) > median_low(rank(one, other) for one in living):
                living.append(child)


def _first(seen: Iterable[Seen], budget: Budget, population: int) -> deque[Seen]:
    """Return the best networks so far, the best of them the last to leave."""
    return deque(sorted(seen, key=lambda one: rank(one, budget)), maxlen=population)


def _mutants(
    task: QueriedTask, ledger: Ledger, budget: Budget, parent: Architecture, rng: np.random.Generator
) -> list[Architecture]:
    """Return the parent's neighbours that were not queried, in random order, or else random networks."""
    around = task.open(task.space.neighbours(parent), ledger.accuracies)
    if not around:
        return random_networks(task, ledger, budget, rng)
    return [around[row] for row in rng.permutation(len(around))]
