"""The whole loop: device, data and budget in; a trained, exported, verified network out."""

from __future__ import annotations

from typing import Any

from ehdnas.pipeline.candidates import target_of
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.export import export_run, known_targets
from ehdnas.pipeline.report import report
from ehdnas.pipeline.search import search
from ehdnas.pipeline.train import train
from ehdnas.pipeline.verify import verify


def run_all(context: Context, resume: bool = False) -> dict[str, Any]:
    """Run every stage; with `resume`, only what the last run had left to do.

    Returns:
        What the user is told: verdict, value, accuracy, files and report.
    """
    targets = _targets(context)
    run = search(context, resume)
    trained = train(context, run, resume)
    if not (resume and run.has("export")):
        for undone in export_run(context, run, targets, None).not_compiled:
            context.reporter.warn(f"export: {undone}")
    result = verify(context, run)
    page = report(context.workspace, run)
    return {
        "run": run.name,
        "verdict": result["verdict"],
        "basis": result["basis"],
        "budget": result["budget"]["text"],
        "value": result["value"],
        "metric": result["budget"]["metric"],
        "device": context.device.name,
        "genotype": run.genotype,
        "test_accuracy": trained["test_accuracy"],
        "artifacts": run.read("export")["artifacts"],
        "report": str(page),
    }


def _targets(context: Context) -> list[str]:
    """Return the targets to export, checked before hours are spent, with the one the device runs."""
    targets = known_targets(context.settings.targets)
    if context.device.simulated:
        return targets
    needed = target_of(context.device)
    return targets if needed in targets else [needed, *targets]
