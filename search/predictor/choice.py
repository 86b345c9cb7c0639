"""Which networks to measure next: those whose measurements say most about all the others."""

from __future__ import annotations

import torch
from torch import Tensor

from ehdnas.search.predictor.facts import SpaceFacts
from ehdnas.search.predictor.features import effective, whole
from ehdnas.search.predictor.process import Fit, View
from ehdnas.search.predictor.warp import WARPS

_VIEWS = (View(effective), View(whole))


def choose(
    gates: Tensor, values: Tensor, candidates: Tensor, count: int, seed: int, facts: SpaceFacts
) -> list[int]:
    """Return `count` rows of the candidates [m, slots, choices], the most telling first.

    Greedily, each the one that lowers the mean variance over all candidates most, given what is measured,
    gates [n, slots, choices] with values [n], and those chosen before it (Cohn et al., JAIR 1996).
    """
    told = torch.cat([values.double(), torch.ones(len(candidates), dtype=torch.float64)])
    every = torch.cat([gates, candidates]).double()
    fits = [Fit(view, view.features(every, facts), told, WARPS[0], seed) for view in _VIEWS]
    known, others = torch.arange(len(gates)), torch.arange(len(gates), len(told))
    fit = min(fits, key=lambda one: float(one.left_out_errors(known).abs().mean()))
    covariance, noise = fit.left_over(known, others)
    chosen: list[int] = []
    for _ in range(min(count, len(candidates))):
        variance = covariance.diagonal() + noise
        gain = covariance.square().sum(0) / variance
        gain[chosen] = -1
        best = int(gain.argmax())
        chosen.append(best)
        covariance = covariance - torch.outer(covariance[:, best], covariance[best]) / variance[best]
    return chosen
