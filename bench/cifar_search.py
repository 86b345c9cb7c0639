"""Networks searched for a simulated accelerator on real CIFAR-10, against published ones and random search.

    python bench/cifar_search.py [--seeds 4] [--search-epochs 12] [--train-epochs 6] [--work DIR]

Protocol, written down before it was run. One shard of CIFAR-10 (10,000 training images, all 10,000 test
images), the DARTS space at C=8 x 5 cells, EH-DNAS's generic accelerator, simulated. For throughputs of 1.4,
1.6 and 1.8 times DARTS_V2's the command `ehdnas search` finds a network each; for 1.4 times `--method
random` does too, at the cost of the search by gradient. Searches see the training images alone. Then these
networks, DARTS_V2 and EHDNAS_GENERIC are trained by one recipe with the same seeds: the same images in the
same order, augmented alike. The recipe is DARTS's but for what a short schedule asks for: a rate of 0.1,
neither drop-path nor cutout, no auxiliary head. What is compared is the test accuracy after the last epoch,
by its difference to DARTS_V2's with the same seed; the interval is Student's, 95 %. Every seed is reported.

CPU minutes are counted, of one thread. What was finished is kept in --work, and a run that was stopped goes
on from there. Prints a line a training, then a network; writes bench/results/cifar_search.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import cifar10
import numpy as np
import torch
from common import ROOT, told, write_result
from scipy import stats

from ehdnas.core.images.dataset import Dataset, normalise
from ehdnas.pipeline.costed import costed
from ehdnas.pipeline.devices import find_device
from ehdnas.profilers.base import TableProfiler, find_profiler
from ehdnas.search.augment import Augmentation
from ehdnas.search.recipes import recipe_for
from ehdnas.search.spaces.base import NetworkShape, find_space
from ehdnas.search.trainer import Trainer, TrainTask, accuracy_of, logits_of

SPACE, SHAPE = find_space("darts"), NetworkShape(8, 5, (3, 32, 32), 10)
DEVICE, REFERENCE = "ehdnas-generic", "DARTS_V2"
FACTORS = (1.4, 1.6, 1.8)
SEED = 0
SETTINGS = f"""space = "darts"
device = "{DEVICE}"
channels = {SHAPE.channels}
cells = {SHAPE.cells}
samples = 300
"""


def throughput(genotype: str) -> float:
    """Return a network's simulated throughput in images a second."""
    profiler = find_profiler(find_device(DEVICE))
    assert isinstance(profiler, TableProfiler)
    (found,) = profiler.label(costed(SPACE, SHAPE).workload([SPACE.parse(genotype)]))
    assert found is not None
    return found.metric("throughput_fps")


def kept(path: Path, made: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what a stage gave, with the CPU seconds it took, from its file where it was made before."""
    if not path.is_file():
        start = time.process_time()
        found = made()
        path.write_text(json.dumps({**found, "cpu_s": round(time.process_time() - start, 1)}))
    return json.loads(path.read_text())


def searched(factor: float, method: str, epochs: int, data: Path) -> dict[str, Any]:
    """Return the network that `ehdnas search` finds for so many times the reference's throughput."""
    budget = f"throughput >= {factor * throughput(REFERENCE):.6g} fps"
    about = ("--data", f"cifar10:{data}", "--budget", budget, "--method", method, "--seed", str(SEED))
    project = Path(f"{method}-{factor}-{epochs}")  # of its own, so that what was stopped is its own, too
    project.mkdir(exist_ok=True)
    with chdir(project):
        Path("ehdnas.toml").write_text(SETTINGS)
        found = told("search", *about, "--search-epochs", str(epochs), "--resume")
    return {"genotype": found["genotype"], "history": found["history"], "candidates": found["candidates"]}


def trained(genotype: str, seed: int, epochs: int, data: Dataset, checkpoint: Path) -> dict[str, Any]:
    """Return the test accuracy of a network after a training from scratch."""
    torch.manual_seed(seed)
    network = SPACE.network(SPACE.parse(genotype), SHAPE)
    changed = {"train_epochs": epochs, "train_learning_rate": 0.1, "drop_path": 0.0}
    recipe = recipe_for("cifar10").model_copy(update=changed)
    augmentation = Augmentation(4, True, 0, data.mean, data.std)
    identity = {"genotype": genotype, "seed": seed, **recipe.model_dump()}
    trainer = Trainer(TrainTask(network, data.train, augmentation, recipe, seed, 30.0, identity), checkpoint)
    trainer.resume()
    history = trainer.run(lambda *_: None)
    logits = logits_of(network, normalise(data.test.images, data.mean, data.std))
    checkpoint.unlink(missing_ok=True)
    accuracy = accuracy_of(logits, data.test.labels)
    return {"accuracy": accuracy, "train_accuracy": history[-1]["accuracy"], "loss": history[-1]["loss"]}


def compared(ours: list[float], reference: list[float]) -> dict[str, Any]:
    """Return the mean accuracy, and the mean paired difference with its 95 % interval, in points."""
    differences = 100 * (np.array(ours) - np.array(reference))
    count = len(differences)
    half = stats.t.ppf(0.975, count - 1) * stats.sem(differences) if count > 1 else float("nan")
    mean = float(differences.mean())
    return {
        "accuracy": ours,
        "mean_accuracy": float(np.mean(ours)),
        "difference": mean,
        "interval": [mean - float(half), mean + float(half)],
    }


def main() -> None:
    """Search, train and compare, and write down what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--search-epochs", type=int, default=12)
    parser.add_argument("--train-epochs", type=int, default=6)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "cifar")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    data = cifar10.unpack(args.work / "data", "1")
    dataset = cifar10.load_data(f"cifar10:{data}", seed=0)
    with chdir(args.work):
        asked = [*((factor, "gradient") for factor in FACTORS), (FACTORS[0], "random")]
        searches = {
            f"{method} at {factor} x": kept(
                Path(f"{method}-{factor}-{args.search_epochs}.json"),
                lambda factor=factor, method=method: searched(factor, method, args.search_epochs, data),
            )
            for factor, method in asked
        }
        networks = {name: one["genotype"] for name, one in searches.items()}
        networks |= {name: name for name in (REFERENCE, "EHDNAS_GENERIC")}
        trainings: dict[str, list[dict[str, Any]]] = {name: [] for name in networks}
        for seed in range(args.seeds):
            for name, genotype in networks.items():
                stem = f"{genotype}-{seed}-{args.train_epochs}"
                found = kept(
                    Path(f"{stem}.json"),
                    lambda genotype=genotype, seed=seed, stem=stem: trained(
                        genotype, seed, args.train_epochs, dataset, Path(f"{stem}.safetensors")
                    ),
                )
                trainings[name].append(found)
                print(f"{name:20} seed {seed}  {found['accuracy']:.2%}  {found['cpu_s']:.0f} s", flush=True)
    rows = report(networks, trainings)
    minutes = sum(one["cpu_s"] for of in (searches.values(), *trainings.values()) for one in of) / 60
    print(f"{minutes:.0f} CPU minutes")
    about = {"search_epochs": args.search_epochs, "train_epochs": args.train_epochs, "cpu_minutes": minutes}
    write_result("cifar_search", {**about, "networks": rows, "searches": searches})


def report(networks: dict[str, str], trainings: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return what each network came to beside the reference, and print it."""
    reference = [one["accuracy"] for one in trainings[REFERENCE]]
    rows = {}
    for name, genotype in networks.items():
        row = compared([one["accuracy"] for one in trainings[name]], reference)
        row |= {"genotype": genotype, "throughput": throughput(genotype) / throughput(REFERENCE)}
        rows[name] = row
        low, high = row["interval"]
        print(
            f"{name:20} {row['throughput']:.2f} x  {row['mean_accuracy']:.2%}  {row['difference']:+.2f} "
            f"points ({low:+.2f} to {high:+.2f}, n={len(reference)})  {genotype}"
        )
    return rows


if __name__ == "__main__":
    main()
