"""Published networks beside what a search found: by the same shared weights, on the same device."""

from __future__ import annotations

import math
from typing import Any

import torch

from ehdnas.pipeline.constraints import Budgets, DeviceBudget
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.finalists import Judge
from ehdnas.search.spaces.base import Architecture, Supernet


def landmarks_of(context: Context, budgets: Budgets, supernet: Supernet) -> list[dict[str, Any]]:
    """Return the published networks of the space as JSON-able rows, with an accuracy and a figure a budget.

    The accuracy is by the shared weights, as candidates' are. The figure is simulated where the device is,
    and predicted where it is real: nothing is measured for their sake.
    """
    named = {name: one for name, one in context.space.named().items() if context.space.allows(one)}
    networks = list(named.values())
    accuracies = Judge(context, supernet, doing="published networks scored").accuracies(networks)
    values = [_values(one, networks) for one in budgets]
    return [
        {
            "name": name,
            "genotype": context.space.text(network),
            "supernet_accuracy": accuracy,
            "figures": [
                {
                    "device": one.context.device.name,
                    "metric": one.budget.metric,
                    "value": own[row],
                    "basis": "simulated" if one.exact else "predicted",
                }
                for one, own in zip(budgets, values, strict=True)
                if math.isfinite(own[row])
            ],
        }
        for row, ((name, network), accuracy) in enumerate(zip(named.items(), accuracies, strict=True))
    ]


def _values(one: DeviceBudget, networks: list[Architecture]) -> list[float]:
    """Return a budget's metric of each network; no number for what a simulated device cannot hold."""
    if not networks:
        return []
    if one.exact:
        taken = one.meter.instrument.take_many(networks)
        return [math.nan if found is None else one.value(found) for found in taken]
    with torch.no_grad():
        logs = one.profiled.predictor.log_value(one.context.space.encode_all(networks))
    return [float(value) for value in logs.exp()]
