"""Samples that gradients go through: ReinMax (Liu, Dong, Liu, Yu, Gao, NeurIPS 2023)."""

from __future__ import annotations

import torch
from torch import Tensor


def sample_one_hot(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return a one-hot sample of the softmax along the last dimension, with the gradient of `reinmax`.

    Args:
        logits: [..., choices].
        generator: source of the noise; the global one by default.
    """
    uniform = torch.rand(logits.shape, generator=generator, dtype=logits.dtype)
    noise = -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))
    # The highest of logits with Gumbel noise is a sample of their softmax.
    highest = (logits.detach() + noise).argmax(dim=-1, keepdim=True)
    return reinmax(torch.zeros_like(noise).scatter_(-1, highest, 1.0), logits)


def reinmax(chosen: Tensor, logits: Tensor) -> Tensor:
    """Return a one-hot sample with a gradient towards the logits it was drawn by (equation 7).

    On average that is the gradient of the expectation where a function is quadratic in each sample. The
    straight-through Gumbel-softmax (Jang, Gu, Poole, ICLR 2017) is right to first order only, and that at
    temperatures near 0, where its variance is high; `bench/relaxation.py` compares them.

    Args:
        chosen: [..., choices], one-hot, drawn from the softmax of `logits` along the last dimension.
        logits: [..., choices].
    """
    probabilities = logits.softmax(dim=-1)
    half = ((chosen + probabilities) / 2).detach()
    # What is added to the logarithm is exactly 0, however far below the others a choice left out may be.
    soft = 2 * (half.log() + (logits - logits.detach())).softmax(dim=-1) - probabilities / 2
    # So is the difference here: the value stays exactly one-hot.
    return chosen + (soft - soft.detach())


def entropies(logits: Tensor) -> Tensor:
    """Return the entropies [...] of softmaxes over the last dimension of logits [..., choices], in nats."""
    log = logits.log_softmax(dim=-1)
    # A choice of probability 0 adds 0, however low its logit; 0 · −∞ would be no number.
    return -(log.exp() * log.clamp_min(torch.finfo(log.dtype).min)).sum(dim=-1)
