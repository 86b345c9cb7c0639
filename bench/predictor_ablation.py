"""What each part of the predictor brings: parts left out or added one at a time, on measured tables.

    python bench/predictor_ablation.py [--n 100] [--seeds 3] [--jobs 2] [--only "no graph,no costs"]

The tables are NAS-Bench-201's, nb201/measured.csv.gz. Prints for each variant and device the mean Spearman,
the share within ±10 % and the MAPE over the seeds, on the same splits, and writes
bench/results/predictor_ablation_N.json. From 500 samples on there are variants more; --only asks for some.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from common import write_result
from predictor import DATA, one_thread, workers
from predictor_questions import DEVICES, Device
from torch import Tensor

from ehdnas.search.predictor import ensemble, regression
from ehdnas.search.predictor.facts import SpaceFacts
from ehdnas.search.predictor.features import Edges, Features
from ehdnas.search.predictor.process import View

TEST = 2000
USUAL_SHARES, USUAL_SCALES = ensemble._shares, ensemble._scales_for


def only_view(view: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a choice of shares that trusts one view alone."""

    def shares(logs: Tensor, truth: Tensor) -> Tensor:
        found = torch.zeros(logs.shape[1:], dtype=torch.float64)
        found[view] = 0.5
        return found

    return shares


def only_noise(column: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the usual choice of shares, moved to the solutions for one kind of noise."""

    def shares(logs: Tensor, truth: Tensor) -> Tensor:
        found = torch.zeros(logs.shape[1:], dtype=torch.float64)
        found[:, column] = USUAL_SHARES(logs, truth).sum(1)
        return found

    return shares


def by_rank(logs: Tensor, truth: Tensor) -> Tensor:
    """Return shares by the usual loss and, weighing as much, the truest order (a ranking term)."""
    with patch.object(ensemble, "_MANY_FROM", 0):
        return USUAL_SHARES(logs, truth)


def with_messages(view: View) -> View:
    """Return a view that also sees which choice comes after which (one round of message passing)."""

    def features(gates: Tensor, facts: SpaceFacts) -> Features:
        usual = view.features(gates, facts)
        pairs = [pairs_of(Edges(gates, graph)) for graph in facts.graphs]
        values = torch.cat([usual.values, *(one.flatten(1) for one in pairs)], 1)
        first, choices = int(usual.groups.max()) + 1, gates.shape[2]
        more = first + torch.arange(choices).repeat_interleave(choices).repeat(len(pairs))
        single = torch.cat([usual.single, torch.zeros(len(more), dtype=torch.bool)])
        return Features(values, torch.cat([usual.groups, more]), single)

    return replace(view, features=features)


def pairs_of(edges: Edges) -> Tensor:
    """Return how often each choice feeds each other on live paths, [n, choices, choices]."""
    live = edges.gates * edges.live[:, :, None]
    total = torch.zeros(len(live), live.shape[2], live.shape[2], dtype=live.dtype)
    for one, (_, middle, _) in enumerate(edges.graph.edges):
        for other, (source, _, _) in enumerate(edges.graph.edges):
            if source == middle:
                total = total + live[:, one, :, None] * live[:, other, None, :]
    return total


MESSAGES = tuple(map(with_messages, ensemble._MANY_VIEWS))
PATCHES: dict[str, tuple[Any, str, Any]] = {
    "only the view of work that counts": (ensemble, "_shares", only_view(0)),
    "only the view of everything": (ensemble, "_shares", only_view(1)),
    "only the view with one weight": (ensemble, "_shares", only_view(2)),
    "normal noise only": (ensemble, "_shares", only_noise(0)),
    "robust noise only": (ensemble, "_shares", only_noise(1)),
    "always in the log": (ensemble, "_scales_for", lambda *_: ("log",)),
    "single edges weigh as counts do": (regression, "_SINGLE", 1.0),
    "a looser prior on the weights": (regression, "_LOOSE", 2.0),
    "shares by error and rank": (ensemble, "_shares", by_rank),
    "messages along edges as well": (ensemble, "_MANY_VIEWS", MESSAGES),
}
PATCHES_OF_MANY: dict[str, tuple[Any, str, Any]] = {
    "a single scale": (ensemble, "_scales_for", lambda *given: USUAL_SCALES(*given)[:1]),
    "shares by error alone": (ensemble, "_rank_correlation", lambda told, truth: torch.ones(told.shape[1])),
}


@contextmanager
def variant(name: str, device: Device) -> Iterator[None]:
    """Leave a part out, or add one, until left."""
    facts = device.facts
    if name == "no graph":
        device.facts = replace(facts, graphs=())
    if name == "no costs":
        device.facts = replace(facts, costs=None)
    try:
        if name in PATCHES | PATCHES_OF_MANY:
            with patch.object(*(PATCHES | PATCHES_OF_MANY)[name]):
                yield
        else:
            yield
    finally:
        device.facts = facts


def variants(count: int, only: str) -> list[str]:
    """Return the whole predictor and the variants of so many samples, or those asked for."""
    of_many = PATCHES_OF_MANY if count >= ensemble._MANY_FROM else ()
    every = ["no graph", "no costs", *PATCHES, *of_many]
    asked = [name for name in only.split(",") if name]
    if unknown := set(asked) - set(every):
        raise SystemExit(f"no variant {', '.join(sorted(unknown))}; there are: {', '.join(every)}")
    return ["all of it", *(asked or every)]


def ablate(count: int, seeds: int, changes: list[str], name: str) -> tuple[str, dict[str, list[float]]]:
    """Return the device and the mean figures of every variant on it."""
    device, found = Device(name), {}
    for change in changes:
        rows = []
        for seed in range(seeds):
            order = device.shuffled(seed)
            with one_thread(), variant(change, device):
                fitted = device.fitted(order[:count], seed)
                rows.append(list(device.judged(fitted, order[count : count + TEST]).values()))
        found[change] = np.mean(rows, 0).round(4).tolist()
    return name, found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", default="", help="variants, comma-separated; all by default")
    parser.add_argument("--no-write", action="store_true")
    arguments = parser.parse_args()
    if not DATA.is_file():
        print("skipped: no nb201/measured.csv.gz; set EHDNAS_DATA")
        return
    with workers(arguments.jobs) as run:
        changes = variants(arguments.n, arguments.only)
        every = run(functools.partial(ablate, arguments.n, arguments.seeds, changes), DEVICES)
        of_device = dict(sorted(every, key=lambda one: DEVICES.index(one[0])))
    found = {
        change: {name: of_device[name][change] for name in DEVICES}
        for change in next(iter(of_device.values()))
    }
    for change, figures in found.items():
        print(f"{change:36}", "  ".join(f"{name} {one}" for name, one in figures.items()), flush=True)
    if not arguments.no_write:
        about = {"n": arguments.n, "seeds": arguments.seeds, "figures": ["spearman", "within10", "mape"]}
        write_result(f"predictor_ablation_{arguments.n}", {**about, "variants": found})


if __name__ == "__main__":
    main()
