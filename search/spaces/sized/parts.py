"""A sized space cut into pieces: those of each size, under the decisions that give the size."""

from __future__ import annotations

from collections.abc import Mapping

from ehdnas.search.spaces.base import Decision, Part, Parts

SizeDecisions = tuple[Decision, Decision]


def cut(sizes: Mapping[SizeDecisions, Parts]) -> Parts:
    """Return the parts of all sizes, each size's in the order that its networks have them."""
    together: dict[tuple[Decision, ...], tuple[Part, ...]] = {}
    for size, parts in sizes.items():
        *first, last = parts.fixed
        # Two keys, since the last part of a network is to come last; they are the same set of decisions.
        together[size] = tuple(first)
        for decision, own in parts.chosen.items():
            together[decision, *size] = own
        for key, own in parts.together.items():
            together[*key, *size] = own
        together[size[1], size[0]] = (last,)
    return Parts((), together=together)
