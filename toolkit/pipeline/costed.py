"""A search space as layer tables, put together from its parts, with no network built."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache

import numpy as np
import torch

from ehdnas.core.graph import layer_table
from ehdnas.core.layers import Layer, LayerTable
from ehdnas.profilers.e2e_perf.workload import Workload
from ehdnas.search.spaces.base import Architecture, NetworkShape, Part, Space


@lru_cache(maxsize=8)
def costed(space: Space, shape: NetworkShape) -> Costed:
    """Return the layer tables of a space at one network shape, made once in a process."""
    return Costed(space, shape)


class Costed:
    """The layer tables of a space at one network shape; each part is traced once."""

    def __init__(self, space: Space, shape: NetworkShape) -> None:
        self._space = space
        with torch.device("meta"):  # layer tables read shapes alone: weights would only take memory
            self._parts = space.parts(shape)
        self._traced: dict[tuple[int, tuple[int, int, int]], tuple[Layer, ...]] = {}

    def table(self, architecture: Architecture) -> LayerTable:
        """Return the layer table of one architecture; its first and last layer stand first and last."""
        *before, last = self._parts.fixed
        choices = self._space.effective(architecture).choices
        chosen = [part for slot in enumerate(choices) for part in self._parts.chosen.get(slot, ())]
        return LayerTable(self._layers([*before, *chosen, last]))

    def workload(self, architectures: Sequence[Architecture]) -> Workload:
        """Return many architectures at once."""
        choices = np.array([self._space.effective(one).choices for one in architectures])
        return Workload.of_population(*self._every_layer, choices)

    @cached_property
    def _every_layer(self) -> tuple[tuple[Layer, ...], dict[tuple[int, int], tuple[Layer, ...]]]:
        chosen = {slot: self._layers(parts) for slot, parts in self._parts.chosen.items()}
        return self._layers(self._parts.fixed), chosen

    def _layers(self, parts: Iterable[Part]) -> tuple[Layer, ...]:
        return tuple(
            replace(layer, name=f"{part.name}.{layer.name}") for part in parts for layer in self._traces(part)
        )

    def _traces(self, part: Part) -> tuple[Layer, ...]:
        key = (id(part.module), part.inputs[0])
        if key not in self._traced:
            table = layer_table(part.module, part.inputs[0])
            assert not table.unsupported, table.unsupported
            self._traced[key] = table.layers
        return self._traced[key]
