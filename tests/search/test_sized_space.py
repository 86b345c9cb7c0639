"""The DARTS space in several widths and depths: sizes, forms of a genotype, costs, what is left out."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ehdnas.core.errors import UsageError
from ehdnas.core.graph import layer_table
from ehdnas.pipeline.costed import costed
from ehdnas.pipeline.devices import find_device
from ehdnas.profilers.base import find_profiler
from ehdnas.search.spaces.base import Architecture, NetworkShape, find_space
from ehdnas.search.spaces.sized.sizes import SIZES, resized

SPACE, PLAIN = find_space("darts-sized"), find_space("darts")
SHAPE = NetworkShape(8, 5, (3, 16, 16), 10)
V2 = PLAIN.text(PLAIN.reference)


@pytest.mark.parametrize(
    ("asked", "size", "gives"),
    [
        ((8, 5), (0, 0), (8, 5)),
        ((8, 5), (1, 1), (10, 4)),
        ((16, 8), (1, 1), (20, 6)),
        ((36, 20), (1, 1), (46, 16)),  # 45 channels would be odd
        ((4, 4), (1, 0), (6, 4)),
    ],
)
def test_a_size_is_an_even_number_of_channels_and_whole_cells(asked, size, gives):
    shape = resized(NetworkShape(*asked, (3, 32, 32), 10), size)
    assert (shape.channels, shape.cells) == gives


def test_sizes_that_cannot_be_told_apart_or_built_are_refused():
    with pytest.raises(UsageError, match="at least 3 cells"):
        SPACE.check_shape(NetworkShape(8, 3, (3, 16, 16), 10))
    with pytest.raises(UsageError, match="sides that divide by 4"):
        SPACE.check_shape(NetworkShape(8, 5, (3, 15, 15), 10))


def test_forms_of_a_genotype():
    wide = Architecture((*PLAIN.reference.choices, 1, 1))
    assert SPACE.text(wide) == f"{V2}@width_1.25,depth_0.8"
    assert SPACE.parse("DARTS_V2") == SPACE.reference == SPACE.parse(V2)
    assert SPACE.parse("DARTS_V2@width_1.25,depth_0.8") == wide
    genotype = SPACE.genotype(wide)
    assert (genotype["width"], genotype["depth"]) == ("width_1.25", "depth_0.8")
    assert SPACE.parse(json.dumps(genotype)) == wide
    assert SPACE.parse(json.dumps(PLAIN.genotype(PLAIN.reference))) == SPACE.reference


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("DARTS_V2@width_1.25", "after '@' comes a size such as width_1,depth_1"),
        ("DARTS_V2@width_1.26,depth_1", "'width_1.26' in the width; did you mean 'width_1.25'"),
        ("DARTS_V9@width_1,depth_1", "'DARTS_V9' is not a DARTS genotype"),
        (json.dumps({**PLAIN.genotype(PLAIN.reference), "depth": 0.8}), "in the depth"),
    ],
)
def test_what_is_no_genotype_is_refused_by_name(text, says):
    with pytest.raises(UsageError, match=says) as caught:
        SPACE.parse(text)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=100) | st.from_regex(r"DARTS_V2@.{0,40}"))
def test_any_text_is_read_or_refused_in_one_line(text):
    try:
        assert SPACE.is_valid(SPACE.parse(text))
    except UsageError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("size", SIZES)
def test_a_network_costs_what_it_does_in_the_space_of_its_size(size):
    network = PLAIN.sample(np.random.default_rng(1))
    sized = Architecture((*network.choices, *size))
    found = costed(SPACE, SHAPE)
    own = costed(PLAIN, resized(SHAPE, size)).table(network)
    assert [layer.macs for layer in found.table(sized).layers] == [layer.macs for layer in own.layers]
    assert found.table(sized).macs == layer_table(SPACE.network(sized, SHAPE), SHAPE.image).macs
    for device in ("ehdnas-generic", "zcu102-pipeline"):
        profiler = find_profiler(find_device(device))
        (at_once,) = profiler.label(found.workload([sized]))
        assert at_once.metrics == profiler.simulate(own).metrics


def test_the_supernet_computes_the_size_that_its_gates_select():
    supernet, images = SPACE.supernet(SHAPE), torch.randn(2, *SHAPE.image)
    for size in SIZES:
        one = Architecture((*PLAIN.reference.choices, *size))
        logits = supernet(images, SPACE.encode(one))
        alone = supernet.sizes[SIZES.index(size)](images, PLAIN.encode(PLAIN.reference))
        assert torch.equal(logits, alone)


def test_gradients_reach_the_width_and_the_depth():
    gates = SPACE.encode(SPACE.reference).requires_grad_()
    SPACE.supernet(SHAPE)(torch.randn(2, *SHAPE.image), gates).square().sum().backward()
    assert gates.grad[-2, 0] != 0 and gates.grad[-1, 0] != 0


def test_each_size_is_a_space_of_its_own():
    logits, rng = SPACE.initial_logits(), np.random.default_rng(0)
    sizes = []
    for space, reference in SPACE.each_size():
        sizes.append(reference.choices[-2:])
        assert reference.choices[:28] == PLAIN.reference.choices and space.allows(reference)
        others = [space.most_likely(logits), space.sample(rng), *space.neighbours(reference)]
        assert {one.choices[-2:] for one in others} == {sizes[-1]}
    assert sizes == list(SIZES)
    assert list(PLAIN.each_size()) == [(PLAIN, PLAIN.reference)]


def test_sizes_can_be_left_out():
    fewer = SPACE.without(frozenset({"width_1.25", "sep_conv_5x5"}))
    drawn = [fewer.sample(np.random.default_rng(seed)) for seed in range(50)]
    assert {one.choices[-2] for one in drawn} == {0} and {one.choices[-1] for one in drawn} == {0, 1}
    assert all(5 not in one.choices[:28] for one in drawn)
    assert fewer.log_prob(Architecture((*PLAIN.reference.choices, 1, 0)), fewer.initial_logits()) < -1e8
    assert [reference.choices[-2:] for _, reference in fewer.each_size()] == [(0, 0), (0, 1)]
    with pytest.raises(UsageError, match="cannot all be left out"):
        fewer.without(frozenset({"width_1"}))
