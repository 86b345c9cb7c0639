"""How wide and how deep the networks of a sized space are, by what was asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

from ehdnas.core.errors import UsageError
from ehdnas.search.spaces.base import NetworkShape

WIDTHS, DEPTHS = (1.0, 1.25), (1.0, 0.8)
"""Channels and cells of a network over those of `NetworkShape`."""
WIDTH_NAMES = tuple(f"width_{factor:g}" for factor in WIDTHS)
DEPTH_NAMES = tuple(f"depth_{factor:g}" for factor in DEPTHS)
Size = tuple[int, int]
"""Which of `WIDTHS` and which of `DEPTHS`."""
SIZES: tuple[Size, ...] = tuple(product(range(len(WIDTHS)), range(len(DEPTHS))))


def resized(shape: NetworkShape, size: Size) -> NetworkShape:
    """Return the shape of a network: its channels even and rounded up, its cells rounded down."""
    channels = shape.channels * WIDTHS[size[0]]
    cells = math.floor(shape.cells * DEPTHS[size[1]])
    return replace(shape, channels=2 * math.ceil(channels / 2), cells=cells)


def require_distinct(shape: NetworkShape, sizes: Sequence[Size] = SIZES) -> None:
    """Raise UsageError where two sizes would be the same."""
    if len({resized(shape, size) for size in sizes}) < len(sizes):
        raise UsageError(
            f"{shape.cells} cells: a depth of {min(DEPTHS):g} of them is as many; set more cells"
        )
