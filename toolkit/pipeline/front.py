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
from ehdnas.search.pareto import spread
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

    Each distribution has a budget of its own, and all share one supernet, so that to learn them takes little
    longer than to learn one. Every network that is kept is a run of its own: of this run, with its number.
    """
    count = context.settings.pareto
    assert count is not None
    quickest, violation = closest(context, (budget,), descend=True)
    bounds = [_bound(budget, violation * (1 - step / count)) for step in range(1, count + 1)]
    result = learn(context, run, [(one,) for one in bounds], resume)
    judge = Judge(context, result.supernet)
    pool, finalists = _hold_all(budget, bounds, quickest, result, judge)
    candidates = FrontCandidates(context, run, pool, judge)
    candidates.add(finalists)
    costs = [budget.budget.violation(one.budget.bound) for one in bounds]
    candidates.fill(costs, count)
    kept = spread(candidates.points, costs, count)
    if len(kept) < count:
        context.reporter.warn(
            f"search: {len(kept)} of {count} networks were found of which none is better than another in "
            "everything; more --search-epochs may find others"
        )
    # The last distribution has the budget that is over all, and what it found is the last that is kept.
    last = result.distributions[-1]
    gains = gains_of(context, pool.budgets, last, result.supernet, result.history)
    say_signs(context, candidates.networks[kept[-1]].architecture, result.history, gains)
    predictors = [one.profiled.summary() for one in pool.budgets]
    told = {"predictors": predictors, "history": result.history}
    rows = []
    for number, at in enumerate(kept, 1):
        found, rivals = candidates.networks[at], candidates.rows(candidates.points[at].cost)
        rows.append(_keep_one(context, run, number, found, _tightest(bounds, found), {**rivals, **told}))
    run.write("search", {"front": rows, **candidates.rows(), **about(context, (budget,)), **told})


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
) -> tuple[Finals, list[Finalist]]:  # fmt: skip
    """Return what was measured for all the distributions, and what of it is to be compared.

    That is the best for each budget where they are tried, else all. All is judged by the budget over all.
    """
    context, profiled = budget.context, budget.profiled
    wanted = context.settings.finalists
    pool, best = Finals(context, (budget,), quickest), {quickest, context.space.reference}
    for bound, logits in zip(bounds, result.distributions, strict=True):
        finals = Finals(context, (replace(bound, profiled=profiled),), quickest, wanted=wanted)
        finals.hold(logits, judge)
        profiled = finals.budgets[0].profiled  # it may have been fitted again
        for one in finals.measured:
            pool.keep(one.architecture, one.accuracy)
        best.update(one.architecture for one in (finals.finalists if wanted > 1 else finals.measured))
    for network in (quickest, context.space.reference):
        if context.space.allows(network) and fit_all((budget,), network):
            pool.keep(network, judge.accuracies([network])[0])
    pool.budgets = (replace(budget, profiled=profiled),)
    return pool, [one for one in pool.measured if one.architecture in best]


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
    keep(context, part, (bound,), found, told)
    row = found.row(context)
    trials = [one for one in told["trials"] if one["genotype"] == row["genotype"]]
    return {"run": part.name, **row, "trial": trials[-1] if trials else None, "budget": bound.as_json()}
