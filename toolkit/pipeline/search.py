"""The search stage: a budget in, the genotype of a network that meets it on the device out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ehdnas.core.budget import Budget, parse_budget
from ehdnas.core.errors import BudgetError
from ehdnas.core.text import duration
from ehdnas.pipeline.beside import require_baseline
from ehdnas.pipeline.conditions import TABLE
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.events import heard
from ehdnas.pipeline.following import call
from ehdnas.pipeline.mapping import heed_mapping
from ehdnas.pipeline.meter import Meter
from ehdnas.pipeline.methods import method_of
from ehdnas.pipeline.profile import Profile, ensure_predictor, reference_value
from ehdnas.pipeline.runs import run_settings, unfinished
from ehdnas.pipeline.scoring import SCORED, SCORED_ON, score_by_method, shared_accuracy
from ehdnas.pipeline.table_search import search_table
from ehdnas.pipeline.tasks import search_task
from ehdnas.pipeline.worth import warn_of_few_images
from ehdnas.profilers.base import TableProfiler
from ehdnas.search.equal_cost import METHODS as BASELINES
from ehdnas.search.objective import Constraint
from ehdnas.search.processes import current
from ehdnas.search.searcher import Searcher, SearchResult
from ehdnas.search.selection import (
    Candidate,
    candidates,
    fastest,
    fastest_starts,
    shortlist,
)
from ehdnas.search.signs import draws, learnt, summary, warnings_of
from ehdnas.search.spaces.base import Architecture
from ehdnas.workspace import Run

_COMPARED_ON = 250  # images, for draws that are compared by their means
_MEASURED = 6  # candidates, of those judged, that are measured before the search settles for less


def search(context: Context, resume: bool = False) -> Run:
    """Search for the most accurate network within the budget; return the run that holds it.

    Raises:
        BudgetError: no network of the space meets the budget; the message names the nearest.
        UsageError: resuming with other settings; the message says which differ.
    """
    method = method_of(context)
    if context.device.kind == TABLE:
        return search_table(context, method, resume)
    budget = parse_budget(context.settings.budget)
    require_baseline(context)
    context.compute  # noqa: B018 - a GPU that is not there is said before anything is measured
    context.space.relaxation(context.settings.relaxation).check_shape(context.shape)
    context = heed_mapping(context)
    run = unfinished(context) if resume else None
    if run is not None and run.has("search"):
        context.reporter.say(f"search: run {run.name} is finished; nothing to resume")
        return run
    profiled = ensure_predictor(context, budget.metric)
    budget = budget.resolve(reference_value(context, profiled.meter, budget))
    fallback = _require_feasible(context, profiled, budget)
    run = run or context.workspace.new_run(run_settings(context))
    _say_plan(context, budget)
    with run.working():
        result = _run_search(context, run, profiled, budget, resume)
        record = _choose(context, run, profiled, budget, result, fallback)
        _say_signs(context, profiled, budget, result, record["genotype"])
        described = {"method": method, **_describe(context, budget)}
        run.write("search", {**record, "history": result.history, **described})
        run.forget("train", "export", "verify")
        if context.settings.codesign:
            _write_accelerator(context, run, profiled.meter)
    return run


def _write_accelerator(context: Context, run: Run, meter: Meter) -> None:
    """Write down the accelerator designed for the network that was found, layer by layer."""
    instrument = meter.instrument
    assert isinstance(instrument.profiler, TableProfiler)
    table = instrument.costed.table(context.space.parse(run.genotype))
    run.write("accelerator", instrument.profiler.explain(table, explore=True).as_json())


def _require_feasible(context: Context, profiled: Profile, budget: Budget) -> Architecture:
    """Return a network measured to meet the budget, found by going straight for the fastest there is."""
    space, meter = context.space, profiled.meter
    known = {
        one: measurement.metric(budget.metric) for one, measurement in meter.measured() if space.allows(one)
    }
    sign = 1 if budget.is_upper else -1
    if not known:  # all that was measured has a choice that is now left out
        first = space.sample(np.random.default_rng(context.settings.seed))
        known[first] = meter.measure(first).metric(budget.metric)
    best = min(known, key=lambda one: sign * known[one])
    if not budget.meets(known[best]):
        starts = [best, *filter(space.allows, fastest_starts(space, context.settings.seed))]
        found = fastest(space, _score(context, profiled, budget), starts)
        measurement = meter.measure_if_fits(found)
        if measurement is not None:
            known[found] = measurement.metric(budget.metric)
        best = min(known, key=lambda one: sign * known[one])
    if not budget.meets(known[best]):
        nearest = Budget.just_met_by(budget.metric, known[best])
        raise BudgetError(
            f"found no network of '{space.name}' at {context.shape} that meets {budget} on "
            f"{context.device.name}; the nearest found has {nearest} (genotype {space.text(best)}): ask for "
            "that, or use fewer channels or cells"
        )
    return best


def _score(context: Context, profiled: Profile, budget: Budget) -> Callable[[list[Architecture]], Tensor]:
    """Return what gives networks' scores, the lower the better: simulated, or else predicted."""
    sign, space, instrument = (1 if budget.is_upper else -1), context.space, profiled.meter.instrument

    def predicted(networks: list[Architecture]) -> Tensor:
        with torch.no_grad():
            return sign * profiled.predictor.log_value(space.encode_all(networks))

    def simulated(networks: list[Architecture]) -> Tensor:
        taken = instrument.take_many(networks)
        values = [float("inf") if one is None else sign * one.metric(budget.metric) for one in taken]
        return torch.tensor(values, dtype=torch.float64)

    return simulated if context.device.simulated else predicted


def _say_plan(context: Context, budget: Budget) -> None:
    context.say_data()
    warn_of_few_images(context)
    recipe, reporter = context.recipe, context.reporter
    steps = max(1, len(context.dataset.train) // 2 // recipe.batch_size)
    seconds = _step_seconds(context) * steps * recipe.search_epochs
    reporter.say(
        f"search: {recipe.search_epochs} epochs of {steps} steps over '{context.space.name}' "
        f"({context.shape}) for {budget} on {context.device.name}; about {duration(seconds)} "
        f"on {context.computing}"
    )


def _step_seconds(context: Context) -> float:
    """Return how long one step takes here, from the quickest of a few passes of the reference network."""
    compute = context.compute
    with torch.random.fork_rng():
        network = compute.place(context.space.network(context.space.reference, context.shape))
        size = min(context.recipe.batch_size, len(context.dataset.train)) // context.recipe.micro_batches
        images = torch.randn(max(size, 1), *context.shape.image)
        images = compute.batch(images)
        passes = []
        for _ in range(3):
            start = time.perf_counter()
            with compute.autocast():
                out = network(images)
            out.sum().backward()
            compute.synchronise()
            passes.append(time.perf_counter() - start)
    parts = context.recipe.micro_batches / current().count
    # A weight step, and an architecture step that computes no weight gradients.
    return 1.7 * parts * min(passes)


def _run_search(context: Context, run: Run, profiled: Profile, budget: Budget, resume: bool) -> SearchResult:
    constraint = Constraint(profiled.predictor, budget, context.settings.confidence)
    identity = context.identity(budget=str(budget), device=context.device.name)
    searcher = Searcher(search_task(context, constraint, identity), run.checkpoint("search"))
    call(context, "search", resume)
    if resume:
        context.say_resumed("search", searcher.resume(), searcher.loop)
    return searcher.run(context.reporter.progress, heard(context, run, "search", searcher.loop))


@dataclass(frozen=True)
class _Scored:
    candidate: Candidate
    accuracy: float


def _choose(
    context: Context,
    run: Run,
    profiled: Profile,
    budget: Budget,
    result: SearchResult,
    fallback: Architecture,
) -> dict[str, Any]:
    """Score candidates with the supernet, likely ones and ones close to the budget; keep the best that fits.

    What fits is measured, most accurate first.
    """
    space, meter = context.space, profiled.meter
    constraint = Constraint(profiled.predictor, budget, context.settings.confidence)
    scored = _scored(context, run, result, constraint)
    measured: list[dict[str, Any]] = []
    chosen = None
    for one in scored[:_MEASURED]:
        if meter.measure_if_fits(one.candidate.architecture) is None:
            continue
        measured.append(_row(context, meter, profiled, budget, one.candidate.architecture, one.accuracy))
        if measured[-1]["meets"]:
            chosen = one.candidate.architecture
            break
    if chosen is None:
        chosen = fallback
        measured.append(_row(context, meter, profiled, budget, fallback, None))
        context.reporter.warn(
            f"search: none of the {min(_MEASURED, len(scored))} best candidates met {budget} when "
            f"{measured[-1]['basis']}; keeping the fastest network known, which does"
        )
    return {
        "genotype": space.text(chosen),
        "cells": space.genotype(chosen),
        "chosen": measured[-1],
        "candidates": measured,
        "predictor": profiled.summary(),
    }


def _say_signs(
    context: Context, profiled: Profile, budget: Budget, result: SearchResult, genotype: str
) -> None:
    """Show how decided the search became, and warn of what makes its network doubtful."""
    space, gains = context.space, {}
    if learnt(result.history):
        context.reporter.say(f"search: {summary(result.history)}")
        constraint = Constraint(profiled.predictor, budget, context.settings.confidence)
        gains = _gains(context, result, constraint)
    for warning in warnings_of(space, space.parse(genotype), gains):
        context.reporter.warn(f"search: {warning}")


def _gains(context: Context, result: SearchResult, constraint: Constraint) -> dict[str, list[float]]:
    """Return by how much each network drawn from what was learnt is better than one drawn by chance."""
    accuracies, excesses = [], []
    for drawn in draws(context.space, result.logits, context.settings.seed):
        accuracies.append(_accuracies(context, result, drawn, _COMPARED_ON, "draws scored"))
        with torch.no_grad():
            excesses.append(torch.relu(constraint.violation(context.space.encode_all(drawn))))
    return {
        "accuracy": [ours - theirs for ours, theirs in zip(*accuracies, strict=True)],
        f"log of {constraint.budget.metric} under budget": (excesses[1] - excesses[0]).tolist(),
    }


def _scored(context: Context, run: Run, result: SearchResult, constraint: Constraint) -> list[_Scored]:
    if context.settings.method in BASELINES:
        scored = [_Scored(*pair) for pair in score_by_method(context, run, result, constraint)]
    else:
        ranked = candidates(context.space, result.logits, constraint, context.settings.seed)
        scored = _judge(context, result, shortlist(ranked, SCORED))
    # Those predicted to fit go first; among them, the most accurate.
    return sorted(scored, key=lambda one: (max(one.candidate.violation, 0.0), -one.accuracy))


def _judge(context: Context, result: SearchResult, judged: list[Candidate]) -> list[_Scored]:
    architectures = [one.architecture for one in judged]
    accuracies = _accuracies(context, result, architectures, SCORED_ON, "candidates scored")
    return [_Scored(*pair) for pair in zip(judged, accuracies, strict=True)]


def _accuracies(
    context: Context, result: SearchResult, architectures: list[Architecture], images: int, doing: str
) -> list[float]:
    """Return the accuracies of architectures with the supernet's weights, on held-out images."""
    accuracy, found = shared_accuracy(context, result, images), []
    for number, one in enumerate(architectures, 1):
        found.append(accuracy(one))
        context.reporter.progress(number, len(architectures), doing)
    return found


def _row(
    context: Context, meter: Meter, profiled: Profile, budget: Budget, architecture: Architecture,
    accuracy: float | None,
) -> dict[str, Any]:  # fmt: skip
    gates = context.space.encode_all([architecture])
    with torch.no_grad():
        predicted = float(profiled.predictor(gates))
    measurement = meter.measure(architecture)
    value = measurement.metric(budget.metric)
    return {
        "genotype": context.space.text(architecture),
        "supernet_accuracy": accuracy,
        "predicted": predicted,
        "interval_factor": _finite(profiled.predictor.margin(context.settings.confidence)),
        "value": value,
        "basis": measurement.basis,
        "meets": budget.meets(value),
    }


def _finite(margin: float) -> float | None:
    return float(torch.tensor(margin).exp()) if margin < float("inf") else None


def _describe(context: Context, budget: Budget) -> dict[str, Any]:
    return {
        "space": context.space.name,
        "shape": str(context.shape),
        "device": context.device.name,
        "budget": {"metric": budget.metric, "bound": budget.bound, "text": str(budget)},
    }
