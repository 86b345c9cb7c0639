"""The end of a search: candidates scored with the shared weights, and the best of them measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import Tensor

from ehdnas.pipeline.constraints import Budgets, expected, fit_all, said
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.feasible import first_known
from ehdnas.pipeline.scoring import SCORED, SCORED_ON, shared_accuracy
from ehdnas.search.objective import CLOSE
from ehdnas.search.selection import Candidate, Violations, apart, candidates, closeness, fitted
from ehdnas.search.spaces.base import Architecture, Supernet

MEASURED = 6  # of the candidates that were scored, how many are measured before the predictor is asked again
_REFINEMENTS = 2  # times that the predictor is fitted again when none of those met the budget closely
_MOST_SPREAD = 0.025  # a device that is less steady than this would leave too little of the budget

_Scored = tuple[Candidate, float]  # with its accuracy by the shared weights
_Rank = tuple[
    float, bool, float
]  # the distance to the budgets, whether not given, less accuracy: least first


@dataclass(frozen=True)
class Finalist:
    """A network that was measured.

    `figures` has one record a budget, as `DeviceBudget.figure` gives it. `violation` is by how much it breaks
    the budget that binds, if it reads slower by its spread the next time; where it leaves too much of the
    budget as it reads now, a spread makes it no closer.
    """

    architecture: Architecture
    accuracy: float | None
    figures: list[dict[str, Any]]
    violation: float

    @property
    def meets(self) -> bool:
        """Whether it meets every budget, as measured."""
        return all(one["meets"] for one in self.figures)

    def row(self, context: Context) -> dict[str, Any]:
        """Return it as JSON-able data, as a run keeps it."""
        return {
            "genotype": context.space.text(self.architecture),
            "supernet_accuracy": self.accuracy,
            "figures": self.figures,
            "meets": self.meets,
        }


@dataclass
class Finals:
    """What is measured at a search's end, in that order; it may end more than once, if it goes on.

    `measured` holds what every round found out, and `budgets` what each device's predictor is by now. Unless
    networks are to `spend` their budgets, the best is the most accurate one, however far from the budget.
    `fallback` is a network known to meet them. As many are measured as are `wanted` for trials.
    """

    context: Context
    budgets: Budgets
    fallback: Architecture
    measured: list[Finalist] = field(default_factory=list)
    spend: bool = True
    wanted: int = 1
    _given: Sequence[Architecture] = ()

    @property
    def best(self) -> Finalist | None:
        """The best of those measured to meet every budget; of equally good ones, the first.

        That is the most accurate of those within 5 % of the budget; where there are none, the closest to it.
        """
        return min((one for one in self.measured if one.meets), key=self._rank_of, default=None)

    @property
    def finalists(self) -> list[Finalist]:
        """The best and, as many as are wanted, those that meet the budgets as closely, the best first."""
        best, known = self.best, {one.architecture: one for one in self.measured if one.meets}
        if best is None:
            return []
        alike = [one for one in known.values() if self._far(one.violation) == self._far(best.violation)]
        return sorted(alike, key=self._rank_of)[: self.wanted]

    def hold(self, logits: Tensor, judge: Judge) -> None:
        """Score and measure candidates of a learnt distribution, by its logits, until one meets the budgets.

        Where none does, or none closely, although they were predicted to, the predictors are fitted again to
        what was just measured, and choose others.
        """
        self._hold(lambda: self._proposed(logits, judge))

    def hold_scored(self, scored: Sequence[_Scored]) -> None:
        """Measure networks that were scored already, with their accuracies, until one meets the budgets.

        Where none does the predictors are fitted again, as in `hold`, and order those that are left anew.
        """
        self._hold(lambda: self._left(scored))

    def keep(self, architecture: Architecture, accuracy: float | None = None) -> Finalist:
        """Add a network that was found otherwise, and return it: the fastest known, say."""
        self.measured.append(self._finalist(architecture, accuracy))
        return self.measured[-1]

    def _hold(self, scored: Callable[[], list[_Scored]]) -> None:
        for again in range(_REFINEMENTS + 1):
            if again:
                self._refine()
            self._measure(sorted(scored(), key=self._promise))
            if self.best is not None and self._cannot_be_closer(self.best):
                return

    def _cannot_be_closer(self, best: Finalist) -> bool:
        """Whether other candidates, by predictors that know more, would be of no use."""
        chosen_by_what_is_true = all(one.exact for one in self.budgets)
        return chosen_by_what_is_true or self._far(best.violation) == 0

    def _proposed(self, logits: Tensor, judge: Judge) -> list[_Scored]:
        """Return candidates of a distribution that were not measured, with their accuracies."""
        known = {one.architecture: one.violation for one in self.measured}
        violations, seed = partial(expected, self.budgets), self.context.settings.seed
        space = self.context.space
        if self.wanted > 1:
            self._given = self._given_by(logits, violations)
        start = first_known(self.context, self.budgets) or self.fallback
        ranked = candidates(space, logits, violations, seed, known, [start, *self._given])
        new = [one for one in ranked if one.architecture not in known]
        # To try several that are alike would be to try one; scored alone, the likeliest are to be preferred.
        judged = _unlike(new, self._given) if self.wanted > 1 else new[:SCORED]
        accuracies = judge.accuracies([one.architecture for one in judged])
        return list(zip(judged, accuracies, strict=True))

    def _given_by(self, logits: Tensor, violations: Violations) -> list[Architecture]:
        """Return the networks to be tried whatever shared weights say of them, one fewer than are wanted.

        They are the reference and the likeliest network of each size, brought to the budgets in that size:
        first the likelier one of each. What does not come close under the budgets is left out.
        """
        firsts, seconds = list[Candidate](), list[Candidate]()
        for space, reference in self.context.space.each_size():
            starts = [one for one in (reference, space.most_likely(logits)) if space.allows(one)]
            found = dict.fromkeys(fitted(space, logits, violations, one) for one in starts)
            close = sorted((one for one in found if one.distance == 0), key=_unlikely)
            firsts += close[:1]
            seconds += close[1:]
        given = [*sorted(firsts, key=_unlikely), *sorted(seconds, key=_unlikely)]
        return [one.architecture for one in given[: self.wanted - 1]]

    def _left(self, scored: Sequence[_Scored]) -> list[_Scored]:
        """Return those that were not measured, by how much the predictors expect of them by now."""
        known = {one.architecture for one in self.measured}
        left = [pair for pair in scored if pair[0].architecture not in known]
        if not left:
            return []
        violations = expected(self.budgets, [one.architecture for one, _ in left]).tolist()
        return [
            (replace(one, violation=violation), accuracy)
            for (one, accuracy), violation in zip(left, violations, strict=True)
        ]

    def _measure(self, scored: list[_Scored]) -> None:
        """Measure the first few; once enough of them meet the budgets, only those that may be better."""
        left = max(MEASURED, self.wanted)
        for candidate, accuracy in scored:
            found = self.finalists
            rank = self._rank(candidate, accuracy)
            if len(found) == self.wanted and rank >= self._rank_of(found[-1]):
                continue
            if left and fit_all(self.budgets, candidate.architecture):
                self.keep(candidate.architecture, accuracy)
                left -= 1

    def _promise(self, scored: _Scored) -> tuple[bool, _Rank, float]:
        """Order those expected to meet the budgets first; of equally good ones the closest to them."""
        candidate, accuracy = scored
        return candidate.violation > 0, self._rank(candidate, accuracy), -candidate.violation

    def _rank_of(self, one: Finalist) -> _Rank:
        return self._rank(one, one.accuracy)

    def _rank(self, one: Candidate | Finalist, accuracy: float | None) -> _Rank:
        return self._far(one.violation), one.architecture not in self._given, -(accuracy or 0.0)

    def _far(self, violation: float) -> float:
        return closeness(violation) if self.spend else max(violation, 0.0)

    def _refine(self) -> None:
        """Fit again the predictors that misled, or could have."""
        doubted = {
            at
            for one in self.measured
            for at, figure in enumerate(one.figures)
            if not (figure["meets"] and self.budgets[at].exact)
        }
        devices = [self.budgets[at].context.device.name for at in sorted(doubted)]
        meets = "meets" if self.best is None else "is close under"
        self.context.reporter.say(
            f"search: none of {len(self.measured)} measured candidates {meets} {said(self.budgets)}; fitting "
            f"the predictor of {' and '.join(dict.fromkeys(devices))} to them, and choosing again"
        )
        self.budgets = tuple(one.refined() if at in doubted else one for at, one in enumerate(self.budgets))

    def _finalist(self, architecture: Architecture, accuracy: float | None) -> Finalist:
        figures = [one.figure(architecture) for one in self.budgets]
        violations = [
            _violation(budget.budget.violation(figure["value"]), figure["spread"])
            for budget, figure in zip(self.budgets, figures, strict=True)
        ]
        return Finalist(architecture, accuracy, figures, max(violations))


def _violation(read: float, spread: float) -> float:
    """Return what a violation that was read counts as, on a device whose figures have such a spread."""
    return read if read < -CLOSE else read + math.log1p(min(spread, _MOST_SPREAD))


def _unlike(ranked: Sequence[Candidate], given: Sequence[Architecture]) -> list[Candidate]:
    """Return the candidates to score: of those as close as the first unlike ones, after what is given."""
    first = [one for one in ranked if _place(one) == _place(ranked[0])]
    chosen = {one.architecture: one for one in first}
    kept = [chosen[one] for one in apart(list(chosen), SCORED, [one for one in given if one in chosen])]
    return [*kept, *ranked[len(first) :]][:SCORED]


def _unlikely(one: Candidate) -> float:
    return -one.log_prob


def _place(one: Candidate) -> tuple[bool, float]:
    return one.violation > 0, closeness(one.violation)


class Judge:
    """Gives networks' accuracies with a search's shared weights on held-out images; each is taken once.

    Args:
        most: images that they are judged on; fewer where there are no more.
        doing: what is shown while it takes them.

    Attributes:
        known: the accuracies taken so far, shares of 1.
    """

    def __init__(
        self, context: Context, supernet: Supernet, most: int = SCORED_ON, doing: str = "candidates scored"
    ) -> None:
        self._context, self._doing = context, doing
        self._taken = shared_accuracy(context, supernet, most)
        self.known: dict[Architecture, float] = {}

    def accuracies(self, architectures: list[Architecture]) -> list[float]:
        """Return the accuracies of architectures, of those that were not asked about before taken now."""
        for number, one in enumerate(architectures, 1):
            if one not in self.known:
                self.known[one] = self._taken(one)
            self._context.reporter.progress(number, len(architectures), self._doing)
        return [self.known[one] for one in architectures]
