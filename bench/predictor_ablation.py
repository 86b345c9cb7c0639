"""What each part of the predictor brings: parts left out one at a time, on NAS-Bench-201's measured tables.

    python bench/predictor_ablation.py [--n 100] [--seeds 3] [--no-write]

Prints for each variant and device the mean Spearman, the share within ±10 % and the MAPE over the seeds, on
the same splits, and writes bench/results/predictor_ablation.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from common import write_result
from predictor import DATA
from predictor_questions import DEVICES, Device
from torch import Tensor

from ehdnas.search.predictor import ensemble, process

TEST = 2000


def only_view(view: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a choice of shares that trusts one view alone."""

    def shares(logs: Tensor, truth: Tensor) -> Tensor:
        found = torch.zeros(logs.shape[1:], dtype=torch.float64)
        found[view] = 0.5
        return found

    return shares


def only_noise(column: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the usual choice of shares, moved to the solutions for one kind of noise."""
    usual = ensemble._shares

    def shares(logs: Tensor, truth: Tensor) -> Tensor:
        found = torch.zeros(logs.shape[1:], dtype=torch.float64)
        found[:, column] = usual(logs, truth).sum(1)
        return found

    return shares


PATCHES: dict[str, tuple[Any, str, Any]] = {
    "only the view of work that counts": (ensemble, "_shares", only_view(0)),
    "only the view of everything": (ensemble, "_shares", only_view(1)),
    "only the view with one weight": (ensemble, "_shares", only_view(2)),
    "normal noise only": (ensemble, "_shares", only_noise(0)),
    "robust noise only": (ensemble, "_shares", only_noise(1)),
    "always in the log": (ensemble, "_scale_for", lambda *_: "log"),
    "single edges weigh as counts do": (process, "_SINGLE", 1.0),
    "a looser prior on the weights": (process, "_LOOSE", 2.0),
}


@contextmanager
def variant(name: str, device: Device) -> Iterator[None]:
    """Leave a part out, until left."""
    facts = device.facts
    if name == "no graph":
        device.facts = replace(facts, graphs=())
    if name == "no costs":
        device.facts = replace(facts, costs=None)
    try:
        if name in PATCHES:
            with patch.object(*PATCHES[name]):
                yield
        else:
            yield
    finally:
        device.facts = facts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--no-write", action="store_true")
    arguments = parser.parse_args()
    if not DATA.is_file():
        print("skipped: no nb201/measured.csv.gz; set EHDNAS_DATA")
        return
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for device in (Device(name) for name in DEVICES):
        for name in ("all of it", "no graph", "no costs", *PATCHES):
            rows = []
            for seed in range(arguments.seeds):
                order = device.shuffled(seed)
                with variant(name, device):
                    fitted = device.fitted(order[: arguments.n], seed)
                    rows.append(list(device.judged(fitted, order[arguments.n : arguments.n + TEST]).values()))
            found.setdefault(name, {})[device.name] = np.mean(rows, 0).round(4).tolist()
            print(f"{device.name:20} {name:36}", found[name][device.name], flush=True)
    if not arguments.no_write:
        figures = ["spearman", "within10", "mape"]
        write_result("predictor_ablation", {**vars(arguments), "figures": figures, "variants": found})


if __name__ == "__main__":
    main()
