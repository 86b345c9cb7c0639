"""The commands that answer one question: measure, simulate, predict, config."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ehdnas.cli import options as o
from ehdnas.cli.output import emit_json, emit_pairs, emit_table

if TYPE_CHECKING:
    from ehdnas.core.measurement import Statistics

Genotype = Annotated[
    str, typer.Argument(help="A genotype: a published name, 28 digits, JSON, or a file that holds one.")
]


def measure(
    file: Annotated[Path, typer.Argument(help="A .tflite or .onnx file.")],
    device: o.DeviceName = None, protocol: o.Protocol = None, json: o.Json = False,
) -> None:  # fmt: skip
    """Time an existing .tflite or .onnx file on a device."""
    from ehdnas.pipeline.inspect import measure_file

    usual = "local-onnx" if file.suffix == ".onnx" else "local"
    context = o.make_context({"device": device or usual, "protocol": protocol})
    measurement = measure_file(context.settings, context.reporter, file)
    if json:
        emit_json("measure", {"file": str(file), **measurement.model_dump()})
        return
    statistics = measurement.statistics
    assert statistics is not None
    emit_pairs({
        "device": f"{measurement.device} ({measurement.basis})",
        "latency": f"{statistics.median_ms:.4g} ms median, {statistics.p90_ms:.4g} ms p90, batch of 1",
        "spread": _spread(statistics),
        "flags": ", ".join(measurement.flags) or "none",
        "protocol": context.settings.protocol,
    })  # fmt: skip


def _spread(statistics: Statistics) -> str:
    if statistics.processes == 1:
        return f"not known: one process, {statistics.runs} runs"
    return f"{statistics.spread:.1%} over {statistics.processes} processes, {statistics.runs} runs"


def simulate(
    model: Genotype, device: o.DeviceName = None, channels: o.Channels = None, cells: o.Cells = None,
    image_size: o.ImageSize = None, json: o.Json = False,
) -> None:  # fmt: skip
    """Simulate a network on an accelerator that is only described; by default at C=16, 8 cells, 32x32."""
    from ehdnas.pipeline.inspect import simulate_genotype

    result = simulate_genotype(
        model, device or "ehdnas-generic", channels or 16, cells or 8, image_size or 32
    )
    if json:
        emit_json("simulate", result)
        return
    layers = [row for row in result["layers"] if row["cycles"]]
    emit_table(
        ["layer", "operator", "output", "MACs", "cycles", "share"],
        [
            [
                row["name"],
                row["operator"],
                row["output"],
                f"{row['macs']:,}",
                f"{row['cycles']:,.0f}",
                f"{row['share']:.1%}",
            ]
            for row in layers
        ],
    )
    emit_pairs({
        "device": f"{result['device']} (simulated)",
        "network": result["shape"],
        "latency": f"{result['latency_ms']:.4g} ms",
        "throughput": f"{result['throughput_fps']:.1f} fps",
        "by": result["by"],
    })  # fmt: skip


def predict(
    genotype: Genotype,
    device: o.DeviceName = None, data: o.Data = None, channels: o.Channels = None, cells: o.Cells = None,
    image_size: o.ImageSize = None, confidence: o.Confidence = None, json: o.Json = False,
) -> None:  # fmt: skip
    """Predict a network's latency on a profiled device, with its interval."""
    flags = {"device": device, "data": data, "channels": channels, "cells": cells, "image_size": image_size}
    context = o.make_context({**flags, "confidence": confidence})
    from ehdnas.pipeline.inspect import predict_genotype

    result = predict_genotype(context, genotype)
    if json:
        emit_json("predict", result)
        return
    ends = (
        f"{result['lower']:.4g} to {result['upper']:.4g} ms at {result['confidence']:.0%}"
        if result["upper"] is not None
        else "none: too few samples for this confidence"
    )
    emit_pairs({
        "device": result["device"],
        "network": result["shape"],
        "latency": f"{result['value']:.4g} ms predicted",
        "interval": ends,
    })  # fmt: skip


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
