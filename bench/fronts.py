"""Whether `search --pareto N` gives N networks, none dominated and spread over the range; what training says.

    python bench/fronts.py [--device ehdnas-generic] [--pareto 5] [--seeds 5] [--epochs 50] [--train-seeds 0]
        [--work DIR]

Protocol: the DARTS space at C=8 x 5 cells on scikit-learn's digits, fronts up to the latency of DARTS_V2 (1x)
on a device that is profiled once, with the default number of networks. For each seed it says how many
networks there are; how many pairs of them there are of which one dominates the other, by the accuracies that
the search goes by; and how many of the N budgets, at equal ratios from the fastest network to 1x, have a
network of their own. With --train-seeds the networks of the first so many fronts are trained as well, as the
recipe says (60 epochs): their accuracies on test images, and the rank correlation with the order of the
front.

Prints a line a front and a line in all; writes bench/results/fronts.json. What was finished is kept in
--work, and a run that was stopped, or that had fewer seeds, goes on from there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from contextlib import chdir
from functools import partial
from pathlib import Path
from typing import Any

from common import ROOT, spread, told, write_result
from scipy.stats import spearmanr

SETTINGS = 'data = "digits"\nspace = "darts"\nchannels = 8\ncells = 5\n'


def front_of(device: str, count: int, seed: int, epochs: int) -> dict[str, Any]:
    """Return what came of one front, in the current folder."""
    about = ("--device", device, "--pareto", str(count), "--seed", str(seed))
    found = told("search", *about, "--search-epochs", str(epochs))
    points = [(one["figures"][0]["value"], one["supernet_accuracy"]) for one in found["front"]]
    return {
        "seed": seed,
        "networks": len(points),
        "dominated": sum(dominates(one, other) for one in points for other in points),
        "budgets_with_their_own": len({one["budget"]["bound"] for one in found["front"]}),
        "bound": found["budgets"][0]["bound"],
        "latency_ms": [value for value, _ in points],
        "supernet_accuracy": [accuracy for _, accuracy in points],
        "runs": [one["run"] for one in found["front"]],
        "genotypes": [one["genotype"] for one in found["front"]],
    }


def dominates(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Return whether one point costs no more, is no less accurate, and is better in one of the two."""
    return one != other and one[0] <= other[0] and one[1] >= other[1]


def trained(row: dict[str, Any]) -> dict[str, Any]:
    """Return a front with the test accuracies of its networks, trained in the current folder."""
    accuracies = [told("train", "--run", run)["test_accuracy"] for run in row["runs"]]
    order = float(spearmanr(range(len(accuracies)), accuracies).statistic)
    return {**row, "test_accuracy": accuracies, "spearman_of_order": order}


def kept(path: Path, row: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return a front from the file where it was made before, else as `row` makes it."""
    if not path.is_file():
        path.write_text(json.dumps(row()))
    return json.loads(path.read_text())


def line_of(row: dict[str, Any]) -> str:
    """Return a front in one line."""
    latencies = " ".join(f"{value:.4g}" for value in row["latency_ms"])
    accuracies = " ".join(f"{share:.1%}" for share in row.get("test_accuracy", row["supernet_accuracy"]))
    return (
        f"seed {row['seed']}  {row['networks']} networks, {row['dominated']} dominated, "
        f"{row['budgets_with_their_own']} budgets have their own; ms {latencies} of {row['bound']:.4g}; "
        f"{'trained' if 'test_accuracy' in row else 'shared weights'} {accuracies}"
    )


def main() -> None:
    """Make a front a seed, train what is asked for, and write down what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="ehdnas-generic")
    parser.add_argument("--pareto", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--train-seeds", type=int, default=0)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "fronts")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    rows = []
    with chdir(args.work):
        Path("ehdnas.toml").write_text(SETTINGS)
        for seed in range(args.seeds):
            name = f"{args.device}-{args.pareto}-{args.epochs}-{seed}"
            made = partial(front_of, args.device, args.pareto, seed, args.epochs)
            row = kept(Path(f"{name}.json"), made)
            if seed < args.train_seeds:
                row = kept(Path(f"{name}-trained.json"), partial(trained, row))
            rows.append(row)
            print(line_of(row), flush=True)
    full = sum(row["networks"] == args.pareto and not row["dominated"] for row in rows)
    own = [row["budgets_with_their_own"] for row in rows]
    print(f"{full} of {len(rows)} fronts have {args.pareto}, none dominated; budgets with their own {own}")
    orders = [row["spearman_of_order"] for row in rows if "spearman_of_order" in row]
    if orders:
        print(f"order of the front and of trained networks: rank correlation {spread(orders)}")
    figures = {"device": args.device, "asked": args.pareto, "epochs": args.epochs, "fronts": rows}
    write_result("fronts", figures)


if __name__ == "__main__":
    main()
