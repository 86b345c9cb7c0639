"""The budgets of a search, each on its device, with what is known of the device and can measure there."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ehdnas.core.budget import Budget
from ehdnas.core.budgets import assign_budgets
from ehdnas.core.measurement import Measurement
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.meter import Meter
from ehdnas.pipeline.profile import Profile, ensure_predictor, reference_value, refined
from ehdnas.search.objective import Constraint, Constraints, violations
from ehdnas.search.spaces.base import Architecture

USUAL, USUAL_OF_FRONT = "0.7x", "1x"
"""The budget where none is asked for: of one network, and of the slowest of a front."""


@dataclass(frozen=True)
class DeviceBudget:
    """An absolute budget on one device. `context` is that device's, and no other's."""

    context: Context
    budget: Budget
    profiled: Profile

    @property
    def meter(self) -> Meter:
        """What measures on the device."""
        return self.profiled.meter

    @property
    def constraint(self) -> Constraint:
        """The budget as the search sees it."""
        name = f"{self.context.device.name}.{self.budget.metric}"
        return Constraint(self.profiled.predictor, self.budget, self.context.settings.confidence, name)

    def value(self, measurement: Measurement) -> float:
        """Return the budget's metric of a measurement on its device."""
        return measurement.metric(self.budget.metric)

    @property
    def exact(self) -> bool:
        """Whether `score` says what measuring would: the device is simulated."""
        return self.context.device.simulated

    def score(self, networks: list[Architecture]) -> Tensor:
        """Return the violations [n], float64: simulated where the device is, else predicted.

        A network that a simulated device cannot hold has an infinite one.
        """
        if self.exact:
            taken = self.meter.instrument.take_many(networks)
            found = [math.inf if one is None else self.budget.violation(self.value(one)) for one in taken]
            return torch.tensor(found, dtype=torch.float64)
        with torch.no_grad():
            logs = self.profiled.predictor.log_value(self.context.space.encode_all(networks)).double()
        return violations(logs, self.budget)

    def figure(self, architecture: Architecture) -> dict[str, Any]:
        """Return what was predicted of a network and what it does, measured unless it has been."""
        predictor = self.profiled.predictor
        with torch.no_grad():
            predicted = float(predictor(self.context.space.encode_all([architecture])))
        margin = predictor.margin(self.context.settings.confidence)
        measurement = self.meter.measure(architecture)
        value = self.value(measurement)
        return {
            "device": self.context.device.name,
            "metric": self.budget.metric,
            "predicted": predicted,
            "interval_factor": math.exp(margin) if margin < math.inf else None,
            "value": value,
            "basis": measurement.basis,
            "spread": measurement.statistics.spread if measurement.statistics else 0.0,
            "meets": self.budget.meets(value),
        }

    def refined(self) -> DeviceBudget:
        """Return the same with a predictor fitted to all that is measured by now."""
        return replace(self, profiled=refined(self.context, self.profiled))

    def as_json(self) -> dict[str, Any]:
        """Return the budget as a run keeps it."""
        return {
            "device": self.context.device.name,
            "metric": self.budget.metric,
            "bound": self.budget.bound,
            "text": str(self.budget),
        }


Budgets = tuple[DeviceBudget, ...]


def device_budgets(context: Context) -> Budgets:
    """Return the budgets that the settings ask for, each device profiled and relative ones made absolute.

    Raises:
        UsageError: budgets and devices do not go together, or a device cannot be profiled.
    """
    usual = USUAL if context.settings.pareto is None else USUAL_OF_FRONT
    devices = {one.device.name: one for one in context.each_device()}
    pairs = assign_budgets(context.settings.budget or usual, list(devices))
    return tuple(_profiled(devices[device], budget) for device, budget in pairs)


def _profiled(context: Context, budget: Budget) -> DeviceBudget:
    profiled = ensure_predictor(context, budget.metric)
    resolved = budget.resolve(reference_value(context, profiled.meter, budget))
    return DeviceBudget(context, resolved, profiled)


def together(budgets: Budgets) -> Constraints:
    """Return the budgets as one search sees them."""
    return Constraints(tuple(one.constraint for one in budgets))


def fit_all(budgets: Budgets, architecture: Architecture) -> bool:
    """Measure a network on every device; return False where a simulated one cannot hold it."""
    return all(one.meter.measure_if_fits(architecture) is not None for one in budgets)


def expected(budgets: Budgets, networks: list[Architecture]) -> Tensor:
    """Return the worst violation [n] of each of n networks: simulated where the device is, else predicted."""
    return torch.stack([one.score(networks) for one in budgets]).amax(dim=0)


def worst(budgets: Budgets, architecture: Architecture) -> float:
    """Return the worst violation of a network as measured on every device; infinite where it does not fit."""
    if not fit_all(budgets, architecture):
        return math.inf
    return max(one.budget.violation(one.value(one.meter.measure(architecture))) for one in budgets)


def said(budgets: Budgets) -> str:
    """Return the budgets with their devices, for the user: "latency <= 8 ms on coral"."""
    if len({str(one.budget) for one in budgets}) == 1:
        names = dict.fromkeys(one.context.device.name for one in budgets)
        return f"{budgets[0].budget} on {' and '.join(names)}"
    return " and ".join(f"{one.budget} on {one.context.device.name}" for one in budgets)
