"""Populations of a search space as counts of layers: the same as each network counted on its own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ehdnas.core.layers import Layer, LayerTable
from ehdnas.profilers.e2e_perf.workload import Workload

LAYERS = [Layer(f"conv{width}", "conv", 8, width, 16, 16) for width in range(8, 14)]
PART = st.lists(st.sampled_from(LAYERS), max_size=5)
FIXED = st.lists(st.sampled_from(LAYERS), min_size=1, max_size=3)


@st.composite
def populations(draw):
    """Return the fixed layers, the chosen ones and the choices of a small space."""
    slots, width = draw(st.integers(1, 7)), draw(st.integers(1, 5))
    keys = st.tuples(st.integers(0, slots - 1), st.integers(0, width - 1))
    networks = draw(st.integers(1, 40))
    choices = np.random.default_rng(draw(st.integers(0, 99))).integers(0, width, (networks, slots))
    return draw(FIXED), draw(st.dictionaries(keys, PART, max_size=12)), choices


def each(fixed, chosen, choices):
    """Return the same networks, given one by one, their last layer again a fixed one."""
    parts = [[layer for at in enumerate(row) for layer in chosen.get(at, ())] for row in choices.tolist()]
    return Workload.of_networks([LayerTable((fixed[0], *part, *fixed[1:])) for part in parts])


def by_layer(workload):
    """Return the counts [n] of each layer that some network has."""
    return {
        layer: counts.tolist()
        for layer, counts in zip(workload.layers, workload.counts.T, strict=True)
        if counts.any()
    }


@settings(max_examples=60, deadline=None)
@given(populations())
def test_population_is_its_networks(population):
    assert by_layer(Workload.of_population(*population)) == by_layer(each(*population))


@pytest.mark.parametrize("layers", [1, 300])
def test_population_of_several_chunks(layers):
    # 300 of a layer in one choice do not fit the smallest integers.
    chosen = {(slot, 1): [LAYERS[slot % 6]] * layers for slot in range(20)}
    choices = np.random.default_rng(0).integers(0, 2, (9_000, 20))
    counts = by_layer(Workload.of_population([LAYERS[0]], chosen, choices))
    assert counts == {
        layer: (choices[:, at::6].sum(axis=1) * layers + (at == 0)).tolist()
        for at, layer in enumerate(LAYERS)
    }


def test_population_of_none():
    empty = Workload.of_population([LAYERS[0]], {(0, 1): [LAYERS[1]]}, np.zeros((0, 1), dtype=np.int64))
    assert empty.counts.shape == (0, 2)
