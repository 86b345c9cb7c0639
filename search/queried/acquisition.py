"""What a query is expected to gain: for one budget, and for the whole front of value and accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ehdnas.core.budget import Budget
from ehdnas.search.queried.belief import LEAST_ERROR, Posterior
from ehdnas.search.queried.ledger import Seen

_LEVELS = 256  # accuracies between which it is taken as linear in the merit
_LEAST_STEP = 1e-12  # between the merits of levels that are the same but for rounding


def improvement(posterior: Posterior, bars: Tensor) -> Tensor:
    """Return by how much n networks are expected to exceed each of k merits, [n, k].

    It is equation 15 of Jones, Schonlau, Welch (Journal of Global Optimization 13, 1998).
    """
    spread = posterior.spread[:, None]
    over = (posterior.mean[:, None] - bars) / spread
    density = (-over.square() / 2).exp() / math.sqrt(2 * math.pi)
    gain: Tensor = spread * (over * torch.special.ndtr(over) + density)
    return gain


def costs_of(values: Tensor, budget: Budget) -> Tensor:
    """Return what is less for the better of values [n] of the budget's metric, in its unit."""
    return values if budget.is_upper else -values


@dataclass(frozen=True)
class Front:
    """The staircase of the best accuracy known at each cost, up to `most`, the loosest budget.

    Costs [k] rise; accuracies [k], shares of 1, hold from each cost to the next. Before the first cost
    holds `worst`, the lowest accuracy that was seen: faster networks are worth what they have beyond it.
    The `steps` are the networks on it.
    """

    costs: Tensor
    accuracies: Tensor
    most: float
    worst: float
    steps: tuple[Seen, ...]

    @staticmethod
    def of(seen: Iterable[Seen], budgets: tuple[Budget, ...]) -> Front:
        """Return the front of the networks seen, one at least."""
        known = list(seen)
        costs = costs_of(torch.tensor([one.value for one in known], dtype=torch.float64), budgets[0])
        bounds = torch.tensor([one.bound for one in budgets], dtype=torch.float64)
        most = float(costs_of(bounds, budgets[0]).max())
        kept: list[int] = []
        for row in sorted(range(len(known)), key=lambda row: (float(costs[row]), -known[row].accuracy)):
            if costs[row] <= most and (not kept or known[row].accuracy > known[kept[-1]].accuracy):
                kept.append(row)
        accuracies = torch.tensor([known[row].accuracy for row in kept], dtype=torch.float64)
        worst = min(one.accuracy for one in known)
        return Front(costs[kept], accuracies, most, worst, tuple(known[row] for row in kept))

    def improvement(self, posterior: Posterior, costs: Tensor, merits: Callable[[Tensor], Tensor]) -> Tensor:
        """Return by how much n networks of known costs [n] are expected to raise the hypervolume, [n].

        The hypervolume is the area under the staircase, in the metric's unit times a share of 1. Where the
        cost is known, the integral over the cells that no network dominates yet (Emmerich, Giannakoglou,
        Naujoks, IEEE Transactions on Evolutionary Computation 10, 2006) is a sum over steps: what of the
        step's width is beyond the cost, times the expected improvement on its accuracy. Merits are normal;
        accuracies, no linear function of them, are taken as linear in them between close levels.

        Args:
            merits: of accuracies [m], rising with them, as the posterior has them.
        """
        ends = torch.cat([self.costs, torch.tensor([self.most], dtype=torch.float64)])
        starts = torch.cat([torch.tensor([-math.inf], dtype=torch.float64), self.costs])
        widths = (ends - torch.maximum(costs[:, None], starts)).clamp_min(0)
        worst = torch.tensor([self.worst], dtype=torch.float64)
        heights = torch.cat([worst, self.accuracies]).clamp_max(1 - LEAST_ERROR)
        levels = torch.unique(torch.cat([heights, _levels(self.worst)]))
        above = improvement(posterior, merits(levels))
        slopes = levels.diff() / merits(levels).diff().clamp_min(_LEAST_STEP)
        between = slopes * (above[:, :-1] - above[:, 1:])
        beyond = torch.nn.functional.pad(between.flip(1).cumsum(1).flip(1), (0, 1))
        return (widths * beyond[:, torch.searchsorted(levels, heights)]).sum(1)


def _levels(worst: float) -> Tensor:
    """Return accuracies from the worst to one hardly below 1, evenly spaced in the log of the error."""
    most, least = math.log(max(1 - worst, LEAST_ERROR)), math.log(LEAST_ERROR)
    return 1 - torch.linspace(most, least, _LEVELS, dtype=torch.float64).exp()
