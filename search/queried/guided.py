"""The project's own search by queries: descend two predictors, then ask where most is to be gained."""

from __future__ import annotations

import math
from itertools import count

import numpy as np
import torch
from torch import Tensor

from ehdnas.core.budget import Budget
from ehdnas.search.loop import step_seed
from ehdnas.search.objective import violations
from ehdnas.search.queried.acquisition import Front, costs_of, improvement
from ehdnas.search.queried.belief import Belief
from ehdnas.search.queried.descent import visited
from ehdnas.search.queried.ledger import Ledger, Seen
from ehdnas.search.queried.random import spend_at_random
from ehdnas.search.queried.task import TRIES, NothingLeftError, QueriedTask, best, spend
from ehdnas.search.spaces.base import Architecture

_EACH = 5  # queries a budget between one fit and the next
_FRONT_EVERY = 4  # queries for budgets, after which one is for the front
_FURTHER = 256  # of few networks that may be queried, so many are thought of though no descent met them


def guided_search(task: QueriedTask, ledger: Ledger) -> None:
    """Spend all queries: random ones first, then round by round where they promise most.

    In a round the predictor is fitted to all that was queried, whichever budget it was for, and descended
    together with that of the budgets' metric. Of the networks met on the way, and the neighbours of the best
    so far, each budget in turn takes the one of the highest expected improvement, times the chance that it
    meets the budget (Gardner et al., ICML 2014). With several budgets every fifth query goes where the front
    of all networks is expected to rise most: between the budgets, and below the tightest of them.

    Raises:
        NothingLeftError: every network that may be queried has been.
    """
    spend_at_random(task, ledger, task.start)
    rounds = count()
    while ledger.queries_left:
        _Round(task, ledger, step_seed(task.seed, "guided", next(rounds))).spend()


class _Round:
    """Networks worth a thought, what is believed of them, and which of them are still to be had."""

    def __init__(self, task: QueriedTask, ledger: Ledger, seed: int) -> None:
        self.task, self.ledger = task, ledger
        self.belief = Belief(task, ledger.seen)
        self.networks = _candidates(task, ledger, self.belief, seed)
        if not self.networks:
            raise NothingLeftError(f"space '{task.space.name}' has no network left to query")
        self.rows = {one: row for row, one in enumerate(self.networks)}
        self.posterior = self.belief.posterior(self.networks)
        self.log_values = task.log_values(self.networks)
        self.measured = torch.zeros(len(self.networks), dtype=torch.bool)
        self._learn(self.networks)
        self.open = list(range(len(self.networks)))

    def spend(self) -> None:
        """Spend a round's queries, or as many as there are networks or queries left."""
        for aim in _aims(self.task.budgets):
            if not self.open or not self.ledger.queries_left:
                return
            row = self._for_front() if aim is None else self._for_budget(aim)
            self.open.remove(row)
            self.posterior = self.posterior.knowing(row)  # those like it are then less in doubt

    def _for_budget(self, budget: Budget) -> int:
        """Query a network for a budget; return its row."""
        leader = best(self.ledger.seen, budget)
        gains = self._chances(budget)
        if budget.meets(leader.value):  # else any that does is an improvement, and as good a one
            bar = self.belief.merits(torch.tensor([leader.accuracy], dtype=torch.float64))
            gains = gains * improvement(self.posterior, bar)[:, 0]
        order = [self.open[at] for at in gains[self.open].argsort(descending=True, stable=True).tolist()]
        queried = spend(self.task, self.ledger, budget, (self.networks[row] for row in order))
        self._learn([self.networks[row] for row in order[:TRIES]])
        return self.rows[queried.architecture]

    def _for_front(self) -> int:
        """Query the network of the highest expected gain by its measured value; return its row.

        Where the highest is not measured it is, which may lower it, and the highest is looked for again. The
        last of TRIES is queried as it is.
        """
        front, budget = Front.of(self.ledger.seen, self.task.budgets), self.task.budgets[0]
        for _ in range(TRIES):
            costs = costs_of(self.log_values.exp(), budget)
            gains = front.improvement(self.posterior, costs, self.belief.merits)[self.open]
            row = self.open[int(gains.argmax())]
            if self.measured[row]:
                break
            self.ledger.measure(self.networks[row])
            self._learn([self.networks[row]])
        self.ledger.query(self.networks[row])
        return row

    def _learn(self, networks: list[Architecture]) -> None:
        """Put measured values in the place of predicted ones."""
        for one in networks:
            if one in self.ledger.values:
                self.log_values[self.rows[one]] = math.log(self.ledger.values[one])
                self.measured[self.rows[one]] = True

    def _chances(self, budget: Budget) -> Tensor:
        """Return the chances [n] that networks meet a budget, by held-out errors where not measured."""
        residuals = self.task.predictor.residuals
        broken = violations(self.log_values, budget)
        beyond = 1 - torch.searchsorted(residuals, broken.abs()) / (len(residuals) + 1)
        chances = torch.where(broken > 0, beyond / 2, 1 - beyond / 2)
        return torch.where(self.measured, (broken <= 0).to(chances.dtype), chances)


def _aims(budgets: tuple[Budget, ...]) -> list[Budget | None]:
    """Return what each query of a round is for: a budget or, None, the front."""
    aims: list[Budget | None] = []
    for turn, budget in enumerate(budgets * _EACH, 1):
        aims.append(budget)
        if len(budgets) > 1 and turn % _FRONT_EVERY == 0:
            aims.append(None)
    return aims


def _candidates(task: QueriedTask, ledger: Ledger, belief: Belief, seed: int) -> list[Architecture]:
    """Return networks that are worth a thought and were not queried."""
    leaders: dict[Budget, Seen] = {budget: best(ledger.seen, budget) for budget in task.budgets}
    starts = {budget: [one.architecture] for budget, one in leaders.items()}
    found = dict.fromkeys(visited(task, belief.log_error, starts, torch.Generator().manual_seed(seed)))
    for one in [*leaders.values(), *Front.of(ledger.seen, task.budgets).steps]:
        found |= dict.fromkeys(task.space.neighbours(one.architecture))
    found |= dict.fromkeys(filter(task.space.allows, ledger.values))
    if task.among is not None:
        found |= dict.fromkeys(task.draw(np.random.default_rng(seed), _FURTHER, ledger.accuracies))
    left = task.open(found, ledger.accuracies)
    if not left:  # in a small space, the last networks may be far from all of those
        around = dict.fromkeys(near for one in ledger.accuracies for near in task.space.neighbours(one))
        left = task.open(around, ledger.accuracies)
    return left
