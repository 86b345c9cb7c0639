"""The honest baselines: what anybody could write in an afternoon, and any predictor has to beat."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ehdnas.core.errors import UsageError
from ehdnas.search.predictor.base import Identity, Predictor
from ehdnas.search.predictor.facts import MACS, OP_LATENCY, SpaceFacts

_FLOOR = 0.1  # of the least value seen: no prediction goes below it
_PENALTIES = torch.logspace(-4, 4, 33, dtype=torch.float64)


class ConstantPredictor(Predictor):
    """The median of the samples, whatever the network."""

    def __init__(self, identity: Identity, facts: SpaceFacts = SpaceFacts()) -> None:  # noqa: B008 - frozen
        super().__init__(identity, facts)
        self.register_buffer("centre", torch.zeros((), dtype=torch.float64))
        self.centre: Tensor

    def log_value(self, gates: Tensor) -> Tensor:
        """Return the logarithm of the median, [n], for gates [n, slots, choices]; its gradient is zero."""
        return 0 * gates.sum((1, 2)) + self.centre.to(gates)

    def learn(self, gates: Tensor, values: Tensor, seed: int) -> None:
        """Keep the median of the values [n]."""
        self.centre = values.double().quantile(0.5).log()


class _Positive(Predictor):
    """A linear model of the value in its unit: `offset` + features · `weights`, kept positive."""

    def __init__(self, identity: Identity, facts: SpaceFacts, features: int) -> None:
        super().__init__(identity, facts)
        self.register_buffer("weights", torch.zeros(features, dtype=torch.float64))
        self.register_buffer("offset", torch.ones((), dtype=torch.float64))
        self.register_buffer("floor", torch.ones((), dtype=torch.float64))
        self.weights: Tensor
        self.offset: Tensor
        self.floor: Tensor

    @abstractmethod
    def features(self, gates: Tensor) -> Tensor:
        """Return what the value is linear in, [n, features], for gates [n, slots, choices]."""

    def log_value(self, gates: Tensor) -> Tensor:
        """Return the logarithm of the metric, [n], for gates [n, slots, choices].

        A softplus a tenth of the least value wide bends the line up where it would reach zero, and leaves
        it alone (within 1e-5 of the value) where there were samples.
        """
        line = self.features(gates).double() @ self.weights + self.offset
        return (self.floor * (1 + F.softplus(line / self.floor - 1))).log().to(gates.dtype)

    def _keep(self, weights: Tensor, offset: Tensor, values: Tensor) -> None:
        self.weights, self.offset, self.floor = weights, offset, _FLOOR * values.double().min()


class LinearPredictor(_Positive):
    """Ridge regression of the value in its unit on the one-hot architecture."""

    def __init__(self, identity: Identity, facts: SpaceFacts = SpaceFacts()) -> None:  # noqa: B008 - frozen
        super().__init__(identity, facts, identity.slots * identity.choices)

    def features(self, gates: Tensor) -> Tensor:
        """Return the gates of every slot side by side, [n, slots · choices]."""
        return gates.flatten(1)

    def learn(self, gates: Tensor, values: Tensor, seed: int) -> None:
        """Fit; the penalty is the one of the least leave-one-out error, which is exact for ridge.

        With the singular value decomposition U·S·Vᵀ of the centred features, sample i's error when left out
        is its residual over 1 − 1/n − Σⱼ Uᵢⱼ²·Sⱼ²/(Sⱼ² + λ) (Golub, Heath, Wahba, Technometrics 1979).
        """
        features, values = self.features(gates).double(), values.double()
        centre, mean = features.mean(0), values.mean()
        u, s, vt = torch.linalg.svd(features - centre, full_matrices=False)
        shrunk = s.square() / (s.square() + _PENALTIES[:, None])  # [penalties, rank]
        along = u.T @ (values - mean)
        left_in = (values - mean) - (shrunk * along) @ u.T
        leverage = 1 / len(values) + shrunk @ u.square().T
        errors = (left_in / (1 - leverage).clamp_min(1e-9)).square().mean(1)
        best = int(errors.argmin())
        weights = vt.T @ (s / (s.square() + _PENALTIES[best]) * along)
        self._keep(weights, mean - centre @ weights, values)


class _OfCost(_Positive):
    """An affine function of one cost summed over the network's work, fitted to the relative error."""

    cost: ClassVar[str]
    missing: ClassVar[str]

    def __init__(self, identity: Identity, facts: SpaceFacts = SpaceFacts()) -> None:  # noqa: B008 - frozen
        super().__init__(identity, facts, 1)

    def features(self, gates: Tensor) -> Tensor:
        """Return the cost of each network, [n, 1]; gradients flow to the gates.

        Raises:
            UsageError: the cost is not known for this space.
        """
        total = self.facts.total(gates, self.cost)
        if total is None:
            raise UsageError(f"predictor '{self.identity.method}': {self.missing}")
        return total[:, None]

    def learn(self, gates: Tensor, values: Tensor, seed: int) -> None:
        """Fit by least squares of the relative error, so that small networks count as much as large ones.

        On four boards' NAS-Bench-201 that beats both the plain fit and a line through the logarithms.

        Raises:
            UsageError: the cost is not known for this space.
        """
        cost, values = self.features(gates.double())[:, 0], values.double()
        unit = cost.abs().mean().clamp_min(1e-30)  # MACs by the million: keeps the system well conditioned
        design = torch.stack([torch.ones_like(cost), cost / unit], 1) / values[:, None]
        # One cost for all samples leaves the slope open: the solution of the least norm has one.
        found = torch.linalg.lstsq(design, torch.ones_like(values)[:, None], driver="gelsd").solution[:, 0]
        self._keep(found[1:] / unit, found[0], values)


class FlopsPredictor(_OfCost):
    """a + b · multiply-accumulates: what work alone says, the same line for every operation."""

    cost = MACS
    missing = "the MACs of this space's choices are not known; give facts with costs (`facts_of`)"


class OpSumPredictor(_OfCost):
    """a + b · the sum of the operations' times, each timed alone: the look-up table, given its best line."""

    cost = OP_LATENCY
    missing = "no times of single operations are known; measure them with `ehdnas profile --ops`"
