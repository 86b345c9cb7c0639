"""Whether any network can meet the budgets, before one is searched for: the fastest are gone straight for."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from torch import Tensor

from ehdnas.core.budget import Budget
from ehdnas.core.errors import BudgetError
from ehdnas.pipeline.constraints import Budgets, DeviceBudget, expected, said, worst
from ehdnas.pipeline.context import Context
from ehdnas.search.selection import fastest, fastest_starts
from ehdnas.search.spaces.base import Architecture

_REFINEMENTS = 5  # times that predictors are fitted again before a budget is called too tight


def require_feasible(context: Context, budgets: Budgets) -> tuple[Budgets, Architecture]:
    """Return a network measured to meet every budget, and the budgets with what was learnt on the way to it.

    Raises:
        BudgetError: none is found that meets one of the budgets, or all of them; the message names the
            nearest and says by what it misses which.
    """
    alone, learnt = list[Architecture](), list[DeviceBudget]()
    for one in budgets:
        (one,), found, violation = _sought(context, (one,))
        if violation > 0:
            raise BudgetError(_too_tight(context, one, found))
        alone.append(found)
        learnt.append(one)
    if len(budgets) == 1:
        return tuple(learnt), alone[0]
    budgets, found, violation = _sought(context, tuple(learnt), alone)
    if violation > 0:
        raise BudgetError(_too_tight_together(context, budgets, found))
    return budgets, found


def _sought(
    context: Context, budgets: Budgets, starts: list[Architecture] | None = None
) -> tuple[Budgets, Architecture, float]:
    """Return the budgets, the network closest to them and its violation, as `closest` does.

    While none meets them, but not by more than predictors may be off, the predictors that led to it are
    fitted again to what it does, and followed again: to say that a budget cannot be met stops the user. They
    may be off by twice their margin, since the fastest networks are unlike those that the margin is of.
    """
    found, violation = closest(context, budgets, starts)
    for _ in range(_REFINEMENTS):
        confidence = context.settings.confidence
        margins = [2 * one.profiled.predictor.margin(confidence) for one in budgets if not one.exact]
        if violation <= 0 or violation > max(margins, default=0.0):
            break
        known = len(_known(context, budgets))
        context.reporter.say(
            f"search: the nearest known to {said(budgets)} misses it by {math.expm1(violation):.1%}; fitting "
            "the predictor again, and looking further"
        )
        budgets = tuple(one if one.exact else one.refined() for one in budgets)
        found, violation = closest(context, budgets, starts)
        if len(_known(context, budgets)) == known:  # nothing unknown is thought to be closer
            break
    return budgets, found, violation


def first_known(context: Context, budgets: Budgets) -> Architecture | None:
    """Return the network measured first of those that meet every budget, None where none is known to.

    Whatever else is measured later, it stays the first: a search begins there, so that the same search made
    again finds the same network, although what the first one measured is known by then.
    """
    return next((network for network, violation in _known(context, budgets).items() if violation <= 0), None)


def closest(
    context: Context, budgets: Budgets, starts: list[Architecture] | None = None, descend: bool = False
) -> tuple[Architecture, float]:
    """Return the network of the least worst violation as measured, and that violation.

    Networks measured already are looked at first. If none of them meets the budgets, or with `descend` in any
    case, the worst violation is descended over neighbours, from the best known, from `starts`, the reference
    and a few random ones; by simulation where that is how a device measures, else by its predictor.
    """
    space, seed = context.space, context.settings.seed
    known = _known(context, budgets)
    if not known:  # all that was measured has a choice that is now left out, or is known of one device alone
        first = space.sample(np.random.default_rng(seed))
        known[first] = worst(budgets, first)
    best = min(known, key=known.__getitem__)
    if descend or known[best] > 0:
        others = [*(starts or []), *filter(space.allows, fastest_starts(space, seed))]
        found = fastest(space, partial(_believed, budgets, known), [best, *others])
        known[found] = worst(budgets, found)
        best = min(known, key=known.__getitem__)
    return best, known[best]


def _believed(budgets: Budgets, known: dict[Architecture, float], networks: list[Architecture]) -> Tensor:
    """Return the worst violation [n] of each of n networks: as measured where it is known, else expected."""
    violations = expected(budgets, networks)
    for row, network in enumerate(networks):
        violations[row] = known.get(network, violations[row])
    return violations


def _known(context: Context, budgets: Budgets) -> dict[Architecture, float]:
    """Return the worst violation of each network that is measured on every device."""
    tables = []
    for one in budgets:
        rows = [row for row in one.meter.measured() if one.budget.metric in row[1].metrics]
        tables.append({network: one.budget.violation(one.value(found)) for network, found in rows})
    shared = set(tables[0]).intersection(*tables[1:])
    # In the order of the first device's store, so that equal ones are always told apart alike.
    return {
        network: max(table[network] for table in tables)
        for network in tables[0]
        if network in shared and context.space.allows(network)
    }


def _too_tight(context: Context, one: DeviceBudget, found: Architecture) -> str:
    nearest = Budget.just_met_by(one.budget.metric, one.value(one.meter.measure(found)))
    return (
        f"found no network of '{context.space.name}' at {context.shape} that meets {one.budget} on "
        f"{one.context.device.name}; the nearest found has {nearest} (genotype {context.space.text(found)}): "
        "ask for that, or use fewer channels or cells"
    )


def _too_tight_together(context: Context, budgets: Budgets, found: Architecture) -> str:
    misses = []
    for one in budgets:
        value = one.value(one.meter.measure(found))
        if not one.budget.meets(value):
            by = math.expm1(one.budget.violation(value))
            nearest = Budget.just_met_by(one.budget.metric, value)
            misses.append(f"{one.budget} on {one.context.device.name} by {by:.1%} ({nearest})")
    return (
        f"found no network of '{context.space.name}' at {context.shape} that meets {said(budgets)} together, "
        f"though each can be met; the nearest found misses {' and '.join(misses)} (genotype "
        f"{context.space.text(found)}): ask for that, or use fewer channels or cells"
    )
