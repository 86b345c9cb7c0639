"""What can be regenerated of EH-DNAS (arXiv 2111.12299), with the published value beside it: `make paper`.

    python bench/paper.py [--networks 200000] [--samples 10000] [--out build/paper]

1. The labels: throughputs of random DARTS networks (C=16 x 8 cells, CIFAR-10) on the generic and on the
   pipeline accelerator, drawn as the published ones were, beside the 200,000 published labels: quantiles and
   a figure.
2. The predictors: the paper's (an embedding and a perceptron, as published; here fitted to --samples networks
   and not to a million) and this project's (fitted to 1,000), on 2,000 networks neither has seen.
3. The published networks' throughput on the generic accelerator, and how many times DARTS_V2's it is.

Reads the published labels in $EHDNAS_REFERENCE, by default ../shared/reference/e2e_perf. What is published
and not regenerated: latencies on boards, which need the boards, and full trainings on CIFAR-10 and ImageNet.
Prints tables, draws labels.png in --out, writes bench/results/paper.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from common import ROOT, write_result
from e2e_perf_reference import REFERENCE, SHAPE, sample

from ehdnas.pipeline.costed import costed
from ehdnas.pipeline.devices import find_device
from ehdnas.profilers.base import TableProfiler, find_profiler
from ehdnas.search.predictor.base import Identity
from ehdnas.search.predictor.facts import facts_of
from ehdnas.search.predictor.methods import make_predictor
from ehdnas.search.spaces.base import find_space

SPACE = find_space("darts")
DEVICES = {"generic": "ehdnas-generic", "pipeline": "ehdnas-pipeline"}
QUANTILES = (1, 25, 50, 75, 99)
PUBLISHED_PREDICTORS = {"generic": (0.987, 0.041), "pipeline": (0.93, 0.081)}  # Spearman, mean relative error
PUBLISHED_FPS = {
    "DARTS_V1": 817.3, "DARTS_V2": 765.3, "SNAS_MILD": 992.6,
    "EHDNAS_GENERIC": 1079.6, "EHDNAS_PIPELINE": 1047.9,
}  # fmt: skip
OURS, PAPERS, FEW, UNSEEN = "ehdnas", "embedding", 1000, 2000


def throughputs(paradigm: str, choices: np.ndarray) -> np.ndarray:
    """Return the throughputs [n], in images a second, of networks [n, 28] on one of the accelerators."""
    profiler = find_profiler(find_device(DEVICES[paradigm]))
    assert isinstance(profiler, TableProfiler)
    workload = costed(SPACE, SHAPE).workload_of(choices.astype(np.uint8))
    return profiler.figures(workload)["throughput_fps"]


def label_rows(labels: dict[str, np.ndarray]) -> dict[str, dict[str, list[float]]]:
    """Return by accelerator and quantile the published and our throughput, and print them."""
    published = np.load(REFERENCE / "published_labels_val.npz", allow_pickle=False)
    rows: dict[str, dict[str, list[float]]] = {}
    print(f"{'throughput of random networks, fps':44} {'published':>10} {'ours':>10}")
    for paradigm, ours in labels.items():
        theirs = published[f"{paradigm}_fps"]
        rows[paradigm] = {}
        for share in QUANTILES:
            pair = [float(np.percentile(theirs, share)), float(np.percentile(ours, share))]
            rows[paradigm][f"p{share}"] = pair
            print(f"{paradigm + f', {share} % are below':44} {pair[0]:10.1f} {pair[1]:10.1f}")
    return rows


def draw(labels: dict[str, np.ndarray], path: Path) -> None:
    """Draw the distributions, ours over the published."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    published = np.load(REFERENCE / "published_labels_val.npz", allow_pickle=False)
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, (paradigm, ours) in zip(axes, labels.items(), strict=True):
        theirs = published[f"{paradigm}_fps"]
        bins = np.histogram_bin_edges(theirs, 80)
        for values, name, style in ((theirs, "published", "stepfilled"), (ours, "ours", "step")):
            axis.hist(values, bins, density=True, histtype=style, label=name, alpha=0.7)
        axis.set(title=f"{paradigm} accelerator", xlabel="throughput, images a second", ylabel="density")
        axis.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def predictor_rows(labels: dict[str, np.ndarray], choices: np.ndarray, samples: int) -> dict[str, dict]:
    """Return how good each predictor is on networks that it has not seen, and print it."""
    facts = facts_of(SPACE, SHAPE)
    unseen, rows = slice(len(choices) - UNSEEN, None), {}
    print(f"\n{'predictor on 2,000 unseen networks':44} {'Spearman':>10} {'mean error':>10}")
    for paradigm, values in labels.items():
        told = {"paper, published": PUBLISHED_PREDICTORS[paradigm]}
        for method, count in ((PAPERS, samples), (OURS, FEW)):
            who = Identity(
                method,
                SPACE.name,
                SPACE.slots,
                SPACE.choices,
                str(SHAPE),
                DEVICES[paradigm],
                "",
                "throughput_fps",
            )
            predictor = make_predictor(who, facts)
            gates = torch.nn.functional.one_hot(torch.from_numpy(choices), SPACE.choices).float()
            predictor.fit(gates[:count], torch.from_numpy(values[:count]).double(), 0)
            found = predictor.evaluate(gates[unseen], torch.from_numpy(values[unseen]).double())
            name = "paper's, by us" if method == PAPERS else "this project's"
            told[f"{name}, {count:,} samples"] = (found.spearman, found.mape)
        for name, (spearman, error) in told.items():
            print(f"{paradigm + ': ' + name:44} {spearman:10.3f} {error:10.2%}")
        rows[paradigm] = {name: list(pair) for name, pair in told.items()}
    return rows


def network_rows() -> dict[str, dict[str, float]]:
    """Return the published networks' throughput on the generic accelerator, and print it."""
    profiler = find_profiler(find_device(DEVICES["generic"]))
    assert isinstance(profiler, TableProfiler)
    rows: dict[str, dict[str, float]] = {}
    heads = ("published", "ours", "by formulas", "x DARTS_V2")
    print(f"\n{'generic accelerator, fps':24} {' '.join(f'{head:>12}' for head in heads)}")
    for name, published in PUBLISHED_FPS.items():
        network = SPACE.parse(name)
        table = profiler.published(SPACE.name, str(SHAPE), network.choices)
        assert table is not None
        ours = table.metric("throughput_fps")
        formulas = float(throughputs("generic", np.array([network.choices]))[0])
        rows[name] = {"published": published, "ours": ours, "by_formulas": formulas}
    for name, row in rows.items():
        times = row["ours"] / rows["DARTS_V2"]["ours"]
        row["times_darts_v2"] = times
        figures = (row["published"], row["ours"], row["by_formulas"])
        print(f"{name:24} {' '.join(f'{one:12.1f}' for one in figures)} {times:12.2f}")
    return rows


def main() -> None:
    """Regenerate what can be, print it beside what is published, and write it down."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", type=int, default=200_000)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "paper")
    args = parser.parse_args()
    torch.set_num_threads(1)  # a process's sums are small; threads that wait for one another cost more
    choices = sample(args.networks, np.random.default_rng(0))
    labels = {paradigm: throughputs(paradigm, choices) for paradigm in DEVICES}
    rows = label_rows(labels)
    draw(labels, args.out / "labels.png")
    predictors = predictor_rows(labels, choices, args.samples)
    networks = network_rows()
    write_result("paper", {"labels": rows, "predictors": predictors, "networks": networks})


if __name__ == "__main__":
    main()
