"""A softmax for each edge of a cell, given that the edges join its input to its output.

Only which edges are `none` decides that, so probabilities are sums over the patterns of such edges that
leave a path, of which there are few. Nothing here is sampled by trial and error.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from ehdnas.search.relaxation import entropies, reinmax
from ehdnas.search.spaces.nasbench201.genotype import CHOICES, SLOTS, is_connected

# Which edges are in use, in every pattern that leaves a path: [patterns, 6], the full one first.
_PATTERNS = torch.tensor([used for used in product((1, 0), repeat=SLOTS) if is_connected(used)]).bool()


def relax(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return straight-through gates [6, 5] of a connected architecture, with the gradient of ReinMax.

    They are drawn from the conditioned distribution itself, which no logits can make slow; the gradient is as
    if each edge had drawn its choice for itself. `bench/relaxation.py` says how far off that leaves it.
    """
    chosen = F.one_hot(_draw(logits.detach(), generator), len(CHOICES))
    return reinmax(chosen.to(logits.dtype), logits)


def log_prob(choices: Tensor, logits: Tensor) -> Tensor:
    """Return the log-probability, a scalar, of connected choices [6]."""
    own = logits.log_softmax(dim=1).gather(1, choices[:, None]).sum()
    return own - _pattern_scores(logits).logsumexp(dim=0)


def entropy(logits: Tensor) -> Tensor:
    """Return the entropy, a scalar in nats: of which edges are in use, then of their operations."""
    scores = _pattern_scores(logits)
    used = scores.softmax(dim=0) @ _PATTERNS.to(logits.dtype)
    return entropies(scores) + used @ entropies(logits[:, 1:])


def most_likely(logits: Tensor) -> tuple[int, ...]:
    """Return the connected choices of the highest probability."""
    best, operation = logits[:, 1:].max(dim=1)
    scores = torch.where(_PATTERNS, best, logits[:, 0]).sum(dim=1)
    used = _PATTERNS[scores.argmax()]
    return tuple(torch.where(used, 1 + operation, 0).tolist())


def _draw(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    pattern = torch.multinomial(_pattern_scores(logits).softmax(dim=0), 1, generator=generator)
    operations = torch.multinomial(logits[:, 1:].softmax(dim=1), 1, generator=generator).squeeze(1)
    return torch.where(_PATTERNS[pattern.squeeze()], 1 + operations, 0)


def _pattern_scores(logits: Tensor) -> Tensor:
    """Return the log-probability [patterns] that the product of softmaxes gives to each pattern."""
    every = logits.logsumexp(dim=1)
    used, unused = logits[:, 1:].logsumexp(dim=1) - every, logits[:, 0] - every
    return torch.where(_PATTERNS, used, unused).sum(dim=1)
