"""What a supernet step costs beside a step of the sampled network alone.

    python bench/supernet_step.py [--batch 64] [--channels 16] [--cells 8] [--repeats 7]

Both sides run in one process, in turn, on the same images. A supernet step is a whole one: the weights of
a sampled path, then the architecture. It is timed against a training step of the very network whose path
was sampled, built alone, with its gradients clipped and its weights updated by the same optimizer. The
weight step on its own is given beside it. Prints JSON with the ratios, n and spread; no result is stored.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch.nn import functional as F

from ehdnas.core.images import Split
from ehdnas.search.augment import Augmentation
from ehdnas.search.recipes import recipe_for
from ehdnas.search.searcher import Searcher, SearchTask
from ehdnas.search.spaces.base import NetworkShape, find_space


def timed(step):
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def alone(space, architecture, shape, images, labels, recipe):
    """Return a training step of one network, built alone with batch norms as the supernet has them."""
    network = space.network(architecture, shape).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9, weight_decay=3e-4)

    def step():
        loss = F.cross_entropy(network(images), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--cells", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    split = Split(
        rng.integers(0, 256, (args.batch, 32, 32, 3), dtype=np.uint8),
        rng.integers(0, 10, args.batch).astype(np.int64),
    )
    space, shape = find_space("darts"), NetworkShape(args.channels, args.cells, (3, 32, 32), 10)
    augmentation = Augmentation(pad=4, flip=True, cutout=0, mean=(0.5,) * 3, std=(0.25,) * 3)
    recipe = recipe_for("cifar10")
    images = augmentation.evaluate(torch.from_numpy(split.images))
    labels = torch.from_numpy(split.labels)
    with TemporaryDirectory() as folder:
        task = SearchTask(space, shape, split, split, augmentation, recipe, [None], 0, 1e9, {})
        searcher = Searcher(task, Path(folder) / "checkpoint")
        rows = []
        for repeat in range(args.repeats + 1):
            architecture = space.sample(np.random.default_rng(repeat))
            # The distribution is set so that the path sampled is this one: both sides do the same work.
            with torch.no_grad():
                searcher.logits.copy_(100 * space.encode(architecture))
                searcher.logits[:, 0] = -100 * (1 - space.encode(architecture)[:, 0])
            single = alone(space, architecture, shape, images, labels, recipe)
            single()
            weights = timed(lambda: searcher.weight_step(images, labels))
            rows.append(
                {
                    "alone": min(timed(single), timed(single)),
                    "weights": weights,
                    "step": weights + timed(lambda: searcher.architecture_step(images, labels)),
                }
            )
    rows = rows[1:]
    ratios = [row["step"] / row["alone"] for row in rows]
    print(json.dumps({
        "batch": args.batch, "shape": str(shape), "n": len(rows), "threads": torch.get_num_threads(),
        "alone_s": round(statistics.median(row["alone"] for row in rows), 4),
        "supernet_step_s": round(statistics.median(row["step"] for row in rows), 4),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_min_max": [round(min(ratios), 3), round(max(ratios), 3)],
        "weight_step_ratio": round(statistics.median(row["weights"] / row["alone"] for row in rows), 3),
    }, indent=2))  # fmt: skip


if __name__ == "__main__":
    main()
