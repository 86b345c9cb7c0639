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
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.events import heard
from ehdnas.pipeline.following import call
from ehdnas.pipeline.mapping import heed_mapping
from ehdnas.pipeline.meter import Meter
from ehdnas.pipeline.profile import Profile, ensure_predictor, reference_value
from ehdnas.pipeline.tasks import search_task
from ehdnas.profilers.base import TableProfiler
from ehdnas.search.loop import require_same
from ehdnas.search.objective import Constraint
from ehdnas.search.processes import current
from ehdnas.search.searcher import Searcher, SearchResult
from ehdnas.search.selection import (
    Candidate,
    candidates,
    fastest,
    fastest_starts,
    shortlist,
    supernet_accuracy,
)
from ehdnas.search.signs import draws, summary, warnings_of
from ehdnas.search.spaces.base import Architecture
from ehdnas.settings import PLACE_SETTINGS, kept_by_runs
from ehdnas.workspace import Run

_SCORED = 16  # candidates judged with the supernet's weights,
_SCORED_ON = 1000  # on this many images
_COMPARED_ON = 250  # images, for draws that are compared by their means
_MEASURED = 6  # of them, how many are measured before the search settles for less


def search(context: Context, resume: bool = False) -> Run:
    """Search for the most accurate network within the budget; return the run that holds it.

    Raises:
        BudgetError: no network of the space meets the budget; the message names the nearest.
        UsageError: resuming with other settings; the message says which differ.
    """
    budget = parse_budget(context.settings.budget)
    context.compute  # noqa: B018 - a GPU that is not there is said before anything is measured
    context.space.relaxation(context.settings.relaxation).check_shape(context.shape)
    context = heed_mapping(context)
    run = _unfinished(context) if resume else None
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
        record = _choose(context, profiled, budget, result, fallback)
        _say_signs(context, profiled, budget, result, record["genotype"])
        run.write("search", {**record, "history": result.history, **_describe(context, budget)})
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


def run_settings(context: Context) -> dict[str, Any]:
    """Return the settings a run is made with, in the form it keeps them."""
    settings = {**kept_by_runs(context.settings), "device": context.device.name}
    return {"settings": settings, "device": context.device.model_dump()}


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
    context: Context, profiled: Profile, budget: Budget, result: SearchResult, fallback: Architecture
) -> dict[str, Any]:
    """Score candidates with the supernet, likely ones and ones close to the budget; keep the best that fits.

    What fits is measured, most accurate first.
    """
    space, meter = context.space, profiled.meter
    constraint = Constraint(profiled.predictor, budget, context.settings.confidence)
    ranked = candidates(space, result.logits, constraint, context.settings.seed)
    scored = _judge(context, result, shortlist(ranked, _SCORED))
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
    context.reporter.say(f"search: {summary(result.history)}")
    space = context.space
    constraint = Constraint(profiled.predictor, budget, context.settings.confidence)
    accuracies, excesses = [], []
    for drawn in draws(space, result.logits, context.settings.seed):
        accuracies.append(_accuracies(context, result, drawn, _COMPARED_ON, "draws scored"))
        with torch.no_grad():
            excesses.append(torch.relu(constraint.violation(space.encode_all(drawn))))
    learnt, random = accuracies
    gains = {
        "accuracy": [ours - theirs for ours, theirs in zip(learnt, random, strict=True)],
        f"log of {budget.metric} under budget": (excesses[1] - excesses[0]).tolist(),
    }
    for warning in warnings_of(space, space.parse(genotype), gains):
        context.reporter.warn(f"search: {warning}")


def _judge(context: Context, result: SearchResult, judged: list[Candidate]) -> list[_Scored]:
    accuracies = _accuracies(
        context, result, [one.architecture for one in judged], _SCORED_ON, "candidates scored"
    )
    scored = [_Scored(*pair) for pair in zip(judged, accuracies, strict=True)]
    # Those predicted to fit go first; among them, the most accurate.
    return sorted(scored, key=lambda one: (max(one.candidate.violation, 0.0), -one.accuracy))


def _accuracies(
    context: Context, result: SearchResult, architectures: list[Architecture], images_used: int, doing: str
) -> list[float]:
    """Return the accuracies of architectures with the supernet's weights, on held-out images."""
    _, held_out = context.dataset.halves(context.settings.seed)
    images = torch.from_numpy(held_out.images[:images_used])
    labels = torch.from_numpy(held_out.labels[:images_used])
    accuracies = []
    for number, one in enumerate(architectures, 1):
        accuracy = supernet_accuracy(
            context.space, result.supernet, one, images, labels, context.augmentation,
            context.recipe.batch_size, context.compute,
        )  # fmt: skip
        accuracies.append(accuracy)
        context.reporter.progress(number, len(architectures), doing)
    return accuracies


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
