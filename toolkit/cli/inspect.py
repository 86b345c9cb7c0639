"""The commands that answer one question: measure, simulate, predict, config."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ehdnas.cli import options as o
from ehdnas.cli.output import emit_json, emit_pairs, emit_table

if TYPE_CHECKING:
    from ehdnas.core.measurement import Measurement, Statistics
    from ehdnas.pipeline.simulate import Simulated

Genotype = Annotated[
    str,
    typer.Argument(
        help="A genotype: a published name, any text form of the space, or a file that holds one."
    ),
]
Input = Annotated[str, typer.Option("--input", help="CxHxW that a module is fed.")]


def measure(
    file: Annotated[Path, typer.Argument(help="A .tflite or .onnx file.")],
    device: o.DeviceName = None, protocol: o.Protocol = None,
    sustained: Annotated[
        float | None, typer.Option(min=0.5, max=600, help="Run on for so many minutes, and say how it holds.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Measure it even if it has been before.")] = False,
    json: o.Json = False,
) -> None:  # fmt: skip
    """Time an existing .tflite or .onnx file on a device."""
    from ehdnas.pipeline.measure import measure_file

    usual = "local-onnx" if file.suffix == ".onnx" else "local"
    context = o.make_context({"device": device or usual, "protocol": protocol})
    measurement = measure_file(context, file, sustained, again)
    if json:
        # Hundreds of thousands of samples are for `ehdnas measurements export`.
        emit_json("measure", {"file": str(file), **measurement.model_dump(exclude={"samples_ms"})})
        return
    emit_pairs(_measured_lines(measurement))


def _measured_lines(measurement: Measurement) -> dict[str, str]:
    """What was measured, first run and steady state apart, and how."""
    statistics, passport = measurement.statistics, measurement.passport
    recorded = passport.get("protocol")
    protocol = recorded.get("name", "?") if isinstance(recorded, dict) else "not recorded"
    return {
        "device": f"{passport.get('board', measurement.device)} ({measurement.basis})",
        "latency": _latency(measurement),
        "spread": "not recorded" if statistics is None else _spread(statistics),
        **{name: text.format(measurement.metrics[key])
           for name, (key, text) in _METRICS.items() if key in measurement.metrics},
        "runtime": f"{passport.get('interpreter', 'not recorded')}, {passport.get('threads', '?')} threads",
        "flags": ", ".join(measurement.flags) or "none",
        "protocol": f"{protocol}{'' if protocol == 'standard' else '; decides nothing'}",
    }  # fmt: skip


_METRICS = {
    "load": ("load_ms", "{:.4g} ms"),
    "first run": ("first_run_ms", "{:.4g} ms"),
    "of it on the GPU": ("gpu_latency_ms", "{:.4g} ms"),
    "sustained": ("sustained_ms", "{:.4g} ms at the end"),
    "peak memory": ("peak_memory_mb", "{:.4g} MB"),
    "energy": ("energy_mj", "{:.4g} mJ an image"),
}


def _latency(measurement: Measurement) -> str:
    statistics, latency_ms = measurement.statistics, measurement.metric("latency_ms")
    p90 = "" if statistics is None else f", {statistics.p90_ms:.4g} ms p90"
    return f"{latency_ms:.4g} ms median{p90}, batch of 1"


def _spread(statistics: Statistics) -> str:
    if statistics.processes == 1:
        return f"not known: one process, {statistics.runs} runs"
    return f"{statistics.spread:.1%} over {statistics.processes} processes, {statistics.runs} runs"


def simulate(
    model: Annotated[
        str, typer.Argument(help="A genotype, an .onnx file, or MODULE:FUNCTION that gives an nn.Module.")
    ],
    device: o.DeviceName = None, space: o.Space = None, channels: o.Channels = None, cells: o.Cells = None,
    image_size: o.ImageSize = None,
    input_: Input = "3x224x224",
    explore: Annotated[
        bool, typer.Option("--explore", help="Design the fastest accelerator for it on the device's board.")
    ] = False,
    out: o.Out = None, json: o.Json = False,
) -> None:  # fmt: skip
    """Simulate a network on an accelerator that is only described; a genotype by default at C=16, 8 cells."""
    flags = {"space": space, "channels": channels, "cells": cells, "image_size": image_size}
    context = o.make_context(flags)
    from ehdnas.pipeline.simulate import model_inputs, simulate, write_simulation

    found = simulate(model, device or "ehdnas-generic", model_inputs(context, input_), explore)
    folder = write_simulation(found, out or context.workspace.folder / "simulations")
    if json:
        emit_json("simulate", {**found.as_json(), "folder": str(folder)})
        return
    emit_table(
        ["layer", "operator", "output", "MACs", "cycles", "share", "bound", "design"], _layer_rows(found)
    )
    emit_pairs(_simulation_lines(found, folder))


def calibrate(
    file: Annotated[Path, typer.Argument(help="CSV with the columns model and latency_ms.")],
    device: Annotated[str, typer.Option(help="Simulated device of paradigm generic, mode realistic.")],
    fit: Annotated[str, typer.Option(help="Terms to fit, comma-separated.")] = (
        "layer_overhead_us,ddr_efficiency"
    ),
    space: o.Space = None, channels: o.Channels = None, cells: o.Cells = None, image_size: o.ImageSize = None,
    input_: Input = "3x224x224",
    save: Annotated[bool, typer.Option("--save", help="Keep the fitted terms as the device's own.")] = False,
    json: o.Json = False,
) -> None:  # fmt: skip
    """Fit a simulated device to latencies measured on the real one; models as `simulate` takes them."""
    flags = {"space": space, "channels": channels, "cells": cells, "image_size": image_size}
    context = o.make_context(flags)
    from ehdnas.pipeline.calibrate import calibrate_device
    from ehdnas.pipeline.simulate import model_inputs

    terms = [term.strip() for term in fit.split(",") if term.strip()]
    result = calibrate_device(device, file, terms, model_inputs(context, input_), save)
    if json:
        emit_json("calibrate", result)
        return
    rows = [
        [
            row["model"],
            f"{row['latency_ms']:.4g}",
            f"{row['latency_ms'] * (1 + row['error']):.4g}",
            f"{row['error']:+.1%}",
        ]
        for row in result["rows"]
    ]
    emit_table(["model", "measured ms", "fitted ms", "error"], rows)
    loose = result["undetermined"]
    emit_pairs({
        "device": f"{device} (simulated)",
        **{term: f"{value:.4g}{' (not settled by these rows)' if term in loose else ''}"
           for term, value in result["terms"].items()},
        "saved": f"yes; undo with `{_undo(device, result['before'])}`" if save else "no; --save does",
    })  # fmt: skip


def _undo(device: str, before: dict[str, float]) -> str:
    """Return the command that gives a device its terms back, and takes nothing else of it away."""
    return f"ehdnas devices set {device} " + " ".join(
        f"options.{key}={value!r}" for key, value in before.items()
    )


def _layer_rows(found: Simulated) -> list[list[str]]:
    layers = [row for row in found.simulation.layers if row.cycles]
    total = sum(row.cycles for row in layers)
    return [
        [
            row.name,
            row.operator,
            "x".join(map(str, row.output)),
            f"{row.macs:,}",
            f"{row.cycles:,.0f}",
            f"{row.cycles / total:.1%}",
            row.bound,
            ", ".join(f"{key} {value}" for key, value in row.design.items()),
        ]
        for row in layers
    ]


def _simulation_lines(found: Simulated, folder: Path) -> dict[str, str]:
    simulation = found.simulation
    from ehdnas.profilers.e2e_perf.simulation import ENERGY_SOURCE

    lines = {
        "device": f"{found.device} (simulated{', explored' if found.explored else ''})",
        "network": found.network,
        "latency": f"{simulation.latency_s * 1e3:.4g} ms by the formulas",
        "throughput": f"{found.throughput_fps:,.1f} fps",
        "bottleneck": simulation.bottleneck,
        "bandwidth": f"{simulation.dram_gbps:.3g} GB/s of external memory in use",
        "energy": f"{simulation.energy_45nm_mj:.3g} mJ an image: {ENERGY_SOURCE}",
    }
    if simulation.replicas > 1:
        lines["copies"] = f"{simulation.replicas}, side by side"
    if found.explored:
        design = {
            key: value for key, value in simulation.design.items() if not isinstance(value, dict | list)
        }
        lines["design"] = ", ".join(f"{key} {value}" for key, value in design.items())
    if found.published_fps is not None:
        lines["throughput"] += f" as published; {simulation.throughput_fps:,.1f} fps by the formulas"
    if simulation.resources is not None:
        used = simulation.resources
        lines["resources"] = f"{used.dsp:,} DSP, {used.bram18:,} BRAM18"
        lines["resources"] += "" if used.lut is None else f", about {used.lut:,} LUT"
    return {**lines, "files": str(folder)}


def predict(
    genotype: Genotype,
    device: Annotated[
        str | None, typer.Option(help="Device, as `ehdnas devices` lists it; or several, comma-separated.")
    ] = None,
    metric: Annotated[
        str, typer.Option(help="What is predicted, by name and unit; or several, comma-separated.")
    ] = "latency_ms",
    data: o.Data = None, space: o.Space = None, channels: o.Channels = None, cells: o.Cells = None,
    image_size: o.ImageSize = None, confidence: o.Confidence = None, protocol: o.Protocol = None,
    predictor: o.Predictor = None, json: o.Json = False,
) -> None:  # fmt: skip
    """Predict what a network does on profiled devices, with intervals, without running it there."""
    context = o.make_context({
        "device": device, "data": data, "space": space, "channels": channels, "cells": cells,
        "image_size": image_size, "confidence": confidence, "protocol": protocol, "predictor": predictor,
    }, goes_on=True)  # fmt: skip
    from ehdnas.pipeline.predict import predict_genotype

    found = predict_genotype(context, genotype, metric)
    if json:
        emit_json("predict", found[0] if len(found) == 1 else {"predictions": found})
    elif len(found) == 1:
        emit_pairs(_predicted_lines(found[0]))
    else:
        _show_predictions(found)


def _predicted_lines(one: dict[str, Any]) -> dict[str, str]:
    from ehdnas.report.wording import quantity

    name, unit = quantity(one["metric"])
    held = one["held_out"]
    return {
        "device": f"{one['device']} (fitted to {one['basis']} figures)",
        "network": one["shape"],
        name: f"{one['value']:.4g} {unit}".rstrip() + " predicted",
        "interval": _interval(one, f" {unit}".rstrip()),
        "held out": "not known" if held is None else
        f"{held['within10']:.1%} of {held['samples']} networks within 10 %, mean error {held['mape']:.1%}",
        "predictor": one["method"],
    }  # fmt: skip


def _interval(one: dict[str, Any], unit: str) -> str:
    if one["upper"] is None:
        number = "so few" if one["held_out"] is None else str(one["held_out"]["samples"])
        return f"none: {number} held-out networks cannot promise one at {100 * one['confidence']:g} %"
    return f"{one['lower']:.4g} to {one['upper']:.4g}{unit} at {100 * one['confidence']:g} %"


def _show_predictions(found: list[dict[str, Any]]) -> None:
    """Show a table a metric, a line a device; why there is no interval is said where one alone is asked."""
    from ehdnas.report.wording import quantity

    interval = f"at {100 * found[0]['confidence']:g} %"
    for metric in dict.fromkeys(one["metric"] for one in found):
        rows = [_predicted_cells(one) for one in found if one["metric"] == metric]
        name, unit = quantity(metric)
        title = f"{name} ({unit})" if unit else name
        emit_table(["device", "predicted", interval, "within 10 %", "fitted to"], rows, title)


def _predicted_cells(one: dict[str, Any]) -> list[str]:
    held = one["held_out"]
    return [
        one["device"],
        f"{one['value']:.4g}",
        "none" if one["upper"] is None else f"{one['lower']:.4g} to {one['upper']:.4g}",
        "not known" if held is None else f"{held['within10']:.1%} of {held['samples']}",
        one["basis"],
    ]


def config(json: o.Json = False) -> None:
    """Show every setting, its value and where it came from."""
    from ehdnas.settings import Settings, load_settings
    from ehdnas.workspace import find_workspace

    loaded = load_settings({}, find_workspace().project)
    values = loaded.settings.model_dump()
    if json:
        emit_json("config", {"settings": values, "origins": loaded.origins})
        return
    rows = [
        [
            name,
            "auto" if value is None else str(value),
            loaded.origins[name],
            Settings.model_fields[name].description or "",
        ]
        for name, value in values.items()
    ]
    emit_table(["setting", "value", "from", "what it is"], rows)
