"""Whether a long search without a budget collapses to skips, with the guard and without it.

    python bench/collapse.py [--seeds 4] [--epochs 150] [--sides with without] [--work DIR]

Searches of the DARTS space on scikit-learn's digits (C=8 x 5 cells), by default three times as long as the
recipe's 50 epochs, in pairs: both sides have the seed, and so the halves of the images, the order of the
batches and the supernet's first weights, in common. They differ in `Recipe.skip_beside` alone, which is the
recipe's on the one side and 0 on the other. A network is collapsed where its normal cell has more than three
skips.

Prints a line a search, then a line a side; writes bench/results/collapse.json when all are done. A search
that was stopped goes on where it was when the same command is given again with the same --work; what is
finished there is not done again, and each search has its date.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from common import ROOT, write_result

from ehdnas.core.images.dataset import load_data
from ehdnas.search.augment import Augmentation
from ehdnas.search.recipes import Recipe, recipe_for
from ehdnas.search.searcher import Searcher, SearchResult, SearchTask
from ehdnas.search.signs import MOST_SKIPS
from ehdnas.search.spaces.base import NetworkShape, find_space

SPACE = find_space("darts")
SIDES = ("with", "without")


def recipe_of(side: str, epochs: int) -> Recipe:
    """Return the recipe of digits, so long, with the guard as it stands there or without it."""
    changed = {"search_epochs": epochs} | ({} if side == "with" else {"skip_beside": 0.0})
    return recipe_for("digits").model_copy(update=changed)


def searched(side: str, seed: int, epochs: int, work: Path) -> dict[str, Any]:
    """Return what came of one search; the one kept in `work` where there is one."""
    kept = work / f"{side}-{seed}-{epochs}.json"
    if kept.is_file():
        return json.loads(kept.read_text())
    data = load_data("digits", 0)
    height, _, channels = data.train.images.shape[1:]
    recipe, shape = recipe_of(side, epochs), NetworkShape(8, 5, (channels, height, height), 10)
    augmentation = Augmentation.for_size(height, recipe.flip, data.mean, data.std)
    identity = {"seed": seed, "shape": str(shape), **recipe.model_dump()}
    halves = data.halves(seed)
    task = SearchTask(SPACE, shape, *halves, augmentation, recipe, [None], seed, 60.0, identity)
    checkpoint = work / f"{side}-{seed}-{epochs}.safetensors"
    searcher = Searcher(task, checkpoint)
    searcher.resume()
    start = time.process_time()
    figures = {"side": side, "seed": seed, "epochs": epochs, **figures_of(searcher.run(lambda *_: None))}
    figures["cpu_s_since_resumed"] = round(time.process_time() - start, 1)
    figures["date"] = datetime.now(UTC).isoformat(timespec="seconds")
    kept.write_text(json.dumps(figures))
    checkpoint.unlink(missing_ok=True)
    return figures


def figures_of(result: SearchResult) -> dict[str, Any]:
    """Return the skips of the network found, and how decided the search was."""
    found, last = SPACE.most_likely(result.logits), result.history[-1]
    normal, reduction = SPACE.identities(found)
    return {
        "skips_normal": normal,
        "skips_reduction": reduction,
        "genotype": SPACE.text(found),
        "entropy": [record["entropy"] for record in result.history],
        "accuracy": last["accuracy"],
        "loss": last["loss"],
    }


def line_of(row: dict[str, Any]) -> str:
    """Return a search in one line."""
    first, last = row["entropy"][0], row["entropy"][-1]
    return (
        f"{row['side']:8} seed {row['seed']}  skips {row['skips_normal']} normal, {row['skips_reduction']} "
        f"reduction  entropy {first:.2f} → {last:.2f}  accuracy {row['accuracy']:.3f}  {row['genotype']}"
    )


def summary_of(side: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how many of a side's searches collapsed."""
    skips = [row["skips_normal"] for row in rows if row["side"] == side]
    collapsed = sum(count > MOST_SKIPS for count in skips)
    print(f"{side:8} {collapsed} of {len(skips)} collapsed; skips in the normal cell {skips}")
    return {"side": side, "collapsed": collapsed, "searches": len(skips), "skips_normal": skips}


def main() -> None:
    """Search on every side with every seed, and write down what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=3 * recipe_for("digits").search_epochs)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "collapse")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # what a step computes is small, and sums are always in the same order
    rows = []
    for seed in range(args.seeds):
        for side in args.sides:
            rows.append(searched(side, seed, args.epochs, args.work))
            print(line_of(rows[-1]), flush=True)
    summaries = [summary_of(side, rows) for side in args.sides]
    write_result("collapse", {"epochs": args.epochs, "sides": summaries, "searches": rows})


if __name__ == "__main__":
    main()
