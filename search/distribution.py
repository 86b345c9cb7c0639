"""A learnt distribution over architectures, and the multipliers of the budgets that it is learnt under."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ehdnas.search.objective import Constraints, DualAscent
from ehdnas.search.spaces.base import Space


class Distribution:
    """Logits [slots, choices] on the CPU, where they are small and quicker, with their own constraints.

    Of several processes only the first one knows the constraints; the others hold None.
    """

    def __init__(self, space: Space, constraints: Constraints | None) -> None:
        self.logits = space.initial_logits().requires_grad_()
        self.constraints = constraints
        self.dual = (
            DualAscent(len(constraints.members), spend=constraints.spend) if constraints else DualAscent(0)
        )

    def hardware(self, gates: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Return the hardware term for sampled gates [n, slots, choices], and what a step records of it.

        The multipliers are raised or lowered by what was seen. `violation` is the mean of each network's
        worst and `multiplier` the largest; of several constraints each has its own beside them, by its name.
        """
        assert self.constraints is not None
        violations = self.constraints.violations(gates)
        loss = self.dual.loss(violations)
        self.dual.update(violations)
        seen = violations.detach()
        figures = {"violation": float(seen.amax(dim=1).mean()), "multiplier": max(self.dual.multipliers)}
        if len(self.constraints.members) > 1:
            for at, one in enumerate(self.constraints.members):
                figures[f"violation.{one.name}"] = float(seen[:, at].mean())
                figures[f"multiplier.{one.name}"] = self.dual.multipliers[at]
        return loss, figures

    def predicted(self, gates: Tensor) -> dict[str, float]:
        """Return what is predicted of one network, gates [1, slots, choices], in each constraint's unit.

        It is by the metric where there is one constraint, and by the names of several.
        """
        members = () if self.constraints is None else self.constraints.members
        names = [one.budget.metric if len(members) == 1 else one.name for one in members]
        with torch.no_grad():
            values = [float(one.predictor.log_value(gates).exp()) for one in members]
        return dict(zip(names, values, strict=True))

    def carried(self, number: int) -> dict[str, float]:
        """Return what a checkpoint keeps of the multipliers of the distribution of this number."""
        return {f"multiplier.{number}.{at}": one for at, one in enumerate(self.dual.multipliers)}

    def restore(self, number: int, carried: Mapping[str, float | Tensor]) -> None:
        """Take the multipliers from what `carried` gave."""
        names = [f"multiplier.{number}.{at}" for at in range(len(self.dual.multipliers))]
        self.dual.multipliers = [float(carried.get(name, 0.0)) for name in names]
