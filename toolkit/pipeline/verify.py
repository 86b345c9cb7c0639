"""The verify stage: the exported file on its devices again; their figures are the result, no prediction."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ehdnas.core.budget import Budget
from ehdnas.core.errors import NotCompiledError, UsageError
from ehdnas.core.graph import layer_table
from ehdnas.core.layers import LayerTable
from ehdnas.core.measurement import Measurement
from ehdnas.pipeline import steady
from ehdnas.pipeline.candidates import target_of
from ehdnas.pipeline.conditions import TABLE
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.meter import Meter, find_protocol
from ehdnas.pipeline.on_device import compare_on_device
from ehdnas.pipeline.profile import open_meter
from ehdnas.pipeline.user_module import load_module
from ehdnas.profilers.base import TableProfiler
from ehdnas.profilers.board.profiler import BoardProfiler
from ehdnas.workspace import Run


def verify(context: Context, run: Run) -> dict[str, Any]:
    """Measure the run's exported file, or simulate its network, on each device, and judge it by the budgets.

    On a real device the file's outputs, too, are compared with those it gives here. A figure there that is
    far from what the search measured of the network, either way, was disturbed or the search's was: the file
    is then measured until three figures agree, whichever they are, and the middle one of these is judged.

    Raises:
        UsageError: nothing was exported that a device can run, or the run has no budget for a device.
        NotCompiledError: what was exported must still be compiled.
        ParityError: a device gives other outputs than this machine.
    """
    for one in context.each_device():
        if one.device.kind == TABLE:
            raise UsageError(
                f"device '{one.device.name}' is a table of imported figures, and measures no file; "
                "give --device of one that can be reached"
            )
    if not run.has("export"):
        raise UsageError(f"run {run.name} has no exported file; run `ehdnas export` first")
    asked = [(one, _budgets_on(run, one.device.name)) for one in context.each_device()]
    for one, _ in asked:  # before the first is measured, which takes a while
        if not one.device.simulated:
            _file_for(one, run)
    figures: list[dict[str, Any]] = []
    measurements: list[dict[str, Any]] = []
    for one, budgets in asked:
        meter = open_meter(one)
        metric = budgets[0]["metric"]
        before = _in_search(one, run, metric)
        measured = steady.measured(partial(_measure, one, run, meter), metric, before, one.reporter)
        figures += [_figure(one, budget, measured) for budget in budgets]
        measurements.append({
            "device": one.device.name,
            "measurement": measured.model_dump(),
            "on_device": None if one.device.simulated else _compare(one, run, meter),
            "layers": _layers(one, run, meter) if one.device.simulated else [],
        })  # fmt: skip
    result = {"verdict": _verdict(context, figures), "figures": figures, "measurements": measurements}
    names = {one.device.name for one, _ in asked}
    if names == {budget["device"] for budget in run.read("search")["budgets"]}:
        run.write("verify", result)  # on other devices they are figures, and not the run's verdict
    return result


def simulated_module(meter: Meter, reference: str) -> Measurement:
    """Return what a simulated device makes of the user's own network.

    Raises:
        MeasurementError: an operator is not modelled, or the network does not fit.
    """
    profiler = meter.instrument.profiler
    assert isinstance(profiler, TableProfiler)
    return profiler.simulate(layer_table(load_module(reference), meter.shape.image))


def _budgets_on(run: Run, device: str) -> list[dict[str, Any]]:
    """Return the run's budgets for a device, as the run keeps them.

    A device that was not searched for is judged by those of the device that was, if that was one alone.
    """
    budgets: list[dict[str, Any]] = run.read("search")["budgets"]
    searched = list(dict.fromkeys(budget["device"] for budget in budgets))
    if device not in searched and len(searched) > 1:
        raise UsageError(
            f"run {run.name} has no budget for device '{device}'; it was searched for {', '.join(searched)}"
        )
    return [budget for budget in budgets if budget["device"] == device or device not in searched]


def _figure(context: Context, budget: dict[str, Any], measured: Measurement) -> dict[str, Any]:
    value = measured.metric(budget["metric"])
    meets = Budget(budget["metric"], budget["bound"]).meets(value)
    device = context.device.name
    figure = {**budget, "device": device, "value": value, "basis": measured.basis, "meets": meets}
    return figure | {"flags": measured.flags}


def _verdict(context: Context, figures: list[dict[str, Any]]) -> str:
    """Return PASS only where every budget is met, and no measurement was too brief to say so."""
    measured = any(one["basis"] == "measured" for one in figures)
    if measured and not find_protocol(context.settings.protocol).usable_for_verdict:
        context.reporter.warn("verify: the quick protocol decides nothing; use --protocol standard")
        return "NO VERDICT"
    return "PASS" if all(one["meets"] for one in figures) else "FAIL"


def _compare(context: Context, run: Run, meter: Meter) -> dict[str, Any] | None:
    """Compare the file's outputs on the device with those here; None where its tool gives times alone."""
    profiler = meter.instrument.profiler
    if not isinstance(profiler, BoardProfiler) or not profiler.gives_outputs:
        return None
    return compare_on_device(context, profiler, _file_for(context, run))


def _in_search(context: Context, run: Run, metric: str) -> float | None:
    """Return what the search measured of the run's network on a real device; None where it did not."""
    for one in run.read("search").get("chosen", {}).get("figures", []):
        if (one["device"], one["metric"], one["basis"]) == (context.device.name, metric, "measured"):
            return float(one["value"])
    return None


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


def _layers(context: Context, run: Run, meter: Meter) -> list[dict[str, Any]]:
    """Return what a simulated device takes for each layer of the run's network, in their order."""
    profiler = meter.instrument.profiler
    assert isinstance(profiler, TableProfiler)
    table = _table(context, run, meter)
    explained = profiler.explain(table, explore=context.settings.codesign)
    return [
        {"name": row.name, "operator": row.operator, "latency_ms": 1e3 * row.cycles / explained.clock_hz}
        for row in explained.layers
    ]


def _table(context: Context, run: Run, meter: Meter) -> LayerTable:
    if run.module:
        return layer_table(load_module(run.module), meter.shape.image)
    return meter.instrument.costed.table(context.space.parse(run.genotype))


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
