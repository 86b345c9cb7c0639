"""What a front is chosen from: measured networks, and others to measure where too few of them are on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from ehdnas.core.budget import Budget
from ehdnas.pipeline.constraints import expected, fit_all
from ehdnas.pipeline.finalists import Finalist, Finals, Judge
from ehdnas.pipeline.scoring import SCORED
from ehdnas.search.pareto import Point, front_of, spread
from ehdnas.search.spaces.base import Architecture

_ROUNDS = 10  # of looking for networks where the front has none, for each kind of place
_MEASURED = 3  # of those that are found in such a place, in a round

_Stretch = tuple[float, float]
"""The cost above which, and the one up to which, a network is looked for."""


class FrontCandidates:
    """Networks by what they cost, the log of what they take of the budget over all, and the shared weights.

    Args:
        pool: what was measured for the budgets of the front; what is measured here joins it.
        judge: what gave accuracies so far, and gives those of others.
        budgets: those of the front, the tightest first; the last is over all.
    """

    def __init__(self, pool: Finals, judge: Judge, budgets: Sequence[Budget]) -> None:
        self._pool, self._judge, self._budget = pool, judge, budgets[-1]
        self._bounds = [self._budget.violation(one.bound) for one in budgets]
        self._expected = dict[Architecture, float]()

    def chosen(self, count: int) -> list[Finalist]:
        """Return so many networks of the front, spread over it, by cost; all of it where it has no more."""
        meeting = self._meeting()
        return [meeting[at] for at in spread(self._points(meeting), self._bounds, count)]

    def fill(self, count: int) -> None:
        """Measure others where a budget has no network of its own on the front, as a faster one is as good.

        Then, while the front has fewer than `count`, between those of its networks that are farthest apart.
        """
        for _ in range(_ROUNDS):
            for stretch in self._empty():
                self._look_into(stretch)
        for _ in range(_ROUNDS):
            for stretch in self._gaps(count):
                self._look_into(stretch)

    def _look_into(self, stretch: _Stretch) -> None:
        """Measure the best of what is in a stretch and would join the front; if nothing would, seek there."""
        if not self._hopeful(stretch):
            self._judge.accuracies(self._around(stretch))
        for network, accuracy in self._hopeful(stretch)[:_MEASURED]:
            if fit_all(self._pool.budgets, network):
                self._pool.keep(network, accuracy)

    def _hopeful(self, stretch: _Stretch) -> list[tuple[Architecture, float]]:
        """Return what is more accurate than all measured that is faster than the stretch, the best first."""
        low, high = stretch
        meeting = self._meeting()
        faster = [one.accuracy for one in self._points(meeting) if one.cost <= low]
        measured = {one.architecture for one in self._pool.measured}
        inside = [
            (network, accuracy)
            for network, accuracy in self._judge.known.items()
            if network not in measured and low < self._cost(network) <= high
        ]
        return sorted((one for one in inside if one[1] > max(faster, default=0.0)), key=lambda one: -one[1])

    def _around(self, stretch: _Stretch) -> list[Architecture]:
        """Return networks in a stretch that were not scored, one decision from what is accurate.

        That is the most accurate network, in the stretch or faster, that has such neighbours.
        """
        low, high = stretch
        space, known = self._pool.context.space, self._judge.known
        self._expect(list(known))
        below = [network for network in known if self._cost(network) <= high]
        best = sorted(below, key=lambda one: -known[one])
        for network in best:
            near = [one for one in space.neighbours(network) if one not in known]
            self._expect(near)
            inside = [one for one in near if low < self._cost(one) <= high]
            if inside:  # what uses up what the stretch allows is likelier to be accurate
                return sorted(inside, key=lambda one: -self._cost(one))[:SCORED]
        return []

    def _empty(self) -> list[_Stretch]:
        """Return the stretch up to each budget's bound, from the next tighter one, with none of the front."""
        costs = self._costs_of_front()
        stretches = zip([-math.inf, *self._bounds], self._bounds, strict=False)
        return [(low, high) for low, high in stretches if not any(low < cost <= high for cost in costs)]

    def _gaps(self, count: int) -> list[_Stretch]:
        """Return the widest stretches between networks of the front, as many as it has too few."""
        costs = self._costs_of_front()
        widest = sorted(pairwise(costs), key=lambda pair: pair[0] - pair[1])
        return widest[: max(0, count - len(costs))]

    def _costs_of_front(self) -> list[float]:
        points = self._points(self._meeting())
        return [points[at].cost for at in front_of(points)]

    def _meeting(self) -> list[Finalist]:
        return list({one.architecture: one for one in self._pool.measured if one.meets}.values())

    def _points(self, networks: Sequence[Finalist]) -> list[Point]:
        costs = [self._budget.violation(one.figures[0]["value"]) for one in networks]
        return [Point(cost, one.accuracy or 0.0) for cost, one in zip(costs, networks, strict=True)]

    def _cost(self, network: Architecture) -> float:
        self._expect([network])
        return self._expected[network]

    def _expect(self, networks: list[Architecture]) -> None:
        """Learn what networks are expected to cost, those together that are not known: that is faster."""
        new = [one for one in networks if one not in self._expected]
        if new:
            self._expected.update(zip(new, expected(self._pool.budgets, new).tolist(), strict=True))
