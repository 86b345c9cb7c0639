"""What a front is chosen from: measured networks within its budgets, with accuracies that compare."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch

from ehdnas.pipeline.constraints import fit_all
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.finalists import Finalist, Finals, Judge
from ehdnas.pipeline.scoring import SCORED
from ehdnas.pipeline.trials import Trials, trial_epochs, trial_row
from ehdnas.search.halving import Trial
from ehdnas.search.pareto import Point, front_of
from ehdnas.search.spaces.base import Architecture
from ehdnas.workspace import Run

_ROUNDS = 4  # of looking around where the front has no network, for each kind of place
_MORE = 3  # networks that join for each such place and round, the most accurate by the shared weights

_Segment = tuple[float, float]
"""The cost above which, and the one up to which, a network is looked for."""


class FrontCandidates:
    """Networks that were measured and meet the budget that is over all, the first to be added first.

    Where networks are tried at a search's end (the setting `finalists`), all of them are, for the same number
    of epochs, and their accuracies are those; else they are those by the shared weights.

    Attributes:
        networks: as measured.
        accuracies: theirs, shares of 1.
    """

    def __init__(self, context: Context, run: Run, pool: Finals, judge: Judge) -> None:
        self.networks, self.accuracies = list[Finalist](), list[float]()
        self._context, self._pool, self._judge = context, pool, judge
        self._trials = Trials(context, run) if context.settings.finalists > 1 else None
        self._epochs = trial_epochs(context)

    @property
    def points(self) -> list[Point]:
        """What each costs, the log of how it stands to the budget, and how accurate it is."""
        costs = [self._cost(one) for one in self.networks]
        return [Point(*pair) for pair in zip(costs, self.accuracies, strict=True)]

    def add(self, measured: Iterable[Finalist]) -> None:
        """Add those that meet the budget and are not among them yet, once each."""
        known = {one.architecture for one in self.networks}
        new = list({one.architecture: one for one in measured if one.meets}.values())
        new = [one for one in new if one.architecture not in known]
        if self._trials is None or not new:
            accuracies = [one.accuracy or 0.0 for one in new]
        else:
            self._context.reporter.say(
                f"search: training {len(new)} networks from scratch for {self._epochs} epochs each, to tell "
                "which are on the front"
            )
            accuracies = self._trials([one.architecture for one in new], self._epochs)
        self.networks += new
        self.accuracies += accuracies

    def fill(self, bounds: Sequence[float], count: int) -> None:
        """Look around the best network of each budget that has none of its own on the front, and add some.

        Then, while the front has fewer than `count`, between those of its networks that are farthest apart.

        Args:
            bounds: the costs that the budgets allow, the tightest first.
        """
        seen = {one.architecture for one in self._pool.measured}
        for _ in range(_ROUNDS):
            self._look_into(self._empty(bounds), seen)
        for _ in range(_ROUNDS):
            self._look_into(self._gaps(count), seen)

    def _look_into(self, segments: list[_Segment], seen: set[Architecture]) -> None:
        found = [one for segment in segments for one in self._around(segment, seen)]
        self.add([self._pool.keep(*one) for one in found if fit_all(self._pool.budgets, one[0])])

    def rows(self, most: float = math.inf) -> dict[str, list[dict[str, Any]]]:
        """Return those that cost no more, as a run keeps them: candidates, and their trials if there are."""
        pairs = zip(self.networks, self.accuracies, strict=True)
        kept = [(one, accuracy) for one, accuracy in pairs if self._cost(one) <= most]
        trials = [Trial(one.architecture, self._epochs, accuracy) for one, accuracy in kept]
        return {
            "candidates": [one.row(self._context) for one, _ in kept],
            "trials": [] if self._trials is None else [trial_row(self._context, one) for one in trials],
        }

    def _cost(self, one: Finalist) -> float:
        (budget,) = self._pool.budgets
        return budget.budget.violation(one.figures[0]["value"])

    def _empty(self, bounds: Sequence[float]) -> list[_Segment]:
        """Return the segments of the budgets in which no network of the front lies."""
        costs = self._costs_of_front()
        segments = zip([-math.inf, *bounds], bounds, strict=False)
        return [(low, high) for low, high in segments if not any(low < cost <= high for cost in costs)]

    def _gaps(self, count: int) -> list[_Segment]:
        """Return the widest segments between networks of the front, as many as it has too few."""
        costs = self._costs_of_front()
        widest = sorted(pairwise(costs), key=lambda pair: pair[0] - pair[1])
        return widest[: max(0, count - len(costs))]

    def _costs_of_front(self) -> list[float]:
        points = self.points
        return [points[at].cost for at in front_of(points)]

    def _around(self, segment: _Segment, seen: set[Architecture]) -> list[tuple[Architecture, float]]:
        """Return the best neighbours in a segment of its best network, and their accuracies.

        Both by the shared weights. Those that cost most are looked at, each once.
        """
        low, high = segment
        points = self.points
        inside = [at for at, one in enumerate(points) if one.cost <= high]
        if not inside:
            return []
        best = max(inside, key=lambda at: (points[at].cost > low, points[at].accuracy))
        space, (budget,) = self._context.space, self._pool.budgets
        near = [one for one in space.neighbours(self.networks[best].architecture) if one not in seen]
        if not near:
            return []
        with torch.no_grad():
            predicted = budget.profiled.predictor(space.encode_all(near)).tolist()
        costs = dict(zip(near, map(budget.budget.violation, predicted), strict=True))
        within = sorted((one for one in near if low < costs[one] <= high), key=lambda one: -costs[one])
        looked = within[:SCORED]
        seen.update(looked)
        scored = list(zip(looked, self._judge.accuracies(looked), strict=True))
        if (
            self._trials is None
        ):  # then they join by these accuracies, and must be better than all faster ones
            scored = [one for one in scored if one[1] > max(points[at].accuracy for at in inside)]
        return sorted(scored, key=lambda one: -one[1])[:_MORE]
