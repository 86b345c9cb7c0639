"""From a learnt distribution to the architectures worth measuring, and the fastest one there is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from ehdnas.search.augment import Augmentation
from ehdnas.search.compute import CPU, Compute
from ehdnas.search.loop import step_seed
from ehdnas.search.objective import Constraint, Constraints
from ehdnas.search.spaces.base import Architecture, Space, Supernet

_DRAWS = 500
_NEAR = math.log(1.1)  # within 10 % under the bound is close to it
_CLIMBS = 4  # walks among the networks close to it, from the likeliest drawn


@dataclass(frozen=True)
class Candidate:
    """An architecture, its log-probability, and log(predicted / bound), by how much it breaks the budget.

    Of several budgets the one that binds counts: the worst violation.
    """

    architecture: Architecture
    log_prob: float
    violation: float

    @property
    def is_near(self) -> bool:
        """Whether it is predicted to meet the budget with little to spare."""
        return _is_near(self.violation)


def candidates(
    space: Space, logits: Tensor, constraint: Constraint | Constraints | None, seed: int,
    measured: Mapping[Architecture, float] = MappingProxyType({}),
) -> list[Candidate]:  # fmt: skip
    """Return distinct draws from the distribution, its mode and walks from there to the budget, best first.

    Those predicted to meet the budget come first, most likely first; then the others, nearest first.

    Args:
        measured: violations that are known, and then count instead of those predicted.
    """
    generator = torch.Generator().manual_seed(step_seed(seed, "candidates"))
    ground = _Ground(space, logits.detach(), constraint, measured)
    drawn = [space.decode(space.relax(ground.logits, generator)) for _ in range(_DRAWS)]
    found = ground.look([space.most_likely(ground.logits), *drawn])
    if constraint is not None:
        found += _walk(ground, found[0])
        near = sorted((one for one in found if one.is_near), key=lambda one: -one.log_prob)
        found += [passed for one in near[:_CLIMBS] for passed in _climb(ground, one)]
    return sorted(dict.fromkeys(found), key=lambda one: (max(one.violation, 0.0), -one.log_prob))


def shortlist(ranked: list[Candidate], count: int) -> list[Candidate]:
    """Return at most `count` of ranked candidates: half of them as they come, half close under the budget.

    What the distribution thinks likeliest may be far faster than was asked, and a network that just meets
    the budget is usually more accurate. Where few are close, the others fill their places.
    """
    near = (one for one in ranked if one.is_near)
    return list(dict.fromkeys([*ranked[: count // 2], *near, *ranked]))[:count]


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


class _Ground:
    """What candidates are told apart by; what was looked at once is kept, since walks cross."""

    def __init__(
        self, space: Space, logits: Tensor, constraint: Constraint | Constraints | None,
        measured: Mapping[Architecture, float],
    ) -> None:  # fmt: skip
        self.space, self.logits, self.constraint, self.measured = space, logits, constraint, measured
        self.known: dict[Architecture, Candidate] = {}

    def look(
        self, architectures: list[Architecture], wanted: Callable[[float], bool] = lambda violation: True
    ) -> list[Candidate]:
        """Return the candidates of architectures, each once, whose violation is wanted."""
        distinct = list(dict.fromkeys(architectures))
        kept = [pair for pair in zip(distinct, self._violations(distinct), strict=True) if wanted(pair[1])]
        return [self._candidate(*pair) for pair in kept]

    def around(self, one: Candidate, wanted: Callable[[float], bool]) -> list[Candidate]:
        """Return the candidates one decision away whose violation is wanted."""
        return self.look(list(self.space.neighbours(one.architecture)), wanted)

    def _candidate(self, architecture: Architecture, violation: float) -> Candidate:
        # The log-probability is what takes long: neighbours that are not wanted do without.
        if architecture not in self.known:
            likely = float(self.space.log_prob(architecture, self.logits))
            self.known[architecture] = Candidate(architecture, likely, violation)
        return self.known[architecture]

    def _violations(self, architectures: list[Architecture]) -> list[float]:
        if self.constraint is None or not architectures:
            return [0.0] * len(architectures)
        with torch.no_grad():
            violations = self.constraint.violation(self.space.encode_all(architectures)).tolist()
        return [self.measured.get(one, v) for one, v in zip(architectures, violations, strict=True)]


def _is_near(violation: float) -> bool:
    return -_NEAR <= violation <= 0


def _walk(ground: _Ground, start: Candidate) -> list[Candidate]:
    """Return the steps from a start to close under the budget, or as near as single decisions lead.

    Each step goes towards the bound, from under it never beyond it, where it costs the least
    log-probability for what it gains on the way.
    """
    path = [start]
    while not path[-1].is_near:
        here = path[-1]
        around = ground.around(here, partial(_is_towards_bound, here.violation))
        if not around:
            break
        path.append(max(around, key=partial(_likelihood_gained, here)))
    return path


def _is_towards_bound(here: float, there: float) -> bool:
    return there < here if here > 0 else here < there <= 0


def _likelihood_gained(here: Candidate, there: Candidate) -> float:
    return (there.log_prob - here.log_prob) / abs(there.violation - here.violation)


def _climb(ground: _Ground, start: Candidate) -> list[Candidate]:
    """Return the steps from a start to where no neighbour close under the budget is likelier."""
    path = [start]
    while True:
        best = max(ground.around(path[-1], _is_near), key=lambda one: one.log_prob, default=path[-1])
        if best.log_prob <= path[-1].log_prob:
            return path
        path.append(best)
