"""What a predictor is for: descending it, learning from another device, choosing what to measure.

    python bench/predictor_questions.py [--only descent,transfer,choice,pipeline] [--seeds 5] [--no-write]

On NAS-Bench-201's connected networks, nb201/measured.csv.gz in $EHDNAS_DATA (default ../shared/data):

descent   a predictor fitted to 900 networks is descended through the space's relaxation from 200 random
          starts, and the networks arrived at are looked up: how many are truly faster than their start,
          and how many are within 10 % of the fastest connected network of the table.
transfer  1,000 networks are known on raspi4, disjoint from the test; 30 samples of another device, random or
          chosen by what raspi4 says matters, against 30 and 100 random ones alone.
choice    200 chosen samples (30 random ones, then four rounds) against 200 and 300 random ones.

pipeline  E2E-Perf's pipeline, whose throughputs take a few dozen values: DARTS networks drawn as the
          published ones were, ours and the paper's predictor at 1,000 and 100,000 samples, on 3,000 others.

Prints a line a question and writes bench/results/predictor_questions.json.
"""

from __future__ import annotations

import argparse
from typing import Any

import e2e_perf_reference as reference
import numpy as np
import torch
from common import write_result
from predictor import DATA
from predictor_tables import read_table
from torch import Tensor

from ehdnas.profilers.e2e_perf.pipeline.reference import PipelineReference
from ehdnas.profilers.e2e_perf.workload import Workload
from ehdnas.search.predictor.base import Identity, Predictor
from ehdnas.search.predictor.choice import choose
from ehdnas.search.predictor.ensemble import EnsemblePredictor
from ehdnas.search.predictor.facts import SpaceFacts, facts_of
from ehdnas.search.predictor.methods import make_predictor
from ehdnas.search.relaxation import temperature_at
from ehdnas.search.spaces.base import Architecture, Space, find_space

DEVICES = ("raspi4_ms", "edgetpu_int8_ms", "jetson_nano_fp32_ms", "adreno640_ms")
SOURCE, STARTS, STEPS = "raspi4_ms", 200, 60


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
    known = {tuple(g.argmax(1).tolist()): float(v) for g, v in zip(device.gates, device.values, strict=True)}
    predictor = device.fitted(device.shuffled(seed)[:900], seed)
    rng = np.random.default_rng(seed)
    faster, near, looked_up = [], [], 0
    for start in range(STARTS):
        first = Architecture(list(known)[int(rng.integers(len(known)))])
        last = descended(space, predictor, first, start)
        if last.choices not in known:
            continue  # on three devices only one network in eight is measured
        looked_up += 1
        faster.append(known[last.choices] < known[first.choices])
        near.append(known[last.choices] <= 1.1 * min(known.values()))
    return {"looked_up": looked_up, "faster": float(np.mean(faster)), "near": float(np.mean(near))}


def descended(space: Space, predictor: Predictor, start: Architecture, seed: int) -> Architecture:
    """Return where gradient descent on the logits ends, from a distribution that leans to `start`."""
    generator = torch.Generator().manual_seed(seed)
    logits = (2 * space.encode(start)).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for step in range(STEPS):
        temperature = temperature_at(step / STEPS)
        gates = torch.stack([space.relax(logits, temperature, generator) for _ in range(4)])
        optimizer.zero_grad()
        predictor.log_value(gates).mean().backward()
        optimizer.step()
    return space.most_likely(logits.detach())


def transfer(device: Device, source: Device, seed: int) -> dict[str, dict[str, float]]:
    order = device.shuffled(seed)
    test, rest = order[:1000], order[1000:]
    asked = {tuple(g.argmax(1).tolist()) for g in device.gates[test]}
    disjoint = [row for row in source.shuffled(seed).tolist() if key(source, row) not in asked][:1000]
    other = source.fitted(torch.tensor(disjoint), seed)
    none = (device.gates[:0], device.values[:0])
    chosen = rest[choose(*none, device.gates[rest], 30, seed, device.facts, other)]
    fits = {
        "30 alone": device.fitted(rest[:30], seed),
        "100 alone": device.fitted(rest[:100], seed),
        "30 with raspi4": device.fitted(rest[:30], seed, other),
        "30 chosen with raspi4": device.fitted(chosen, seed, other),
    }
    return {name: device.judged(fit, test) for name, fit in fits.items()}


def key(device: Device, row: int) -> tuple[int, ...]:
    return tuple(device.gates[row].argmax(1).tolist())


def choice(device: Device, seed: int) -> dict[str, dict[str, float]]:
    order = device.shuffled(seed)
    test, pool = order[:1000], order[1000:]
    rows = pool[:30]
    for count in (60, 100, 150, 200):
        left = pool[~torch.isin(pool, rows)][:800]
        more = choose(
            device.gates[rows], device.values[rows], device.gates[left], count - len(rows), seed, device.facts
        )
        rows = torch.cat([rows, left[more]])
    sets = {"200 random": pool[:200], "300 random": pool[:300], "200 chosen": rows}
    return {name: device.judged(device.fitted(own, seed), test) for name, own in sets.items()}


def pipeline(samples: int, seed: int) -> dict[str, float]:
    fixed, chosen = reference.space_layers()
    choices = np.unique(reference.sample(samples + 3300, np.random.default_rng(seed)), axis=0)
    np.random.default_rng(seed).shuffle(choices)
    layers = {slot: reference.flat(part) for slot, part in chosen.items()}
    workload = Workload.of_population(reference.flat(fixed), layers, choices)
    designs = PipelineReference().designs(workload.columns, workload.counts)
    values = torch.tensor(reference.CLOCK_HZ * designs.replicas / (designs.slowest.astype(float) + 1))
    gates = torch.nn.functional.one_hot(torch.tensor(choices), 8).float()
    facts = facts_of(find_space("darts"), reference.SHAPE)
    errors = {}
    for method in ("ehdnas", "embedding"):
        predictor = make_predictor(Identity(method, "darts", 28, 8, "", "", "", "throughput_fps"), facts)
        predictor.fit(gates[:samples], values[:samples], seed)
        errors[method] = predictor.evaluate(gates[-3000:], values[-3000:]).mape
    return {"samples": samples, **errors, "ratio": errors["ehdnas"] / errors["embedding"]}


def mean(rows: list[dict[str, Any]]) -> dict[str, Any]:
    if isinstance(next(iter(rows[0].values())), dict):
        return {name: mean([row[name] for row in rows]) for name in rows[0]}
    return {name: round(float(np.mean([row[name] for row in rows])), 5) for name in rows[0]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="descent,transfer,choice,pipeline")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--no-write", action="store_true")
    arguments = parser.parse_args()
    only, seeds = arguments.only.split(","), range(arguments.seeds)
    if not DATA.is_file():
        print("skipped: no nb201/measured.csv.gz; set EHDNAS_DATA")
        return
    torch.set_num_threads(1)
    found: dict[str, Any] = {"seeds": arguments.seeds}

    def say(question: str, name: str, figures: dict[str, Any]) -> None:
        found.setdefault(question, {})[name] = figures
        print(question, name, figures, flush=True)

    devices = [] if only == ["pipeline"] else [Device(name) for name in DEVICES]
    for device in devices:
        if "descent" in only:
            say("descent", device.name, descent(device, 0))
        if "transfer" in only and device.name != SOURCE:
            say("transfer", device.name, mean([transfer(device, devices[0], seed) for seed in seeds]))
        if "choice" in only:
            say("choice", device.name, mean([choice(device, seed) for seed in seeds]))
    if "pipeline" in only:
        say("pipeline", "1000", mean([pipeline(1000, seed) for seed in range(3)]))
        say("pipeline", "100000", pipeline(100_000, 0))
    if not arguments.no_write and only == parser.get_default("only").split(","):
        write_result("predictor_questions", found)


if __name__ == "__main__":
    main()
