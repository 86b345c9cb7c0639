"""Several budgets at once, and which device each is for: "latency <= 20 ms on pi4, 0.7x on coral"."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ehdnas.core.budget import Budget, parse_budget
from ehdnas.core.errors import UsageError
from ehdnas.core.text import nearest

_NAMED = re.compile(r"(.*?)\s+on\s+(\S+)")


def parse_budgets(text: str) -> list[tuple[Budget, str | None]]:
    """Return the budgets in a comma-separated list, each with the device it is "on", or None.

    Raises:
        UsageError: one of them is no budget, or some name their device and others do not.
    """
    found: list[tuple[Budget, str | None]] = []
    for part in map(str.strip, text.split(",")):
        named = _NAMED.fullmatch(part)
        found.append((parse_budget(named[1]), named[2]) if named else (parse_budget(part), None))
    if len({device is None for _, device in found}) > 1:
        raise UsageError(f"budget '{text}': end each part with 'on DEVICE', or none of them")
    return found


def assign_budgets(text: str, devices: Sequence[str]) -> list[tuple[str, Budget]]:
    """Return (device, budget) for budgets written in one text, in its order.

    Budgets that name their device are for that one. Of those that do not, one alone is for every device, and
    as many as devices are for them in order; with one device all are for it.

    Raises:
        UsageError: a budget is for a device that is not among `devices`, a device has none or two on one
            metric, or there are more or fewer than can be told apart.
    """
    asked = parse_budgets(text)
    if asked[0][1] is None:
        pairs = _in_order(text, [budget for budget, _ in asked], devices)
    else:
        pairs = [(_known(text, str(device), devices), budget) for budget, device in asked]
    _require_one_a_metric(text, pairs)
    without = [device for device in devices if device not in dict(pairs)]
    if without:
        raise UsageError(f"budget '{text}': none is for device '{without[0]}'; add '..., 1x on {without[0]}'")
    return pairs


def _in_order(text: str, budgets: list[Budget], devices: Sequence[str]) -> list[tuple[str, Budget]]:
    if len(budgets) == 1:
        return [(device, budgets[0]) for device in devices]
    if len(devices) == 1:
        return [(devices[0], budget) for budget in budgets]
    if len(budgets) != len(devices):
        raise UsageError(
            f"budget '{text}': {len(budgets)} budgets for {len(devices)} devices; give one for all, one a "
            "device in their order, or end each with 'on DEVICE'"
        )
    return list(zip(devices, budgets, strict=True))


def _known(text: str, device: str, devices: Sequence[str]) -> str:
    if device not in devices:
        raise UsageError(
            f"budget '{text}': device '{device}' is not searched for{nearest(device, devices)}; --device "
            f"says {','.join(devices)}"
        )
    return device


def _require_one_a_metric(text: str, pairs: list[tuple[str, Budget]]) -> None:
    bound: set[tuple[str, str]] = set()
    for device, budget in pairs:
        if (device, budget.metric) in bound:
            name = budget.metric.partition("_")[0]
            raise UsageError(f"budget '{text}': two bounds on the {name} of '{device}'; leave one out")
        bound.add((device, budget.metric))
