"""The commands about files for devices: export, check, compile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ehdnas.cli import options as o
from ehdnas.cli.output import emit_json, emit_pairs, emit_table
from ehdnas.core.errors import NotCompiledError, UsageError

if TYPE_CHECKING:
    from ehdnas.exporters.edgetpu.rules import StaticReport
    from ehdnas.pipeline.context import Context
    from ehdnas.pipeline.export import Exported

_EXPORTED = "run `ehdnas search`, then `ehdnas train`"
# What a search leaves out is no concern of an export or a check.
_EVERY_CHOICE = {"exclude": ""}


def export(
    model: Annotated[
        str | None,
        typer.Argument(help="A genotype (with --untrained), weights.safetensors, or FILE.py:FUNCTION."),
    ] = None,
    target: Annotated[str, typer.Option(help="Formats, comma-separated.")] = "tflite",
    untrained: Annotated[bool, typer.Option("--untrained", help="With random weights.")] = False,
    part: Annotated[
        str | None, typer.Option(help="One cell or operation of it: cell0, cell0.edge3.sep_conv_3x3.")
    ] = None,
    run: o.RunName = None, out: o.Out = None, data: o.Data = None, channels: o.Channels = None,
    cells: o.Cells = None, image_size: o.ImageSize = None,
    int8_io: Annotated[str | None, typer.Option(help="int8 or uint8 in and out of int8 files.")] = None,
    calibration: Annotated[
        str | None, typer.Option(help="Ranges by auto, minmax, percentile, mse or entropy.")
    ] = None,
    calibration_images: Annotated[int | None, typer.Option(help="Training images to calibrate on.")] = None,
    finetune_steps: Annotated[
        int | None, typer.Option(help="Steps of quantisation-aware fine-tuning.")
    ] = None,
    dilated: o.Dilated = None, compiler: o.Compiler = None, segments: o.Segments = None, json: o.Json = False,
) -> None:  # fmt: skip
    """Export the last trained network, or another, and check each file. Exits 6 if not compiled."""
    flags = {
        "data": data, "channels": channels, "cells": cells, "image_size": image_size, "int8_io": int8_io,
        "calibration": calibration, "calibration_images": calibration_images,
        "finetune_steps": finetune_steps, "dilated": dilated, "compiler": compiler, "segments": segments,
        **_EVERY_CHOICE,
    }  # fmt: skip
    _require_readable(model)
    _export(model, target, untrained, part, run, out, flags, json).require_finished()


def check(
    model: Annotated[
        str | None, typer.Argument(help="A .tflite file or a genotype; the space's choices by default.")
    ] = None,
    data: o.Data = None, space: o.Space = None, channels: o.Channels = None, cells: o.Cells = None,
    image_size: o.ImageSize = None, dilated: o.Dilated = None, json: o.Json = False,
) -> None:  # fmt: skip
    """Tell what the Edge TPU would run, by its compiler's rules, before anything is trained or compiled."""
    if Path(model or "").suffix in (".onnx", ".py", ".pt", ".pth") or ".py:" in (model or ""):
        raise UsageError(
            f"'{model}': check reads .tflite files and genotypes; export it to edgetpu, and check that"
        )
    if model is not None and model.endswith(".tflite"):
        from ehdnas.pipeline.compile import check_tflite

        _emit_report(check_tflite(Path(model)), model, json)
        return
    flags = {"data": data, "space": space, "channels": channels, "cells": cells, "image_size": image_size}
    context = o.make_context({**flags, **_EVERY_CHOICE, "dilated": dilated})
    if model is not None:
        from ehdnas.pipeline.mapping import check_genotype
        from ehdnas.pipeline.predict import read_genotype

        _emit_report(check_genotype(context, read_genotype(model)), model, json)
        return
    _check_choices(context, json)


def compile_(
    files: Annotated[list[Path], typer.Argument(help="int8 .tflite files; several share the Edge TPU.")],
    out: o.Out = None, compiler: o.Compiler = None, segments: o.Segments = None,
    all_operators: Annotated[
        bool, typer.Option("--all-operators", help="Map operators after one that stays on the CPU.")
    ] = False,
    min_runtime_version: Annotated[
        int | None, typer.Option(help="Oldest Edge TPU runtime the file must load in.")
    ] = None,
    json: o.Json = False,
) -> None:  # fmt: skip
    """Compile int8 files for the Edge TPU. Exits 6 when there is no compiler."""
    from ehdnas.cli.screen import Screen
    from ehdnas.pipeline.compile import compile_files
    from ehdnas.settings import export_options, load_settings
    from ehdnas.workspace import find_workspace

    settings = load_settings({"compiler": compiler, "segments": segments}, find_workspace().project).settings
    changes = {"all_operators": all_operators, "min_runtime_version": min_runtime_version}
    options = export_options(settings).model_copy(update=changes)
    try:
        found = compile_files(files, out, options, Screen())
    except NotCompiledError as error:
        if json:
            emit_json("compile", {"models": [], "not_compiled": [str(error)]})
        raise
    if json:
        emit_json("compile", {"models": found, "not_compiled": []})
        return
    for one in found:
        emit_pairs({"model": one["model"], "compiled": ", ".join(one["files"]), **_compiled_lines(one)})


def _export(
    model: str | None, target: str, untrained: bool, part: str | None, run: str | None, out: Path | None,
    flags: dict[str, Any], json: bool,
) -> Exported:  # fmt: skip
    """Check what was asked for, hand it to the export stage and show what was made, a failure or not."""
    # A genotype in JSON has colons too.
    trained = model is None or model.endswith(".safetensors") or (":" in model and model.strip()[0] != "{")
    if untrained and model is None:
        raise UsageError("--untrained needs a genotype: ehdnas export GENOTYPE --untrained --out DIR")
    if untrained == trained:
        raise UsageError(
            f"'{model}' with --untrained: random weights are for genotypes" if untrained
            else f"'{model}': a genotype is exported with random weights, so say --untrained"
        )  # fmt: skip
    if part is not None and not untrained:
        raise UsageError(
            "--part has random weights: ehdnas export GENOTYPE --untrained --part NAME --out DIR"
        )
    if model is not None and out is None:
        raise UsageError("say where to: --out DIR")
    found = o.find_run(run, _EXPORTED) if model is None else None
    context = o.make_context(flags, found, "training")
    from ehdnas.pipeline import export as stage
    from ehdnas.pipeline import subject
    from ehdnas.pipeline.beside import export_beside
    from ehdnas.pipeline.predict import read_genotype

    targets, exported = stage.known_targets(target), stage.Exported()
    try:
        if found is not None:
            stage.export_run(context, found, targets, out, exported)
            export_beside(context, found, targets, out, exported)
        elif model is not None and out is not None:
            if part is not None:
                what = subject.part_subject(context, read_genotype(model), part)
            elif untrained:
                what = subject.untrained_subject(context, read_genotype(model))
            elif model.endswith(".safetensors"):
                what = subject.checkpoint_subject(Path(model))
            else:
                what = subject.module_subject(context, model)
            stage.export_subject(context, what, targets, out, exported)
    finally:
        if exported.records:
            _emit_exported(exported, json)
    return exported


def _require_readable(model: str | None) -> None:
    """Refuse what looks like a model but is none that can be exported.

    Raises:
        UsageError: it is a file of another kind, or a module without its function.
    """
    suffix = Path(model or "").suffix
    if suffix == ".py":
        raise UsageError(f"'{model}' names no function: give {model}:FUNCTION, which returns the nn.Module")
    if suffix in (".onnx", ".tflite", ".pt", ".pth", ".pt2", ".h5", ".keras"):
        raise UsageError(
            f"'{model}': export starts from a trained run, weights.safetensors of ours, a genotype, or your "
            "own nn.Module as FILE.py:FUNCTION"
        )


def _emit_exported(exported: Exported, json: bool) -> None:
    if json:
        emit_json("export", {"artifacts": exported.records, "not_compiled": exported.not_compiled})
        return
    for record in exported.records:
        emit_pairs(_artifact_lines(record))
        _emit_edgetpu(record)


def _artifact_lines(record: dict[str, Any]) -> dict[str, str]:
    parity = record["parity"]
    lines = {
        "file": record["file"],
        "target": f"{record['target']}, {record['precision']}, {record['size_bytes']:,} bytes",
    }
    if parity is None:
        return {**lines, "parity": "not run here: compiled for the device from the file above"}
    agreement = parity["top1_agreement"]
    same = "" if agreement is None else f", top-1 agreement {agreement:.1%}"
    lines |= {
        "parity": f"max difference {parity['max_difference']:.1e}{same} on {parity['images']} images",
        "file accuracy": "not measured: no labels that this network learnt",
    }
    if record["file_accuracy"] is not None:
        lines["file accuracy"] = f"{record['file_accuracy']:.2%} (network {record['network_accuracy']:.2%})"
    return lines


def _emit_edgetpu(record: dict[str, Any]) -> None:
    if "edgetpu" in record["details"] and "compilation" not in record["details"]:
        from ehdnas.exporters.edgetpu.rules import StaticReport

        _emit_report(StaticReport.model_validate(record["details"]["edgetpu"]), record["file"], False)
    elif "compilation" in record["details"]:
        emit_pairs(_compiled_lines(record["details"]["compilation"]))


def _compiled_lines(compiled: dict[str, Any]) -> dict[str, str]:
    cached, streamed = compiled["cached_bytes"], compiled["streamed_bytes"]
    lines = {
        "edge tpu": f"{compiled['on_tpu']} operators mapped, {compiled['on_cpu']} on the CPU, "
        f"by compiler {compiled['compiler_version'] or 'of unknown version'}",
        "subgraphs": "not said" if compiled["subgraphs"] is None else str(compiled["subgraphs"]),
        "parameters": f"{cached} bytes on the chip, {streamed} streamed at each run",
    }
    if cached is None or streamed is None:
        lines["parameters"] = "where they lie, the compiler did not say"
    if not compiled["on_tpu"]:
        lines["but"] = (
            "nothing of it runs on the Edge TPU; `ehdnas check` on the file it was made from tells why"
        )
    return lines


def _emit_report(report: StaticReport, name: str, json: bool) -> None:
    if json:
        emit_json("check", {"model": name, "target": "edgetpu", **report.model_dump()})
        return
    rows = [[operator, str(count), status] for operator, count, status in report.table()]
    emit_table(["operator", "count", "on the Edge TPU, by the static check"], rows)
    emit_pairs({
        "edge tpu": f"{report.on_tpu} operators map, {report.on_cpu} stay on the CPU",
        "parameters": f"{report.parameters_bytes:,} bytes, {report.streamed_bytes:,} of them streamed",
        **{f"note {number}": note for number, note in enumerate(report.notes, 1)},
    })  # fmt: skip


def _check_choices(context: Context, json: bool) -> None:
    from ehdnas.pipeline.mapping import check_choices

    found = check_choices(context)
    if json:
        rows = [
            {"choice": one.choice, "maps": one.maps, "operators": one.operators, "problems": one.problems}
            for one in found
        ]
        emit_json("check", {"space": context.space.name, "target": "edgetpu", "choices": rows})
        return
    emit_table(
        ["choice", "operators", "on the Edge TPU, by the static check"],
        [
            [one.choice, ", ".join(one.operators) or "none", "maps" if one.maps else "; ".join(one.problems)]
            for one in found
        ],
    )
