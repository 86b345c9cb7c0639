"""E2E-Perf's reference modes against the labels and the per-operation figures published with EH-DNAS.

    python bench/e2e_perf_reference.py [--networks 400000] [--seed 0]

Which networks were labelled is not published, so distributions are compared: fresh networks are drawn as
the published ones were (two distinct edges a node, on them two distinct choices of 1 to 6). Generic: cycles
by the slot table and by the layer formulas alone, against 200e6 / fps. Pipeline: the bottleneck T and the
pipelines side by side B, against the only T and B with 200e6·B / (T + 1) = fps. The pipeline's resource
model was chosen on the first half of the labels; the second half is the test. Reads $EHDNAS_REFERENCE, by
default ../shared/reference/e2e_perf; prints a table and writes bench/results/e2e_perf_reference.json.
"""

import argparse
import csv
import json
import os
import time
from pathlib import Path

import numpy as np

from ehdnas.core.graph import layer_table
from ehdnas.profilers.e2e_perf.generic.reference import GenericReference
from ehdnas.profilers.e2e_perf.generic.slots import published_cycles
from ehdnas.profilers.e2e_perf.pipeline.reference import PipelineReference
from ehdnas.profilers.e2e_perf.workload import Columns, Workload
from ehdnas.search.spaces.base import NetworkShape, find_space

ROOT = Path(__file__).parents[1]
REFERENCE = Path(os.environ.get("EHDNAS_REFERENCE", ROOT.parent / "shared" / "reference" / "e2e_perf"))
RESULT = ROOT / "bench" / "results" / "e2e_perf_reference.json"
CLOCK_HZ = 200e6
SHAPE = NetworkShape(16, 8, (3, 32, 32), 10)
PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
BOTTLENECKS = np.array([65_536, 82_944, 98_304, 102_400, 131_072, 165_888, 196_608])
OPERATIONS = ("none", "max_pool", "avg_pool", "skip", "sep_3x3", "sep_5x5", "dil_3x3", "dil_5x5")


def sample(networks, rng):
    """Return choices [n, 28] drawn as the published networks were."""
    choices = np.zeros((networks, 28), dtype=np.int64)
    for start, size in [(cell + edge, n) for cell in (0, 14) for edge, n in ((0, 2), (2, 3), (5, 4), (9, 5))]:
        edges = rng.random((networks, size)).argsort(axis=1)[:, :2] + start
        drawn = rng.random((networks, 6)).argsort(axis=1)[:, :2] + 1
        np.put_along_axis(choices, edges, drawn, axis=1)
    return choices


def space_layers():
    """Return the fixed parts and, by (slot, choice), the chosen ones, as (name, layers)."""
    parts = find_space("darts").parts(SHAPE)
    tables = {}

    def layers(part):
        key = (id(part.module), part.inputs[0])
        if key not in tables:
            tables[key] = layer_table(part.module, part.inputs[0]).layers
        return part.name, tables[key]

    chosen = {key: [layers(part) for part in group] for key, group in parts.chosen.items()}
    return [layers(part) for part in parts.fixed], chosen


def flat(parts):
    return [layer for _, layers in parts for layer in layers]


def bottleneck_and_replicas(fps):
    """Return T and B of published labels; every one has exactly one pair of a known T and a whole B."""
    replicas = np.asarray(fps)[:, None] * (BOTTLENECKS + 1) / CLOCK_HZ
    whole = np.abs(replicas - np.round(replicas)) < 1e-6
    assert (whole.sum(axis=1) == 1).all()
    return BOTTLENECKS[whole.argmax(axis=1)], np.round(replicas[whole]).astype(np.int64)


def total_variation(one, other):
    """Return the total variation between the empirical distributions of two arrays."""
    kinds, which = np.unique(np.concatenate([one, other]), return_inverse=True)
    shares = [np.bincount(part, minlength=len(kinds)) / len(part) for part in np.split(which, [len(one)])]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


def generic_rows(labels, workload, choices):
    """Return, for each statistic of the cycles, the published figure and the two models' errors."""
    model = GenericReference(clock_mhz=200, macs_per_cycle=4096, elements_per_cycle=25)
    published = CLOCK_HZ / labels["generic_fps"]
    formulas = CLOCK_HZ / model.figures(workload).throughput_fps
    measures = {"mean": np.mean, "std": np.std}
    measures |= {f"p{p}": lambda x, p=p: np.percentile(x, p) for p in PERCENTILES}
    return {
        name: {
            "published": round(float(measure(published)), 1),
            "slot_table_error": round(float(measure(published_cycles(choices)) / measure(published) - 1), 6),
            "formulas_error": round(float(measure(formulas) / measure(published) - 1), 6),
        }
        for name, measure in measures.items()
    }


def operation_errors(fixed, chosen):
    """Return relative errors of the layer formulas by kind: over the per-operation and the slot table."""
    model = GenericReference(clock_mhz=200, macs_per_cycle=4096, elements_per_cycle=25)
    errors = {}

    def compare(kind, layers, cycles):
        error = float(model.costs(Columns(layers)).cycles.sum() / cycles - 1)
        errors.setdefault(kind, []).append(error)

    def named(parts, prefix):
        return [layer for name, layers in parts if name.startswith(prefix) for layer in layers]

    with (REFERENCE / "published_lut_overhead.csv").open() as file:
        figures = {(row["cell"], row["op"]): float(row["fps"]) for row in csv.DictReader(file)}
    compare("stem", named(fixed, "stem"), CLOCK_HZ / figures["network", "stem"])
    compare(
        "pool and classifier", named(fixed, "classifier"), CLOCK_HZ / figures["network", "poolclassifier"]
    )
    for cell in range(8):
        name, reduction = f"cell{cell}", cell in (2, 5)
        kind = "factorised reduce and pointwise" if cell in (3, 6) else "pointwise"
        compare(kind, named(fixed, f"{name}.preprocess"), CLOCK_HZ / figures[name, "preprocess"])
        for choice, operation in enumerate(OPERATIONS):
            if operation in ("none", "skip") and not (reduction and operation == "skip"):
                continue
            fps = figures[name, f"op{choice}"]
            kind = operation.replace("skip", "factorised reduce")
            compare(kind, named(chosen[14 * reduction, choice], f"{name}."), CLOCK_HZ / fps)
    with (REFERENCE / "generic_slot_cycles.csv").open() as file:
        slots = [[int(value) for value in row[1:]] for row in list(csv.reader(file))[1:]]
    for slot, choice in np.ndindex(28, 8):
        if slots[slot][choice]:
            compare(f"slot {OPERATIONS[choice]}", flat(chosen[slot, choice]), slots[slot][choice])
    return {kind: [round(min(values), 5), round(max(values), 5)] for kind, values in errors.items()}


def pipeline_figures(labels, workload):
    """Return total variations of T alone, of B alone and of both, against each half of the labels."""
    began = time.process_time()
    designs = PipelineReference().designs(workload.columns, workload.counts)
    seconds = time.process_time() - began
    model = designs.slowest.astype(np.int64), designs.replicas
    half = len(labels["pipeline_fps"]) // 2
    halves = [bottleneck_and_replicas(part) for part in np.split(labels["pipeline_fps"], [half])]
    both = tuple(np.concatenate(pair) for pair in zip(*halves, strict=True))

    def distances(one, other):
        values = [(t, b, t * 100 + b) for t, b in (one, other)]
        return dict(zip(("T", "B", "T_and_B"), map(total_variation, *values), strict=True))

    fps = CLOCK_HZ * model[1] / (model[0] + 1)
    return {
        "total_variation": {
            "first_half": distances(halves[0], model),
            "second_half": distances(halves[1], model),
            "all": distances(both, model),
            "published_halves": distances(*halves),
        },
        "share_of_T": {int(t): [float((part[0] == t).mean()) for part in (both, model)] for t in BOTTLENECKS},
        "mean_B": [float(both[1].mean()), float(model[1].mean())],
        "fps_mean": [float(labels["pipeline_fps"].mean()), float(fps.mean())],
        "fps_std": [float(labels["pipeline_fps"].std()), float(fps.std())],
        "networks_per_second": round(len(fps) / seconds),
    }


def show(result):
    print(f"{result['networks']} networks, seed {result['seed']}\n\ngeneric: cycles, relative errors")
    print(f"  {'':6}{'published':>11}{'slot table':>12}{'formulas':>12}")
    for name, row in result["generic"].items():
        errors = f"{row['slot_table_error']:>12.3%}{row['formulas_error']:>12.3%}"
        print(f"  {name:6}{row['published']:>11.0f}{errors}")
    print("\nlayer formulas against the published per-operation figures: least and greatest error")
    for kind, (low, high) in result["operations"].items():
        print(f"  {kind:34}{low:>9.2%}{high:>9.2%}")
    pipeline = result["pipeline"]
    print("\npipeline: total variation     T        B        T and B")
    for name, row in pipeline["total_variation"].items():
        print(f"  {name:26}" + "".join(f"{value:<9.4f}" for value in row.values()))
    for name, pair in pipeline["share_of_T"].items():
        print(f"  T = {name:<10} published {pair[0]:.4f}  model {pair[1]:.4f}")
    for name in ("mean_B", "fps_mean", "fps_std"):
        print(f"  {name:14} published {pipeline[name][0]:.3f}  model {pipeline[name][1]:.3f}")
    print(f"  {pipeline['networks_per_second']} networks a second of processor time, T and B")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", type=int, default=400_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if not (REFERENCE / "published_labels_val.npz").is_file():
        print(f"no published labels in {REFERENCE}: set EHDNAS_REFERENCE; nothing compared")
        return
    with np.load(REFERENCE / "published_labels_val.npz") as file:
        labels = {name: file[name] for name in ("generic_fps", "pipeline_fps")}
    fixed, chosen = space_layers()
    choices = sample(args.networks, np.random.default_rng(args.seed))
    workload = Workload.of_population(flat(fixed), {key: flat(part) for key, part in chosen.items()}, choices)
    result = {
        "networks": args.networks,
        "seed": args.seed,
        "generic": generic_rows(labels, workload, choices),
        "operations": operation_errors(fixed, chosen),
        "pipeline": pipeline_figures(labels, workload),
    }
    show(result)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
