"""The search stage: budgets in, the genotype of a network that meets them on the devices out."""

from __future__ import annotations

import math

from ehdnas.pipeline.beside import require_baseline
from ehdnas.pipeline.constraints import Budgets, device_budgets, said, together
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.feasible import require_feasible
from ehdnas.pipeline.finalists import Finalist, Finals, Judge
from ehdnas.pipeline.front import require_front_possible, search_front
from ehdnas.pipeline.landmarks import landmarks_of
from ehdnas.pipeline.mapping import heed_mapping
from ehdnas.pipeline.methods import method_of, table_of
from ehdnas.pipeline.outcome import gains_of, keep, say_signs
from ehdnas.pipeline.profile import require_usable
from ehdnas.pipeline.runs import run_settings, unfinished
from ehdnas.pipeline.scoring import score_by_method
from ehdnas.pipeline.supernet import learn, say_plan
from ehdnas.pipeline.table_search import search_table
from ehdnas.pipeline.trials import winner
from ehdnas.search.equal_cost import METHODS as BASELINES
from ehdnas.search.searcher import SearchResult
from ehdnas.search.spaces.base import Architecture
from ehdnas.workspace import Run

_FURTHER = 0.2  # of its epochs, by which a search goes on when nothing it proposed met the budget


def search(context: Context, resume: bool = False) -> Run:
    """Search for the most accurate network within the budgets; return the run that holds it.

    With the setting `pareto` the run holds a front of networks instead, each of them a run of its own.

    Raises:
        BudgetError: no network of the space meets the budgets; the message names the nearest.
        UsageError: budgets, devices and method do not go together, or resuming with other settings; the
            message says which differ.
    """
    require_front_possible(context)
    method = method_of(context)
    if table_of(context) is not None:
        return search_table(context, method, resume)
    require_baseline(context)
    context.compute  # noqa: B018 - a GPU that is not there is said before anything is measured
    context.space.relaxation(context.settings.relaxation).check_shape(context.shape)
    context = heed_mapping(context)
    run = unfinished(context) if resume else None
    if run is not None and run.has("search"):
        context.reporter.say(f"search: run {run.name} is finished; nothing to resume")
        return run
    for one in context.each_device():
        require_usable(one)
    budgets = device_budgets(context)
    context.remember()
    budgets, fallback = require_feasible(context, budgets)
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
    # Others are compared by what they find most accurate, wherever under the budget that is.
    spend = context.settings.method not in BASELINES
    finals = Finals(context, budgets, fallback, spend=spend, wanted=context.settings.finalists)
    for further in _rounds(context):
        if further:
            context.reporter.say(
                f"search: no candidate meets {said(budgets)} yet; {further} more epochs, with the predictor "
                "fitted again"
            )
        result = learn(context, run, [finals.budgets], resume, further)
        _hold(context, run, finals, result)
        history = result.history
        gains = gains_of(context, finals.budgets, result.logits, result.supernet, history)
        landmarks = landmarks_of(context, finals.budgets, result.supernet)
        del result  # and its supernet: the next one needs the memory
        if finals.best is not None:
            break
    found, trials = winner(context, run, finals.finalists or [_fall_back(context, finals)])
    say_signs(context, found.architecture, history, gains)
    record = {
        "candidates": [one.row(context) for one in finals.measured],
        "trials": trials,
        "landmarks": landmarks,
        "predictors": [one.profiled.summary() for one in finals.budgets],
        "history": history,
    }
    keep(context, run, finals.budgets, found, record)


def _rounds(context: Context) -> tuple[int, ...]:
    """Return the epochs that the search goes on for, round by round, while nothing meets the budgets."""
    if context.settings.method in BASELINES:  # with no distribution to move, more epochs propose nothing else
        return (0,)
    return (0, math.ceil(_FURTHER * context.recipe.search_epochs))


def _hold(context: Context, run: Run, finals: Finals, result: SearchResult) -> None:
    """Measure the most promising of what the method proposes with the shared weights."""
    if context.settings.method in BASELINES:
        finals.hold_scored(score_by_method(context, run, result.supernet, together(finals.budgets)))
    else:
        finals.hold(result.logits, Judge(context, result.supernet))


def _fall_back(context: Context, finals: Finals) -> Finalist:
    count = len(finals.measured)
    found = finals.keep(finals.fallback)
    bases = " and ".join(dict.fromkeys(one["basis"] for one in found.figures))
    context.reporter.warn(
        f"search: none of the {count} best candidates met {said(finals.budgets)} when {bases}; keeping the "
        "fastest network known, which does"
    )
    return found
