"""Which networks to measure next: those whose measurements say most about all the others."""

from __future__ import annotations

import torch
from torch import Tensor

from ehdnas.core.errors import UsageError
from ehdnas.search.predictor.base import MIN_SAMPLES
from ehdnas.search.predictor.ensemble import EnsemblePredictor
from ehdnas.search.predictor.facts import SpaceFacts
from ehdnas.search.predictor.features import effective, whole
from ehdnas.search.predictor.process import Fit, View, prior_covariance
from ehdnas.search.predictor.warp import WARPS

_VIEWS = (View(effective), View(whole))
_EXACT = 1e-9  # an error that is none
_NOISE = 0.05  # the share of the variance that is noise, where nothing has been measured yet


def choose(
    gates: Tensor,
    values: Tensor,
    candidates: Tensor,
    count: int,
    seed: int,
    facts: SpaceFacts,
    source: EnsemblePredictor | None = None,
) -> list[int]:
    """Return `count` rows of the candidates [m, slots, choices], the most telling first.

    Greedily, each the one that lowers the mean variance over all candidates most, given what is measured,
    gates [n, slots, choices] with values [n], and those chosen before it (Cohn et al., JAIR 1996).

    Args:
        source: a predictor of another device, whose kernels are asked in place of the samples' own.

    Raises:
        UsageError: fewer than MIN_SAMPLES are measured, and there is no source.
    """
    if source is None and len(gates) < MIN_SAMPLES:
        raise UsageError(f"{len(gates)} samples: choosing needs at least {MIN_SAMPLES}; measure random ones")
    if source is not None:
        covariance, noise = _before(gates, candidates, facts, source), torch.tensor(_NOISE)
    else:
        covariance, noise = _after(gates, values, candidates, seed, facts)
    chosen: list[int] = []
    for _ in range(min(count, len(candidates))):
        gain = covariance.square().sum(0) / (covariance.diagonal() + noise)
        gain[chosen] = -1
        chosen.append(int(gain.argmax()))
        covariance = _known(covariance, chosen[-1], noise)
    return chosen


def _before(gates: Tensor, candidates: Tensor, facts: SpaceFacts, source: EnsemblePredictor) -> Tensor:
    """Return the covariance of the candidates [m, m] by another device's kernels, given what is measured.

    Both views' kernels are heard alike, since nothing says yet which this device follows.
    """
    every = torch.cat([gates, candidates]).double()
    covariance = torch.zeros(len(every), len(every), dtype=torch.float64)
    for at, view in enumerate(_VIEWS):
        own = prior_covariance(source.by_view[at], view.features(every, facts))
        covariance += own / (own.diagonal().mean() * len(_VIEWS))
    for row in range(len(gates)):
        covariance = _known(covariance, row, torch.tensor(_NOISE))
    return covariance[len(gates) :, len(gates) :]


def _after(
    gates: Tensor, values: Tensor, candidates: Tensor, seed: int, facts: SpaceFacts
) -> tuple[Tensor, Tensor]:
    """Return the covariance of the candidates [m, m] that is left by what is measured, and the noise.

    Each view's is heard as far as it predicts measured networks that were left out: the better one alone
    would choose samples that the other learns little from.
    """
    every = torch.cat([gates, candidates]).double()
    told = torch.cat([values.double(), torch.ones(len(candidates), dtype=torch.float64)])
    fits = [Fit(view, view.features(every, facts), told, WARPS[0], seed) for view in _VIEWS]
    known, others = torch.arange(len(gates)), torch.arange(len(gates), len(told))
    errors = torch.stack([fit.left_out_errors(known).abs().mean() for fit in fits]).clamp(min=_EXACT)
    weights = errors.pow(-2) / errors.pow(-2).sum()
    left = [fit.left_over(known, others) for fit in fits]
    scaled = [
        weight / covariance.diagonal().mean() for weight, (covariance, _) in zip(weights, left, strict=True)
    ]
    covariance = torch.stack([by * each for by, (each, _) in zip(scaled, left, strict=True)]).sum(0)
    noise = torch.stack([by * each for by, (_, each) in zip(scaled, left, strict=True)]).sum(0)
    return covariance, noise


def _known(covariance: Tensor, row: int, noise: Tensor) -> Tensor:
    """Return the covariance that is left when one of the rows is measured."""
    across = covariance[:, row]
    return covariance - torch.outer(across, across) / (across[row] + noise)
