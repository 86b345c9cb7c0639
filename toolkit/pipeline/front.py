"""`search --pareto N`: one supernet, N budgets, and N networks of which none is better in everything."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from ehdnas.core.budget import Budget
from ehdnas.core.budgets import parse_budgets
from ehdnas.core.errors import UsageError
from ehdnas.pipeline.constraints import DeviceBudget, fit_all
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.feasible import closest
from ehdnas.pipeline.finalists import Finalist, Finals, Judge
from ehdnas.pipeline.front_candidates import FrontCandidates
from ehdnas.pipeline.outcome import about, gains_of, keep, say_signs
from ehdnas.pipeline.runs import run_settings
from ehdnas.pipeline.supernet import learn
from ehdnas.search.searcher import SearchResult
from ehdnas.search.spaces.base import Architecture
from ehdnas.workspace import Run


def require_front_possible(context: Context) -> None:
    """Refuse a front of networks for several devices or under several budgets.

    Raises:
        UsageError: it would have more than two axes.
    """
    if context.settings.pareto is None:
        return
    devices = [one.device.name for one in context.each_device()]
    if len(devices) > 1:
        raise UsageError(f"--pareto is for one device, not {', '.join(devices)}; name one with --device")
    budget = context.settings.budget
    if budget is not None and len(parse_budgets(budget)) > 1:
        raise UsageError(f"--pareto is along one budget, not '{budget}'; give the one that none may exceed")


def search_front(context: Context, run: Run, budget: DeviceBudget, resume: bool) -> None:
    """Search for as many networks as the setting `pareto` says, from the fastest to those just in budget.

    Each distribution has a budget of its own, and all share one supernet, so that it takes little longer than
    one search. Every network that is kept is a run of its own: that of this run, with its number.
    """
    count = context.settings.pareto
    assert count is not None
    quickest, violation = closest(context, (budget,), descend=True)
    bounds = [_bound(budget, violation * (1 - step / count)) for step in range(1, count + 1)]
    result = learn(context, run, [(one,) for one in bounds], resume)
    judge = Judge(context, result.supernet)
    pool = _hold_all(budget, bounds, quickest, result, judge)
    for one in (quickest, context.space.reference):
        if context.space.allows(one) and fit_all((budget,), one):
            pool.keep(one, judge.accuracies([one])[0])
    candidates = FrontCandidates(pool, judge, [one.budget for one in bounds])
    candidates.fill(count)
    kept = candidates.chosen(count)
    if len(kept) < count:
        context.reporter.warn(
            f"search: {len(kept)} of {count} networks were found of which none is better than another in "
            "everything; more --search-epochs may find others"
        )
    # The last distribution has the budget that is over all, and what it found is the last that is kept.
    last = result.distributions[-1]
    gains = gains_of(context, pool.budgets, last, result.supernet, result.history)
    say_signs(context, kept[-1].architecture, result.history, gains)
    predictors = [one.profiled.summary() for one in pool.budgets]
    told = {"predictors": predictors, "history": result.history}
    rows = [
        _keep_one(context, run, number, one, _tightest(bounds, one), told)
        for number, one in enumerate(kept, 1)
    ]
    run.write("search", {"front": rows, **about(context, (budget,)), **told})


def _bound(budget: DeviceBudget, violation: float) -> DeviceBudget:
    """Return the budget tightened by a negative violation, in four digits unless it is the budget itself."""
    if violation == 0:
        return budget
    asked = budget.budget
    value = asked.bound * math.exp(asked.sign * violation)
    return replace(budget, budget=Budget.just_met_by(asked.metric, value))


def _hold_all(
    budget: DeviceBudget, bounds: list[DeviceBudget], quickest: Architecture, result: SearchResult,
    judge: Judge,
) -> Finals:  # fmt: skip
    """Return what was measured for all the distributions, judged by the budget that is over all."""
    context, profiled = budget.context, budget.profiled
    pool = Finals(context, (budget,), quickest)
    for bound, logits in zip(bounds, result.distributions, strict=True):
        finals = Finals(context, (replace(bound, profiled=profiled),), quickest)
        finals.hold(logits, judge)
        profiled = finals.budgets[0].profiled  # it may have been fitted again
        for one in finals.measured:
            pool.keep(one.architecture, one.accuracy)
    pool.budgets = (replace(budget, profiled=profiled),)
    return pool


def _tightest(bounds: list[DeviceBudget], found: Finalist) -> DeviceBudget:
    """Return the tightest of bounds, loosest last, that a network meets as measured."""
    value = found.figures[0]["value"]
    return next(one for one in bounds if one.budget.meets(value))


def _keep_one(
    context: Context, run: Run, number: int, found: Finalist, bound: DeviceBudget, told: dict[str, Any]
) -> dict[str, Any]:
    """Make a network of the front a run of its own; return its row."""
    own = context.having(pareto=None, budget=str(bound.budget))
    part = context.workspace.part_of(run, number, run_settings(own))
    found = replace(found, figures=[bound.figure(found.architecture)])
    row = found.row(context)
    keep(context, part, (bound,), found, {"candidates": [row], **told})
    return {"run": part.name, **row, "budget": bound.as_json()}
