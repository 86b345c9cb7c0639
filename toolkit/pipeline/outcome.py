"""What a search leaves in its run: the network that was found, what was designed for it; and its doubts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ehdnas.pipeline.constraints import Budgets, DeviceBudget, together
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.finalists import Finalist, Judge
from ehdnas.pipeline.methods import method_of
from ehdnas.profilers.base import TableProfiler
from ehdnas.search.signs import draws, learnt, summary, warnings_of
from ehdnas.search.spaces.base import Architecture, Supernet
from ehdnas.workspace import Run

_COMPARED_ON = 250  # images, for draws that are compared by their means


def keep(context: Context, run: Run, budgets: Budgets, found: Finalist, record: dict[str, Any]) -> None:
    """Write a network that was found as the run's result, with the accelerators designed for it, if any are.

    Args:
        record: what else belongs to the result, such as the candidates.
    """
    result = {
        "genotype": context.space.text(found.architecture),
        "cells": context.space.genotype(found.architecture),
        "chosen": found.row(context),
        **about(context, budgets),
        **record,
    }
    run.write("search", result)
    run.forget("train", "export", "verify")
    if context.settings.codesign:
        _write_accelerators(run, budgets, found.architecture)


def about(context: Context, budgets: Budgets) -> dict[str, Any]:
    """Return what was searched, how, and for what."""
    return {
        "method": method_of(context),
        "space": context.space.name,
        "shape": str(context.shape),
        "budgets": [one.as_json() for one in budgets],
    }


def gains_of(
    context: Context, budgets: Budgets, logits: Tensor, supernet: Supernet, history: list[dict[str, Any]]
) -> dict[str, list[float]]:
    """Return by how much each network drawn from what was learnt is better than one drawn by chance.

    Empty where nothing was learnt to draw from.

    Args:
        budgets: those that the distribution of `logits` was learnt under.
    """
    if not learnt(history):
        return {}
    judge, constraints = Judge(context, supernet, _COMPARED_ON, "draws scored"), together(budgets)
    accuracies, excesses = [], []
    for drawn in draws(context.space, logits, context.settings.seed):
        accuracies.append(judge.accuracies(drawn))
        with torch.no_grad():
            excesses.append(torch.relu(constraints.violation(context.space.encode_all(drawn))))
    bound = budgets[0].budget.metric if len(budgets) == 1 else "what binds"
    return {
        "accuracy": [ours - theirs for ours, theirs in zip(*accuracies, strict=True)],
        f"log of {bound} under budget": (excesses[1] - excesses[0]).tolist(),
    }


def say_signs(
    context: Context, found: Architecture, history: list[dict[str, Any]], gains: dict[str, list[float]]
) -> None:
    """Show how decided the search became, and warn of what makes its network doubtful."""
    if learnt(history):
        context.reporter.say(f"search: {summary(history)}")
    for warning in warnings_of(context.space, found, gains):
        context.reporter.warn(f"search: {warning}")


def _write_accelerators(run: Run, budgets: Budgets, found: Architecture) -> None:
    """Write down the accelerator designed for a network, layer by layer; one file a device of several."""
    by_device = {one.context.device.name: one for one in budgets}
    for name, one in by_device.items():
        stage = "accelerator" if len(by_device) == 1 else f"accelerator-{name}"
        run.write(stage, _accelerator(one, found))


def _accelerator(one: DeviceBudget, found: Architecture) -> dict[str, Any]:
    instrument = one.meter.instrument
    assert isinstance(instrument.profiler, TableProfiler)
    return instrument.profiler.explain(instrument.costed.table(found), explore=True).as_json()
