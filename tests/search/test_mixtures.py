"""Mixtures of operations: sums by hand, one-hot gates as networks, and searches that end and resume."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ehdnas.core.budget import Budget
from ehdnas.core.errors import UsageError
from ehdnas.core.images.dataset import Split
from ehdnas.search.augment import Augmentation
from ehdnas.search.objective import Constraint, Constraints
from ehdnas.search.recipes import recipe_for
from ehdnas.search.searcher import Searcher, SearchTask
from ehdnas.search.spaces.base import NetworkShape, find_space
from ehdnas.search.spaces.darts.genotype import CHOICES, NODE_SLOTS

SPACE, SHAPE = find_space("darts"), NetworkShape(4, 3, (3, 8, 8), 4)
KINDS = ("mixed", "partial")
EVERY = pytest.mark.parametrize("kind", KINDS)


def randomly(seed=0, *size):
    return torch.randn(*(size or (28, 8)), generator=torch.Generator().manual_seed(seed))


def supernet(kind, seed=0):
    torch.manual_seed(seed)
    return SPACE.relaxation(kind).supernet(SHAPE)


def test_mixed_gates_are_the_softmax_over_all_eight():
    logits = randomly()
    assert torch.allclose(SPACE.relaxation("mixed").gates(logits), logits.softmax(1))


def test_partial_gates_are_a_softmax_over_edges_times_one_over_operations():
    logits = randomly()
    gates = SPACE.relaxation("partial").gates(logits)
    edges = (-logits[[2, 3, 4], 0]).softmax(0)
    assert torch.allclose(gates[3, 1:], edges[1] * logits[3, 1:].softmax(0))
    assert not gates[:, 0].any()
    assert torch.allclose(torch.stack([gates[list(slots)].sum() for slots in NODE_SLOTS]), torch.ones(8))


@EVERY
@pytest.mark.parametrize("seed", range(5))
def test_a_node_keeps_its_two_edges_with_the_strongest_operations(kind, seed):
    logits, relaxation = 2 * randomly(seed), SPACE.relaxation(kind)
    strengths, operations = relaxation.gates(logits)[:, 1:].max(dim=1)
    found = SPACE.most_likely(relaxation.distribution(logits)).choices
    for slots in NODE_SLOTS:
        two = sorted(sorted(slots, key=lambda slot: -strengths[slot])[:2])
        assert [slot for slot in slots if found[slot]] == two
        assert all(found[slot] == 1 + int(operations[slot]) for slot in two)


@EVERY
def test_what_is_left_out_weighs_nothing(kind):
    space = SPACE.without(frozenset({"sep_conv_5x5", "skip_connect"}))
    gates = space.relaxation(kind).gates(randomly() + 5)
    columns = [CHOICES.index(name) for name in ("sep_conv_5x5", "skip_connect")]
    assert not gates[:, columns].any() and (gates[:, 1] > 0).all()


def cell_by_hand(net, kind, s0, s1, gates):
    """Return the first cell's output, edge by edge from the definition."""
    cell = net.body.cells[0]
    states = [cell.preprocess0(s0), cell.preprocess1(s1)]
    edge = 0
    for node in range(4):
        total = 0
        for source in range(node + 2):
            x, row = states[source], gates[edge]
            share = x.shape[1] // (4 if kind == "partial" else 1)
            out = sum(row[c] * cell.edges[f"{edge}_{c}"](x[:, :share]) for c in range(1, 8))
            if kind == "partial":
                joined = torch.cat([out, row[1:].sum() * x[:, share:]], 1)
                order = [4 * 0 + group for group in range(4)]  # a channel a group: a shuffle of 4 by 4
                out = joined[:, order]
            total = total + out
            edge += 1
        states.append(total)
    return torch.cat(states[2:], 1)


@EVERY
def test_a_cell_is_the_weighted_sum_of_all_its_operations(kind):
    net, gates = supernet(kind), SPACE.relaxation(kind).gates(randomly())
    s0, s1 = net.body.enter(randomly(1, 2, 3, 8, 8))
    rows = gates.tolist()
    used = [[c for c in range(1, 8) if row[c]] for row in rows]
    mixed = net._mixed(net.body.cells[0], s0, s1, used[:14], gates[:14])
    assert torch.allclose(mixed, cell_by_hand(net, kind, s0, s1, gates), atol=1e-5)


def test_the_channels_that_a_reduction_hands_on_are_pooled_and_shuffled():
    net = supernet("partial")
    cell, x = net.body.cells[1], randomly(2, 2, 8, 4, 4)  # 8 channels: 2 mixed, 6 handed on
    weights = torch.tensor([0.0, 0.0, 0.3, 0.2, 0.0, 0.0, 0.0, 0.0])
    out = net._edge(cell, 0, x, [2, 3], weights)
    own = 0.3 * cell.edges["0_2"](x[:, :2]) + 0.2 * cell.edges["0_3"](x[:, :2])
    whole = torch.cat([own, 0.5 * F.max_pool2d(x[:, 2:], 2)], 1)
    assert torch.allclose(out, whole[:, [0, 2, 4, 6, 1, 3, 5, 7]], atol=1e-6)


def test_a_mixed_supernet_computes_one_hot_gates_as_the_single_path_does():
    mixed, single = supernet("mixed"), SPACE.supernet(SHAPE)
    single.load_state_dict(mixed.state_dict())
    gates, images = SPACE.encode(SPACE.reference), randomly(3, 4, 3, 8, 8)
    assert torch.allclose(mixed(images, gates), single(images, gates), atol=1e-5)


@EVERY
def test_one_hot_gates_compute_their_operations_alone(kind):
    net, calls = supernet(kind), []
    for cell in net.body.cells:
        for name, operation in cell.edges.items():
            operation.register_forward_hook(lambda *_, name=name: calls.append(name))
    net(randomly(3, 2, 3, 8, 8), SPACE.encode(SPACE.reference))
    assert len(calls) == 3 * 8


def test_a_space_without_mixtures_and_channels_that_do_not_divide_are_refused():
    with pytest.raises(UsageError, match="'mobile' has no mixed relaxation; search with --relaxation single"):
        find_space("mobile").relaxation("mixed")
    with pytest.raises(UsageError, match=r"6 channels: --relaxation partial .* a multiple of 4"):
        SPACE.relaxation("partial").supernet(NetworkShape(6, 3, (3, 8, 8), 4))


class OneHotOnly:
    """A predictor that is asked only about architectures, as it was trained on."""

    def log_value(self, gates):
        values = gates.detach()
        assert torch.equal(values, SPACE.encode_all([SPACE.decode(one) for one in values]))
        return gates[:, :, 4:].sum(dim=(1, 2)) / 8

    def margin(self, confidence):
        return 0.0


BUDGET = Constraints((Constraint(OneHotOnly(), Budget("latency_ms", 1.2), 0.9),))


def searcher(path, **recipe):
    rng = np.random.default_rng(0)
    split = Split(
        rng.integers(0, 256, (16, 8, 8, 3), dtype=np.uint8), rng.integers(0, 4, 16).astype(np.int64)
    )
    own = recipe_for("cifar10").model_copy(update={"search_epochs": 2, "batch_size": 8, **recipe})
    augmentation = Augmentation.for_size(8, True, (0.5,) * 3, (0.25,) * 3)
    task = SearchTask(SPACE, SHAPE, split, split, augmentation, own, [BUDGET], 7, 0.0, {"a": 1})
    return Searcher(task, path)


class StoppedError(Exception):
    pass


@pytest.mark.parametrize(
    ("kind", "unrolled"), [("mixed", False), ("partial", False), ("partial", True), ("single", True)]
)
def test_a_search_ends_in_a_valid_architecture_and_resumes_to_the_same(tmp_path, kind, unrolled):
    def stop(done, total, text):
        if done > 2:
            raise StoppedError

    options = {"relaxation": kind, "unrolled": unrolled}
    whole = searcher(tmp_path / "whole", **options).run(lambda *_: None)
    assert SPACE.is_valid(SPACE.most_likely(whole.logits)) and whole.logits.abs().sum() > 0
    assert all(math.isfinite(value) for record in whole.history for value in record.values())
    with pytest.raises(StoppedError):
        searcher(tmp_path / "cut", **options).run(stop)
    resumed = searcher(tmp_path / "cut", **options)
    assert resumed.resume() == 2
    result = resumed.run(lambda *_: None)
    assert torch.equal(result.logits, whole.logits) and result.history == whole.history
