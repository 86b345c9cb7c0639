"""The whole loop: devices, data and budgets in; a trained, exported, verified network out."""

from __future__ import annotations

from typing import Any

from ehdnas.core.errors import UsageError
from ehdnas.pipeline.beside import baseline_of, export_beside, train_beside, verify_beside
from ehdnas.pipeline.candidates import target_of
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.export import Exported, export_run, known_targets
from ehdnas.pipeline.health import require_healthy
from ehdnas.pipeline.methods import table_of
from ehdnas.pipeline.report import report
from ehdnas.pipeline.search import search
from ehdnas.pipeline.train import train
from ehdnas.pipeline.verify import verify
from ehdnas.workspace import Run


def run_all(context: Context, resume: bool = False) -> dict[str, Any]:
    """Run every stage; with `resume`, only what the last run had left to do.

    Returns:
        What the user is told: verdict, figures, accuracy, files and report.

    Raises:
        DeviceError: a device cannot be used; the message says what mends it.
        UsageError: the settings ask for a front, whose networks are trained one by one, or are
            for a table of imported figures.
    """
    if context.settings.pareto is not None:
        raise UsageError(
            "`ehdnas run` makes one network; for a front, `ehdnas search --pareto N`, then train with --run"
        )
    table = table_of(context)
    if table is not None:
        raise UsageError(
            f"device '{table.name}' is a table of imported figures, and `run` ends on one that is "
            "measured; use `ehdnas search`, then `ehdnas train --data ...` and `ehdnas export`"
        )
    targets = _targets(context)
    require_healthy(context)
    run = search(context, resume)
    trained = train(context, run, resume)
    train_beside(context, run, resume)
    if not (resume and run.has("export")):
        for undone in export_run(context, run, targets, None).not_compiled:
            context.reporter.warn(f"export: {undone}")
    result = verify(context, run)
    _judge_beside(context, run, targets, resume)
    page = report(context.workspace, run)
    return {
        "run": run.name,
        "verdict": result["verdict"],
        "figures": result["figures"],
        "genotype": run.genotype,
        "test_accuracy": trained["test_accuracy"],
        "baseline": baseline_of(run),
        "artifacts": run.read("export")["artifacts"],
        "report": str(page),
    }


def _judge_beside(context: Context, run: Run, targets: list[str], resume: bool) -> None:
    """Export and verify the baseline, if there is one: last, so that the result does not wait for it."""
    if not (resume and run.beside.has("export")):
        exported = Exported()
        export_beside(context, run, targets, None, exported)
        for undone in exported.not_compiled:
            context.reporter.warn(f"export: {undone}")
    verify_beside(context, run)


def _targets(context: Context) -> list[str]:
    """Return the targets to export, checked before hours are spent, with those the devices run."""
    targets = known_targets(context.settings.targets)
    devices = [one.device for one in context.each_device()]
    needed = dict.fromkeys(target_of(device) for device in devices if not device.simulated)
    return [*(target for target in needed if target not in targets), *targets]
