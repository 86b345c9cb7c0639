"""The layer tables of a space's parts, each traced once in a process, whoever asks."""

from __future__ import annotations

from functools import lru_cache

import torch

from ehdnas.core.graph import layer_table
from ehdnas.core.layers import LayerTable
from ehdnas.search.spaces.base import NetworkShape, Part, Space


class PartTables:
    """The parts of a space at one network shape, their weights on no device, and what each computes."""

    def __init__(self, space: Space, shape: NetworkShape) -> None:
        with torch.device("meta"):  # layer tables read shapes alone: weights would only take memory
            self.parts = space.parts(shape)
        self._traced: dict[tuple[int, tuple[int, int, int]], LayerTable] = {}

    def of(self, part: Part) -> LayerTable:
        """Return the layer table of one of `parts`."""
        key = (id(part.module), part.inputs[0])
        if key not in self._traced:
            self._traced[key] = layer_table(part.module, part.inputs[0])
        return self._traced[key]


@lru_cache(maxsize=8)
def part_tables(space: Space, shape: NetworkShape) -> PartTables:
    """Return the layer tables of a space's parts: tracing takes seconds, and several stages need them."""
    return PartTables(space, shape)
