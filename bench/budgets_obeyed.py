"""Whether a search's network meets its budget as exported, and how much of the budget it leaves.

    python bench/budgets_obeyed.py [--devices ehdnas-generic,ehdnas-pipeline,local] [--seeds 5] [--work DIR]
        [--verify-again]

Protocol, written down before it was run: the DARTS space at C=8 x 5 cells on scikit-learn's digits,
confidence 0.9, three budgets a device and five seeds each, the commands that a user types, one after another:
search (15 epochs, or --search-epochs), train (1 epoch, since latency does not depend on the weights), export
to TFLite, verify. A device is profiled once, with the default number of networks. Budgets are 0.5, 0.7 and
0.9 times the latency of DARTS_V2 on the device; on the pipeline they are 1.2, 1.6 and 2.2 times its
throughput, which is what takes few values there.

Judged by what verify says of the exported file: whether the budget is met (PASS), and by how much the value
is under it. It is close where that is at most 5 % or, on a simulated device, where none of 20,000 random
networks and of those that were found lies nearer under the budget: its values are few.

Prints a line a search, then a device; writes bench/results/budgets_obeyed.json, where devices that were not
asked for keep what they had. What was finished is kept in --work, and a run that was stopped, or that had
fewer seeds, goes on from there. `local` wants a quiet machine. With --verify-again every file, whatever it
did before, is verified once more; that is what counts then, and the figure before is kept beside it.
"""

from __future__ import annotations

import argparse
import json
from contextlib import chdir
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, ROOT, told, write_result

from ehdnas.pipeline.costed import costed
from ehdnas.pipeline.devices import find_device
from ehdnas.profilers.base import TableProfiler, find_profiler
from ehdnas.search.spaces.base import NetworkShape, find_space

SHAPE, SPACE = NetworkShape(8, 5, (1, 8, 8), 10), find_space("darts")
OF_LATENCY, OF_THROUGHPUT = (0.5, 0.7, 0.9), (1.2, 1.6, 2.2)
CLOSE, OTHERS = 0.05, 20_000
SETTINGS = """data = "digits"
space = "darts"
channels = 8
cells = 5
confidence = 0.9
train_epochs = 1
"""


def budgets_of(device: str) -> list[str]:
    """Return the three budgets of a device, as a user writes them."""
    if not device.endswith("pipeline"):
        return [f"{share}x" for share in OF_LATENCY]
    (reference,) = throughputs(device, [SPACE.reference])
    return [f"throughput >= {share * reference:.6g} fps" for share in OF_THROUGHPUT]


def throughputs(device: str, networks: list[Any]) -> list[float]:
    """Return the simulated throughputs of networks in images a second, those that fit."""
    profiler = find_profiler(find_device(device))
    assert isinstance(profiler, TableProfiler)
    labelled = profiler.label(costed(SPACE, SHAPE).workload(networks))
    return [one.metric("throughput_fps") for one in labelled if one is not None]


def searched(device: str, budget: str, seed: int, epochs: int) -> dict[str, Any]:
    """Return what came of one search, in the current folder."""
    about = ("--device", device, "--budget", budget, "--seed", str(seed))
    found = told("search", *about, "--search-epochs", str(epochs))
    told("train")
    told("export", "--target", "tflite")
    (final,) = told("verify")["figures"]
    (chosen,) = found["chosen"]["figures"]
    return {
        "device": device,
        "run": found["run"],
        "asked": budget,
        "seed": seed,
        "genotype": found["genotype"],
        "measured": len(found["candidates"]),
        "bound": final["bound"],
        "in_search": chosen["value"],
        **verdict_of(final),
    }


def verdict_of(figure: dict[str, Any]) -> dict[str, Any]:
    """Return what a row holds of what verify says of a file."""
    share = left(figure["value"], figure["bound"], figure["metric"])
    return {"value": figure["value"], "meets": figure["meets"], "left": share, "flags": figure["flags"]}


def verified_again(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row by what verify says of its file now, with what it was before."""
    (figure,) = told("verify", "--run", row["run"])["figures"]
    return {**row, "value_before": row["value"], **verdict_of(figure)}


def left(value: float, bound: float, metric: str) -> float:
    """Return the share of a budget that a value leaves; negative where it is broken."""
    return 1 - (bound / value if metric == "throughput_fps" else value / bound)


def kept(path: Path, *task: Any) -> dict[str, Any]:
    """Return what came of a search, from the file where it was made before."""
    if not path.is_file():
        path.write_text(json.dumps(searched(*task)))
    return json.loads(path.read_text())


def nearest(device: str, rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the least share that any network is known to leave of each budget, on a simulated device."""
    rng = np.random.default_rng(0)
    values = throughputs(device, [SPACE.sample(rng) for _ in range(OTHERS)])
    found = {}
    for row in rows:
        is_fps = row["asked"].startswith("throughput")
        metric = "throughput_fps" if is_fps else "latency_ms"
        every = np.array(values) if is_fps else 1000 / np.array(values)
        own = [one["value"] for one in rows if one["asked"] == row["asked"]]
        every = np.concatenate([every, own])
        shares = np.array([left(value, row["bound"], metric) for value in every])
        found[row["asked"]] = float(shares[shares >= 0].min())
    return found


def judged(device: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how many of a device's searches met their budgets, and closely; add the latter to the rows."""
    least = {} if device == "local" else nearest(device, rows)
    for row in rows:
        nothing_nearer = row["left"] <= least.get(row["asked"], -1.0) + 1e-6
        row["close"] = row["meets"] and (row["left"] <= CLOSE or nothing_nearer)
        line = (device, row["asked"], row["seed"], row["measured"], f"{row['left']:.2%} left", row["meets"])
        print(*line, "close" if row["close"] else "", sep="\t")
    shares = [row["left"] for row in rows]
    summary = {
        "searches": len(rows),
        "met": sum(row["meets"] for row in rows),
        "met_closely": sum(row["close"] for row in rows),
        "left": [min(shares), float(np.median(shares)), max(shares)],
        "least_that_a_network_leaves": least,
    }
    print(device, summary, flush=True)
    return summary


def main() -> None:
    """Search on every device, and write down what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--devices", default="ehdnas-generic,ehdnas-pipeline,local")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--search-epochs", type=int, default=15)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "budgets")
    parser.add_argument("--verify-again", action="store_true")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    before = RESULTS / "budgets_obeyed.json"  # devices that are not asked for keep what they have there
    found = json.loads(before.read_text())["devices"] if before.is_file() else {}
    about = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "search_epochs": args.search_epochs}
    with chdir(args.work):
        Path("ehdnas.toml").write_text(SETTINGS)
        for device in args.devices.split(","):
            tasks = list(product(range(args.seeds), enumerate(budgets_of(device))))
            rows = [
                kept(Path(f"{device}-{at}-{seed}.json"), device, budget, seed, args.search_epochs)
                for seed, (at, budget) in tasks
            ]
            if args.verify_again:
                rows = list(map(verified_again, rows))
            found[device] = {**about, **judged(device, rows), "rows": rows}
    write_result("budgets_obeyed", {"devices": found})


if __name__ == "__main__":
    main()
