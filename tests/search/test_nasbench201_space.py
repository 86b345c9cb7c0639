"""The NAS-Bench-201 space: the benchmark's strings, sizes and networks, and a sampler that keeps to them."""

import csv
import gzip
import json
import os
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ehdnas.core.errors import UsageError
from ehdnas.core.graph import layer_table
from ehdnas.search.spaces.base import Architecture, NetworkShape
from ehdnas.search.spaces.nasbench201 import genotype as g
from ehdnas.search.spaces.nasbench201.network import stage_cells
from ehdnas.search.spaces.nasbench201.space import NasBench201Space

SPACE = NasBench201Space()
ALL = list(product(range(5), repeat=6))
OFFICIAL = NetworkShape(16, 15, (3, 32, 32), 10)
SMALL = NetworkShape(4, 3, (1, 8, 8), 10)
seeds = st.integers(0, 2**32)
names_left_out = st.sets(st.sampled_from(g.CHOICES), max_size=3)


def connected(choices):
    """Whether node 3 is reached from node 0, by the eight ways there are to get there."""
    one, two, one_two, three, one_three, two_three = (choice > 0 for choice in choices)
    return three or (one and one_three) or (two and two_three) or (one and one_two and two_three)


CONNECTED = [choices for choices in ALL if connected(choices)]


@pytest.fixture(scope="module")
def benchmark():
    """The rows of the benchmark: architecture, accuracies and parameters."""
    root = Path(__file__).resolve().parents[3]
    path = Path(os.environ.get("EHDNAS_DATA", root / "shared" / "data")) / "nb201" / "measured.csv.gz"
    if not path.is_file():
        pytest.skip(f"no NAS-Bench-201 at {path}: set EHDNAS_DATA to the data folder")
    with gzip.open(path, "rt") as text:
        return list(csv.DictReader(text))


def randomly(seed, strength=1.0):
    return strength * torch.randn(6, 5, generator=torch.Generator().manual_seed(seed))


def test_every_form_of_every_architecture_reads_back():
    texts = set()
    for choices in ALL:
        text = g.to_text(choices)
        texts.add(text)
        assert g.parse(text) == choices
        assert g.parse("".join(map(str, choices))) == choices
        assert g.parse(json.dumps(SPACE.genotype(Architecture(choices)))) == choices
    assert len(texts) == 15_625


def test_strings_are_the_benchmark_s(benchmark):
    assert {row["arch"] for row in benchmark} == {g.to_text(choices) for choices in ALL}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("RESNETT", "not a NAS-Bench-201 genotype; did you mean 'RESNET'; give"),
        ("12345", "5 digits: a NAS-Bench-201 genotype has 6"),
        ("123405", "choice 5 in slot 5; choices go from 0 to 4"),
        ("|none~0|+|none~0|none~1|", "2 nodes: a NAS-Bench-201 cell has 3"),
        ("|none~0|+|none~0|+|none~0|none~1|none~2|", "node 2 takes 1 edges; it needs 2"),
        ("|none~0|+none~0|none~1|+|none~0|none~1|none~2|", "node 2 is 'none~0.none~1.'; write it"),
        ("|none|+|none~0|none~1|+|none~0|none~1|none~2|", "'none' in node 1 is no operation~source"),
        ("|none~0|+|none~0|none~0|+|none~0|none~1|none~2|", "edge 1 of node 2 comes from 0; it must come"),
        ("|nor_conv_3x4~0|+|none~0|none~1|+|none~0|none~1|none~2|", "'nor_conv_3x4' in node 1; did you mean"),
        ('{"cell": []}', "no list under the key 'nodes'"),
        ('{"nodes": [[["none", 0]], 3, []]}', "node 2 takes 0 edges"),
        ('{"nodes": [["none"], [], []]}', "none in node 1 is no .operation, source. pair"),
        ('{"nodes": [[["none", false]], [], []]}', "edge 0 of node 1 comes from False"),
        ('{"nodes": [', "not valid JSON"),
        ("|" * 30_000, "30000 characters: at most 20000"),
    ],
)
def test_what_is_no_genotype_is_refused_by_name(text, says):
    with pytest.raises(UsageError, match=says) as caught:
        SPACE.parse(text)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=200) | st.from_regex(r"\|.{0,80}\|") | st.from_regex(r"\{.{0,80}\}"))
def test_any_text_is_read_or_refused_in_one_line(text):
    try:
        assert len(g.parse(text)) == 6
    except UsageError as error:
        assert "\n" not in str(error)


def test_valid_is_what_is_connected():
    assert [choices for choices in ALL if SPACE.is_valid(Architecture(choices))] == CONNECTED
    assert len(CONNECTED) == 15_284
    assert not SPACE.is_valid(Architecture((5, 0, 0, 1, 0, 0)))


def test_named_networks_are_what_their_names_say(benchmark):
    by_text = {row["arch"]: row for row in benchmark}
    for name, metric in (
        ("BEST_CIFAR10", "acc_cifar10"),
        ("BEST_CIFAR100", "acc_cifar100"),
        ("BEST_IMAGENET16", "acc_imagenet16"),
    ):
        best = max(float(row[metric]) for row in benchmark)
        assert float(by_text[SPACE.text(SPACE.parse(name))][metric]) == best


def test_resnet_is_a_residual_block():
    """Two 3x3 convolutions one after the other, and what they are fed added to what they give."""
    cell = SPACE.cells(SPACE.reference, SMALL)[0].module.eval()
    first, second = cell.cell.edges["0_3"], cell.cell.edges["2_3"]
    x = torch.randn(2, 4, 8, 8)
    assert torch.allclose(cell(x), x + second(first(x)), atol=1e-6)


def test_samples_are_uniform_over_the_connected():
    rng = np.random.default_rng(0)
    counts = Counter(SPACE.sample(rng).choices for _ in range(20_000))
    assert set(counts) <= set(CONNECTED)
    for slot in range(6):
        for choice in range(5):
            share = sum(one[slot] == choice for one in CONNECTED) / len(CONNECTED)
            seen = sum(count for one, count in counts.items() if one[slot] == choice) / 20_000
            assert seen == pytest.approx(share, abs=0.015)


@pytest.mark.parametrize("strength", [0.5, 2.0, 6.0])
def test_probabilities_are_the_product_s_given_that_it_is_connected(strength):
    logits = randomly(1, strength).double()
    logits[:, 0] += strength  # so that much of the product is cut off
    log = logits.log_softmax(1)
    product_s = torch.tensor([sum(log[slot, c] for slot, c in enumerate(one)) for one in CONNECTED])
    expected = product_s - product_s.logsumexp(0)
    few = slice(None, None, 100)
    ours = torch.stack([SPACE.log_prob(Architecture(one), logits) for one in CONNECTED[few]])
    assert torch.allclose(ours, expected[few], atol=1e-9)
    best = Architecture(CONNECTED[int(expected.argmax())])
    assert SPACE.most_likely(logits) == best
    assert SPACE.log_prob(Architecture((0,) * 6), logits) == -torch.inf


def test_probabilities_add_up_to_one():
    logits = randomly(8, 2).double()
    assert sum(float(SPACE.log_prob(Architecture(one), logits).exp()) for one in CONNECTED) == pytest.approx(
        1
    )


def test_the_log_probability_has_the_gradient_of_its_formula():
    logits = randomly(2).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: SPACE.log_prob(SPACE.reference, z), [logits])


def test_relaxed_samples_follow_the_conditioned_distribution():
    logits = randomly(3)
    logits[:, 0] += 4  # most draws of the product are not connected
    log = logits.log_softmax(1)
    weights = torch.tensor([sum(log[slot, c] for slot, c in enumerate(one)) for one in CONNECTED]).exp()
    assert weights.sum() < 0.5
    generator = torch.Generator().manual_seed(4)
    draws = [SPACE.decode(SPACE.relax(logits, generator)).choices for _ in range(6000)]
    chances = weights / weights.sum()
    one_hot = torch.nn.functional.one_hot(torch.tensor(CONNECTED), 5).double()
    expected = torch.einsum("n,nsc->sc", chances.double(), one_hot)
    seen = torch.nn.functional.one_hot(torch.tensor(draws), 5).double().mean(0)
    assert (seen - expected).abs().max() < 4 * (0.25 / 6000) ** 0.5
    counts = Counter(draws)
    for at in chances.topk(5).indices.tolist():
        share = float(chances[at])
        assert counts[CONNECTED[at]] / 6000 == pytest.approx(share, abs=4 * (share / 6000) ** 0.5)


@given(seed=seeds, strength=st.floats(0, 300), names=names_left_out)
@settings(max_examples=80)
def test_the_relaxation_is_connected_and_finite_even_where_none_is_all_it_likes(seed, strength, names):
    space = SPACE.without(frozenset(names))
    logits = randomly(seed, 3)
    logits[:, 0] += strength
    logits.requires_grad_()
    gates = space.relax(logits, torch.Generator().manual_seed(seed))
    drawn = space.decode(gates.detach())
    assert torch.equal(gates.detach(), space.encode(drawn)) and space.allows(drawn)
    (gates * randomly(seed + 1)).sum().backward()
    likelihood = space.log_prob(drawn, logits)
    likelihood.backward()
    assert torch.isfinite(logits.grad).all() and logits.grad.abs().sum() > 0
    assert torch.isfinite(likelihood) and likelihood <= 1e-4
    assert space.allows(space.most_likely(logits.detach()))
    assert space.allows(space.sample(np.random.default_rng(seed)))
    assert all(space.allows(one) for one in space.neighbours(drawn))


def test_the_global_generator_serves_where_none_is_given():
    torch.manual_seed(7)
    first = [SPACE.relax(torch.zeros(6, 5)) for _ in range(3)]
    torch.manual_seed(7)
    assert all(torch.equal(one, SPACE.relax(torch.zeros(6, 5))) for one in first)
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize("names", [set(g.CHOICES[1:]), set(g.CHOICES)])
def test_something_must_be_left_to_search(names):
    with pytest.raises(UsageError, match="nothing to search"):
        SPACE.without(frozenset(names))
    with pytest.raises(UsageError, match="did you mean 'nor_conv_3x3'"):
        SPACE.without(frozenset({"nor_conv_3x4"}))


def test_neighbours_are_all_that_differ_in_one_edge():
    for one in (SPACE.reference, Architecture((0, 0, 0, 1, 0, 0))):
        near = [c for c in CONNECTED if sum(a != b for a, b in zip(c, one.choices, strict=True)) == 1]
        assert sorted(other.choices for other in SPACE.neighbours(one)) == near


def test_networks_have_the_parameters_the_benchmark_reports(benchmark):
    """To the six digits the benchmark gives."""
    rows = [row for row in benchmark[:320:8] if SPACE.is_valid(SPACE.parse(row["arch"]))]
    assert len(rows) > 30
    for row in rows:
        network = SPACE.network(SPACE.parse(row["arch"]), OFFICIAL)
        count = sum(parameter.numel() for parameter in network.parameters())
        assert f"{count / 1e6:.6g}" == f"{float(row['params_m']):.6g}", row["arch"]


def test_cells_are_spread_over_the_stages():
    assert stage_cells(15) == (5, 5, 5)
    assert stage_cells(8) == (3, 3, 2)
    assert stage_cells(3) == (1, 1, 1)


def test_dead_edges_are_built_and_not_computed():
    """An edge to node 2 counts for nothing where none leaves it, nor one from node 1 that nothing reaches."""
    architecture = Architecture((0, 3, 0, 1, 2, 0))
    effective = SPACE.effective(architecture)
    assert effective.choices == (0, 0, 0, 1, 0, 0)
    network, live = SPACE.network(architecture, SMALL).eval(), SPACE.network(effective, SMALL).eval()
    live.load_state_dict({name: network.state_dict()[name] for name in live.state_dict()})
    assert sum(p.numel() for p in network.parameters()) > sum(p.numel() for p in live.parameters())
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(network(images), live(images))
    assert layer_table(network, SMALL.image).macs == layer_table(live, SMALL.image).macs


@pytest.mark.parametrize("text", ["RESNET", "BEST_CIFAR10", "444444", "133142"])
def test_parts_are_the_layers_of_the_network(text):
    """Not only their work: additions too, where each node with two edges has one from the input."""
    architecture = SPACE.parse(text)
    shape = NetworkShape(4, 4, (3, 16, 16), 10)
    network = layer_table(SPACE.network(architecture, shape), shape.image)
    parts = SPACE.parts(shape)
    chosen = [part for at in enumerate(architecture.choices) for part in parts.chosen.get(at, ())]
    cut = [layer_table(part.module, part.inputs[0]) for part in (*parts.fixed, *chosen)]
    ours = Counter(layer.operator for table in cut for layer in table.layers)
    assert sum(table.macs for table in cut) == network.macs
    if text != "RESNET":  # whose node 2 takes one edge
        assert ours == Counter(layer.operator for layer in network.layers)


def test_the_supernet_computes_the_network_its_gates_select():
    torch.manual_seed(0)
    supernet = SPACE.supernet(SMALL)
    architecture = SPACE.parse("BEST_CIFAR10")
    network = SPACE.network(architecture, SMALL)
    have = {name.removeprefix("body."): value for name, value in supernet.state_dict().items()}
    network.load_state_dict({name: have.get(name, value) for name, value in network.state_dict().items()})
    images = torch.randn(4, 1, 8, 8)
    assert torch.allclose(supernet(images, SPACE.encode(architecture)), network(images), atol=1e-5)
    with pytest.raises(UsageError, match="no path"):
        supernet(images, SPACE.encode(Architecture((0,) * 6)))


def test_gates_receive_gradients_only_where_they_are_chosen_and_live():
    gates = SPACE.encode(Architecture((3, 3, 2, 1, 4, 0))).requires_grad_()
    SPACE.supernet(SMALL)(torch.randn(2, 1, 8, 8), gates).square().sum().backward()
    reached = torch.zeros(6, 5, dtype=torch.bool)
    reached[[0, 3, 4], [3, 1, 4]] = True
    assert torch.equal(gates.grad != 0, reached)


@pytest.mark.parametrize(
    ("image", "stem"),
    [((1, 4, 4), "cifar"), ((1, 8, 8), "cifar"), ((3, 32, 32), "cifar"), ((3, 64, 96), "imagenet")],
)
def test_networks_run_with_the_auxiliary_head_at_every_size(image, stem):
    shape = NetworkShape(4, 4, image, 7, stem)
    network = SPACE.network(SPACE.reference, shape, auxiliary=True)
    logits, auxiliary = network(torch.randn(2, *image))
    assert logits.shape == auxiliary.shape == (2, 7)
    assert network.eval()(torch.randn(2, *image)).shape == (2, 7)
    for cell in SPACE.cells(SPACE.reference, shape):
        (fed,) = cell.inputs
        assert cell.module.eval()(torch.randn(1, *fed)).shape == (1, *fed)


@pytest.mark.parametrize(
    "shape",
    [
        NetworkShape(8, 5, (1, 6, 8), 10),
        NetworkShape(8, 2, (1, 8, 8), 10),
        NetworkShape(7, 5, (3, 64, 64), 10, "imagenet"),
        NetworkShape(8, 5, (3, 200, 200), 10, "imagenet"),
    ],
)
def test_a_shape_that_cannot_be_built_is_refused(shape):
    with pytest.raises(UsageError):
        SPACE.network(SPACE.reference, shape)


def test_a_disconnected_architecture_has_no_network():
    with pytest.raises(UsageError, match="`none` cuts the cell's output off"):
        SPACE.network(SPACE.parse("033000"), SMALL)
