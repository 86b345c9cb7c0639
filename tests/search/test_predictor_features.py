"""What a predictor sees of a network: which edges do work, how deep it is, what it costs."""

from itertools import product

import numpy as np
import pytest
import torch

from ehdnas.search.predictor.facts import MACS, Costs, SpaceFacts
from ehdnas.search.predictor.features import Edges, alone, effective, whole
from ehdnas.search.predictor.liveness import fed, live, present, wanted
from ehdnas.search.spaces.base import Architecture
from ehdnas.search.spaces.darts.space import DartsSpace
from ehdnas.search.spaces.nasbench201.space import NasBench201Space

DARTS, NB201 = DartsSpace(), NasBench201Space()
GRAPH = NB201.graphs[0]  # its edges by slot: 0→1, 0→2, 1→2, 0→3, 1→3, 2→3
NONE, SKIP, CONV1, CONV3, POOL = range(5)
ALL = torch.tensor(list(product(range(5), repeat=6)))
EVERY = torch.nn.functional.one_hot(ALL, 5).double()
EACH = torch.linspace(0, 4, 5).double().expand(6, 5)[:, :, None]
FACTS = SpaceFacts(NB201.graphs, Costs((MACS,), EACH, torch.ones(1).double()))


def gates_of(*choices):
    return torch.nn.functional.one_hot(torch.tensor([choices]), 5).double()


def paths(graph, sources, targets):
    """Every path from one of some nodes to one of others, as the slots of its edges."""
    found, growing = [], [(node, ()) for node in sources]
    while growing:
        node, taken = growing.pop()
        if node in targets:
            found.append(taken)
        growing += [(end, (*taken, slot)) for start, end, slot in graph.edges if start == node]
    return found


def through(there, ways):
    """By network whether every edge of at least one of the ways is there."""
    every = [there[:, list(way)].all(1) for way in ways]
    return torch.stack(every, 1).any(1) if every else torch.zeros(len(there), dtype=torch.bool)


def searched(choices, graph):
    """Slots on a path of present edges from input to output, by trying every path: {slot: [n]}."""
    there = ~torch.isin(choices, torch.tensor(sorted(graph.absent)))
    ways = paths(graph, graph.inputs, graph.outputs)
    return {slot: through(there, [way for way in ways if slot in way]) for _, _, slot in graph.edges}


def test_live_edges_are_those_on_a_path_in_every_network_of_nasbench201():
    found = live(EVERY, NB201.graphs)
    for slot, expected in searched(ALL, GRAPH).items():
        assert torch.equal(found[:, slot], expected.double()), slot
    for row in range(0, len(ALL), 97):
        assert set(found[row].nonzero().flatten().tolist()) == GRAPH.live(ALL[row].tolist())


def test_nodes_are_fed_and_wanted_where_a_path_leads():
    there = ALL != NONE
    for node in range(GRAPH.nodes):
        before, after = paths(GRAPH, GRAPH.inputs, (node,)), paths(GRAPH, (node,), GRAPH.outputs)
        assert torch.equal(fed(EVERY, GRAPH)[node], through(there, before).double()), node
        assert torch.equal(wanted(EVERY, GRAPH)[node], through(there, after).double()), node


def test_live_edges_of_darts_are_those_on_a_path():
    rng = np.random.default_rng(0)
    drawn = torch.tensor([DARTS.sample(rng).choices for _ in range(150)])
    any_edges = torch.randint(8, (150, 28), generator=torch.Generator().manual_seed(0))
    any_edges[torch.rand(150, 28, generator=torch.Generator().manual_seed(1)) < 0.6] = 0  # mostly absent
    choices = torch.cat([drawn, any_edges])
    found = live(torch.nn.functional.one_hot(choices, 8).double(), DARTS.graphs)
    for graph in DARTS.graphs:
        for slot, expected in searched(choices, graph).items():
            assert torch.equal(found[:, slot], expected.double()), slot
    assert 0 < found[150:].mean() < 0.4


def test_a_soft_edge_is_as_present_as_its_gate():
    gates = torch.full((1, 6, 5), 0.2, dtype=torch.float64)
    assert present(gates, GRAPH)[3].item() == pytest.approx(0.8)
    only = gates_of(NONE, NONE, NONE, CONV3, NONE, NONE) * 0.5
    only[:, :, NONE] += 0.5
    assert live(only, NB201.graphs)[0].tolist() == pytest.approx([0, 0, 0, 0.5, 0, 0])


def test_without_a_graph_every_slot_works():
    assert live(torch.rand(4, 22, 9), ()).equal(torch.ones(4, 22))


@pytest.mark.parametrize(
    ("choices", "structure", "fan_in", "live_slots", "idle_slots"),
    [
        # RESNET: two convolutions and a skip in a row, a skip around them: 0→1→2→3 and 0→3, added in 3.
        ((CONV3, NONE, CONV3, SKIP, NONE, SKIP), (3, 2, 1, 3, 4), (0, 1, 1, 2), {0, 2, 3, 5}, set()),
        # One edge works; 0→1→2 leads nowhere and adds to nothing.
        ((CONV3, NONE, CONV3, CONV1, NONE, NONE), (1, 1, 0, 1, 1), (0, 1, 1, 1), {3}, {0, 2}),
        # 0→2 and 1→2 lead nowhere, but are added to one another.
        ((CONV3, POOL, CONV3, SKIP, NONE, NONE), (1, 0, 0, 1, 1), (0, 1, 2, 1), {3}, {0}),
        # 1→3 gets nothing but zeros: it is read, and no work of the live graph.
        ((NONE, NONE, NONE, POOL, CONV3, NONE), (1, 1, 0, 1, 1), (0, 0, 0, 2), {3}, set()),
        # All of it: three paths meet in 3, two in 2.
        ((CONV3, CONV1, POOL, SKIP, CONV3, SKIP), (3, 2, 3, 3, 6), (0, 1, 2, 3), set(range(6)), set()),
        ((NONE,) * 6, (0, 0, 0, 0, 0), (0, 0, 0, 0), set(), set()),
    ],
)
def test_structure_is_what_one_counts_by_hand(choices, structure, fan_in, live_slots, idle_slots):
    edges = Edges(gates_of(*choices), GRAPH)
    assert edges.structure[0].tolist() == list(structure)
    assert edges.fan_in[0].tolist() == list(fan_in)
    assert set(edges.live[0].nonzero().flatten().tolist()) == live_slots
    assert set(edges.idle[0].nonzero().flatten().tolist()) == idle_slots


def test_an_edge_that_gets_zeros_is_read_and_not_live():
    edges = Edges(gates_of(NONE, NONE, NONE, POOL, CONV3, NONE), GRAPH)
    assert edges.read[0].tolist() == [0, 0, 0, 1, 1, 0]
    assert edges.live[0].tolist() == [0, 0, 0, 1, 0, 0]


def test_networks_of_one_live_graph_look_the_same_where_only_live_work_counts():
    rows = torch.arange(0, len(ALL), 7)
    same = torch.tensor([NB201.effective(Architecture(tuple(one))).choices for one in ALL[rows].tolist()])
    others = torch.nn.functional.one_hot(same, 5).double()
    differ = (same != ALL[rows]).any(1)
    assert differ.any() and not differ.all()
    assert torch.equal(effective(EVERY[rows], FACTS).values, effective(others, FACTS).values)
    told = (whole(EVERY[rows], FACTS).values != whole(others, FACTS).values).any(1)
    assert torch.equal(told, differ), "whoever sees everything tells them apart"


def test_networks_of_different_live_graphs_never_look_the_same():
    same = {NB201.effective(Architecture(tuple(one))).choices for one in ALL.tolist()}
    assert len(torch.unique(effective(EVERY, FACTS).values, dim=0)) == len(same)


def test_the_cost_is_that_of_the_live_edges():
    total = FACTS.total(gates_of(CONV3, NONE, CONV3, CONV1, NONE, NONE), MACS)
    assert total.item() == 1 + CONV1
    assert FACTS.total(EVERY[:1], "energy") is None and SpaceFacts().total(EVERY[:1], MACS) is None


@pytest.mark.parametrize("view", [whole, effective, alone])
def test_features_are_differentiable_and_their_gradients_right(view):
    generator = torch.Generator().manual_seed(0)
    gates = torch.randn(2, 6, 5, generator=generator, dtype=torch.float64).softmax(2).requires_grad_()
    assert torch.autograd.gradcheck(lambda one: view(one, FACTS).values, (gates,))


@pytest.mark.parametrize("view", [whole, effective, alone])
@pytest.mark.parametrize("facts", [FACTS, SpaceFacts(NB201.graphs), SpaceFacts()])
def test_every_feature_has_a_group_and_gradients_are_finite_at_corners(view, facts):
    gates = EVERY[live(EVERY, NB201.graphs).any(1)][::500].clone().requires_grad_()
    seen = view(gates, facts)
    width = seen.values.shape[1]
    assert seen.groups.shape == seen.single.shape == (width,)
    assert set(seen.groups.tolist()) == set(range(int(seen.groups.max()) + 1))
    seen.values.sum().backward()
    assert gates.grad.isfinite().all() and (gates.grad.abs().sum((1, 2)) > 0).all()


def test_darts_has_features_of_both_cells():
    gates = DARTS.encode_all([DARTS.sample(np.random.default_rng(seed)) for seed in range(4)])
    seen = effective(gates, SpaceFacts(DARTS.graphs)).values
    slots = 14 * 8
    first, second = seen[:, : seen.shape[1] // 2], seen[:, seen.shape[1] // 2 :]
    assert torch.equal(first[:, :slots].sum(1), torch.full((4,), 8.0)), "eight edges a cell, all of them live"
    assert torch.equal(second[:, :slots].sum(1), torch.full((4,), 8.0))
    structure = first[:, -5:]
    assert (structure[:, 3] == 4).all() and (structure[:, 2] == 4).all() and (structure[:, 4] == 8).all()
    assert ((structure[:, 0] >= 1) & (structure[:, 0] <= 4)).all()
    assert (structure[:, 1] <= structure[:, 0]).all()


def test_without_a_graph_there_are_counts_over_ever_shorter_spans():
    chosen = torch.randint(9, (5, 22), generator=torch.Generator().manual_seed(0))
    gates = torch.nn.functional.one_hot(chosen, 9).float()
    seen = whole(gates, SpaceFacts()).values
    at = 22 * 9
    assert torch.equal(seen[:, :at], gates.flatten(1))
    for parts in (1, 2, 4, 8, 16):
        spans = gates.tensor_split(parts, 1)
        assert torch.equal(seen[:, at : at + 9 * parts], torch.cat([span.sum(1) for span in spans], 1))
        at += 9 * parts
    assert seen.shape[1] == at
    assert effective(gates, SpaceFacts()).values.shape[1] == 22 * 9 + 9
    assert alone(gates, SpaceFacts()).values.shape[1] == 22 * 9


def test_what_is_told_beside_is_a_group_of_its_own():
    seen = effective(EVERY[:4], FACTS)
    more = seen.beside(torch.arange(8.0).reshape(4, 2).double())
    assert torch.equal(more.values[:, -2:], torch.arange(8.0).reshape(4, 2).double())
    last = int(seen.groups.max())
    assert more.groups[-2:].tolist() == [last + 1, last + 2] and not more.single[-2:].any()
