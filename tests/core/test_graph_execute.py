"""A graph run by torch is the network it was traced from, whatever the batch, and so is a rewritten one."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from ehdnas.core.graph import batches, execute, fold_batch_norm, params_of, share_common, sink_relu, trace
from ehdnas.exporters import Reference, check_parity, find_exporter
from ehdnas.search.spaces.base import NetworkShape
from ehdnas.search.spaces.darts.space import DartsSpace

_spec = importlib.util.spec_from_file_location(
    "exported_networks", Path(__file__).parents[1] / "exporters" / "conftest.py"
)
networks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(networks)


class Forward(nn.Module):
    """A network whose forward is a given function, with two convolutions and a classifier to use."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.function = function
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.linear = nn.Linear(8, 5)

    def forward(self, *images):
        return self.function(self, *images)


def batch(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def ops(graph):
    return [node.op for node in graph.nodes]


def run(graph, *images):
    with torch.no_grad():
        return execute(graph, images)


def assert_same(model, graph, *images, atol=1e-5):
    with torch.no_grad():
        torch.testing.assert_close(run(graph, *images), model(*images), atol=atol, rtol=1e-5)


@pytest.mark.parametrize("kind", networks.NETWORKS)
def test_a_graph_is_its_network(kind):
    model, images = networks.make(kind), batch(5, 3, 16, 16)
    graph = trace(model, (3, 16, 16))
    assert_same(model, graph, images)
    assert_same(model, sink_relu(share_common(fold_batch_norm(graph))), images)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_darts_networks_of_the_space(seed):
    space = DartsSpace()
    torch.manual_seed(seed)
    architecture = space.sample(np.random.default_rng(seed))
    model = space.network(architecture, NetworkShape(4, 4, (3, 16, 16), 10))
    with torch.no_grad():  # statistics that are not the identity's
        model(batch(32, 3, 16, 16))
    model.eval()
    graph = trace(model, (3, 16, 16))
    images = batch(3, 3, 16, 16)
    assert_same(model, graph, images)
    assert_same(model, sink_relu(share_common(fold_batch_norm(graph))), images)


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["conv", "max", "avg"]),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2, 4]),
    counted=st.booleans(),
    size=st.tuples(st.integers(7, 10), st.integers(7, 10)),
)
def test_windows_of_any_kind(kind, kernel, stride, padding, dilation, groups, counted, size):
    torch.manual_seed(0)
    if kind == "conv":
        layer = nn.Conv2d(4, 8, kernel, stride, padding, dilation, groups)
    else:
        assume(2 * padding <= min(kernel))
        pool = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}[kind]
        kwargs = {"count_include_pad": counted} if kind == "avg" else {}
        layer = pool(kernel, stride, padding, **kwargs)
    assert_same(layer, trace(layer, (4, *size)), batch(3, 4, *size))


@settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.tuples(st.integers(0, 2), st.integers(1, 8), st.integers(1, 3))] * 3), st.data())
def test_slices_and_pads_of_a_batch(bounds, data):
    channels, rows, columns = (slice(start, start + size, step) for start, size, step in bounds)
    pads = [data.draw(st.integers(0, 2)) for _ in range(4)]
    model = Forward(lambda m, x: F.pad(x[:, channels, rows, columns], pads) * 2)
    assert_same(model, trace(model, (4, 12, 12)), batch(3, 4, 12, 12))


def test_what_is_read_twice_is_kept_until_the_last():
    model = Forward(lambda m, x: (lambda y: m.second(y + y) + y)(m.first(x)))
    assert_same(model, trace(model, (3, 8, 8)), batch(2, 3, 8, 8))


def test_watch_sees_inputs_first_and_may_replace():
    model = Forward(lambda m, x: F.relu(m.first(x)))
    graph = trace(model, (3, 8, 8))
    seen = []

    def watch(value, made):
        seen.append(value.name)
        return torch.zeros_like(made) if value is graph.inputs[0] else made

    with torch.no_grad():
        made = execute(graph, [batch(2, 3, 8, 8)], watch=watch)
        expected = F.relu(model.first(torch.zeros(2, 3, 8, 8)))
    assert seen == [graph.inputs[0].name, *(node.output.name for node in graph.nodes)]
    torch.testing.assert_close(made, expected)


def test_parameters_can_be_others_and_have_gradients():
    model = Forward(lambda m, x: m.linear(m.first(x).mean((2, 3))))
    graph = trace(model, (3, 8, 8))
    ours = {
        node.name: {name: (2 * value).requires_grad_() for name, value in params_of(node).items()}
        for node in graph.nodes
        if node.params
    }
    made = execute(graph, [batch(2, 3, 8, 8)], lambda node: ours.get(node.name, {}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 2
        torch.testing.assert_close(made, model(batch(2, 3, 8, 8)))
    made.sum().backward()
    assert all(one.grad.abs().sum() > 0 for params in ours.values() for one in params.values())


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 150), st.sampled_from([(1, 8, 8), (3, 32, 32), (3, 224, 224)]))
def test_batches_hold_every_image_once_and_in_order(number, shape):
    images = np.broadcast_to(np.arange(number, dtype=np.float32).reshape(-1, 1, 1, 1), (number, *shape))
    cut = batches([images, -images])
    assert all(len(one) == len(other) and torch.equal(one, -other) for one, other in cut)
    assert torch.cat([one[:, 0, 0, 0] for one, _ in cut]).tolist() == list(range(number))
    assert max(len(one) for one, _ in cut) <= 64


def test_sunk_relu_changes_no_bit():
    """Two convolutions and a pool joined, then a ReLU: the ReLU is done by each, and the sum is the same."""
    joined = Forward(
        lambda m, x: F.relu(torch.cat([m.first(x), F.max_pool2d(m.second(m.first(x)), 3, 1, 1)], 1))
    )
    graph = share_common(trace(joined, (3, 8, 8)))
    sunk = sink_relu(graph)
    assert ops(graph)[-2:] == ["concat", "relu"]
    assert ops(sunk)[-1] == "concat" and ops(sunk).count("relu") == 2
    assert sunk.output.shape == graph.output.shape
    images = batch(3, 3, 8, 8)
    assert torch.equal(run(sunk, images), run(graph, images))
    with torch.no_grad():
        assert torch.equal(run(sunk, images), joined(images))


def test_a_part_read_twice_has_one_relu():
    model = Forward(lambda m, x: (lambda y: F.relu(torch.cat([y, y], 1)))(m.first(x)))
    sunk = sink_relu(trace(model, (3, 8, 8)))
    assert ops(sunk) == ["conv", "relu", "concat"]
    assert_same(model, sunk, batch(2, 3, 8, 8), atol=0)


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: (lambda y: F.relu(y) + y)(torch.cat([m.first(x), m.first(x)], 1)),
        lambda m, x: F.relu6(torch.cat([m.first(x), x], 1)),
        lambda m, x: F.relu(m.first(x)),
    ],
    ids=["a concat that others read", "another activation", "no concat"],
)
def test_what_is_no_relu_after_a_concat_stays(function):
    graph = trace(Forward(function), (3, 8, 8))
    assert ops(sink_relu(graph)) == ops(graph)


def test_relus_in_a_row_of_concats_sink_and_stay_right():
    def forward(m, x):
        y = F.relu(torch.cat([m.first(x), x], 1))
        return F.relu(torch.cat([y, x], 1)) * 2

    model = Forward(forward)
    sunk = sink_relu(trace(model, (3, 8, 8)))
    assert ops(sunk)[-2:] == ["concat", "affine"]
    assert_same(model, sunk, batch(2, 3, 8, 8), atol=0)


def test_several_inputs_keep_their_order():
    model = Forward(lambda m, x, y: m.second(F.relu(m.first(x)) - y))
    shapes = [(3, 8, 8), (8, 8, 8)]
    graph = trace(model, shapes)
    assert [value.shape for value in graph.inputs] == [(1, *shape) for shape in shapes]
    images = batch(4, 3, 8, 8), batch(4, 8, 8, 8, seed=1)
    assert_same(model, graph, *images)
    with pytest.raises(ValueError, match="argument 2 is"):
        execute(graph, images[:1])


def activations(model, x):
    x = F.leaky_relu(model.first(x), 0.2)
    x = torch.tanh(F.silu(model.second(x)))
    return torch.softmax(F.leaky_relu(model.linear(x.mean((2, 3)))), 1)


def test_activations_are_themselves():
    model = Forward(activations)
    graph = trace(model, (3, 8, 8))
    assert ops(graph) == [
        "conv", "leaky_relu", "conv", "sigmoid", "mul", "tanh", "global_pool", "reshape", "linear",
        "leaky_relu", "softmax",
    ]  # fmt: skip
    assert_same(model, graph, 3 * batch(4, 3, 8, 8), atol=1e-6)


@pytest.mark.parametrize("target", ["onnx", "tflite"])
def test_activations_reach_the_file(target, tmp_path):
    exporter = find_exporter(target)
    model, images = Forward(activations), 3 * batch(6, 3, 8, 8).numpy()
    artifact = exporter.export(model, (3, 8, 8), tmp_path / f"net{exporter.suffix}")
    parity = check_parity(artifact, Reference(model, images), exporter.tolerance)
    assert parity.max_difference < 1e-6 and parity.passed
    assert parity.largest_output < 1  # a softmax's
