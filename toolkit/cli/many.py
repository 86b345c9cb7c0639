"""What takes many workers: `ehdnas sweep`, many searches, and `ehdnas label`, networks by the million."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from ehdnas.cli import options as o
from ehdnas.cli.output import emit_json, emit_pairs, emit_table
from ehdnas.core.errors import EhdnasError, UsageError

_MOST_SEEDS = 10_000


def sweep(
    budgets: Annotated[str | None, typer.Option(help="Budgets, a search for each; between them ';'.")] = None,
    devices: Annotated[str | None, typer.Option(help="Devices, comma-separated, a search for each.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds: 0,1,2 or 0-2.")] = "0",
    spaces: Annotated[str | None, typer.Option(help="Search spaces, comma-separated.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Searches at once on this machine; as many as cores by default.")
    ] = None,
    address: o.Address = None,
    cpus: Annotated[float, typer.Option(min=0.1, help="Cores that a search takes.")] = 1.0,
    gpus: Annotated[float, typer.Option(min=0.0, help="GPUs that a search takes; 0.25 shares one.")] = 0.0,
    data: o.Data = None, channels: o.Channels = None, cells: o.Cells = None, image_size: o.ImageSize = None,
    method: o.Method = None, confidence: o.Confidence = None, samples: o.Samples = None,
    search_epochs: o.SearchEpochs = None, finalists: o.Finalists = None, trial_epochs: o.TrialEpochs = None,
    batch_size: o.BatchSize = None, learning_rate: o.LearningRate = None, exclude: o.Exclude = None,
    compute: o.Compute = None, precision: o.Precision = None,
    resume: o.Resume = False, json: o.Json = False,
) -> int:  # fmt: skip
    """Search for every budget, device, seed and space; what is found are runs to go on with."""
    given = {
        "data": data, "channels": channels, "cells": cells, "image_size": image_size, "method": method,
        "confidence": confidence, "samples": samples, "search_epochs": search_epochs,
        "finalists": finalists, "trial_epochs": trial_epochs, "batch_size": batch_size,
        "learning_rate": learning_rate, "exclude": exclude, "compute": compute, "precision": precision,
    }  # fmt: skip
    context = o.make_context(given, goes_on=True)
    from ehdnas.pipeline.cluster import Share
    from ehdnas.pipeline.constraints import USUAL
    from ehdnas.pipeline.sweep import Axes
    from ehdnas.pipeline.sweep import sweep as stage

    axes = Axes(
        _listed(budgets or context.settings.budget or USUAL, ";"),
        # Only then: of several that were profiled here, none is the usual one.
        _listed(devices or context.device.name, ","),
        _numbers(seeds),
        _listed(spaces or context.settings.space, ","),
    )
    place, rows = stage(context, axes, Share(cpus, gpus), workers, address, resume)
    if json:
        emit_json("sweep", {"sweep": place.name, "searches": rows})
    else:
        emit_table(["space", "device", "budget", "seed", "figure", "accuracy", "run"], list(map(_row, rows)))
        emit_pairs({"sweep": place.name, "next": "ehdnas train --run RUN"})
    return EhdnasError.exit_code if any(row["status"] == "failed" for row in rows) else 0


def label(
    count: Annotated[int, typer.Option(min=1, max=10**9, help="Networks to label.")],
    out: Annotated[Path, typer.Option(help="Folder to write to; what is there already is kept.")],
    device: o.DeviceName = None, space: o.Space = None, data: o.Data = None, channels: o.Channels = None,
    cells: o.Cells = None, image_size: o.ImageSize = None, exclude: o.Exclude = None, seed: o.Seed = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes on this machine, by Ray; 1 by default.")
    ] = None,
    address: o.Address = None,
    json: o.Json = False,
) -> None:  # fmt: skip
    """Simulate random networks by the million on an accelerator, in files that can be added to."""
    context = o.make_context({
        "device": device, "space": space, "data": data, "channels": channels, "cells": cells,
        "image_size": image_size, "exclude": exclude, "seed": seed,
    })  # fmt: skip
    from ehdnas.pipeline.labels import label as stage

    result = stage(context, count, out, workers, address)
    if json:
        emit_json("label", result)
        return
    rate = f", {result['per_second']:,} a second" if result["per_second"] else ""
    emit_pairs({
        "device": f"{result['device']} (simulated)",
        "networks": f"{result['networks']:,}",
        "labelled now": f"{result['labelled_now']:,}{rate}",
        "folder": result["folder"],
    })  # fmt: skip


def _row(row: dict[str, Any]) -> list[str]:
    asked = [row["space"], row["device"], row["budget"], str(row["seed"])]
    if row["status"] != "found":
        return [*asked, f"{row['status']}: {row['why']}", "", ""]
    figures = ", ".join(f"{one['value']:.4g} {one['basis']}" for one in row["figures"])
    accuracy = "" if row["accuracy"] is None else f"{row['accuracy']:.2%}"
    return [*asked, figures, accuracy, row["run"]]


def _listed(text: str, between: str) -> tuple[str, ...]:
    """Return the distinct words of a list."""
    words = [word.strip() for word in text.split(between)]
    return tuple(dict.fromkeys(word for word in words if word))


def _numbers(text: str) -> tuple[int, ...]:
    """Return the seeds of `0,3` and `0-3`."""
    found: list[int] = []
    for word in (word.strip() for word in text.split(",")):
        span = re.fullmatch(r"(\d{1,18})(?:-(\d{1,18}))?", word)
        if span is None:
            raise UsageError(f"--seeds {text[:40]}: '{word[:20]}' is no seed; give 0,1,2 or 0-2")
        first, last = int(span[1]), int(span[2] or span[1])
        if not first <= last < first + _MOST_SEEDS:
            raise UsageError(f"--seeds {text[:40]}: from {first} to {last}; give at most {_MOST_SEEDS:,}")
        found += range(first, last + 1)
    return tuple(dict.fromkeys(found))
