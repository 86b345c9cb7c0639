"""The verify stage: the exported file on the device again; its figure, not the prediction, is the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ehdnas.core.budget import Budget
from ehdnas.core.errors import UsageError
from ehdnas.core.measurement import Measurement
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.meter import TARGETS, Meter
from ehdnas.pipeline.profile import open_meter
from ehdnas.workspace import Run


def verify(context: Context, run: Run) -> dict[str, Any]:
    """Measure the run's exported file, or simulate its network, and judge it by the budget.

    Raises:
        UsageError: nothing was exported that the device can run.
    """
    if not run.has("export"):
        raise UsageError(f"run {run.name} has no exported file; run `ehdnas export` first")
    searched = run.read("search")
    budget = Budget(searched["budget"]["metric"], searched["budget"]["bound"])
    measurement = _measure(context, run, open_meter(context))
    value = measurement.metric(budget.metric)
    verdict = "PASS" if budget.meets(value) else "FAIL"
    if context.settings.protocol == "quick" and measurement.basis == "measured":
        verdict = "NO VERDICT"
        context.reporter.warn("verify: the quick protocol decides nothing; use --protocol standard")
    result = {
        "verdict": verdict,
        "basis": measurement.basis,
        "value": value,
        "budget": searched["budget"],
        "measurement": measurement.model_dump(),
    }
    run.write("verify", result)
    return result


def _measure(context: Context, run: Run, meter: Meter) -> Measurement:
    if context.device.simulated:
        return meter.measure(context.space.parse(run.genotype))
    target = TARGETS[context.device.runtime]
    files = {one["target"]: Path(one["file"]) for one in run.read("export")["artifacts"]}
    if target not in files:
        raise UsageError(
            f"device '{context.device.name}' runs {target} files; run `ehdnas export --target {target}`"
        )
    context.reporter.say(f"verify: measuring {files[target].name} on {context.device.name}")
    return meter.instrument.measure_file(files[target])
