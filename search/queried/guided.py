"""The project's own search by queries: descend two predictors, then ask where most is to be gained."""

from __future__ import annotations

import math
from itertools import count

import numpy as np
import torch
from torch import Tensor

from ehdnas.core.budget import Budget
from ehdnas.search.loop import step_seed
from ehdnas.search.queried.belief import Belief, Posterior
from ehdnas.search.queried.descent import visited
from ehdnas.search.queried.ledger import Ledger, Seen
from ehdnas.search.queried.random import spend_at_random
from ehdnas.search.queried.task import NothingLeftError, QueriedTask, best, shortfall, spend
from ehdnas.search.spaces.base import Architecture

_EACH = 5  # queries a budget between one fit and the next
_FURTHER = 256  # of few networks that may be queried, so many are thought of though no descent met them


def guided_search(task: QueriedTask, ledger: Ledger) -> None:
    """Spend all queries: random ones first, then round by round where they promise most.

    In a round the predictor is fitted to all that was queried, whichever budget it was for, and descended
    together with that of the budgets' metric. Of the networks met on the way, and the neighbours of the best
    so far, each budget in turn takes the one of the highest expected improvement, times the chance that it
    meets the budget (Gardner et al., ICML 2014).

    Raises:
        NothingLeftError: every network that may be queried has been.
    """
    spend_at_random(task, ledger, task.start)
    rounds = count()
    while ledger.queries_left:
        round_ = _Round(task, ledger, step_seed(task.seed, "guided", next(rounds)))
        for budget in (task.budgets * _EACH)[: ledger.queries_left]:
            round_.spend(budget)


class _Round:
    """Networks worth a thought, what is believed of them, and which of them are still to be had."""

    def __init__(self, task: QueriedTask, ledger: Ledger, seed: int) -> None:
        self.task, self.ledger = task, ledger
        self.belief = Belief(task, ledger.seen)
        self.networks = _candidates(task, ledger, self.belief, seed)
        if not self.networks:
            raise NothingLeftError(f"space '{task.space.name}' has no network left to query")
        self.posterior = self.belief.posterior(self.networks)
        self.log_values = task.log_values(self.networks)
        self.open = list(range(len(self.networks)))

    def spend(self, budget: Budget) -> None:
        """Query a network for a budget; those like it are then less in doubt."""
        leader = best(self.ledger.seen, budget)
        bar = self.belief.merit(leader.accuracy) if budget.meets(leader.value) else None
        chances = _chances(self.task, self.ledger, budget, self.networks, self.log_values)
        gains = (_improvement(self.posterior, bar) * chances)[self.open]
        order = [self.open[at] for at in gains.argsort(descending=True, stable=True).tolist()]
        queried = spend(self.task, self.ledger, budget, (self.networks[row] for row in order))
        row = self.networks.index(queried.architecture)
        self.open.remove(row)
        self.posterior = self.posterior.knowing(row)


def _candidates(task: QueriedTask, ledger: Ledger, belief: Belief, seed: int) -> list[Architecture]:
    """Return networks that are worth a thought and were not queried."""
    generator = torch.Generator().manual_seed(seed)
    leaders: dict[Budget, Seen] = {budget: best(ledger.seen, budget) for budget in task.budgets}
    starts = {budget: [one.architecture] for budget, one in leaders.items()}
    found = dict.fromkeys(visited(task, belief.log_error, starts, generator))
    for one in leaders.values():
        found |= dict.fromkeys(task.space.neighbours(one.architecture))
    found |= dict.fromkeys(filter(task.space.allows, ledger.values))
    if task.among is not None:
        found |= dict.fromkeys(task.draw(np.random.default_rng(seed), _FURTHER, ledger.accuracies))
    return task.open(found, ledger.accuracies)


def _improvement(posterior: Posterior, bar: float | None) -> Tensor:
    """Return by how much [n] networks are expected to exceed a merit (Jones, Schonlau, Welch 1998, eq. 15).

    While no network meets the budget there is no bar, and any that does is an improvement: all are worth 1.
    """
    spread = posterior.spread
    if bar is None:
        return torch.ones_like(spread)
    over = (posterior.mean - bar) / spread
    density = (-over.square() / 2).exp() / math.sqrt(2 * math.pi)
    gain: Tensor = spread * (over * torch.special.ndtr(over) + density)
    return gain


def _chances(
    task: QueriedTask, ledger: Ledger, budget: Budget, networks: list[Architecture], logs: Tensor
) -> Tensor:
    """Return the chances [n] that networks meet a budget: certain where measured, else by held-out errors."""
    residuals = task.predictor.residuals
    broken = shortfall(logs, budget)
    beyond = 1 - torch.searchsorted(residuals, broken.abs()) / (len(residuals) + 1)
    chances = torch.where(broken > 0, beyond / 2, 1 - beyond / 2)
    for row, one in enumerate(networks):
        if one in ledger.values:
            chances[row] = float(budget.meets(ledger.values[one]))
    return chances
