"""What a supernet step costs by relaxation: a single path beside DARTS' mixture and PC-DARTS' partial one.

    python bench/mixed_step.py [--batch 64] [--channels 16] [--cells 8] [--singles 5] [--mixed 3]

A step is a whole one, weights and then architecture, without a budget. The mixture is also taken as DARTS'
authors publish it: their architecture step computes the gradients of the weights too, and leaves them, and
their tensors lie in torch's default layout; ours are channels-last, and weights get no gradients there, for
any relaxation. All sides take the same images in one process, in turn: a few single steps, each of another
sampled path, around each mixed one. How much memory a step takes is measured in a fresh process for each
side: its peak beyond what the process held before its first step. Then single steps at several numbers of
cells and of images, with a line fitted to their medians, each of as many steps.

Where other work runs at the same time the wall clock says little: `--clock cpu` counts the seconds of all
threads of this process instead.

Prints the figures; writes bench/results/mixed_step.json. Threads are those of OMP_NUM_THREADS.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from common import spread, write_result
from torch import Tensor

from ehdnas.core.images import Split
from ehdnas.search.augment import Augmentation
from ehdnas.search.compute import CPU, Compute
from ehdnas.search.recipes import recipe_for
from ehdnas.search.searcher import Batch, Searcher, SearchTask
from ehdnas.search.spaces.base import NetworkShape, find_space

KINDS = ("single", "mixed", "published", "partial")
PUBLISHED = Compute(torch.device("cpu"), memory_format=torch.contiguous_format)
CELLS, IMAGES = (4, 8, 12, 16, 20), (16, 32, 64, 96, 128)


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class AsPublished(Searcher):
    """A search whose architecture step is as in DARTS' code: its backward pass goes to the weights, too."""

    def _slopes(self, gates: Tensor, batch: Batch, ahead: Batch | None) -> tuple[Tensor, Tensor]:
        gradients, seen = self._gradients(gates, *batch, "architecture", [gates, *self.weights])
        return gradients[0], seen


class Side:
    """The steps of one relaxation, on random images."""

    def __init__(self, kind: str, channels: int, cells: int, batch: int, clock: str = "wall") -> None:
        self.clock = CLOCKS[clock]
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (batch, 32, 32, 3), dtype=np.uint8)
        split = Split(images, rng.integers(0, 10, batch).astype(np.int64))
        augmentation = Augmentation(pad=4, flip=True, cutout=0, mean=(0.5,) * 3, std=(0.25,) * 3)
        relaxation = "mixed" if kind == "published" else kind
        recipe = recipe_for("cifar10").model_copy(update={"relaxation": relaxation})
        shape = NetworkShape(channels, cells, (3, 32, 32), 10)
        with TemporaryDirectory() as folder:
            compute = PUBLISHED if kind == "published" else CPU
            task = SearchTask(
                find_space("darts"), shape, split, split, augmentation, recipe, [None], 0, 1e9, {},
                compute=compute,
            )  # fmt: skip
            maker = AsPublished if kind == "published" else Searcher
            self.searcher = maker(task, Path(folder) / "checkpoint")
        images = augmentation.evaluate(torch.from_numpy(images))
        self.batch = self.searcher.compute.batch(images), torch.from_numpy(split.labels)

    def step(self) -> float:
        """Return the seconds of one step of weights and architecture."""
        start = self.clock()
        self.searcher.weight_step(*self.batch)
        self.searcher.architecture_step(*self.batch)
        return self.clock() - start


def peak_kib() -> int:
    """Return the most memory that this process has held, in KiB; getrusage would begin with its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def memory_of(kind: str, args: argparse.Namespace) -> float:
    """Return the MiB that the steps of one side take, measured by a process of their own."""
    sizes = ["--channels", args.channels, "--cells", args.cells, "--batch", args.batch]
    command = [sys.executable, __file__, "--memory-of", kind, *map(str, sizes)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout))


def print_memory(args: argparse.Namespace) -> None:
    """Print the MiB that a few steps take beyond what was held before them."""
    side = Side(args.memory_of, args.channels, args.cells, args.batch)
    before = peak_kib()
    for _ in range(3 if args.memory_of == "single" else 1):
        side.step()
    print((peak_kib() - before) / 1024)


def timed(args: argparse.Namespace) -> dict[str, list[float]]:
    """Return the seconds of every step by side, taken in turn."""
    torch.manual_seed(0)
    sides = {kind: Side(kind, args.channels, args.cells, args.batch, args.clock) for kind in KINDS}
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for kind in KINDS:
        sides[kind].step()
    for _ in range(args.mixed):
        for kind in KINDS:
            count = -(-args.singles // args.mixed) if kind == "single" else 1
            seconds[kind] += [sides[kind].step() for _ in range(count)]
    return seconds


def fitted(sizes: Sequence[int], sides: Sequence[Side], steps: int) -> dict[str, Any]:
    """Return the line through the median seconds of a step by size, and how well it fits."""
    torch.manual_seed(1)
    for side in sides:
        side.step()
    rows = [[side.step() for side in sides] for _ in range(steps)]  # all sizes in turn
    medians = [statistics.median(column) for column in zip(*rows, strict=True)]
    slope, intercept = np.polyfit(sizes, medians, 1)
    squared = float(np.corrcoef(sizes, medians)[0, 1] ** 2)
    return {"sizes": list(sizes), "median_s": medians, "steps": steps, "slope_s": float(slope),
            "intercept_s": float(intercept), "r_squared": squared}  # fmt: skip


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, value in (("batch", 64), ("channels", 16), ("cells", 8), ("singles", 5), ("mixed", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--fits", type=int, default=5, help="steps a size of the fits; 0: none")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--shared", action="store_true", help="note that other work ran at the same time")
    parser.add_argument("--memory-of", choices=KINDS, help="print the memory of one side, and end")
    args = parser.parse_args()
    if args.memory_of:
        print_memory(args)
        return
    load = os.getloadavg()[0]
    seconds = timed(args)
    for kind in KINDS:
        print(f"{kind:9} {spread(seconds[kind])} s a step by the {args.clock} clock", flush=True)
    memory = {kind: memory_of(kind, args) for kind in KINDS}
    print(", ".join(f"{kind} {value:.0f} MiB" for kind, value in memory.items()), flush=True)
    median = {kind: statistics.median(seconds[kind]) for kind in KINDS}
    ratios = {
        "time_mixed": median["mixed"] / median["single"],
        "time_mixed_least": min(seconds["mixed"]) / max(seconds["single"]),
        "time_published": median["published"] / median["single"],
        "time_published_least": min(seconds["published"]) / max(seconds["single"]),
        "time_partial": median["partial"] / median["single"],
        "memory_mixed": memory["mixed"] / memory["single"],
        "memory_published": memory["published"] / memory["single"],
        "memory_partial": memory["partial"] / memory["single"],
    }
    print(", ".join(f"{name} {value:.2f}" for name, value in ratios.items()), flush=True)
    figures = {"batch": args.batch, "channels": args.channels, "cells": args.cells,
               "threads": torch.get_num_threads(), "load_before": load, "shared": args.shared,
               "clock": args.clock, "seconds": seconds, "memory_mib": memory, "ratios": ratios}  # fmt: skip
    if args.fits:
        by_cells = [Side("single", args.channels, cells, args.batch, args.clock) for cells in CELLS]
        figures["by_cells"] = fitted(CELLS, by_cells, args.fits)
        by_images = [Side("single", args.channels, args.cells, batch, args.clock) for batch in IMAGES]
        figures["by_images"] = fitted(IMAGES, by_images, args.fits)
        for name in ("by_cells", "by_images"):
            line = figures[name]
            print(f"{name}: {1e3 * line['slope_s']:.2f} ms each, R² {line['r_squared']:.4f}", flush=True)
    write_result("mixed_step", figures)


if __name__ == "__main__":
    main()
