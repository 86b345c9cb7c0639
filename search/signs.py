"""Signs that a search learnt little, or decided for skips, to be read off its network and distribution."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor

from ehdnas.search.loop import step_seed
from ehdnas.search.spaces.base import Architecture, Space

MOST_SKIPS = 3
"""In a cell of a network. More of them mark a collapse in DARTS (Zela et al., ICLR 2020, figure 4)."""

DRAWS = 16
"""Architectures drawn from what was learnt, and as many from nothing learnt, that are compared."""


def summary(history: Sequence[dict[str, Any]]) -> str:
    """Return in one line how decided a search became, and the skips of its likeliest network."""
    first, last = history[0], history[-1]
    text = f"entropy {first['entropy']:.2f} → {last['entropy']:.2f} nats a decision"
    return f"{text}, {last['skips']} skips in a cell at most" if "skips" in last else text


def draws(space: Space, logits: Tensor, seed: int) -> tuple[list[Architecture], list[Architecture]]:
    """Return architectures drawn from a distribution, and from the one that a search begins with.

    Each is drawn with the same noise as its counterpart, so that they differ in what was learnt alone: of
    logits that learnt nothing both are the same.
    """
    return _drawn(space, logits, seed), _drawn(space, space.initial_logits(), seed)


def warnings_of(space: Space, found: Architecture, gains: Mapping[str, Sequence[float]]) -> list[str]:
    """Return what is to be doubted of a search, one line each; empty when nothing is.

    Args:
        found: the network it ended with.
        gains: by what is compared, by how much each of the architectures drawn from what was learnt is better
            than its counterpart of `draws`; nothing is compared where no distribution was learnt.
    """
    return [*_of_skips(space.identities(found)), *_of_gains(gains)]


def learnt(history: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a search with this history learnt a distribution; others draw from an even one."""
    return bool(history) and "entropy" in history[-1]


def gained(differences: Sequence[float]) -> bool:
    """Say whether the mean of paired differences is above 0 by more than its standard error."""
    if len(differences) < 2:
        return False
    return mean(differences) > stdev(differences) / math.sqrt(len(differences))


def _drawn(space: Space, logits: Tensor, seed: int) -> list[Architecture]:
    generator = torch.Generator().manual_seed(step_seed(seed, "draws"))
    return list(map(space.decode, space.relax_many(logits.detach(), DRAWS, generator)))


def _of_skips(skips: Sequence[int]) -> list[str]:
    most = max(skips, default=0)
    if most <= MOST_SKIPS:
        return []
    return [
        f"the network found has {most} skips in a cell, and more than {MOST_SKIPS} are a sign of collapse: "
        "compare it with a random network of the same speed, or search with skip_connect left out"
    ]


def _of_gains(gains: Mapping[str, Sequence[float]]) -> list[str]:
    if not gains or any(map(gained, gains.values())):
        return []
    said = ", ".join(f"{name} {mean(differences):+.3f}" for name, differences in gains.items())
    return [
        f"networks drawn from what was learnt are no better than ones drawn at random ({said}): the network "
        "found owes little to the search; search for more epochs"
    ]
