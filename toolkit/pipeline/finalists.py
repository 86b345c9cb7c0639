"""The end of a search: candidates scored with the shared weights, and the best of them measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ehdnas.pipeline.constraints import Budgets, fit_all, said, together
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.scoring import SCORED, SCORED_ON, shared_accuracy
from ehdnas.search.selection import Candidate, candidates, shortlist
from ehdnas.search.spaces.base import Architecture, Supernet

MEASURED = 6  # of the candidates that were scored, how many are measured before the predictor is asked again
_REFINEMENTS = 2  # times that the predictor is fitted again when none of those met the budget

_Scored = tuple[Candidate, float]  # with its accuracy by the shared weights


@dataclass(frozen=True)
class Finalist:
    """A network that was measured; `figures` has one record a budget, as `DeviceBudget.figure` gives it."""

    architecture: Architecture
    accuracy: float | None
    figures: list[dict[str, Any]]

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

    `measured` holds what every round found out, and `budgets` what each device's predictor is by now.
    """

    context: Context
    budgets: Budgets
    measured: list[Finalist] = field(default_factory=list)

    @property
    def best(self) -> Finalist | None:
        """The most accurate of those measured to meet every budget; of equal ones, the first."""
        return max((one for one in self.measured if one.meets), key=_accuracy, default=None)

    def hold(self, logits: Tensor, judge: Judge) -> None:
        """Score and measure candidates of a learnt distribution, by its logits, until one meets the budgets.

        Where none does although they were predicted to, the predictors are fitted again to what was just
        measured, and choose others.
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
            self._measure(sorted(scored(), key=_by_promise))
            if self.best is not None:
                return

    def _proposed(self, logits: Tensor, judge: Judge) -> list[_Scored]:
        """Return candidates of a distribution that were not measured, with their accuracies."""
        ranked = candidates(
            self.context.space, logits, together(self.budgets), self.context.settings.seed,
            self._violations(),
        )  # fmt: skip
        known = {one.architecture for one in self.measured}
        judged = shortlist([one for one in ranked if one.architecture not in known], SCORED)
        accuracies = judge.accuracies([one.architecture for one in judged])
        return list(zip(judged, accuracies, strict=True))

    def _left(self, scored: Sequence[_Scored]) -> list[_Scored]:
        """Return those that were not measured, by how much the predictors expect of them by now."""
        known = {one.architecture for one in self.measured}
        left = [pair for pair in scored if pair[0].architecture not in known]
        if not left:
            return []
        with torch.no_grad():
            gates = self.context.space.encode_all([one.architecture for one, _ in left])
            violations = together(self.budgets).violation(gates).tolist()
        return [
            (replace(one, violation=violation), accuracy)
            for (one, accuracy), violation in zip(left, violations, strict=True)
        ]

    def _measure(self, scored: list[_Scored]) -> None:
        """Measure the first few; once one meets the budgets, only more accurate ones that still may."""
        left = MEASURED
        for candidate, accuracy in scored:
            best = self.best
            if best is not None and (accuracy <= _accuracy(best) or not self._may_meet(candidate)):
                continue
            if left and fit_all(self.budgets, candidate.architecture):
                self.keep(candidate.architecture, accuracy)
                left -= 1

    def _may_meet(self, candidate: Candidate) -> bool:
        """Return whether the near ends of all its predictions' intervals lie within the budgets."""
        gates = self.context.space.encode_all([candidate.architecture])
        with torch.no_grad():
            return float(together(self.budgets).least_violation(gates)) <= 0

    def _refine(self) -> None:
        missed = {at for one in self.measured for at, figure in enumerate(one.figures) if not figure["meets"]}
        devices = [self.budgets[at].context.device.name for at in sorted(missed)]
        self.context.reporter.say(
            f"search: none of {len(self.measured)} measured candidates meets {said(self.budgets)}; fitting "
            f"the predictor of {' and '.join(dict.fromkeys(devices))} to them, and choosing again"
        )
        self.budgets = tuple(one.refined() if at in missed else one for at, one in enumerate(self.budgets))

    def _violations(self) -> dict[Architecture, float]:
        return {
            one.architecture: max(
                budget.violation(figure["value"])
                for budget, figure in zip(self.budgets, one.figures, strict=True)
            )
            for one in self.measured
        }

    def _finalist(self, architecture: Architecture, accuracy: float | None) -> Finalist:
        return Finalist(architecture, accuracy, [one.figure(architecture) for one in self.budgets])


def _by_promise(scored: _Scored) -> tuple[float, float, float]:
    """Order those predicted to fit first, the most accurate ahead.

    Of equally accurate ones the closest to the budget goes first: it has spent what it was allowed.
    """
    candidate, accuracy = scored
    return max(candidate.violation, 0.0), -accuracy, -candidate.violation


def _accuracy(one: Finalist) -> float:
    return -1.0 if one.accuracy is None else one.accuracy


class Judge:
    """Gives networks' accuracies with a search's shared weights on held-out images; each is taken once.

    Args:
        most: images that they are judged on; fewer where there are no more.
        doing: what is shown while it takes them.
    """

    def __init__(
        self, context: Context, supernet: Supernet, most: int = SCORED_ON, doing: str = "candidates scored"
    ) -> None:
        self._context, self._doing = context, doing
        self._taken = shared_accuracy(context, supernet, most)
        self._known: dict[Architecture, float] = {}

    def accuracies(self, architectures: list[Architecture]) -> list[float]:
        """Return the accuracies of architectures, of those that were not asked about before taken now."""
        for number, one in enumerate(architectures, 1):
            if one not in self._known:
                self._known[one] = self._taken(one)
            self._context.reporter.progress(number, len(architectures), self._doing)
        return [self._known[one] for one in architectures]
