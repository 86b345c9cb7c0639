"""A search space as layer tables, put together from its parts, with no network built."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from math import prod

import numpy as np
from numpy.typing import NDArray

from ehdnas.core.layers import Layer, LayerTable
from ehdnas.profilers.e2e_perf.workload import Workload
from ehdnas.search.spaces.base import Architecture, Decision, NetworkShape, Part, Space
from ehdnas.search.spaces.tables import part_tables


@lru_cache(maxsize=8)
def costed(space: Space, shape: NetworkShape) -> Costed:
    """Return the layer tables of a space at one network shape, made once in a process."""
    return Costed(space, shape)


class Costed:
    """The layer tables of a space at one network shape; each part is traced once."""

    def __init__(self, space: Space, shape: NetworkShape) -> None:
        self._space, self._shape = space, shape
        self._tables = part_tables(space, shape)
        self._parts = self._tables.parts

    def table(self, architecture: Architecture) -> LayerTable:
        """Return the layer table of one architecture; its first and last layer stand first and last."""
        chosen = self._parts.of(self._space.effective(architecture).choices)
        return LayerTable(self._layers([*self._parts.fixed[:-1], *chosen, *self._parts.fixed[-1:]]))

    def workload(self, architectures: Sequence[Architecture]) -> Workload:
        """Return many architectures at once."""
        return self.workload_of(np.array([one.choices for one in architectures]))

    def workload_of(self, choices: NDArray[np.integer]) -> Workload:
        """Return the networks whose choices are the rows of [n, slots]."""
        choices = self._space.effective_many(choices)
        edges = prod(self._shape.image) + self._shape.classes
        return Workload.of_population(*self._every_layer, self._together.beside(choices), edges)

    @cached_property
    def _every_layer(self) -> tuple[tuple[Layer, ...], dict[Decision, tuple[Layer, ...]]]:
        chosen = {decision: self._layers(parts) for decision, parts in self._parts.chosen.items()}
        for key, parts in self._parts.together.items():
            chosen[self._together.decision(key)] = self._layers(parts)
        return self._layers(self._parts.fixed), chosen

    @cached_property
    def _together(self) -> _Together:
        return _Together(self._space.slots, self._parts.together)

    def _layers(self, parts: Iterable[Part]) -> tuple[Layer, ...]:
        return tuple(
            replace(layer, name=f"{part.name}.{layer.name}") for part in parts for layer in self._traces(part)
        )

    def _traces(self, part: Part) -> tuple[Layer, ...]:
        table = self._tables.of(part)
        assert not table.unsupported, table.unsupported
        return table.layers


class _Together:
    """Decisions that count only together, as more slots beside those of the space.

    There is one for each set of slots that keys are about: its choice is the number of the key that is taken,
    from 1, and 0 where none is.
    """

    def __init__(self, slots: int, keys: Iterable[tuple[Decision, ...]]) -> None:
        self._first = slots
        self._numbers: dict[tuple[int, ...], dict[tuple[int, ...], int]] = {}
        for key in keys:
            slot, choice = zip(*key, strict=True)
            numbers = self._numbers.setdefault(slot, {})
            numbers[choice] = 1 + len(numbers)

    def decision(self, key: tuple[Decision, ...]) -> Decision:
        """Return the slot and choice that stand for a key."""
        slot, choice = zip(*key, strict=True)
        return self._first + list(self._numbers).index(slot), self._numbers[slot][choice]

    def beside(self, choices: NDArray[np.integer]) -> NDArray[np.integer]:
        """Return choices [n, slots] with those of the further slots after them."""
        columns = [choices]
        for slots, numbers in self._numbers.items():
            own, column = choices[:, slots], np.zeros((len(choices), 1), dtype=choices.dtype)
            for choice, number in numbers.items():
                column[(own == choice).all(axis=1)] = number
            columns.append(column)
        return np.hstack(columns)
