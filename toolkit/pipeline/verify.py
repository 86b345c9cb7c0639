"""The verify stage: the exported file on the device again; its figure, not the prediction, is the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ehdnas.core.budget import Budget
from ehdnas.core.errors import NotCompiledError, UsageError
from ehdnas.core.graph import layer_table
from ehdnas.core.measurement import Measurement
from ehdnas.pipeline.candidates import target_of
from ehdnas.pipeline.conditions import TABLE
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.meter import Meter
from ehdnas.pipeline.on_device import compare_on_device
from ehdnas.pipeline.profile import open_meter
from ehdnas.pipeline.user_module import load_module
from ehdnas.profilers.base import TableProfiler
from ehdnas.profilers.board.profiler import BoardProfiler
from ehdnas.workspace import Run


def verify(context: Context, run: Run) -> dict[str, Any]:
    """Measure the run's exported file, or simulate its network, and judge it by the budget.

    On a real device the file's outputs, too, are compared with those it gives here.

    Raises:
        UsageError: nothing was exported that the device can run.
        NotCompiledError: what was exported must still be compiled.
        ParityError: the device gives other outputs than this machine.
    """
    if context.device.kind == TABLE:
        raise UsageError(
            f"device '{context.device.name}' is a table of imported figures, and measures no file; "
            "give --device of one that can be reached"
        )
    if not run.has("export"):
        raise UsageError(f"run {run.name} has no exported file; run `ehdnas export` first")
    searched = run.read("search")
    budget = Budget(searched["budget"]["metric"], searched["budget"]["bound"])
    meter = open_meter(context)
    measurement = _measure(context, run, meter)
    value = measurement.metric(budget.metric)
    verdict = "PASS" if budget.meets(value) else "FAIL"
    if measurement.basis == "measured" and not meter.instrument.protocol.usable_for_verdict:
        verdict = "NO VERDICT"
        context.reporter.warn("verify: the quick protocol decides nothing; use --protocol standard")
    result = {
        "verdict": verdict,
        "basis": measurement.basis,
        "value": value,
        "budget": searched["budget"],
        "measurement": measurement.model_dump(),
        "on_device": None if context.device.simulated else _compare(context, run, meter),
    }
    if context.device.name == searched["device"]:
        run.write("verify", result)  # on another device it is a figure, and not the run's verdict
    return result


def simulated_module(meter: Meter, reference: str) -> Measurement:
    """Return what a simulated device makes of the user's own network.

    Raises:
        MeasurementError: an operator is not modelled, or the network does not fit.
    """
    profiler = meter.instrument.profiler
    assert isinstance(profiler, TableProfiler)
    return profiler.simulate(layer_table(load_module(reference), meter.shape.image))


def _compare(context: Context, run: Run, meter: Meter) -> dict[str, Any] | None:
    """Compare the file's outputs on the device with those here; None where its tool gives times alone."""
    profiler = meter.instrument.profiler
    if not isinstance(profiler, BoardProfiler) or not profiler.gives_outputs:
        return None
    return compare_on_device(context, profiler, _file_for(context, run))


def _measure(context: Context, run: Run, meter: Meter) -> Measurement:
    if context.device.simulated:
        return (
            simulated_module(meter, run.module)
            if run.module
            else meter.measure(context.space.parse(run.genotype))
        )
    path = _file_for(context, run)
    board = meter.instrument.boards[0].name
    context.reporter.say(f"verify: measuring {path.name} on {board}")
    return meter.instrument.measure_file(path)


def _file_for(context: Context, run: Run) -> Path:
    """Return the exported file that the device runs; for an Edge TPU, what the compiler made."""
    target, name = target_of(context.device), context.device.name
    records = [one for one in run.read("export")["artifacts"] if one["target"] == target]
    if not records:
        raise UsageError(f"device '{name}' runs {target} files; run `ehdnas export --target {target}`")
    compiled = [one for one in records if "compiled_from" in one["details"]]
    if target != "edgetpu":
        # TensorRT's own timer builds the engine from the ONNX file, on the board.
        return Path(next(one for one in records if one not in compiled)["file"])
    if not compiled:
        raise NotCompiledError(
            f"{records[-1]['file']} is not compiled, and '{name}' would run it on its CPU; compile it with "
            "`ehdnas compile`, or give `ehdnas export` a --compiler"
        )
    return Path(compiled[-1]["file"])
