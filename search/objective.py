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
    """The multiplier of an augmented Lagrangian (Bertsekas 1982), raised while the budget is violated.

    The hardware term is `multiplier · g + stiffness / 2 · max(0, g)²` for a violation g.
    """

    def __init__(self, rate: float = 0.02, stiffness: float = 4.0) -> None:
        self.rate = rate
        self.stiffness = stiffness
        self.multiplier = 0.0

    def loss(self, violation: Tensor) -> Tensor:
        """Return the hardware term, a scalar, for violations [n] of sampled architectures."""
        quadratic = torch.relu(violation).square() * (self.stiffness / 2)
        return (self.multiplier * violation + quadratic).mean()

    def update(self, violation: Tensor) -> None:
        """Raise or lower the multiplier by the mean violation of the samples."""
        self.multiplier = max(0.0, self.multiplier + self.rate * float(violation.detach().mean()))
