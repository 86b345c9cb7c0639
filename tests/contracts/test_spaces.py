"""What every registered search space must do, whatever it searches."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ehdnas.core.errors import UsageError
from ehdnas.core.graph import layer_table
from ehdnas.core.plugins import plugin_names
from ehdnas.search.spaces.base import Architecture, NetworkShape, find_space

NAMES = plugin_names("ehdnas.spaces")
IMAGE = (3, 16, 16)
seeds = st.integers(0, 2**32)


def shape_of(space):
    """A small shape that the space can be built at."""
    _, cells = space.sizes.get("cifar10", (4, 4))
    return NetworkShape(4, cells, IMAGE, 5)


def decisions_of(space):
    """Every (slot, choice) that parts depend on."""
    parts = space.parts(shape_of(space))
    return {*parts.chosen, *(decision for key in parts.together for decision in key)}


@pytest.fixture(params=NAMES)
def space(request):
    return find_space(request.param)


def test_there_are_spaces():
    assert "darts" in NAMES
    with pytest.raises(UsageError, match="unknown space"):
        find_space("nowhere")


@pytest.mark.parametrize("name", NAMES)
@given(seed=seeds)
def test_samples_are_valid_and_every_form_reads_back(name, seed):
    space = find_space(name)
    architecture = space.sample(np.random.default_rng(seed))
    assert space.is_valid(architecture)
    assert space.sample(np.random.default_rng(seed)) == architecture
    gates = space.encode(architecture)
    assert gates.shape == (space.slots, space.choices)
    assert gates.sum(1).eq(1).all()
    assert space.decode(gates) == architecture
    assert space.parse(space.text(architecture)) == architecture
    assert space.parse(json.dumps(space.genotype(architecture))) == architecture
    assert torch.equal(space.encode_all([architecture])[0], gates)


def test_many_are_drawn_as_one_is(space):
    drawn = space.sample_many(np.random.default_rng(0), 400)
    assert drawn.shape == (400, space.slots)
    rows = [Architecture(tuple(row)) for row in drawn.tolist()]
    assert all(map(space.allows, rows)) and len(set(rows)) > 300
    singly = [space.sample(np.random.default_rng(seed)) for seed in range(400)]
    ours, theirs = (space.encode_all(some).mean(0) for some in (rows, singly))
    assert float((ours - theirs).abs().max()) < 0.15  # four errors of shares near a half, of 400 draws each
    effective = [space.effective(one).choices for one in rows[:50]]
    assert space.effective_many(drawn[:50]).tolist() == [list(row) for row in effective]


@pytest.mark.parametrize("name", NAMES)
@given(seed=seeds)
@settings(max_examples=40)
def test_relaxed_samples_are_valid_and_carry_gradients(name, seed):
    space = find_space(name)
    generator = torch.Generator().manual_seed(seed)
    logits = space.initial_logits().requires_grad_()
    gates = space.relax(logits, generator)
    architecture = space.decode(gates.detach())
    assert torch.equal(gates.detach(), space.encode(architecture))
    (gates * torch.randn(gates.shape, generator=generator)).sum().backward()
    assert torch.isfinite(logits.grad).all() and logits.grad.abs().sum() > 0
    assert float(space.log_prob(architecture, logits.detach())) <= 0
    assert space.is_valid(space.most_likely(logits.detach()))


def test_many_are_relaxed_as_one_is(space):
    torch.manual_seed(0)
    logits = torch.randn(space.slots, space.choices).requires_grad_()
    many = space.relax_many(logits, 400, torch.Generator().manual_seed(1))
    rows = list(map(space.decode, many.detach()))
    assert torch.equal(many.detach(), space.encode_all(rows)) and len(set(rows)) > 100
    singly = torch.stack([space.relax(logits.detach()) for _ in range(400)])
    # Shares near a half of 400 draws each differ by 0.035 at one standard error.
    assert float((many.detach().mean(0) - singly.mean(0)).abs().max()) < 0.15
    (of_two,) = torch.autograd.grad(many[:2].square().sum(), logits)
    assert torch.isfinite(of_two).all() and of_two.abs().sum() > 0


def test_the_reference_and_its_neighbours_are_valid(space):
    around = list(space.neighbours(space.reference))
    assert space.is_valid(space.reference)
    assert around and all(space.is_valid(one) for one in around)
    assert len(set(around)) == len(around) and space.reference not in around


def test_published_networks_are_of_the_space(space):
    for name, one in space.named().items():
        assert space.is_valid(one) and space.parse(name) == one


def test_what_is_no_architecture_is_refused(space):
    assert not space.is_valid(Architecture(()))
    with pytest.raises(UsageError):
        space.decode(torch.zeros(1, 1))
    with pytest.raises(UsageError):
        space.parse("no such genotype")
    with pytest.raises(UsageError):
        space.parse("²" * space.slots)  # a digit to str.isdigit, and none to int


def test_network_and_supernet_take_images_to_logits(space):
    images, shape = torch.randn(2, *IMAGE), shape_of(space)
    assert space.network(space.reference, shape).eval()(images).shape == (2, shape.classes)
    gates = space.encode(space.reference).requires_grad_()
    logits = space.supernet(shape)(images, gates)
    assert logits.shape == (2, shape.classes)
    logits.square().sum().backward()
    assert gates.grad.abs().sum() > 0


def test_the_parts_hold_the_work_of_the_network(space):
    shape = shape_of(space)
    parts = space.parts(shape)
    for seed in range(3):
        architecture = space.sample(np.random.default_rng(seed))
        chosen = parts.of(space.effective(architecture).choices)
        total = sum(layer_table(part.module, part.inputs[0]).macs for part in (*parts.fixed, *chosen))
        network = space.network(architecture, shape)
        assert total == layer_table(network, shape.image).macs


def test_graphs_hold_slots_and_choices_of_the_space(space):
    slots = [slot for graph in space.graphs for _, _, slot in graph.edges]
    assert len(set(slots)) == len(slots) and set(slots) <= set(range(space.slots))
    for graph in space.graphs:
        for source, target, _ in graph.edges:
            assert 0 <= source < target < graph.nodes
            assert target not in graph.inputs
        assert graph.inputs and graph.outputs
        assert {*graph.inputs, *graph.outputs} <= set(range(graph.nodes))
        assert graph.absent | graph.identity <= set(range(space.choices))
        assert not graph.absent & graph.identity


@pytest.mark.parametrize("name", NAMES)
@given(seed=seeds)
def test_the_effective_architecture_is_valid_and_its_own(name, seed):
    space = find_space(name)
    architecture = space.sample(np.random.default_rng(seed))
    effective = space.effective(architecture)
    assert space.is_valid(effective) and space.effective(effective) == effective
    for graph in space.graphs:
        live = graph.live(architecture.choices)
        assert live == graph.live(effective.choices)
        for slot in (slot for _, _, slot in graph.edges):
            same = effective.choices[slot] == architecture.choices[slot]
            assert same if slot in live else not graph.absent or effective.choices[slot] in graph.absent


def test_every_choice_that_costs_something_has_a_name(space):
    """An operation has one name in every slot, and the names are what can be left out."""
    named = {at: space.choice_name(*at) for at in decisions_of(space)}
    assert named and all(name and name.isprintable() and "," not in name for name in named.values())
    assert "unmapped" not in named.values()  # which a user writes for what a device cannot run
    for slot in {slot for slot, _ in named}:
        own = [name for at, name in named.items() if at[0] == slot]
        assert len(set(own)) == len(own), "two choices of a slot must be told apart"
    for part in (part for _, parts in space.parts(shape_of(space)).by_decision() for part in parts):
        assert part.inputs and all(len(image) == 3 for image in part.inputs)


def test_leaving_nothing_out_leaves_the_space(space):
    same = space.without(frozenset())
    assert same is space or same == space
    assert space.allows(space.reference)
    assert not space.allows(Architecture(()))
    with pytest.raises(UsageError):
        space.without(frozenset({"no such choice"}))


def test_a_choice_left_out_is_not_sampled_and_can_be_read(space):
    names = sorted({space.choice_name(*at) for at in decisions_of(space)})
    try:
        fewer = space.without(frozenset(names[:1]))
    except UsageError as error:
        assert "--exclude" in str(error)  # a space need not be able to
        return
    drawn = [fewer.sample(np.random.default_rng(seed)) for seed in range(20)]
    for architecture in (*drawn, fewer.most_likely(fewer.initial_logits())):
        assert fewer.allows(architecture) and space.allows(architecture)
        taken = {fewer.choice_name(*at) for at in enumerate(architecture.choices)}
        assert names[0] not in taken
    assert fewer.parse(space.text(space.reference)) == space.reference


def test_cells_are_the_network_cut_where_it_can_be(space):
    for cell in space.cells(space.reference, shape_of(space)):
        module = cell.module.eval()
        out = module(*(torch.randn(2, *image) for image in cell.inputs))
        assert out.shape[0] == 2 and torch.isfinite(out).all()
