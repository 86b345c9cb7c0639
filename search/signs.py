"""Signs that a search decided little, or decided for skips, to be read off its history and its network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ehdnas.search.spaces.base import Architecture, Space

MOST_SKIPS = 3
"""In a cell of a network. More of them mark a collapse in DARTS (Zela et al., ICLR 2020, figure 4)."""

LEAST_FALL = 0.15
"""Of the entropy, over a search. One that fell by less has hardly preferred anything."""


def summary(history: Sequence[dict[str, Any]]) -> str:
    """Return in one line how decided a search became, and the skips of its likeliest network."""
    first, last = history[0], history[-1]
    text = f"entropy {first['entropy']:.2f} → {last['entropy']:.2f} nats a decision"
    return f"{text}, {last['skips']} skips in a cell at most" if "skips" in last else text


def warnings_of(space: Space, found: Architecture, history: Sequence[dict[str, Any]]) -> list[str]:
    """Return what is to be doubted of a search, one line each; empty when nothing is.

    Args:
        found: the network it ended with.
        history: one record an epoch, each with the `entropy` at its end where a distribution was learnt.
    """
    of_skips = _of_skips(space.identities(found))
    if not learnt(history):
        return of_skips
    return [*of_skips, *_of_entropy(history[0]["entropy"], history[-1]["entropy"])]


def learnt(history: Sequence[dict[str, Any]]) -> bool:
    """Return whether a search with this history learnt a distribution; others draw from an even one."""
    return bool(history) and "entropy" in history[-1]


def _of_skips(skips: Sequence[int]) -> list[str]:
    most = max(skips, default=0)
    if most <= MOST_SKIPS:
        return []
    return [
        f"the network found has {most} skips in a cell, and more than {MOST_SKIPS} are a sign of collapse: "
        "compare it with a random network of the same speed, or search with skip_connect left out"
    ]


def _of_entropy(first: float, last: float) -> list[str]:
    if first == 0 or last <= (1 - LEAST_FALL) * first:
        return []
    return [
        f"the distribution hardly became decided (entropy {first:.2f} → {last:.2f} nats a decision): the "
        "network found may be little better than one drawn; search for more epochs"
    ]
