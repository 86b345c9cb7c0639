"""Batch norm folding, checked by running the folded graph."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ehdnas.core.graph import fold_batch_norm, trace

RUN = {
    "conv": lambda node, x: F.conv2d(
        x,
        torch.from_numpy(node.params["weight"]),
        torch.from_numpy(node.params["bias"]),
        **{key: node.attrs[key] for key in ("stride", "padding", "dilation", "groups")},
    ),
    "linear": lambda node, x: F.linear(x, *(torch.from_numpy(node.params[k]) for k in ("weight", "bias"))),
    "affine": lambda node, x: x * _channels(node, "scale", x) + _channels(node, "shift", x),
    "relu": lambda node, x: F.relu(x),
    "add": lambda node, x, y: x + y,
    "concat": lambda node, *parts: torch.cat(parts, 1),
    "avg_pool": lambda node, x: F.avg_pool2d(x, node.attrs["kernel"]),
    "reshape": lambda node, x: x.reshape(node.output.shape),
    "slice": lambda node, x: x[tuple(map(slice, *(node.attrs[k] for k in ("starts", "stops", "steps"))))],
}


def _channels(node, name, x):
    return torch.from_numpy(node.params[name]).view(1, -1, *[1] * (x.dim() - 2))


def run(graph, image):
    values = {graph.inputs[0].name: image}
    for node in graph.nodes:
        values[node.output.name] = RUN[node.op](node, *(values[value.name] for value in node.inputs))
    return values[graph.output.name]


class Forward(nn.Module):
    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.function = function
        self.a, self.b = nn.Conv2d(3, 4, 1, bias=False), nn.Conv2d(3, 4, 3, 1, 1)
        self.wide = nn.Conv2d(3, 6, 3, groups=3)
        self.linear = nn.Linear(3, 4)
        self.norms = nn.ModuleList([_norm(nn.BatchNorm2d(size)) for size in (4, 8, 8, 6, 3)])
        self.norm1d = _norm(nn.BatchNorm1d(4))

    def forward(self, x):
        return self.function(self, x)


def _norm(layer):
    layer.running_mean.normal_()
    layer.running_var.uniform_(0.2, 3)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    return layer


@pytest.mark.parametrize(
    ("function", "left"),
    [
        pytest.param(lambda m, x: m.norms[0](m.b(x)), 0, id="convolution"),
        pytest.param(lambda m, x: m.norms[3](m.wide(x)), 0, id="grouped convolution"),
        pytest.param(lambda m, x: m.norm1d(m.linear(x.mean((2, 3)))), 0, id="linear"),
        pytest.param(lambda m, x: m.norms[1](torch.cat([m.a(x), m.b(x)], 1)), 0, id="concat"),
        pytest.param(
            lambda m, x: m.norms[1](torch.cat([m.norms[0](m.a(x)), m.b(x)], 1)), 0, id="concat of norms"
        ),
        pytest.param(
            lambda m, x: m.norms[2](m.norms[1](torch.cat([m.a(x), m.b(x)], 1))), 0, id="norm after norm"
        ),
        pytest.param(
            lambda m, x: m.norms[1](torch.cat([m.a(x), F.relu(m.b(x))], 1)), 1, id="concat with a relu"
        ),
        pytest.param(lambda m, x: m.norms[4](F.avg_pool2d(x, 2)), 1, id="pool"),
        pytest.param(lambda m, x: m.norms[4](x), 1, id="input"),
        pytest.param(lambda m, x: (lambda y: m.norms[0](y) + y)(m.a(x)), 1, id="also read elsewhere"),
        pytest.param(
            lambda m, x: (lambda y: m.norms[1](torch.cat([y, y], 1)))(m.a(x)), 1, id="concatenated twice"
        ),
        pytest.param(
            lambda m, x: (lambda y: torch.cat([m.norms[1](y), F.relu(y)], 1))(torch.cat([m.a(x), m.b(x)], 1)),
            1,
            id="concat also read elsewhere",
        ),
        pytest.param(
            lambda m, x: (lambda y: m.norms[0](y) + F.relu(y))(m.norms[0](m.a(x))), 1, id="norm shared"
        ),
    ],
)
def test_folding_keeps_the_function(function, left):
    model = Forward(function).eval()
    RUN["global_pool"] = lambda node, x: x.mean((2, 3), keepdim=True)
    image = torch.randn(1, 3, 6, 6)
    graph = trace(model, (3, 6, 6))
    folded = fold_batch_norm(graph)
    expected = model(image).detach().numpy()
    np.testing.assert_allclose(run(graph, image).numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(run(folded, image).numpy(), expected, atol=1e-5)
    assert sum(node.op == "affine" for node in folded.nodes) == left


def test_folding_leaves_the_graph_it_was_given():
    graph = trace(Forward(lambda m, x: m.norms[0](m.b(x))).eval(), (3, 6, 6))
    before = graph.nodes[0].params["weight"].copy()
    fold_batch_norm(graph)
    np.testing.assert_array_equal(graph.nodes[0].params["weight"], before)
    assert [node.op for node in graph.nodes] == ["conv", "affine"]
