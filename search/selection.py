"""From a learnt distribution to the architectures worth measuring, and the fastest one there is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from ehdnas.search.augment import Augmentation
from ehdnas.search.compute import CPU, Compute
from ehdnas.search.loop import step_seed
from ehdnas.search.objective import CLOSE, Constraints
from ehdnas.search.spaces.base import Architecture, Space, Supernet

_DRAWS = 500
_SAME = 1e-6  # of two logarithms of values that are one
_FAR = 1e3  # where there is no telling farther from far
_APART = 6  # choices of an architecture; in the DARTS space an edge that is moved changes two
_AT_ONCE = 256  # images that a network is scored on
_WALKS = 16  # at most, from what was drawn, where the first ones do not end close under the budget
_CLIMBS = 4  # walks among networks as close to the budget, from the likeliest of them

Violations = Callable[[list[Architecture]], Tensor]
"""Architectures -> log(value / bound) [n], by how much each breaks the budget; of several, the worst."""


@dataclass(frozen=True)
class Candidate:
    """An architecture, its log-probability, and log(value / bound), by how much it breaks the budget."""

    architecture: Architecture
    log_prob: float
    violation: float

    @property
    def distance(self) -> float:
        """How far it is from being close under the budget: 0 where it meets it with little to spare."""
        return distance(self.violation)


def distance(violation: float) -> float:
    """Return how far a violation is from close under the budget: 0 there, more below it and above it."""
    return max(violation, -CLOSE - violation, 0.0)


def closeness(violation: float) -> float:
    """Return `distance` so that those of values that differ in their last digits alone are equal."""
    return round(min(distance(violation), _FAR) / _SAME)


def candidates(
    space: Space, logits: Tensor, violations: Violations | None, seed: int,
    measured: Mapping[Architecture, float] = MappingProxyType({}), starts: Sequence[Architecture] = (),
) -> list[Candidate]:  # fmt: skip
    """Return distinct draws, the mode and walks from these to close under the budget, best first.

    Those that meet the budget come first: the closest to it, and of equally close ones the likeliest. What
    the distribution thinks likeliest may be far faster than was asked. Draws from the distribution are joined
    by as many from that a search begins with: where a metric takes few values, few networks may be close to
    the budget.

    Args:
        violations: what architectures are expected to break the budget by; None without one.
        measured: violations that are known, and then count instead of those expected.
        starts: networks to look at as well: one that meets the budget, say.
    """
    generator = torch.Generator().manual_seed(step_seed(seed, "candidates"))
    ground = _Ground(space, logits.detach(), violations, measured)
    drawn = list(map(space.decode, space.relax_many(ground.logits, _DRAWS, generator)))
    mode, *others = ground.look([space.most_likely(ground.logits), *drawn])
    if violations is not None:
        first = space.relax_many(space.initial_logits(), _DRAWS, generator)
        ground.look([*starts, *map(space.decode, first)])
        for one in dict.fromkeys((mode, ground.ranked[0])):
            _walk(ground, one)
        _cross(ground)
        _seek(ground, others)
        for one in ground.ranked[:_CLIMBS]:
            _climb(ground, one)
    return ground.ranked


def fitted(space: Space, logits: Tensor, violations: Violations, start: Architecture) -> Candidate:
    """Return the network close under the budget that single decisions lead to from `start`.

    Each decision is the one that costs the least log-probability for what it gains; where none leads there,
    it is the nearest they lead to.
    """
    ground = _Ground(space, logits.detach(), violations, {})
    (first,) = ground.look([start])
    return _walk(ground, first)


def apart(
    ranked: Sequence[Architecture], count: int, given: Sequence[Architecture] = ()
) -> list[Architecture]:
    """Return so many of the architectures, the first ones that differ from each other in many choices.

    Those that a distribution thinks likeliest are often one decision from its mode: to try several of them
    would be to try one. They differ in `_APART` choices, or in as many as leave enough of them. Those
    that are `given` are kept in any case, and the others differ from them as well.
    """
    for least in range(_APART, 0, -1):
        kept = list(given)
        for one in ranked:
            if len(kept) < count and all(_differing(one, other) >= least for other in kept):
                kept.append(one)
        if len(kept) >= count:
            break
    return kept


def _closest(one: Candidate) -> tuple[bool, float, float]:
    return one.violation > 0, closeness(one.violation), -one.log_prob


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


def can_be_spent(space: Space, constraints: Constraints) -> bool:
    """Return whether some network is predicted to take what the budgets allow, or closely so.

    Of a budget that allows more than the slowest network takes, nothing says how much should be used.
    """

    @torch.no_grad()
    def left(networks: list[Architecture]) -> Tensor:
        return -constraints.violation(space.encode_all(networks))

    start = space.reference
    slowest = start if float(left([start])) <= CLOSE else fastest(space, left, [start])
    return float(left([slowest])) <= CLOSE


def fastest_starts(space: Space, seed: int, count: int = 4) -> list[Architecture]:
    """Return the reference and a few random architectures, fixed by the seed."""
    rng = np.random.default_rng(step_seed(seed, "fastest"))
    return [space.reference, *(space.sample(rng) for _ in range(count))]


def supernet_accuracy(
    space: Space, supernet: Supernet, architecture: Architecture, images: Tensor, labels: Tensor,
    augmentation: Augmentation, compute: Compute = CPU,
) -> float:  # fmt: skip
    """Return the accuracy of an architecture with the shared weights, on images it was not trained on.

    Batch norm uses each batch's own statistics: the running ones mix every architecture's. Batches are of
    one size, since statistics of a few images that are left over would be poor.

    Args:
        images: uint8 [n, h, w, c], with `labels` [n], on any device.
        compute: where the supernet is.
    """
    supernet.train()
    gates = space.encode(architecture)
    images, labels = compute.move(images), compute.move(labels)
    correct = torch.zeros((), dtype=torch.int64, device=compute.device)
    batches = math.ceil(len(labels) / _AT_ONCE)
    with torch.no_grad(), compute.autocast():
        for some, known in zip(images.tensor_split(batches), labels.tensor_split(batches), strict=True):
            logits = supernet(compute.batch(augmentation.evaluate(some)), gates)
            correct += (logits.argmax(1) == known).sum()
    return int(correct) / len(labels)


class _Ground:
    """What candidates are told apart by; what was looked at once is kept, since walks cross."""

    def __init__(
        self, space: Space, logits: Tensor, violations: Violations | None,
        measured: Mapping[Architecture, float],
    ) -> None:  # fmt: skip
        self.space, self.logits, self.violations, self.measured = space, logits, violations, measured
        self.known: dict[Architecture, Candidate] = {}

    @property
    def ranked(self) -> list[Candidate]:
        """All that were looked at and wanted, the best first."""
        return sorted(self.known.values(), key=_closest)

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
        if self.violations is None or not architectures:
            return [0.0] * len(architectures)
        expected = self.violations(architectures).tolist()
        return [self.measured.get(one, v) for one, v in zip(architectures, expected, strict=True)]


def _walk(ground: _Ground, here: Candidate) -> Candidate:
    """Return where steps from a candidate lead: close under the budget, or as near as single decisions go.

    Each step goes towards the bound, from under it never beyond it, where it costs the least
    log-probability for what it gains on the way.
    """
    while here.distance > 0:
        around = ground.around(here, partial(_is_towards_bound, here.violation))
        if not around:
            return here
        here = max(around, key=partial(_likelihood_gained, here))
    return here


def _is_towards_bound(here: float, there: float) -> bool:
    return there < here - _SAME if here > 0 else here + _SAME < there <= 0


def _likelihood_gained(here: Candidate, there: Candidate) -> float:
    return (there.log_prob - here.log_prob) / abs(there.violation - here.violation)


def _cross(ground: _Ground) -> None:
    """Step from the best candidate to the nearest that breaks the budget, one decision after another.

    Where many networks share a value, walks end among them; on the way to one that is too slow each value in
    between is passed.
    """
    here = ground.ranked[0]
    beyond = [one for one in ground.ranked if one.violation > 0]
    if here.distance == 0 or here.violation > 0 or not beyond:
        return
    there = beyond[0].architecture
    while here.architecture != there:
        nearer = partial(_differing, there)
        far = nearer(here.architecture)
        towards = [one for one in ground.space.neighbours(here.architecture) if nearer(one) < far]
        if not towards:
            return
        here = max(ground.look(towards), key=lambda one: (-nearer(one.architecture), one.log_prob))


def _seek(ground: _Ground, starts: Sequence[Candidate]) -> None:
    """Walk from one after another, until something is close under the budget.

    Where a metric takes few values, a walk ends at one of them, and where depends on where it began. What
    nothing breaks is no budget that walks could come close to.
    """
    if not any(one.violation > 0 for one in ground.ranked):
        return
    for one in starts[:_WALKS]:
        if ground.ranked[0].distance == 0:
            return
        _walk(ground, one)


def _differing(one: Architecture, other: Architecture) -> int:
    return sum(ours != theirs for ours, theirs in zip(one.choices, other.choices, strict=True))


def _climb(ground: _Ground, here: Candidate) -> None:
    """Step from a candidate to where no neighbour as close under the budget is likelier."""
    while True:
        around = ground.around(here, partial(_is_as_close, here.violation))
        best = max(around, key=lambda one: one.log_prob, default=here)
        if best.log_prob <= here.log_prob:
            return
        here = best


def _is_as_close(start: float, there: float) -> bool:
    return closeness(there) <= closeness(start) and (there <= 0 or start > 0)
