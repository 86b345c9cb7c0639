"""What a predictor is for: descending it, learning from another device, choosing what to measure.

    python bench/predictor_questions.py [--only transfer,choice] [--bounds] [--seeds 5] [--jobs 2]

On NAS-Bench-201's connected networks, nb201/measured.csv.gz in $EHDNAS_DATA (default ../shared/data):

descent   a predictor fitted to 900 networks is descended through the space's relaxation from 200 random
          starts, and the networks arrived at are looked up: how many read faster than their start, how many
          within 10 % of the fastest connected network of the table, how far the median and the fastest end
          are from it; the same where single decisions follow for as long as the predictor prefers them, as
          where a search looks for the fastest network (search/selection.py: fastest). Beside it what the
          table's noise allows. One reading a network is what there is, and the fastest of 15,284 is also the
          luckiest: how far above it the median reading of the networks is that the device computes exactly
          as it does the fastest (`typical`), and how many ends are within 10 % of that. On raspi4 only,
          whose table has every connected network; of the others' one in eight was measured.
transfer  1,000 networks are known on raspi4, disjoint from the test; 30 samples of another device, random or
          chosen by what raspi4 says matters, and 60 chosen ones, against 30 and 100 random ones alone. With
          --bounds, to see what there is to gain, 30, random or chosen, with the kernel of as many as 1,000
          networks of the very device: no other device can tell more of its kernel.
choice    200 chosen samples (30 random ones, then four rounds) against 200 and 300 random ones. With --bounds
          200 chosen all at once by the kernel of as many as 1,000 networks of the very device, and fitted
          with it: who starts from nothing can hardly choose better.

pipeline  E2E-Perf's pipeline, whose throughputs take a few dozen values: DARTS networks drawn as the
          published ones were, ours and the paper's predictor at 1,000 and 100,000 samples, on 3,000 others.

In both, `less` says by how much each set differs from the one it is to equal, seed by seed.

Prints a line an answer, then means and standard errors over the seeds, and writes
bench/results/predictor_QUESTION.json for each question; with --bounds predictor_QUESTION_bounds.json.
"""

from __future__ import annotations

import argparse
import functools
import math
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import e2e_perf_reference as reference
import numpy as np
import torch
from common import write_result
from predictor import DATA, one_thread, workers
from predictor_tables import read_table
from torch import Tensor

from ehdnas.profilers.e2e_perf.pipeline.reference import PipelineReference
from ehdnas.profilers.e2e_perf.workload import Workload
from ehdnas.search.predictor import ensemble
from ehdnas.search.predictor.base import Identity, Predictor
from ehdnas.search.predictor.choice import choose
from ehdnas.search.predictor.ensemble import EnsemblePredictor
from ehdnas.search.predictor.facts import SpaceFacts, facts_of
from ehdnas.search.predictor.features import Edges
from ehdnas.search.predictor.methods import make_predictor
from ehdnas.search.selection import fastest
from ehdnas.search.spaces.base import Architecture, Space, find_space

DEVICES = ("raspi4_ms", "edgetpu_int8_ms", "jetson_nano_fp32_ms", "adreno640_ms")
SOURCE = "raspi4_ms"
STARTS, STEPS, DRAWS = 200, 120, 4
POOL = 2000  # networks to choose from at most, since their covariance is held in memory
Readings = dict[tuple[int, ...], float]
"""The value of each network, by its choices."""


class Device:
    """Gates [n, slots, choices] and values [n] of the connected networks measured on one device."""

    def __init__(self, target: str) -> None:
        table = read_table(DATA, target)
        self.name = target
        self.who = Identity("ehdnas", "nasbench201", table.slots, table.choices, "", target, "", target)
        self.facts: SpaceFacts = table.facts
        everything = np.arange(len(table.values))
        self.gates, self.values = table.gates(everything).double(), torch.from_numpy(table.values).double()

    def fitted(self, rows: Tensor, seed: int, source: EnsemblePredictor | None = None) -> EnsemblePredictor:
        predictor = EnsemblePredictor(self.who, self.facts, source)
        predictor.fit(self.gates[rows], self.values[rows], seed)
        return predictor

    def judged(self, predictor: Predictor, rows: Tensor) -> dict[str, float]:
        quality = predictor.evaluate(self.gates[rows], self.values[rows])
        return {"spearman": quality.spearman, "within10": quality.within10, "mape": quality.mape}

    def shuffled(self, seed: int) -> Tensor:
        return torch.randperm(len(self.values), generator=torch.Generator().manual_seed(seed))


def descent(device: Device, seed: int) -> dict[str, float]:
    space = find_space("nasbench201")
    readings = {key(device, row): value for row, value in enumerate(device.values.tolist())}
    predictor = device.fitted(device.shuffled(seed)[:900], seed)
    rng = np.random.default_rng(seed)
    starts = [Architecture(list(readings)[row]) for row in rng.integers(len(readings), size=STARTS)]
    ends = descended(space, predictor, starts, seed)
    score = functools.partial(log_values, space, predictor)
    further = {end: fastest(space, score, [end]) for end in set(ends)}
    typical = typical_of_fastest(space, device)
    of_refined = arrived(readings, typical, starts, [further[end] for end in ends])
    refined = {f"refined_{name}": figure for name, figure in of_refined.items()}
    return {"typical": typical, **arrived(readings, typical, starts, ends), **refined}


@torch.no_grad()
def log_values(space: Space, predictor: Predictor, networks: list[Architecture]) -> Tensor:
    return predictor.log_value(space.encode_all(networks))


def arrived(
    readings: Readings, typical: float, starts: list[Architecture], ends: list[Architecture]
) -> dict[str, float]:
    """Return what a table says of the networks arrived at, relative to its fastest reading."""
    least = min(readings.values())
    before, after = (np.array([readings[one.choices] for one in of]) / least for of in (starts, ends))
    return {
        "faster": float(np.mean(after < before)),
        "near": float(np.mean(after <= 1.1)),
        "near_typical": float(np.mean(after <= 1.1 * typical)),
        "median_end": float(np.median(after)),
        "fastest_end": float(after.min()),
        "different_ends": len(set(ends)),
    }


def typical_of_fastest(space: Space, device: Device) -> float:
    """Return the median reading of the networks that are computed like the fastest, relative to its own.

    Alike are networks with the same edges that somebody reads, and the same of those that nobody reads but
    some converters keep.
    """
    edges = Edges(device.gates, space.graphs[0])
    computed = torch.cat([edges.read, edges.idle], 1)[:, :, None] * edges.gates.repeat(1, 2, 1)
    row = int(device.values.argmin())
    alike = (computed == computed[row]).flatten(1).all(1)
    return float(np.median(device.values[alike].numpy())) / float(device.values[row])


def descended(
    space: Space, predictor: Predictor, starts: list[Architecture], seed: int
) -> list[Architecture]:
    """Return where gradient descent on the logits ends, from distributions that lean to each start."""
    generator = torch.Generator().manual_seed(seed)
    every = (2 * space.encode_all(starts)).requires_grad_()
    optimizer = torch.optim.Adam([every], lr=0.3)
    for _ in range(STEPS):
        gates = [space.relax(logits, generator) for logits in every for _ in range(DRAWS)]
        optimizer.zero_grad()
        # Starts share nothing, so the sum's gradient is each one's own.
        (predictor.log_value(torch.stack(gates)).sum() / DRAWS).backward()
        optimizer.step()
    return [space.most_likely(logits) for logits in every.detach()]


def transfer(device: Device, source: Device, seed: int, bounds: bool) -> dict[str, dict[str, float]]:
    order = device.shuffled(seed)
    test, rest = order[:1000], order[1000:]
    fits = {"30 alone": device.fitted(rest[:30], seed), "100 alone": device.fitted(rest[:100], seed)}
    if bounds:
        known = device.fitted(torch.cat([rest[:30], rest[100:]])[:1000], seed)
        with patch.object(ensemble, "_HEARD", math.inf):  # what it says of a network is not heard
            fits["30 with its own kernel"] = device.fitted(rest[:30], seed, known)
            chosen = chosen_by(device, rest[:POOL], 30, seed, known)
            fits["30 chosen with its own kernel"] = device.fitted(chosen, seed, known)
    else:
        asked = {tuple(g.argmax(1).tolist()) for g in device.gates[test]}
        disjoint = [row for row in source.shuffled(seed).tolist() if key(source, row) not in asked][:1000]
        other = source.fitted(torch.tensor(disjoint), seed)
        fits["30 with raspi4"] = device.fitted(rest[:30], seed, other)
        chosen = chosen_by(device, rest[:POOL], 60, seed, other)
        for count in (30, 60):  # the first 30 of 60 are those that would be chosen of 30
            fits[f"{count} chosen with raspi4"] = device.fitted(chosen[:count], seed, other)
    return beside({name: device.judged(fit, test) for name, fit in fits.items()}, "100 alone")


def chosen_by(device: Device, among: Tensor, count: int, seed: int, source: EnsemblePredictor) -> Tensor:
    """Return the rows, of some, that another device's predictor would have measured first."""
    none = (device.gates[:0], device.values[:0])
    return among[choose(*none, device.gates[among], count, seed, device.facts, source)]


def beside(figures: dict[str, dict[str, float]], reference: str) -> dict[str, dict[str, float]]:
    """Return figures, and by how much those of each other set differ from the reference's."""
    less = {
        f"{name} less {reference}": {one: value - figures[reference][one] for one, value in of.items()}
        for name, of in figures.items()
        if name != reference
    }
    return figures | less


def key(device: Device, row: int) -> tuple[int, ...]:
    return tuple(device.gates[row].argmax(1).tolist())


def choice(device: Device, seed: int, bounds: bool) -> dict[str, dict[str, float]]:
    order = device.shuffled(seed)
    test, pool = order[:1000], order[1000:]
    fits = {f"{count} random": device.fitted(pool[:count], seed) for count in (200, 300)}
    if bounds:
        known = device.fitted(pool[:1000], seed)
        with patch.object(ensemble, "_HEARD", math.inf):  # what it says of a network is not heard
            told = chosen_by(device, pool[:POOL], 200, seed, known)
            fits["200 chosen with its own kernel"] = device.fitted(told, seed, known)
    else:
        fits["200 chosen"] = device.fitted(chosen_in_rounds(device, pool, seed), seed)
    return beside({name: device.judged(fit, test) for name, fit in fits.items()}, "300 random")


def chosen_in_rounds(device: Device, pool: Tensor, seed: int) -> Tensor:
    """Return 200 rows: 30 random ones, then four rounds of what those before say is worth measuring."""
    rows = pool[:30]
    for count in (60, 100, 150, 200):
        left = pool[~torch.isin(pool, rows)][:800]
        known = device.gates[rows], device.values[rows]
        more = choose(*known, device.gates[left], count - len(rows), seed, device.facts)
        rows = torch.cat([rows, left[more]])
    return rows


def pipeline(samples: int, seed: int) -> dict[str, float]:
    fixed, chosen = reference.space_layers()
    choices = np.unique(reference.sample(samples + 3300, np.random.default_rng(seed)), axis=0)
    np.random.default_rng(seed).shuffle(choices)
    if len(choices) < samples + 3000:
        raise ValueError(f"only {len(choices)} different networks were drawn, {samples + 3000} are needed")
    layers = {slot: reference.flat(part) for slot, part in chosen.items()}
    workload = Workload.of_population(reference.flat(fixed), layers, choices)
    designs = PipelineReference().designs(workload.columns, workload.counts)
    values = torch.tensor(reference.CLOCK_HZ * designs.replicas / (designs.slowest.astype(float) + 1))
    gates = torch.nn.functional.one_hot(torch.tensor(choices), 8).float()
    facts = facts_of(find_space("darts"), reference.SHAPE)
    errors, test = {}, slice(samples, samples + 3000)
    for method in ("ehdnas", "embedding"):
        predictor = make_predictor(Identity(method, "darts", 28, 8, "", "", "", "throughput_fps"), facts)
        predictor.fit(gates[:samples], values[:samples], seed)
        errors[method] = predictor.evaluate(gates[test], values[test]).mape
    return {"samples": samples, **errors, "ratio": errors["ehdnas"] / errors["embedding"]}


@dataclass(frozen=True)
class Task:
    """One question to one device, or to the pipeline at a number of samples, with one seed."""

    question: str
    about: str
    seed: int
    bounds: bool = False


def answer(task: Task) -> tuple[Task, dict[str, Any]]:
    with one_thread():
        if task.question == "pipeline":
            return task, pipeline(int(task.about), task.seed)
        device = cached_device(task.about)
        if task.question == "transfer":
            return task, transfer(device, cached_device(SOURCE), task.seed, task.bounds)
        if task.question == "choice":
            return task, choice(device, task.seed, task.bounds)
        return task, descent(device, task.seed)


cached_device = functools.cache(Device)


def tasks(questions: list[str], seeds: int, bounds: bool) -> list[Task]:
    found = []
    for question in questions:
        if question == "pipeline":
            found += [Task(question, "100000", 0), *(Task(question, "1000", seed) for seed in range(3))]
            continue
        asked = {"descent": (SOURCE,), "transfer": DEVICES[1:]}.get(question, DEVICES)
        found += [Task(question, name, seed, bounds) for name in asked for seed in range(seeds)]
    return found


def spread(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean of each figure over the seeds and, of several, its standard error."""
    if isinstance(next(iter(rows[0].values())), dict):
        return {name: spread([row[name] for row in rows]) for name in rows[0]}
    found = {}
    for name in rows[0]:
        every = np.array([row[name] for row in rows], dtype=float)
        found[name] = round(float(every.mean()), 5)
        if len(rows) > 1:
            found[f"{name}_error"] = round(float(every.std(ddof=1) / np.sqrt(len(rows))), 5)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="descent,transfer,choice,pipeline")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--bounds", action="store_true")
    parser.add_argument("--no-write", action="store_true")
    arguments = parser.parse_args()
    if not DATA.is_file():
        print("skipped: no nb201/measured.csv.gz; set EHDNAS_DATA")
        return
    asked = tasks(arguments.only.split(","), arguments.seeds, arguments.bounds)
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    with workers(arguments.jobs) as run:
        for task, figures in run(answer, asked):
            print(task, figures, flush=True)
            found.setdefault(task.question, {}).setdefault(task.about, []).append(figures)
    means = {question: {about: spread(rows) for about, rows in of.items()} for question, of in found.items()}
    for question, of in means.items():
        for about, figures in of.items():
            print(question, about, figures)
    for question, of in ({} if arguments.no_write else means).items():
        ending = "_bounds" if arguments.bounds else ""
        write_result(f"predictor_{question}{ending}", {"seeds": arguments.seeds, **of})


if __name__ == "__main__":
    main()
