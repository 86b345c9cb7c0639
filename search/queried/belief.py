"""What the accuracies that were queried say of all others: a differentiable guess, and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ehdnas.search.predictor.base import Identity
from ehdnas.search.predictor.ensemble import EnsemblePredictor
from ehdnas.search.predictor.process import left_over
from ehdnas.search.queried.ledger import Seen
from ehdnas.search.queried.task import QueriedTask
from ehdnas.search.spaces.base import Architecture

_SCALE = "reciprocal"
_WHOLE = 1  # of an ensemble's processes, the one that sees all there is to know of a network
LEAST_ERROR = 1e-4
"""Taken for the error of a network that makes less: it has a merit too."""
_LEAST_SPREAD = 1e-9  # where all that was seen is as good as the rest


@dataclass(frozen=True)
class Posterior:
    """Mean [n] and covariance [n, n] of networks' merits, and the variance of one answer's noise."""

    mean: Tensor
    covariance: Tensor
    noise: float

    @property
    def spread(self) -> Tensor:
        """The standard deviations [n]."""
        return self.covariance.diagonal().clamp_min(1e-12).sqrt()

    def knowing(self, row: int) -> Posterior:
        """Return the posterior when a network is to be queried, its answer being what is expected.

        The mean stays and the covariance shrinks, so that the next choice is not the same one over again
        (the constant liar that believes; Ginsbourger, Le Riche, Carraro 2010, section 3.2).
        """
        across = self.covariance[:, row]
        left = self.covariance - torch.outer(across, across) / (across[row] + self.noise)
        return Posterior(self.mean, left, self.noise)


class Belief:
    """The project's predictor fitted to errors, 1 − accuracy; one of its processes says how sure it is.

    Merit is the reciprocal of the error: among bad networks differences hardly show on it, among good ones
    they do, and those are what a search is about. It is standardised by the merits that were seen.
    """

    def __init__(self, task: QueriedTask, seen: list[Seen]) -> None:
        self._task, self._known = task, [one.architecture for one in seen]
        space, facts = task.space, task.predictor.facts
        shape = task.predictor.identity.shape
        who = Identity("ehdnas", space.name, space.slots, space.choices, shape, "", "", "error")
        self._errors = torch.tensor([max(1 - one.accuracy, LEAST_ERROR) for one in seen]).double()
        merits = self._errors.reciprocal()
        self._centre, self._scale = merits.mean(), merits.std().clamp_min(_LEAST_SPREAD)
        self._predictor = EnsemblePredictor(who, facts)
        # Held-out errors would choose a scale that does the bad networks justice, at five times the cost.
        self._predictor.parts = [(_SCALE, 0)]
        self._predictor.learn(space.encode_all(self._known), self._errors, task.seed)

    def log_error(self, gates: Tensor) -> Tensor:
        """Return the logs [n] of the errors for gates [n, slots, choices]; gradients flow to the gates."""
        return self._predictor.log_value(gates).double()

    def merits(self, accuracies: Tensor) -> Tensor:
        """Return the standardised merits [n] of accuracies [n], shares of 1."""
        return ((1 - accuracies.double()).clamp_min(LEAST_ERROR).reciprocal() - self._centre) / self._scale

    @torch.no_grad()
    def posterior(self, networks: list[Architecture]) -> Posterior:
        """Return what is believed of n networks' merits: the predictor's mean, the process's covariance."""
        gates = self._task.space.encode_all([*self._known, *networks]).double()
        known = len(self._known)
        process, features = self._predictor.processes[_WHOLE], self._predictor.seen(gates)[_WHOLE]
        covariance, noise = left_over(process, features, known)
        mean = ((-self.log_error(gates[known:])).exp() - self._centre) / self._scale
        return Posterior(mean, covariance, noise)
