"""The search objective: accuracy, under a budget on the sampled architecture."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ehdnas.core.budget import Budget
from ehdnas.search.predictor.base import Predictor


@dataclass(frozen=True)
class Constraint:
    """A budget, judged by a predictor at the far end of its interval."""

    predictor: Predictor
    budget: Budget
    confidence: float

    def violation(self, gates: Tensor) -> Tensor:
        """Return log(predicted / bound) at the far end of the interval, [n]; at most 0 when met.

        A margin the predictor cannot promise (too few samples) is left out here, since it would hide the
        gradient; such candidates are settled by measuring them.
        """
        log_value = self.predictor.log_value(gates)
        gap = log_value - math.log(self.budget.bound)
        margin = self.predictor.margin(self.confidence)
        return (gap if self.budget.is_upper else -gap) + (margin if math.isfinite(margin) else 0.0)


class DualAscent:
    """The multiplier of an augmented Lagrangian, raised while the budget is violated.

    For the mean violation g of the sampled architectures the hardware term is
    max(0, multiplier + stiffness · g)² / (2 · stiffness), which pulls on nothing once the budget is met with
    room to spare (Nocedal and Wright, Numerical Optimization, 2nd edition, equation 17.65).
    """

    def __init__(self, rate: float = 0.02, stiffness: float = 4.0) -> None:
        self.rate = rate
        self.stiffness = stiffness
        self.multiplier = 0.0

    def loss(self, violation: Tensor) -> Tensor:
        """Return the hardware term, a scalar, for violations [n] of sampled architectures."""
        pull = torch.relu(self.multiplier + self.stiffness * violation.mean())
        return pull.square() / (2 * self.stiffness)

    def update(self, violation: Tensor) -> None:
        """Raise or lower the multiplier by the mean violation of the samples."""
        self.multiplier = max(0.0, self.multiplier + self.rate * float(violation.detach().mean()))
