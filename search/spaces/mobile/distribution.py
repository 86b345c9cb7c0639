"""The distribution over a stage's layers: one after the other, until one is skipped.

A stage's layers that are skipped are its last ones, so that no two genotypes are the same network. Each layer
draws from the softmax of its logits; once `skip` is drawn, so it is for those after it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ehdnas.search.relaxation import entropies
from ehdnas.search.spaces.mobile.layout import SKIP


def ordered(choices: Sequence[int]) -> bool:
    """Return whether no layer of a stage comes after one that is skipped, the first layer not being."""
    depth = sum(choice != SKIP for choice in choices)
    return depth > 0 and all(choice != SKIP for choice in choices[:depth])


def cut_off(gates: Tensor) -> Tensor:
    """Return gates [layers, choices] of a stage with every layer after a skipped one skipped too.

    Exact for one-hot gates; the gradient by `skip` counts what comes after it.
    """
    skipped = torch.zeros_like(gates[0])
    skipped[SKIP] = 1
    alive, rows = gates.new_ones(()), []
    for row in gates:
        rows.append(alive * row + (1 - alive) * skipped)
        alive = alive * (1 - row[SKIP])
    return torch.stack(rows)


def log_prob(choices: Sequence[int], log: Tensor) -> Tensor:
    """Return the log-probability of a stage's layers, given those of each, `log` [layers, choices]."""
    total = log.new_zeros(())
    for row, choice in zip(log, choices, strict=True):
        total = total + row[choice]
        if choice == SKIP:
            break
    return total


def entropy(log: Tensor) -> Tensor:
    """Return the entropy of a stage's layers, a scalar in nats, by log-probabilities [layers, choices].

    A layer's choice counts as often as it is drawn: where no layer before it is skipped.
    """
    reached = (1 - log[:-1, SKIP].exp()).cumprod(dim=0)
    return (entropies(log) * torch.cat([log.new_ones(1), reached])).sum()


def most_likely(log: Tensor) -> list[int]:
    """Return the choices of the highest probability, by log-probabilities `log` [layers, choices]."""
    best, operation = log[:, :SKIP].max(dim=1)
    layers = len(log)
    scores = [
        best[:depth].sum() + (log[depth, SKIP] if depth < layers else 0) for depth in range(1, layers + 1)
    ]
    depth = 1 + int(torch.stack(scores).argmax())
    return [*operation[:depth].tolist(), *[SKIP] * (layers - depth)]
