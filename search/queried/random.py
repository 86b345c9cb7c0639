"""Random search, and the random networks that other searches by queries start from."""

from __future__ import annotations

from itertools import cycle, islice

import numpy as np

from ehdnas.core.budget import Budget
from ehdnas.search.loop import step_seed
from ehdnas.search.queried.ledger import Ledger
from ehdnas.search.queried.task import NothingLeftError, QueriedTask, likely_first, spend
from ehdnas.search.spaces.base import Architecture

_DRAWS = 64  # enough that some meet a budget that one network in twenty meets


def random_search(task: QueriedTask, ledger: Ledger) -> None:
    """Spend all queries on random networks: under one budget, on those that meet it.

    Under several they are drawn from the whole of the space. Networks predicted to meet one of the budgets
    would come out worse: the tighter budgets crowd out large networks.

    Raises:
        NothingLeftError: the space has no networks left.
    """
    if len(task.budgets) == 1:
        spend_at_random(task, ledger, ledger.queries_left)
        return
    rng = np.random.default_rng(step_seed(task.seed, "random-queries"))
    while ledger.queries_left:
        drawn = task.draw(rng, _DRAWS, ledger.accuracies)
        if not drawn:
            raise NothingLeftError(
                f"space '{task.space.name}' has no network left to query; allow fewer queries"
            )
        for one in drawn[: ledger.queries_left]:
            ledger.measure(one)
            ledger.query(one)


def spend_at_random(task: QueriedTask, ledger: Ledger, count: int) -> None:
    """Spend so many queries on random networks, the budgets taking turns; the seed alone says on which."""
    rng = np.random.default_rng(step_seed(task.seed, "random-queries"))
    for budget in islice(cycle(task.budgets), min(count, ledger.queries_left)):
        spend(task, ledger, budget, random_networks(task, ledger, budget, rng))


def random_networks(
    task: QueriedTask, ledger: Ledger, budget: Budget, rng: np.random.Generator
) -> list[Architecture]:
    """Return random networks that were not queried, those predicted to meet the budget first."""
    return likely_first(task, budget, task.draw(rng, _DRAWS, ledger.accuracies))
