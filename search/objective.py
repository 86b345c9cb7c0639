"""The search objective: accuracy, under a budget on the sampled architecture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ehdnas.core.budget import Budget
from ehdnas.search.predictor.base import Predictor

CLOSE = math.log(1.05)
"""What is within 5 % under its bound has spent what was allowed."""


def violations(logs: Tensor, budget: Budget) -> Tensor:
    """Return `Budget.violation` [n] of the logs of values [n]; at most 0 where the budget is met."""
    return budget.sign * (logs - math.log(budget.bound))


@dataclass(frozen=True)
class Constraint:
    """A budget, judged by a predictor at the far end of its interval; `name` tells it from others."""

    predictor: Predictor
    budget: Budget
    confidence: float
    name: str = ""

    def violation(self, gates: Tensor) -> Tensor:
        """Return log(predicted / bound) at the far end of the interval, [n]; at most 0 when met.

        A margin the predictor cannot promise (too few samples) is left out here, since it would hide the
        gradient; such candidates are settled by measuring them.
        """
        margin = self.predictor.margin(self.confidence)
        gaps = violations(self.predictor.log_value(gates), self.budget)
        return gaps + (margin if math.isfinite(margin) else 0.0)


@dataclass(frozen=True)
class Constraints:
    """One or several constraints on the same network, which it must meet together.

    They are to `spend` what is allowed where networks can: what meets all of them is to be close under one.
    """

    members: tuple[Constraint, ...]
    spend: bool = False

    def violations(self, gates: Tensor) -> Tensor:
        """Return the violation of each, [n, constraints]."""
        return torch.stack([one.violation(gates).double() for one in self.members], dim=1)

    def violation(self, gates: Tensor) -> Tensor:
        """Return the worst violation, [n]: that of the constraint that binds."""
        return self.violations(gates).amax(dim=1)


class DualAscent:
    """The multipliers of an augmented Lagrangian, one a constraint, each raised while its own is violated.

    For the mean violation g of the sampled architectures the hardware term is the sum over constraints of
    max(0, multiplier + stiffness · g)² / (2 · stiffness), which pulls on nothing once the budget is met with
    room to spare (Nocedal and Wright, Numerical Optimization, 2nd edition, equation 17.65, for each).

    Budgets that are to be spent have one constraint more: that the one which binds is not undercut by more
    than `CLOSE`. Without it the weights that networks share decide how much of a budget is used, and they
    speak for operations that have no weights: those need no training, and the others have had little of it.
    """

    def __init__(
        self, count: int = 1, rate: float = 0.02, stiffness: float = 4.0, spend: bool = False
    ) -> None:
        self.rate = rate
        self.stiffness = stiffness
        self.spend = spend
        self.multipliers = [0.0] * (count + spend)

    def loss(self, violations: Tensor) -> Tensor:
        """Return the hardware term, a scalar, for violations [n, constraints] of sampled architectures."""
        means = self._means(violations)
        pulls = torch.relu(means.new_tensor(self.multipliers) + self.stiffness * means)
        return pulls.square().sum() / (2 * self.stiffness)

    def update(self, violations: Tensor) -> None:
        """Raise or lower each multiplier by the mean violation [n, constraints] of the samples."""
        means: Sequence[float] = self._means(violations.detach()).tolist()
        pairs = zip(self.multipliers, means, strict=True)
        self.multipliers = [max(0.0, multiplier + self.rate * mean) for multiplier, mean in pairs]

    def _means(self, violations: Tensor) -> Tensor:
        """Return the mean violation of each constraint, last of all by how much the budgets are undercut."""
        means = violations.mean(dim=0)
        return torch.cat([means, -CLOSE - means.amax(0, keepdim=True)]) if self.spend else means
