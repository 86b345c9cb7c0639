"""The search on an imported table: accuracies are queried, counted by a ledger, and nothing is trained."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch

from ehdnas.core.budget import Budget
from ehdnas.core.budgets import assign_budgets
from ehdnas.core.errors import BudgetError, UsageError
from ehdnas.core.measurement import Measurement
from ehdnas.pipeline.constraints import USUAL
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.fitting import fit, stored_predictor
from ehdnas.pipeline.meter import Records
from ehdnas.pipeline.predictors import basis_of, open_records, require_method
from ehdnas.pipeline.profile import Profile
from ehdnas.pipeline.runs import run_settings, unfinished
from ehdnas.pipeline.tables import nothing_told
from ehdnas.search.predictor.base import MIN_SAMPLES
from ehdnas.search.queried.ledger import Ledger, Seen
from ehdnas.search.queried.methods import METHODS
from ehdnas.search.queried.task import TRIES, NothingLeftError, QueriedTask, answers, rank
from ehdnas.search.spaces.base import Architecture
from ehdnas.workspace import Run

_QUERIES = 100
_AT_RANDOM = 3  # one query in so many goes to random networks first,
_MOST_AT_RANDOM = 60  # and no more than so many
_SHOWN = 6  # networks that the run tells of

Told = dict[Architecture, Measurement]


def search_table(context: Context, method: str, resume: bool = False) -> Run:
    """Search an imported table for the most accurate network within the budget; return the run that holds it.

    All latencies of the table are known, to every method, and a query is never spent on a network that breaks
    the budget; the accuracies are told one at a time, and counted.

    Raises:
        BudgetError: no network of the table meets the budget; the message names the nearest.
        UsageError: the table has no accuracies, or none of the budget's metric.
    """
    require_method(context)
    if context.settings.baseline is not None:
        raise UsageError(
            f"--baseline is measured beside, and '{context.device.name}' is a table of imported figures; "
            "give it to `ehdnas train`, which compares accuracies"
        )
    run = unfinished(context) if resume else None
    if run is not None and run.has("search"):
        context.reporter.say(f"search: run {run.name} is finished; nothing to resume")
        return run
    budget = _asked(context)
    records = open_records(context)
    told = _told(context, records, budget.metric)
    budget = _resolved(context, records, budget)
    within = _within(context, told, budget)
    predictor = stored_predictor(context, records, budget.metric) or fit(context, records, budget.metric)
    profile = Profile(budget.metric, predictor, records)
    ledger, best = _queried(context, method, profile, within, budget)
    run = run or context.workspace.new_run(_settings(context))
    with run.working():
        rows = [_row(context, profile, within[one.architecture], budget, one) for one in best]
        cells = context.space.genotype(best[0].architecture)
        found = {"queries": len(ledger.accuracies), "method": method, "cells": cells}
        run.write("search", {**found, **_record(context, profile, budget, rows)})
        run.forget("train", "export", "verify")
    return run


def _record(context: Context, profile: Profile, budget: Budget, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the run keeps of the networks found, the answer first, in the form of every search."""
    bound = {"metric": budget.metric, "bound": budget.bound, "text": str(budget)}
    return {
        "genotype": rows[0]["genotype"],
        "chosen": rows[0],
        "candidates": rows,
        "predictors": [profile.summary()],
        "history": [],
        "space": context.space.name,
        "shape": str(context.shape),
        "budgets": [{"device": context.device.name, **bound}],
    }


def _settings(context: Context) -> dict[str, Any]:
    """Return the run's settings, with the size of the table's networks: stages may be on other devices."""
    made = run_settings(context)
    size = {"channels": context.shape.channels, "cells": context.shape.cells}
    return {**made, "settings": {**made["settings"], **size}}


def _told(context: Context, records: Records, metric: str) -> Told:
    """Return what is stored of the networks whose accuracy and value of a metric are both known."""
    stored = [(one, told) for one, told in records.measured() if context.space.allows(one)]
    found = {one: told for one, told in stored if {metric, "accuracy"} <= told.metrics.keys()}
    if found:
        return found
    name, space = context.device.name, context.space.name
    if not stored:
        raise UsageError(nothing_told(name, space, context.shape, records.store.groups()))
    missing = metric if any("accuracy" in told.metrics for _, told in stored) else "accuracy"
    raise UsageError(
        f"table '{name}' has no {missing} of any network whose other figures are known, and a search there "
        f"asks for it; import it with `ehdnas measurements import FILE --device {name} --space {space} "
        f"--shape {context.shape} --column {missing}=COLUMN`"
    )


def _asked(context: Context) -> Budget:
    """Return the one budget that is asked of the table."""
    text = context.settings.budget or USUAL
    (_, budget), *more = assign_budgets(text, [context.device.name])
    if more:
        raise UsageError(f"budget '{text}': a table is searched under one budget; leave the others out")
    return budget


def _resolved(context: Context, records: Records, budget: Budget) -> Budget:
    """Return the absolute budget; a relative one needs the reference network's row."""
    if not budget.relative:
        return budget
    reference = context.space.reference
    found = records.store.find(records.key(reference))
    if found is None or budget.metric not in found.metrics:
        raise UsageError(
            f"budget '{_asked(context)}' refers to {context.space.text(reference)}, of which table "
            f"'{context.device.name}' tells nothing; give one such as 'latency <= 20 ms'"
        )
    return budget.resolve(found.metric(budget.metric))


def _within(context: Context, told: Told, budget: Budget) -> Told:
    """Return the networks that meet the budget."""
    within = {one: found for one, found in told.items() if budget.meets(found.metric(budget.metric))}
    if within:
        return within
    values = [found.metric(budget.metric) for found in told.values()]
    nearest = Budget.just_met_by(budget.metric, min(values) if budget.is_upper else max(values))
    raise BudgetError(
        f"no network of table '{context.device.name}' meets {budget}; the nearest there has {nearest}"
    )


def _queried(
    context: Context, method: str, profile: Profile, within: Told, budget: Budget
) -> tuple[Ledger, list[Seen]]:
    """Return the ledger of a search, and the best networks it was told of, the answer first."""
    asked = context.settings.queries or _QUERIES
    queries = min(asked, len(within))
    start = min(max(queries // _AT_RANDOM, MIN_SAMPLES), _MOST_AT_RANDOM)
    context.reporter.say(
        f"search: {method}, {queries} accuracies of the {len(within)} networks of table "
        f"'{context.device.name}' that meet {budget}{'; there are no more' if queries < asked else ''}"
    )
    task = QueriedTask(
        context.space, (budget,), profile.predictor, context.settings.seed, start, frozenset(within)
    )
    ledger = Ledger(_Table(within), lambda one: within[one].metric(budget.metric), queries, TRIES * queries)
    with suppress(NothingLeftError):
        METHODS[method](task, ledger)
    (answer,) = answers(task, ledger)
    others = sorted(ledger.seen, key=lambda one: rank(one, budget), reverse=True)
    return ledger, [answer.network, *(one for one in others if one != answer.network)][:_SHOWN]


class _Table:
    """Accuracies out of a table."""

    def __init__(self, told: Told) -> None:
        self._told = told

    def query(self, architecture: Architecture) -> float:
        return self._told[architecture].metric("accuracy")


def _row(context: Context, profile: Profile, told: Measurement, budget: Budget, one: Seen) -> dict[str, Any]:
    with torch.no_grad():
        predicted = float(profile.predictor(context.space.encode_all([one.architecture])))
    return {
        "genotype": context.space.text(one.architecture),
        "accuracy": one.accuracy,
        "supernet_accuracy": None,
        "figures": [{
            "device": context.device.name,
            "metric": budget.metric,
            "predicted": predicted,
            "interval_factor": None,
            "value": told.metric(budget.metric),
            "basis": basis_of(context.device),
            "meets": budget.meets(one.value),
        }],
        "meets": budget.meets(one.value),
    }  # fmt: skip
