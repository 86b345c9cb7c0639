"""From a learnt distribution to the architectures worth measuring, and the fastest one there is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ehdnas.search.augment import Augmentation
from ehdnas.search.compute import CPU, Compute
from ehdnas.search.loop import step_seed
from ehdnas.search.objective import Constraint
from ehdnas.search.spaces.base import Architecture, Space, Supernet

_DRAWS = 500


@dataclass(frozen=True)
class Candidate:
    """An architecture, its log-probability, and by how much it is predicted to break the budget."""

    architecture: Architecture
    log_prob: float
    violation: float


def candidates(space: Space, logits: Tensor, constraint: Constraint | None, seed: int) -> list[Candidate]:
    """Return distinct draws from the distribution and its mode, best first.

    Those predicted to meet the budget come first, most likely first; then the others, nearest first.
    """
    generator = torch.Generator().manual_seed(step_seed(seed, "candidates"))
    drawn = {space.most_likely(logits): None}
    with torch.no_grad():
        for _ in range(_DRAWS):
            drawn[space.decode(space.relax(logits, 1.0, generator))] = None
        if constraint is not None:
            drawn |= dict.fromkeys(_repaired(space, space.most_likely(logits), constraint))
        found = list(drawn)
        violations = (
            torch.zeros(len(found)) if constraint is None else constraint.violation(space.encode_all(found))
        )
        likely = [float(space.log_prob(architecture, logits)) for architecture in found]
    every = [Candidate(*row) for row in zip(found, likely, violations.tolist(), strict=True)]
    return sorted(every, key=lambda one: (max(one.violation, 0.0), -one.log_prob))


def fastest(
    space: Space, score: Callable[[list[Architecture]], Tensor], starts: list[Architecture]
) -> Architecture:
    """Return the architecture of the lowest score [n] of n, by descent over neighbours from each start."""
    best, best_score = starts[0], float("inf")
    for start in starts:
        current, value = start, float(score([start]))
        while True:
            around = list(space.neighbours(current))
            scores = score(around)
            if float(scores.min()) >= value:
                break
            current, value = around[int(scores.argmin())], float(scores.min())
        if value < best_score:
            best, best_score = current, value
    return best


def fastest_starts(space: Space, seed: int, count: int = 4) -> list[Architecture]:
    """Return the reference and a few random architectures, fixed by the seed."""
    rng = np.random.default_rng(step_seed(seed, "fastest"))
    return [space.reference, *(space.sample(rng) for _ in range(count))]


def supernet_accuracy(
    space: Space, supernet: Supernet, architecture: Architecture, images: Tensor, labels: Tensor,
    augmentation: Augmentation, batch: int, compute: Compute = CPU,
) -> float:  # fmt: skip
    """Return the accuracy of an architecture with the shared weights, on images it was not trained on.

    Batch norm uses each batch's own statistics: the running ones mix every architecture's.

    Args:
        images: uint8 [n, h, w, c], with `labels` [n], on any device.
        batch: how many images at a time.
        compute: where the supernet is.
    """
    supernet.train()
    gates = space.encode(architecture)
    images, labels = compute.move(images), compute.move(labels)
    correct = torch.zeros((), dtype=torch.int64, device=compute.device)
    with torch.no_grad(), compute.autocast():
        for some, known in zip(torch.split(images, batch), torch.split(labels, batch), strict=True):
            logits = supernet(compute.batch(augmentation.evaluate(some)), gates)
            correct += (logits.argmax(1) == known).sum()
    return int(correct) / len(labels)


def _repaired(space: Space, start: Architecture, constraint: Constraint) -> list[Architecture]:
    """Return the steps of a greedy walk from `start` to where the predictor says the budget is met."""
    path = [start]
    while float(constraint.violation(space.encode_all([path[-1]]))) > 0:
        around = list(space.neighbours(path[-1]))
        violations = constraint.violation(space.encode_all(around))
        step = around[int(violations.argmin())]
        if step in path:
            break
        path.append(step)
    return path
