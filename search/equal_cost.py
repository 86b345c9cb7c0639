"""Random search and regularised evolution on a supernet, at what the search by gradient costs.

Both train the same supernet with as many weight steps, on paths drawn evenly (SPOS: Guo et al., ECCV 2020),
and then score networks with its weights on held-out images, as the search by gradient scores its candidates.
What that search spends on moving its distribution, these spend on scoring more networks.

Work is counted in forward passes of one image. A backward pass costs about two of them, one for the gradients
of the activations and one for those of the weights (Kaplan et al., arXiv 2001.08361, section 2.1). So

    a weight step of B images         3 B    as many of them in every method
    an architecture step of B images  2 B    forward, and backward without gradients of the weights
    scoring a network on n images     n

and where the search by gradient takes A architecture steps and scores c candidates, these score
c + ⌊2 A B / n⌋ networks. What asks the predictor or the device, in all methods alike, is not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ehdnas.core.budget import Budget
from ehdnas.search.loop import steps_per_epoch
from ehdnas.search.objective import Constraints
from ehdnas.search.predictor.base import MIN_SAMPLES
from ehdnas.search.queried.evolution import regularised_evolution
from ehdnas.search.queried.ledger import Ledger
from ehdnas.search.queried.random import random_search
from ehdnas.search.queried.task import TRIES, Method, NothingLeftError, QueriedTask
from ehdnas.search.recipes import Recipe
from ehdnas.search.searcher import warm_up_epochs
from ehdnas.search.selection import Candidate
from ehdnas.search.spaces.base import Architecture, Space

METHODS = ("random", "evolution")
_PASSES = 2  # that an architecture step takes for each image
_MOST_AT_RANDOM = 50  # networks of evolution's first population at most, as in SPOS
_FASTEST = 4  # of the networks one decision away, the fastest quarter is drawn from
_WITHIN = Budget("latency_ms", 1.0)  # what a network is predicted to take, as a share of what it may


def networks_to_score(recipe: Recipe, images: int, judged_on: int, candidates: int) -> int:
    """Return how many networks are scored for what the search by gradient costs.

    Args:
        images: in the half of the training images that weights are trained on.
        judged_on: held-out images that a network is scored on.
        candidates: networks that the search by gradient scores.
    """
    epochs = recipe.search_epochs - warm_up_epochs(recipe.search_epochs)
    steps = epochs * steps_per_epoch(images, recipe.batch_size)
    passes = _PASSES * steps * min(recipe.batch_size, images)
    return candidates + passes // judged_on


def scored_candidates(
    method: str,
    space: Space,
    constraints: Constraints,
    seed: int,
    accuracy: Callable[[Architecture], float],
    count: int,
) -> list[tuple[Candidate, float]]:
    """Return the networks that a method scored, each with its accuracy, in the order it asked for them.

    Of a space with fewer networks they are as many as random draws come upon.

    Args:
        method: one of METHODS.
        constraints: what the networks are to meet together, as it is predicted.
        accuracy: gives the accuracy, a share of 1, of a network with the shared weights.
        count: how many are scored.
    """
    start = min(max(count // 4, MIN_SAMPLES), _MOST_AT_RANDOM)
    # The tasks of a search by queries name one predictor; here all constraints are asked for the worst.
    predictor = constraints.members[0].predictor
    task = _SharedWeightsTask(space, (_WITHIN,), predictor, seed, start, constraints=constraints)
    ledger = Ledger(_Asked(accuracy), task.share_taken, count, TRIES * count)
    with suppress(NothingLeftError):
        _search(method, start)(task, ledger)
    logits = space.initial_logits()
    return [
        (Candidate(one, float(space.log_prob(one, logits)), task.violation(one)), told)
        for one, told in ledger.accuracies.items()
    ]


def _search(method: str, start: int) -> Method:
    if method == "random":
        return random_search
    # A tournament among a quarter of the population, as in Real et al., AAAI 2019.
    return partial(regularised_evolution, population=start, tournament=max(start // 4, 2))


@dataclass(frozen=True)
class _SharedWeightsTask(QueriedTask):
    """A search by queries whose budgets are constraints, as predicted; nothing is measured.

    A network counts by the constraint that binds.
    """

    constraints: Constraints | None = None

    @torch.no_grad()
    def log_values(self, networks: list[Architecture]) -> Tensor:
        """Return the logs [n] of what n networks take at the far end of the interval, over what they may."""
        assert self.constraints is not None
        return self.constraints.violation(self.space.encode_all(networks))

    def draw(
        self, rng: np.random.Generator, count: int, known: Container[Architecture]
    ) -> list[Architecture]:
        """Return what every task draws and, where none of it is predicted to meet the budget, one that is.

        A tight budget is met by fewer networks than can be drawn: from the nearest one, decisions are then
        changed at random for faster ones until it is met, or none is faster.
        """
        drawn = super().draw(rng, count, known)
        if not drawn:
            return []
        taken = self.log_values(drawn)
        at, least = drawn[int(taken.argmin())], float(taken.min())
        while least > 0:
            around = list(self.space.neighbours(at))
            taken = self.log_values(around)
            faster = [int(row) for row in taken.argsort()[: len(around) // _FASTEST] if taken[row] < least]
            if not faster:
                break
            row = faster[int(rng.integers(len(faster)))]
            at, least = around[row], float(taken[row])
        return drawn if at in known else list(dict.fromkeys([at, *drawn]))

    def violation(self, architecture: Architecture) -> float:
        return float(self.log_values([architecture]))

    def share_taken(self, architecture: Architecture) -> float:
        return float(self.log_values([architecture]).exp())


@dataclass(frozen=True)
class _Asked:
    """Accuracies as a ledger wants them."""

    query: Callable[[Architecture], float]
