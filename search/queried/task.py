"""What every search by queries is given, how it spends one query, and what it answers in the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ehdnas.core.budget import Budget
from ehdnas.core.errors import UsageError
from ehdnas.search.objective import violations
from ehdnas.search.predictor.base import MIN_SAMPLES, Predictor
from ehdnas.search.queried.ledger import Ledger, Seen
from ehdnas.search.spaces.base import Architecture, Space

TRIES = 3
"""Networks measured for a query at most: one that breaks the budget is not worth a training."""


class NothingLeftError(UsageError):
    """Every network that may be queried has been."""


@dataclass(frozen=True)
class QueriedTask:
    """Everything a search by queries depends on, but for the answers; the same gives the same networks.

    Args:
        space: what is searched.
        budgets: bounds on one metric, each to be answered with a network.
        predictor: fitted to that metric; it says which networks are worth measuring.
        start: queries that go to random networks first.
        seed: of all that is drawn.
        among: the networks that may be queried, where those are not all of the space.

    Raises:
        UsageError: no budgets, relative ones, more than one metric, or too few random networks.
    """

    space: Space
    budgets: tuple[Budget, ...]
    predictor: Predictor
    seed: int
    start: int = 60
    among: frozenset[Architecture] | None = None

    def __post_init__(self) -> None:
        if len({budget.metric for budget in self.budgets}) != 1:
            raise UsageError("a search by queries takes budgets on one metric, and at least one of them")
        if any(budget.relative for budget in self.budgets):
            raise UsageError("a search by queries takes absolute budgets; resolve relative ones first")
        if self.start < MIN_SAMPLES:
            raise UsageError(
                f"{self.start} random networks: a search by queries starts with {MIN_SAMPLES} or more"
            )

    @torch.no_grad()
    def log_values(self, networks: list[Architecture]) -> Tensor:
        """Return the logs [n] of the values predicted for n networks."""
        return self.predictor.log_value(self.space.encode_all(networks)).double()

    def draw(
        self, rng: np.random.Generator, count: int, known: Container[Architecture]
    ) -> list[Architecture]:
        """Return random networks that may be queried and are not known, each once, and at most `count`.

        Of a whole space some of the draws may be known, or the same; of `among` there are `count` if there
        are as many left.
        """
        if self.among is None:
            drawn = dict.fromkeys(self.space.sample(rng) for _ in range(count))
            return [one for one in drawn if one not in known]
        left = sorted((one for one in self.among if one not in known), key=lambda one: one.choices)
        return [left[row] for row in rng.permutation(len(left))[:count]]

    def open(self, networks: Iterable[Architecture], known: Container[Architecture]) -> list[Architecture]:
        """Return those of the networks, each once, that may be queried and are not known."""
        allowed = (one for one in dict.fromkeys(networks) if self.among is None or one in self.among)
        return [one for one in allowed if one not in known]


@dataclass(frozen=True)
class Answer:
    """The network for a budget: the most accurate known to meet it, or else, `meets` false, the nearest."""

    budget: Budget
    network: Seen
    meets: bool


Method = Callable[[QueriedTask, Ledger], None]
"""A search: spends all queries of a ledger."""


def answers(task: QueriedTask, ledger: Ledger) -> list[Answer]:
    """Return an answer for each budget, out of all networks that were queried.

    Raises:
        UsageError: none was queried.
    """
    seen = ledger.seen
    if not seen:
        raise UsageError("no network was queried; allow at least one query")
    found = [best(seen, budget) for budget in task.budgets]
    return [
        Answer(budget, one, budget.meets(one.value)) for budget, one in zip(task.budgets, found, strict=True)
    ]


def best(seen: Iterable[Seen], budget: Budget) -> Seen:
    """Return the most accurate network that meets a budget, or else the one nearest to it."""
    return max(seen, key=lambda one: rank(one, budget))


def rank(one: Seen, budget: Budget) -> tuple[bool, float]:
    """Return what is greater for the better of two networks under a budget.

    Any that meets it is better than any that does not; of those that do the more accurate is better, of the
    others the nearer (Deb, Computer Methods in Applied Mechanics and Engineering 186, 2000).
    """
    meets = budget.meets(one.value)
    return meets, one.accuracy if meets else -abs(math.log(one.value / budget.bound))


def spend(task: QueriedTask, ledger: Ledger, budget: Budget, proposals: Iterable[Architecture]) -> Seen:
    """Query the first of the proposals that is measured to meet a budget; return what is then known of it.

    At most TRIES are measured. Where none meets the budget the nearest is queried: it may serve another.

    Raises:
        NothingLeftError: no proposal.
        UsageError: nothing left to ask.
    """
    tried: list[Seen] = []
    for architecture in proposals:
        value = ledger.measure(architecture)
        tried.append(Seen(architecture, 0.0, value))
        if budget.meets(value) or len(tried) == TRIES:
            break
    if not tried:
        raise NothingLeftError(f"space '{task.space.name}' has no network left to query for {budget}")
    chosen = best(tried, budget)
    return Seen(chosen.architecture, ledger.query(chosen.architecture), chosen.value)


def likely_first(task: QueriedTask, budget: Budget, networks: list[Architecture]) -> list[Architecture]:
    """Return networks with those first that are predicted to meet a budget, then the nearest to it first."""
    if not networks:
        return []
    broken = violations(task.log_values(networks), budget).clamp_min(0)
    return [networks[row] for row in broken.argsort(stable=True).tolist()]
