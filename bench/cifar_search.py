"""Networks searched for a simulated accelerator on real CIFAR-10, against published ones and random search.

    python bench/cifar_search.py [--seeds 6] [--search-epochs 7] [--train-epochs 6] [--jobs 2] [--work DIR]

Protocol, written down before it was run. One shard of CIFAR-10 (10,000 training images, all 10,000 test
images), the DARTS space at C=8 x 5 cells, EH-DNAS's generic accelerator, simulated. For throughputs of 1.4,
1.6 and 1.8 times DARTS_V2's the command `ehdnas search` finds a network each; for 1.4 times `--method
random` does too, at the cost of the search by gradient, trials included. Searches see the training images
alone. Then these networks, DARTS_V2 and EHDNAS_GENERIC are trained by one recipe with the same seeds: the
same images in the same order, augmented alike. The recipe is DARTS's but for what a short schedule asks for:
a rate of 0.1, neither drop-path nor cutout, no auxiliary head. What is compared is the test accuracy after
the last epoch, by its difference to DARTS_V2's with the same seed; the interval is Student's, 95 %. DARTS_V2,
EHDNAS_GENERIC and the network for 1.4 times are trained with all seeds, the others with the first one. Every
seed is reported, and how far the network for 1.4 times is from EHDNAS_GENERIC.

CPU minutes are counted, of one thread each. What a search found and how a training ended is kept, with its
date, in bench/results/cifar_search, and is not done again while it is there; what is under way is in --work,
and a run that was stopped goes on from there. Prints a line a training, then a network; writes
bench/results/cifar_search_N_epochs.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import chdir
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cifar10
import numpy as np
import torch
from common import ROOT, told, write_result
from scipy import stats

from ehdnas.core.files import read_json, write_json
from ehdnas.core.images.dataset import Dataset, normalise
from ehdnas.pipeline.costed import costed
from ehdnas.pipeline.devices import find_device
from ehdnas.profilers.base import TableProfiler, find_profiler
from ehdnas.search.augment import Augmentation
from ehdnas.search.recipes import recipe_for
from ehdnas.search.spaces.base import NetworkShape, find_space
from ehdnas.search.trainer import Trainer, TrainTask, accuracy_of, logits_of

SPACE, SHAPE = find_space("darts"), NetworkShape(8, 5, (3, 32, 32), 10)
DEVICE, REFERENCE, RIVAL = "ehdnas-generic", "DARTS_V2", "EHDNAS_GENERIC"
FACTORS = (1.4, 1.6, 1.8)
OURS = f"gradient at {FACTORS[0]} x"
SEED = 0
DONE = ROOT / "bench" / "results" / "cifar_search"
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


@dataclass(frozen=True)
class Job:
    """A search (`factor` and `method`) or a training (`genotype` and `seed`), and how long it is."""

    epochs: int
    factor: float = 0.0
    method: str = ""
    genotype: str = ""
    seed: int = 0

    @property
    def name(self) -> str:
        what = f"{self.method}-{self.factor}" if self.method else f"{self.genotype}-{self.seed}"
        return f"{what}-{self.epochs}"


def done(job: Job) -> dict[str, Any]:
    """Return what a job gave, with the CPU seconds it took, from its file where it was done before.

    Of one whose process was killed, the seconds of that process are not known: `cpu_s_at_least` says so.
    """
    torch.set_num_threads(1)
    path, spent = DONE / f"{job.name}.json", Path(f"{job.name}.cpu_s")
    if path.is_file():
        return read_json(path)
    start = time.process_time()
    before = float(spent.read_text()) if spent.is_file() else 0.0
    unknown = not spent.is_file() and bool(list(Path().glob(f"{job.name}*")))  # of one that was killed
    try:
        found = searched(job) if job.method else trained(job)
    finally:  # it may have been stopped, to go on later
        taken = round(before + time.process_time() - start, 1)
        spent.write_text(str(taken))
    found |= {
        "cpu_s": taken,
        "cpu_s_at_least": unknown,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(path, found)
    print(f"{job.name}  {found.get('accuracy', 0):.2%}  {found['cpu_s']:.0f} s", flush=True)
    return found


def searched(job: Job) -> dict[str, Any]:
    """Return the network that `ehdnas search` finds for so many times the reference's throughput."""
    budget = f"throughput >= {job.factor * throughput(REFERENCE):.6g} fps"
    about = ("--data", f"cifar10:{data_folder()}", "--budget", budget, "--method", job.method)
    project = Path(job.name)  # of its own, so that what was stopped is its own, too
    project.mkdir(exist_ok=True)
    with chdir(project):
        Path("ehdnas.toml").write_text(SETTINGS)
        found = told("search", *about, "--seed", str(SEED), "--search-epochs", str(job.epochs), "--resume")
    return {key: found[key] for key in ("genotype", "history", "candidates", "trials")}


def trained(job: Job) -> dict[str, Any]:
    """Return the test accuracy of a network after a training from scratch."""
    data = dataset()
    torch.manual_seed(job.seed)
    network = SPACE.network(SPACE.parse(job.genotype), SHAPE)
    changed = {"train_epochs": job.epochs, "train_learning_rate": 0.1, "drop_path": 0.0}
    recipe = recipe_for("cifar10").model_copy(update=changed)
    augmentation = Augmentation(4, True, 0, data.mean, data.std)
    identity = {"genotype": job.genotype, "seed": job.seed, **recipe.model_dump()}
    task = TrainTask(network, data.train, augmentation, recipe, job.seed, 30.0, identity)
    checkpoint = Path(f"{job.name}.safetensors")
    trainer = Trainer(task, checkpoint)
    trainer.resume()
    history = trainer.run(lambda *_: None)
    logits = logits_of(network, normalise(data.test.images, data.mean, data.std))
    checkpoint.unlink(missing_ok=True)
    accuracy = accuracy_of(logits, data.test.labels)
    return {"accuracy": accuracy, "train_accuracy": history[-1]["accuracy"], "loss": history[-1]["loss"]}


def data_folder() -> Path:
    return cifar10.unpack(Path("data").resolve(), "1")


@cache
def dataset() -> Dataset:
    return cifar10.load_data(f"cifar10:{data_folder()}", seed=0)


def compared(ours: list[float], reference: list[float]) -> dict[str, Any]:
    """Return the mean accuracy, and the mean paired difference with its 95 % interval, in points."""
    differences = 100 * (np.array(ours) - np.array(reference))
    count = len(differences)
    half = float(stats.t.ppf(0.975, count - 1) * stats.sem(differences)) if count > 1 else None
    mean = float(differences.mean())
    return {
        "accuracy": ours,
        "mean_accuracy": float(np.mean(ours)),
        "differences": differences.tolist(),
        "difference": mean,
        "interval": None if half is None else [mean - half, mean + half],
    }


def main() -> None:
    """Search, train and compare, and write down what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--search-epochs", type=int, default=7)
    parser.add_argument("--train-epochs", type=int, default=6)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "cifar")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    with chdir(args.work), ProcessPoolExecutor(args.jobs, get_context("spawn")) as workers:
        data_folder()  # so that one process unpacks it
        found, networks, trainings = found_and_trained(args, workers.map)
    rows = report(networks, trainings)
    jobs = [*found.values(), *(one for of in trainings.values() for one in of)]
    minutes, unknown = sum(one["cpu_s"] for one in jobs) / 60, any(one.get("cpu_s_at_least") for one in jobs)
    print(
        f"{minutes:.0f} CPU minutes{' and what was spent by processes that were killed' if unknown else ''}"
    )
    about = {
        "search_epochs": args.search_epochs,
        "train_epochs": args.train_epochs,
        "cpu_minutes": minutes,
        "cpu_minutes_at_least": unknown,
    }
    write_result(f"cifar_search_{args.train_epochs}_epochs", {**about, "networks": rows, "searches": found})


def found_and_trained(args: argparse.Namespace, run: Callable[..., Any]) -> tuple[dict, dict, dict]:
    """Return what each search found, the genotype of each network, and its trainings, seed by seed."""
    asked = [*((factor, "gradient") for factor in FACTORS), (FACTORS[0], "random")]
    searches = [Job(args.search_epochs, factor, method) for factor, method in asked]
    names = [f"{one.method} at {one.factor} x" for one in searches]
    found = dict(zip(names, run(done, searches), strict=True))
    networks = {name: one["genotype"] for name, one in found.items()}
    networks |= {name: name for name in (REFERENCE, RIVAL)}
    jobs = [
        (name, Job(args.train_epochs, genotype=genotype, seed=seed))
        for seed in range(args.seeds)
        for name, genotype in networks.items()
        if name in (REFERENCE, RIVAL, OURS) or seed == 0
    ]
    trainings: dict[str, list[dict[str, Any]]] = {name: [] for name in networks}
    for (name, _), one in zip(jobs, run(done, [job for _, job in jobs]), strict=True):
        trainings[name].append(one)
    return found, networks, trainings


def report(networks: dict[str, str], trainings: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return what each network came to beside the reference and the rival, and print it."""
    every = {name: [one["accuracy"] for one in of] for name, of in trainings.items()}
    rows = {}
    for name, genotype in networks.items():
        row = compared(every[name], every[REFERENCE][: len(every[name])])
        row |= {"genotype": genotype, "throughput": throughput(genotype) / throughput(REFERENCE)}
        rows[name] = row
        told = f"{difference(row)}  {genotype}"
        print(f"{name:20} {row['throughput']:.2f} x  {row['mean_accuracy']:.2%}  {told}")
    beside = compared(every[OURS], every[RIVAL])
    print(f"{OURS:20} beside {RIVAL}: {difference(beside)}")
    return rows | {f"{OURS} beside {RIVAL}": beside}


def difference(row: dict[str, Any]) -> str:
    """Return a paired difference in words, seed by seed."""
    within = "" if row["interval"] is None else "{:+.2f} to {:+.2f}, ".format(*row["interval"])
    each = " ".join(f"{one:+.2f}" for one in row["differences"])
    return f"{row['difference']:+.2f} points ({within}n={len(row['differences'])}: {each})"


if __name__ == "__main__":
    main()
