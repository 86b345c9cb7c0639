"""The commands of the main job: run, profile, search, train, report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ehdnas.cli import options as o
from ehdnas.cli.output import emit_indented, emit_json, emit_pairs, emit_table
from ehdnas.core.errors import BudgetError, UsageError

if TYPE_CHECKING:
    from ehdnas.pipeline.context import Context

_SEARCH_FIRST = "run `ehdnas search` first"


def run(
    data: o.Data = None, device: o.DeviceNames = None, budget: o.Budget = None, space: o.Space = None,
    channels: o.Channels = None, cells: o.Cells = None, image_size: o.ImageSize = None,
    method: o.Method = None, baseline: o.Baseline = None,
    codesign: o.Codesign = None, confidence: o.Confidence = None, samples: o.Samples = None,
    protocol: o.Protocol = None, predictor: o.Predictor = None, transfer: o.Transfer = None,
    random: o.Random = False, search_epochs: o.SearchEpochs = None,
    finalists: o.Finalists = None, trial_epochs: o.TrialEpochs = None,
    train_epochs: o.TrainEpochs = None, batch_size: o.BatchSize = None,
    micro_batches: o.MicroBatches = None, relaxation: o.Relaxation = None, unrolled: o.Unrolled = None,
    learning_rate: o.LearningRate = None, ema: o.Ema = None, label_smoothing: o.LabelSmoothing = None,
    mixup: o.Mixup = None, compute: o.Compute = None, precision: o.Precision = None,
    exclude: o.Exclude = None, seed: o.Seed = None,
    targets: Annotated[str | None, typer.Option(help="Formats to export, comma-separated.")] = None,
    resume: o.Resume = False, json: o.Json = False,
) -> int:  # fmt: skip
    """Do it all: profile, search, train, export, verify on the devices. Exits 3 if the budget is not met."""
    context = o.make_context(_given(locals()), o.resumed(resume), goes_on=True)
    from ehdnas.pipeline.run import run_all

    result = run_all(context, resume)
    if json:
        emit_json("run", result)
    else:
        emit_pairs(_run_lines(result))
    # Without a verdict, too: a script that asked for a network within the budget has not been given one.
    return 0 if result["verdict"] == "PASS" else BudgetError.exit_code


def profile(
    device: o.DeviceName = None, data: o.Data = None, space: o.Space = None, channels: o.Channels = None,
    cells: o.Cells = None, image_size: o.ImageSize = None, samples: o.Samples = None,
    minutes: Annotated[float | None, typer.Option(min=0.0, help="Stop measuring after this long.")] = None,
    ops: Annotated[bool, typer.Option("--ops", help="Time single operations and cells instead.")] = False,
    every: Annotated[bool, typer.Option("--all", help="Measure on even if it no longer helps.")] = False,
    protocol: o.Protocol = None, predictor: o.Predictor = None, transfer: o.Transfer = None,
    random: o.Random = False, seed: o.Seed = None,
    resume: o.Resume = False, json: o.Json = False,
) -> None:  # fmt: skip
    """Measure sampled networks on a device and fit its predictor. Nothing is measured twice."""
    context = o.make_context(_given(locals()), goes_on=True)
    from ehdnas.pipeline import profile as stage

    if ops:
        _profile_ops(context, minutes, json)
        return
    result = stage.profile(context, minutes=minutes, every=every).summary()
    if json:
        emit_json("profile", result)
        return
    emit_pairs({
        "device": f"{result['device']} ({result['basis']})",
        "metric": result["metric"],
        "predictor": result["method"],
        **({"learnt from": result["transfer"]} if result["transfer"] else {}),
        "held out": f"{result['held_out']['samples']} networks, each predicted by a fit that had not seen it",
    })  # fmt: skip
    typer.echo()
    _show_held_out(result)


def _show_held_out(result: dict[str, Any]) -> None:
    """Show how good the predictor is beside what simpler ones make of the same networks."""
    rows = [{"method": result["method"], **result["held_out"]}, *result["baselines"]]
    emit_table(
        ["predictor", "rank correlation", "within 10 %", "mean error"],
        [
            [row["method"], f"{row['spearman']:.3f}", f"{row['within10']:.1%}", f"{row['mape']:.1%}"]
            for row in rows
            if "problem" not in row
        ],
    )
    for row in rows:
        if "problem" in row:
            emit_indented(f"{row['method']}: {row['problem']}", 0)


def _profile_ops(context: Context, minutes: float | None, json: bool) -> None:
    from ehdnas.pipeline.ops import profile_ops
    from ehdnas.pipeline.profile import open_meter, require_usable

    require_usable(context)
    table = profile_ops(context, open_meter(context), minutes)
    if json:
        emit_json("profile", {"device": context.device.name, "shape": str(context.shape), **table.as_json()})
        return
    rows = [*table.operations, *table.cells]
    emit_table(
        ["operation", "input", "ms", "marked"],
        [
            [
                row.name,
                row.inputs,
                f"{row.latency_ms:.4g}",
                ", ".join(mark.split(" ")[0] for mark in row.marked),
            ]
            for row in rows
        ],
    )
    quality = table.sum_quality
    emit_pairs({
        "device": f"{context.device.name} (measured)",
        "network": str(context.shape),
        "sum against whole networks":
        "not known: that takes every operation, and three whole networks" if quality is None else
        f"{quality.mape:.1%} off on average, Spearman {quality.spearman:.3f}, {quality.samples} networks",
    })  # fmt: skip


def search(
    data: o.Data = None, device: o.DeviceNames = None, budget: o.Budget = None, pareto: o.Pareto = None,
    space: o.Space = None,
    channels: o.Channels = None, cells: o.Cells = None, image_size: o.ImageSize = None,
    method: o.Method = None, queries: o.Queries = None, baseline: o.Baseline = None,
    codesign: o.Codesign = None, confidence: o.Confidence = None, samples: o.Samples = None,
    protocol: o.Protocol = None, predictor: o.Predictor = None, transfer: o.Transfer = None,
    random: o.Random = False, search_epochs: o.SearchEpochs = None,
    finalists: o.Finalists = None, trial_epochs: o.TrialEpochs = None,
    batch_size: o.BatchSize = None, micro_batches: o.MicroBatches = None,
    relaxation: o.Relaxation = None, unrolled: o.Unrolled = None,
    learning_rate: o.LearningRate = None, exclude: o.Exclude = None,
    compute: o.Compute = None, precision: o.Precision = None,
    seed: o.Seed = None, resume: o.Resume = False, json: o.Json = False,
) -> None:  # fmt: skip
    """Search for the most accurate network within the budgets. Exits 3 when no network can meet them."""
    context = o.make_context(_given(locals()), o.resumed(resume), goes_on=True)
    from ehdnas.pipeline import search as stage

    found = stage.search(context, resume)
    result = found.read("search")
    if json:
        emit_json("search", {"run": found.name, **result})
        return
    if "front" in result:
        _show_front(result)
        return
    chosen = result["chosen"]
    pairs = zip(result["budgets"], chosen["figures"], strict=True)
    designed = sorted(path for path in found.folder.glob("accelerator*.json"))
    queried = "queries" in result
    emit_pairs({
        "run": found.name,
        **_figure_lines([{**budget, **figure} for budget, figure in pairs]),
        **({"accuracy": f"{chosen['accuracy']:.2%}, after {result['queries']} queries"} if queried else {}),
        "genotype": result["genotype"],
        **({"accelerator": ", ".join(map(str, designed))} if designed else {}),
        "next": "ehdnas train --data ..., to have it trained" if queried else "ehdnas train",
    })  # fmt: skip


def _show_front(result: dict[str, Any]) -> None:
    """Show a front's networks, the fastest first, and how to go on with one."""
    rows = result["front"]
    metric = rows[0]["budget"]["metric"]
    basis = rows[0]["figures"][0]["basis"]
    emit_table(
        ["run", f"{metric} {basis}", "predicted", "accuracy in the supernet", "genotype"],
        [
            [
                row["run"],
                f"{row['figures'][0]['value']:.4g}",
                f"{row['figures'][0]['predicted']:.4g}",
                f"{row['supernet_accuracy']:.2%}",
                row["genotype"],
            ]
            for row in rows
        ],
    )
    emit_pairs({"next": f"ehdnas train --run {rows[-1]['run']}"})


def _figure_lines(figures: list[dict[str, Any]]) -> dict[str, str]:
    """Return a line a figure, `device`'s name before its budgets; the names tell figures of several apart."""
    if len(figures) == 1:
        (one,) = figures
        return {"device": one["device"], "budget": one["text"], one["metric"]: _figure_text(one)}
    return {
        f"{one['metric']} on {one['device']}": f"{_figure_text(one)}, budget {one['text']}" for one in figures
    }


def _figure_text(one: dict[str, Any]) -> str:
    return f"{one['value']:.4g} ({one['basis']}; predicted {one['predicted']:.4g})"


def train(
    run: o.RunName = None, data: o.Data = None, image_size: o.ImageSize = None, baseline: o.Baseline = None,
    train_epochs: o.TrainEpochs = None, batch_size: o.BatchSize = None,
    micro_batches: o.MicroBatches = None,
    learning_rate: o.LearningRate = None, ema: o.Ema = None, label_smoothing: o.LabelSmoothing = None,
    mixup: o.Mixup = None, compute: o.Compute = None, precision: o.Precision = None,
    resume: o.Resume = False, json: o.Json = False,
) -> None:  # fmt: skip
    """Train the network that was searched, from scratch."""
    found = o.find_run(run, _SEARCH_FIRST)
    context = o.make_context(_given(locals()), found, "training" if resume else "run")
    from ehdnas.pipeline import train as stage
    from ehdnas.pipeline.beside import train_beside

    result = stage.train(context, found, resume)
    beside = train_beside(context, found, resume)
    if json:
        emit_json("train", {"run": found.name, **result, "baseline": beside})
        return
    emit_pairs({
        "run": found.name,
        "test accuracy": f"{result['test_accuracy']:.2%} on {result['test_images']} images",
        "parameters": f"{result['parameters']:,}",
        **({} if beside is None else {
            "baseline": f"{beside['test_accuracy']:.2%}, {beside['parameters']:,} parameters"
        }),
        "weights": str(found.weights),
        "next": "ehdnas export --target tflite",
    })  # fmt: skip


def verify(
    run: o.RunName = None, device: o.DeviceNames = None, protocol: o.Protocol = None, json: o.Json = False
) -> int:  # fmt: skip
    """Measure the exported file on its devices, and compare its outputs there. Exits 3 if over a budget."""
    found = o.find_run(run, _SEARCH_FIRST)
    context = o.make_context({"device": device, "protocol": protocol}, found, "training")
    from ehdnas.pipeline import verify as stage
    from ehdnas.pipeline.beside import verify_beside

    result = stage.verify(context, found)
    beside = verify_beside(context, found)
    if json:
        emit_json("verify", {
            "run": found.name, **_without_samples(result),
            "baseline": None if beside is None else _without_samples(beside),
        })  # fmt: skip
    else:
        emit_pairs({
            **_verdict_lines(result),
            **_outputs_lines(result["measurements"]),
            **({} if beside is None else {"baseline": _baseline_line(beside)}),
            "run": found.name,
        })  # fmt: skip
    return 0 if result["verdict"] == "PASS" else BudgetError.exit_code


def _without_samples(result: dict[str, Any]) -> dict[str, Any]:
    """Return a verdict whose measurements lack their hundreds of thousands of raw samples."""
    measurements = [
        {
            **one,
            "measurement": {key: value for key, value in one["measurement"].items() if key != "samples_ms"},
        }
        for one in result["measurements"]
    ]
    return {**result, "measurements": measurements}


def _baseline_line(beside: dict[str, Any]) -> str:
    """Say what a baseline came to: name and accuracy where they are told, its figures once it is judged."""
    said = [beside["name"], f"{beside['test_accuracy']:.2%}"] if "name" in beside else []
    if "verdict" in beside:
        several = len(beside["figures"]) > 1
        figures = [
            f"{one['metric']} {one['value']:.4g} {one['basis']}{' on ' + one['device'] if several else ''}"
            for one in beside["figures"]
        ]
        said.append(f"{beside['verdict']}: {', '.join(figures)}")
    return ", ".join(said)


def _verdict_lines(result: dict[str, Any]) -> dict[str, str]:
    """Return the verdict with its figure, or with a line for each of several."""
    texts = [
        f"{one['metric']} {one['value']:.4g} {one['basis']} on {one['device']}, budget {one['text']}"
        for one in result["figures"]
    ]
    flags = dict.fromkeys(flag for one in result["figures"] for flag in one.get("flags", ()))
    doubt = {"but": "; ".join(flags)} if flags else {}
    if len(texts) == 1:
        return {"verdict": f"{result['verdict']}: {texts[0]}", **doubt}
    met = [("met" if one["meets"] else "not met") for one in result["figures"]]
    numbered = enumerate(zip(met, texts, strict=True), 1)
    return {
        "verdict": result["verdict"],
        **{f"budget {number}": f"{word}: {text}" for number, (word, text) in numbered},
        **doubt,
    }


def _outputs_lines(measurements: list[dict[str, Any]]) -> dict[str, str]:
    if len(measurements) == 1:
        return {"outputs there": _outputs_line(measurements[0]["on_device"])}
    return {f"outputs on {one['device']}": _outputs_line(one["on_device"]) for one in measurements}


def _outputs_line(compared: dict[str, Any] | None) -> str:
    if compared is None:
        return "not compared"
    return (
        f"as here on {compared['top1_agreement']:.1%} of {compared['images']} test images, at most "
        f"{compared['max_difference']:.2g} apart; accuracy {compared['accuracy']:.2%}"
    )


def report(
    runs: Annotated[list[str] | None, typer.Argument(help="With --compare, the runs to compare.")] = None,
    run: o.RunName = None,
    compare: Annotated[bool, typer.Option("--compare", help="Show several runs beside each other.")] = False,
    json: o.Json = False,
) -> None:
    """Write the run's report, or one of several runs: one HTML file that needs nothing else."""
    from ehdnas.pipeline import report as stage
    from ehdnas.workspace import find_workspace

    workspace = find_workspace()
    if compare:
        path = stage.compare(workspace, [o.find_run(name, _SEARCH_FIRST) for name in runs or ()])
    elif runs:
        raise UsageError(f"'{runs[0][:40]}': say --run RUN for one run, --compare RUN1 RUN2 for several")
    else:
        path = stage.report(workspace, o.find_run(run, _SEARCH_FIRST))
    if json:
        emit_json("report", {"report": str(path)})
    else:
        emit_pairs({"report": str(path)})


def _given(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that are settings, leaving out the flags that only steer the command."""
    from ehdnas.settings import Settings

    given = {name: value for name, value in arguments.items() if name in Settings.model_fields}
    return {**given, "choice": "random"} if arguments.get("random") else given


def _run_lines(result: dict[str, Any]) -> dict[str, str]:
    lines = {
        **_verdict_lines(result),
        "test accuracy": f"{result['test_accuracy']:.2%}",
        "genotype": result["genotype"],
    }
    if result["baseline"] is not None:
        lines["baseline"] = _baseline_line(result["baseline"])
    for record in result["artifacts"]:
        lines[record["target"]] = record["file"]
    return {**lines, "report": result["report"], "run": result["run"]}
