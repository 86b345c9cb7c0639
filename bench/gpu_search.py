"""A search on all of CIFAR-10 on one GPU, then the network found trained beside DARTS_V2, equally long.

    python bench/gpu_search.py --data DIR --out DIR --stage search --seconds 560
    python bench/gpu_search.py --data DIR --out DIR --stage choose --seconds 560
    python bench/gpu_search.py --data DIR --out DIR --stage train --seconds 560

The search (C=16 x 8 cells, 32x32) has half of the 50,000 training images for the weights and half for the
architecture; its budget is 1.4 x the throughput of DARTS_V2 on the simulated `ehdnas-generic` accelerator,
judged by a predictor fitted to simulated networks. Of its likeliest networks within 5 % under the budget one
is chosen by successive halving: trained for --epochs-tried epochs on the one half of the training images and
judged on the other, a quarter of them for four times as long. The network found and DARTS_V2 are then trained
on all 50,000 images, by as many seeds as --seeds-train says, and tested once each, at the end, on the 10,000
test images. What is trained in one round runs side by side on the one GPU, as processes of their own.

DIR of --data holds train-1.npz to train-5.npz and test.npz (`png`, `offsets`, `labels`, `classes`). Every
stage stops before --seconds are over, and goes on where it stopped when the same command is given again with
the same --out. The settings that speed depends on can be tried with `--stage probe`. Writes results.json, and
a checkpoint of what is not finished, to DIR of --out. It needs torch, numpy, safetensors, pillow, scipy,
scikit-learn, pydantic and platformdirs, and the ehdnas package on the path: it need not be installed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from gpu_inputs import METRIC, SPACE, Accelerator, load
from gpu_settings import LAYOUTS, arguments, machine

from ehdnas.core.budget import Budget
from ehdnas.core.errors import EhdnasError
from ehdnas.core.images.dataset import Split, normalise
from ehdnas.search.augment import Augmentation
from ehdnas.search.compute import Compute, find_compute
from ehdnas.search.halving import halved
from ehdnas.search.objective import Constraint, Constraints
from ehdnas.search.recipes import recipe_for
from ehdnas.search.searcher import Searcher, SearchTask
from ehdnas.search.selection import apart, candidates, supernet_accuracy
from ehdnas.search.spaces.base import NetworkShape
from ehdnas.search.trainer import Trainer, TrainTask, accuracy_of, logits_of

FACTOR = 1.4  # of DARTS_V2's throughput
CONFIDENCE, SEED = 0.9, 0
SCORED, SCORED_ON = 16, 2000
KEPT = 4  # a round of trials goes on with a share of one in so many, so many times as long
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of CIFAR-10's training images
STOPPED = 75  # exit status: time is up, go on with the same command


class TimeIsUpError(Exception):
    """The stage was stopped, its state saved."""


class Clock:
    """Stops a stage in time, and shows how far it is once every few seconds."""

    def __init__(self, seconds: float) -> None:
        self.start = self.shown = time.monotonic()
        self.seconds = seconds

    @property
    def passed(self) -> float:
        return time.monotonic() - self.start

    def progress(self, done: int, total: int, text: str) -> None:
        now = time.monotonic()
        if now - self.shown > 10:
            self.shown = now
            say(f"{done}/{total} {text}, {self.passed:.0f} s")
        if self.passed > self.seconds:
            signal.raise_signal(signal.SIGTERM)  # the loop finishes its step, saves and raises


def say(text: str) -> None:
    print(f"[{os.environ.get('BENCH_NAME', 'main')}] {text}", flush=True)


class Bench:
    """The settings, and what follows from them."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.clock = Clock(args.seconds)
        self.shape = NetworkShape(args.channels, args.cells, (3, 32, 32), 10)
        found = find_compute(args.compute, args.precision)
        layout = LAYOUTS.get(args.layout, found.memory_format)
        self.compute = Compute(found.device, found.precision, layout)
        if found.device.type == "cuda":
            torch.set_num_threads(1)  # what is left to the CPU is small: threads get in each other's way
        self.augmentation = Augmentation.for_size(32, True, MEAN, STD)
        # DARTS trains 600 epochs in batches of 96 at a rate of 0.025. In a twentieth of them its drop-path
        # is left out, and the rate is what suits the larger batch of a short schedule.
        self.recipe = recipe_for("cifar10").model_copy(
            update={
                "search_epochs": args.epochs_search,
                "train_epochs": args.epochs_train,
                "batch_size": args.batch_search or args.batch,
                "train_batch_size": args.batch,
                "learning_rate": args.rate_search,
                "train_learning_rate": args.rate_train,
                "architecture_learning_rate": args.rate_architecture,
                "weight_decay": args.weight_decay,
                "drop_path": 0.0,
                "ema": args.ema,
                "label_smoothing": args.label_smoothing,
            }
        )

    def identity(self, stage: str) -> dict:
        return {
            "stage": stage,
            "limit": self.args.limit,
            "shape": str(self.shape),
            **self.recipe.model_dump(),
        }

    def search(self) -> dict:
        """Search; return what was found. Seconds count loading and fitting, and those of earlier pieces."""
        halves = self._halves()
        accelerator = Accelerator(self.shape)
        predictor = accelerator.predictor(self.args.work / "predictor.safetensors")
        reference = accelerator.fps(SPACE.reference)
        constraint = Constraint(predictor, Budget(METRIC, FACTOR * reference), CONFIDENCE)
        say(f"ready after {self.clock.passed:.1f} s: {constraint.budget} on {self.compute}")
        task = SearchTask(
            SPACE, self.shape, halves[0], halves[1], self.augmentation, self.recipe,
            [Constraints((constraint,))], SEED,
            120.0, self.identity("search"), self.compute,
        )  # fmt: skip
        checkpoint = self.args.out / "search.safetensors"
        searcher = Searcher(task, checkpoint)
        searcher.resume()
        result = self._timed("search", lambda: searcher.run(self.clock.progress))
        found = self._scored(accelerator, constraint, result, halves[1])
        seconds = self._seconds("search") + self.clock.passed
        checkpoint.unlink()
        return {
            "seconds": round(seconds, 1),
            "candidates": found,
            "budget_fps": FACTOR * reference,
            "reference": self._figures(accelerator, predictor, SPACE.reference),
            "history": result.history,
        }

    def _halves(self) -> list[Split]:
        """Return the images that a search trains weights on, and those that it judges networks on."""
        train, _ = load(self.args)
        order = np.random.default_rng(SEED).permutation(len(train.labels))
        return [Split(train.images[rows], train.labels[rows]) for rows in np.array_split(order, 2)]

    def _scored(self, accelerator, constraint, result, held_out: Split) -> list[dict]:
        """Return the likeliest networks close under the budget, with their accuracies by the supernet."""
        ranked = candidates(SPACE, result.logits, lambda found: accelerator.violations(found, FACTOR), SEED)
        close = {one.architecture: one for one in ranked if one.violation <= 0 and one.distance == 0}
        meeting = [close[one] for one in apart(list(close), SCORED)]
        if len(meeting) < 2:
            sys.exit("too few candidates are close under the budget: search longer")
        images = torch.from_numpy(held_out.images[:SCORED_ON])
        labels = torch.from_numpy(held_out.labels[:SCORED_ON])
        return [
            {
                **self._figures(accelerator, constraint.predictor, one.architecture),
                "log_prob": one.log_prob,
                "supernet_accuracy": supernet_accuracy(
                    SPACE, result.supernet, one.architecture, images, labels, self.augmentation, self.compute
                ),
            }
            for one in meeting
        ]  # fmt: skip

    def choose(self, genotypes: list[str]) -> dict:
        """Return the network that is the most accurate after short trainings, by successive halving."""
        trials = halved([SPACE.parse(one) for one in genotypes], self.args.epochs_tried, self._tried, KEPT)
        rows = [
            {"genotype": SPACE.text(one.architecture), "epochs": one.epochs, "accuracy": one.accuracy}
            for one in trials
        ]
        return {"seconds": round(self.clock.passed, 1), "genotype": rows[-1]["genotype"], "trials": rows}

    def _tried(self, networks, epochs: int) -> list[float]:
        jobs = {f"{SPACE.text(one)}-{epochs}": (SPACE.text(one), epochs) for one in networks}
        return [one["accuracy"] for one in self.side_by_side(jobs, self.args.work / "tried").values()]

    def _figures(self, accelerator, predictor, network) -> dict:
        with torch.no_grad():
            predicted = float(predictor(SPACE.encode_all([network])))
        return {
            "genotype": SPACE.text(network),
            "cells": SPACE.genotype(network),
            "predicted_fps": predicted,
            "simulated_fps": accelerator.fps(network),
        }

    def side_by_side(self, jobs: dict[str, tuple[str, int]], out: Path) -> dict[str, dict]:
        """Train networks side by side, each in a process of its own; return what came of each.

        Args:
            jobs: by name, the genotype and, where it is but tried, for how many epochs; 0 where it is not.
            out: where the results and what is not finished go.
        """
        load(self.args)  # so that one process writes the cache
        children = {}
        for name, (genotype, tried) in jobs.items():
            remaining = max(1.0, self.args.seconds - self.clock.passed - 15)
            command = [
                sys.executable, __file__, *sys.argv[1:], "--stage", "one", "--genotype", genotype,
                "--name", name, "--tried", str(tried), "--seconds", str(remaining),
                "--out", str(out), "--work", str(self.args.work),
            ]  # fmt: skip
            children[name] = subprocess.Popen(command, env={**os.environ, "BENCH_NAME": name})
        codes = {name: child.wait() for name, child in children.items()}
        if STOPPED in codes.values():
            raise TimeIsUpError
        if any(codes.values()):
            sys.exit(f"a training failed: {codes}")
        return {name: json.loads((out / f"{name}.json").read_text()) for name in jobs}

    def train_one(self, name: str, genotype: str, tried: int) -> dict:
        """Train one network, and test it once at the end; one that is tried on the halves of a search."""
        path = self._result(name)
        if path.is_file():
            return json.loads(path.read_text())
        train, test = self._halves() if tried else load(self.args)
        if tried:
            self.recipe = self.recipe.model_copy(update={"train_epochs": tried, "auxiliary_weight": 0.0})
        seed = 0 if tried else int(name.rpartition("-")[2])
        trainer = self._trainer(genotype, train, seed, self.args.out / f"{name}.safetensors")
        trainer.loop.resume()
        history = self._timed(name, lambda: trainer.run(self.clock.progress))
        network = SPACE.network(SPACE.parse(genotype), self.shape)
        trained = trainer.trained_state()
        network.load_state_dict({key: trained[key] for key in network.state_dict()})
        logits = logits_of(network, normalise(test.images, MEAN, STD), compute=self.compute)
        accuracy = accuracy_of(logits, test.labels)
        say(f"accuracy {accuracy:.2%}")
        result = {
            "genotype": genotype,
            "accuracy": accuracy,
            "images": len(test.labels),
            "parameters": sum(one.numel() for one in network.parameters()),
            "seconds": round(self._seconds(name) + self.clock.passed, 1),
            "history": history,
        }
        path.write_text(json.dumps(result))
        return result

    def _trainer(self, genotype: str, images: Split, seed: int, checkpoint: Path) -> Trainer:
        torch.manual_seed(seed)
        auxiliary = self.recipe.auxiliary_weight > 0
        network = SPACE.network(SPACE.parse(genotype), self.shape, auxiliary=auxiliary)
        task = TrainTask(
            network, images, self.augmentation, self.recipe, seed, 120.0,
            self.identity(f"{genotype} {seed}"), self.compute,
        )  # fmt: skip
        return Trainer(task, checkpoint)

    def _result(self, name: str) -> Path:
        return self.args.out / f"{name}.json"

    def _timed(self, name: str, run):
        """Return what `run` gives; when stopped, add the seconds to what later pieces count."""
        try:
            return run()
        except KeyboardInterrupt:
            spent = self._seconds(name) + self.clock.passed
            self._spent(name).write_text(str(spent))
            raise TimeIsUpError from None

    def _seconds(self, name: str) -> float:
        path = self._spent(name)
        return float(path.read_text()) if path.is_file() else 0.0

    def _spent(self, name: str) -> Path:
        return self.args.out / f"{name}.seconds"

    def probe(self) -> dict:
        """Return milliseconds a step in every layout and precision, and where a step's time goes."""
        rows = []
        for layout, memory_format in LAYOUTS.items():
            for precision in ("bfloat16", "float32"):
                self.compute = Compute(self.compute.device, precision, memory_format)
                rows.append({"layout": layout, "precision": precision, **self._try_steps()})
                say(json.dumps(rows[-1]))
        return {"batch": self.args.batch, "rows": rows}

    def _try_steps(self) -> dict:
        try:
            return self._steps()
        except EhdnasError as error:
            return {"failed": str(error)}

    def _steps(self) -> dict:
        train, _ = load(self.args)
        trainer = self._trainer("DARTS_V2", train, SEED, self.args.work / "probe.safetensors")
        trainer.network.train()
        task = SearchTask(
            SPACE,
            self.shape,
            train,
            train,
            self.augmentation,
            self.recipe,
            [None],
            SEED,
            1e9,
            {},
            self.compute,
        )
        searcher = Searcher(task, self.args.work / "probe.safetensors")
        each = {
            "train_ms": lambda at: trainer.step(0, at),
            "weights_ms": lambda at: searcher.weight_step(*searcher._batch(0, 0, at)),
            "architecture_ms": lambda at: searcher.architecture_step(*searcher._batch(1, 0, at)),
        }
        found = {}
        for name, step in each.items():
            for at in range(self.args.probe_steps):  # convolutions are tried out, memory is asked for
                step(at % trainer.loop.steps)
            self.compute.synchronise()
            start = time.perf_counter()
            for at in range(self.args.probe_steps):
                step(at % trainer.loop.steps)
            asked = time.perf_counter() - start
            self.compute.synchronise()
            spent = time.perf_counter() - start
            found[name] = round(1e3 * spent / self.args.probe_steps, 2)
            found[f"{name}_to_ask"] = round(1e3 * asked / self.args.probe_steps, 2)
        return found


def record(args: argparse.Namespace, stage: str, compute: Compute, figures: dict) -> None:
    """Put a stage's figures into results.json, with how and where they came about."""
    path = args.out / "results.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    about = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", "bench/gpu_search.py", *sys.argv[1:]]),
        "machine": machine(compute),
    }
    known[stage] = {**about, **figures}
    path.write_text(json.dumps(known, indent=1) + "\n")
    brief = {key: value for key, value in figures.items() if key != "history"}
    say(json.dumps({stage: brief}, default=str)[:2000])


def run(args: argparse.Namespace) -> None:
    bench = Bench(args)
    if args.stage == "probe":
        record(args, "probe", bench.compute, bench.probe())
        return
    if args.stage == "one":
        bench.train_one(args.name, args.genotype, args.tried)
        return
    results = args.out / "results.json"
    known = json.loads(results.read_text()) if results.is_file() else {}
    if args.stage in ("search", "all") and "search" not in known:
        record(args, "search", bench.compute, bench.search())
        known = json.loads(results.read_text())
    if args.stage in ("choose", "all") and "choose" not in known:
        genotypes = [one["genotype"] for one in known["search"]["candidates"]]
        record(args, "choose", bench.compute, bench.choose(genotypes))
    if args.stage in ("train", "all"):
        found = json.loads(results.read_text())["choose"]["genotype"]
        jobs = {
            f"{name}-{seed}": (genotype, 0)
            for seed in range(args.seeds_train)
            for name, genotype in (("found", found), ("DARTS_V2", "DARTS_V2"))
        }
        record(args, "train", bench.compute, bench.side_by_side(jobs, args.out))


def main() -> int:
    args = arguments(__doc__)
    try:
        run(args)
    except TimeIsUpError:
        say(f"time is up, state kept in {args.out}; give the same command again to go on")
        return STOPPED
    say("done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
