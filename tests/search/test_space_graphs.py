"""Cells as graphs: their edges are the slots' own, and what is live is what a search of all paths finds."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehdnas.search.spaces.base import Architecture, CellGraph, Space, find_space
from ehdnas.search.spaces.darts import genotype as darts

DARTS = find_space("darts")


def paths(graph, choices):
    """Every path from an input to an output, no edge of it absent, as slots; by trying them all."""
    present = [edge for edge in graph.edges if choices[edge[2]] not in graph.absent]

    def onwards(node, path):
        if node in graph.outputs:
            yield path
        for source, target, slot in present:
            if source == node:
                yield from onwards(target, (*path, slot))

    return [path for node in graph.inputs for path in onwards(node, ())]


@st.composite
def graphs(draw):
    """A graph of up to six nodes with two choices a slot, the first absent, and a choice for each slot."""
    nodes = draw(st.integers(2, 6))
    inputs = tuple(range(draw(st.integers(1, nodes - 1))))
    outputs = tuple(sorted(draw(st.sets(st.integers(len(inputs), nodes - 1), min_size=1))))
    pairs = draw(st.permutations([pair for pair in combinations(range(nodes), 2) if pair[1] not in inputs]))
    edges = tuple((*pair, slot) for slot, pair in enumerate(pairs))
    graph = CellGraph(nodes, inputs, outputs, edges, frozenset({0}), frozenset())
    return graph, tuple(draw(st.integers(0, 1)) for _ in edges)


@given(graphs())
def test_live_slots_are_those_of_all_paths(drawn):
    graph, choices = drawn
    assert graph.live(choices) == {slot for path in paths(graph, choices) for slot in path}


def test_darts_has_its_two_cells_in_the_order_of_its_genotypes():
    normal, reduction = DARTS.graphs
    assert [slot for *_, slot in normal.edges] == list(range(14))
    assert [slot for *_, slot in reduction.edges] == list(range(14, 28))
    for offset, graph in ((0, normal), (14, reduction)):
        assert (graph.nodes, graph.inputs, graph.outputs) == (6, (0, 1), (2, 3, 4, 5))
        assert {darts.CHOICES[choice] for choice in graph.absent} == {"none"}
        assert {darts.CHOICES[choice] for choice in graph.identity} == {"skip_connect"}
        for node in range(darts.NODES):
            into = [edge for edge in graph.edges if edge[1] == 2 + node]
            assert [slot - offset for *_, slot in into] == list(darts.edges_of(node))
            assert [source for source, *_ in into] == list(range(node + 2))


def test_darts_edges_say_what_its_genotype_says():
    cells = DARTS.genotype(DARTS.reference)
    for graph, name in zip(DARTS.graphs, ("normal", "reduce"), strict=True):
        chosen = DARTS.reference.choices
        used = [edge for edge in graph.edges if chosen[edge[2]]]
        assert [[darts.CHOICES[chosen[slot]], source] for source, _, slot in used] == cells[name]


@pytest.mark.parametrize("seed", range(20))
def test_nothing_of_a_darts_network_is_dead(seed):
    architecture = DARTS.sample(np.random.default_rng(seed))
    assert DARTS.effective(architecture) == architecture


def test_a_space_need_not_have_a_graph():
    assert Space.graphs.fget(DARTS) == ()

    class Plain(type(DARTS)):
        graphs = ()

    architecture = Architecture((0, 0, 0))
    assert Plain().effective(architecture) == architecture
