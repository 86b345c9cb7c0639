"""The search stage: budgets in, the genotype of a network that meets them on the devices out."""

from __future__ import annotations

import math

from ehdnas.pipeline.constraints import Budgets, device_budgets, said
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.feasible import require_feasible
from ehdnas.pipeline.finalists import Finalist, Finals, Judge
from ehdnas.pipeline.front import require_front_possible, search_front
from ehdnas.pipeline.mapping import heed_mapping
from ehdnas.pipeline.outcome import keep, run_settings, say_signs
from ehdnas.pipeline.supernet import learn, say_plan
from ehdnas.search.loop import require_same
from ehdnas.search.spaces.base import Architecture
from ehdnas.settings import PLACE_SETTINGS
from ehdnas.workspace import Run

_FURTHER = 0.2  # of its epochs, by which a search goes on when nothing it proposed met the budget


def search(context: Context, resume: bool = False) -> Run:
    """Search for the most accurate network within the budgets; return the run that holds it.

    With the setting `pareto` the run holds a front of networks instead, each of them a run of its own.

    Raises:
        BudgetError: no network of the space meets the budgets; the message names the nearest.
        UsageError: budgets and devices do not go together, or resuming with other settings; the message says
            which differ.
    """
    require_front_possible(context)
    context.compute  # noqa: B018 - a GPU that is not there is said before anything is measured
    context = heed_mapping(context)
    run = _unfinished(context) if resume else None
    if run is not None and run.has("search"):
        context.reporter.say(f"search: run {run.name} is finished; nothing to resume")
        return run
    budgets = device_budgets(context)
    fallback = require_feasible(context, budgets)
    run = run or context.workspace.new_run(run_settings(context))
    say_plan(context, budgets)
    with run.working():
        if context.settings.pareto is None:
            _search_one(context, run, budgets, fallback, resume)
        else:
            search_front(context, run, budgets[0], resume)
    return run


def _search_one(context: Context, run: Run, budgets: Budgets, fallback: Architecture, resume: bool) -> None:
    """Search, measure, and go on searching with what the measurements taught while none meets the budgets."""
    finals = Finals(context, budgets)
    for further in (0, math.ceil(_FURTHER * context.recipe.search_epochs)):
        if further:
            context.reporter.say(
                f"search: no candidate meets {said(budgets)} yet; {further} more epochs, with the predictor "
                "fitted again"
            )
        result = learn(context, run, [finals.budgets], resume, further)
        finals.hold(result.logits, Judge(context, result.supernet))
        history = result.history
        del result  # and its supernet: the next one needs the memory
        if finals.best is not None:
            break
    found = finals.best or _fall_back(context, finals, fallback)
    say_signs(context, found.architecture, history)
    record = {
        "candidates": [one.row(context) for one in finals.measured],
        "predictors": [one.profiled.summary() for one in finals.budgets],
        "history": history,
    }
    keep(context, run, finals.budgets, found, record)


def _fall_back(context: Context, finals: Finals, fallback: Architecture) -> Finalist:
    count = len(finals.measured)
    found = finals.keep(fallback)
    bases = " and ".join(dict.fromkeys(one["basis"] for one in found.figures))
    context.reporter.warn(
        f"search: none of the {count} best candidates met {said(finals.budgets)} when {bases}; keeping the "
        "fastest network known, which does"
    )
    return found


def _unfinished(context: Context) -> Run | None:
    run = context.workspace.latest()
    if run is not None:
        before, now = run.read("run"), run_settings(context)
        ours, theirs = (
            {key: value for key, value in one["settings"].items() if key not in PLACE_SETTINGS}
            for one in (now, before)
        )
        require_same(ours, theirs, f"run {run.name}")
    return run
