"""What a search leaves in its run: settings, the network that was found, and what was designed for it."""

from __future__ import annotations

from typing import Any

from ehdnas.pipeline.constraints import Budgets, DeviceBudget
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.finalists import Finalist
from ehdnas.profilers.base import TableProfiler
from ehdnas.search.signs import summary, warnings_of
from ehdnas.search.spaces.base import Architecture
from ehdnas.settings import kept_by_runs
from ehdnas.workspace import Run


def run_settings(context: Context) -> dict[str, Any]:
    """Return the settings a run is made with, in the form it keeps them, and its devices."""
    devices = [one.device for one in context.each_device()]
    named = ",".join(device.name for device in devices)
    settings = {**kept_by_runs(context.settings), "device": named}
    return {"settings": settings, "devices": [device.model_dump() for device in devices]}


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
    """Return what was searched, and for what."""
    return {
        "space": context.space.name,
        "shape": str(context.shape),
        "budgets": [one.as_json() for one in budgets],
    }


def say_signs(context: Context, found: Architecture, history: list[dict[str, Any]]) -> None:
    """Show how decided the search became, and warn of what makes its network doubtful."""
    context.reporter.say(f"search: {summary(history)}")
    for warning in warnings_of(context.space, found, history):
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
