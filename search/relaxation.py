"""Straight-through Gumbel-softmax (Jang, Gu, Poole, ICLR 2017; Maddison, Mnih, Teh, ICLR 2017)."""

from __future__ import annotations

import torch
from torch import Tensor


def gumbel_softmax(logits: Tensor, temperature: float, generator: torch.Generator | None = None) -> Tensor:
    """Return a one-hot sample along the last dimension, with the gradient of the tempered softmax.

    Args:
        logits: [..., choices].
        temperature: > 0; lower is closer to the argmax and higher in gradient variance.
        generator: source of the noise; the global one by default.
    """
    uniform = torch.rand(logits.shape, generator=generator, dtype=logits.dtype)
    noise = -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))
    soft = ((logits + noise) / temperature).softmax(dim=-1)
    hard = torch.zeros_like(soft).scatter_(-1, soft.argmax(dim=-1, keepdim=True), 1.0)
    # The difference is exactly 0, so the value stays exactly one-hot.
    return hard + (soft - soft.detach())


def temperature_at(progress: float, start: float = 5.0, end: float = 0.5) -> float:
    """Return the temperature at a fraction of the search, falling exponentially from start to end."""
    return float(start * (end / start) ** min(max(progress, 0.0), 1.0))


def entropies(logits: Tensor) -> Tensor:
    """Return the entropies [...] of softmaxes over the last dimension of logits [..., choices], in nats."""
    log = logits.log_softmax(dim=-1)
    # A choice of probability 0 adds 0, however low its logit; 0 · −∞ would be no number.
    return -(log.exp() * log.clamp_min(torch.finfo(log.dtype).min)).sum(dim=-1)
