"""Tracing: what the graph holds, what is dropped, and what is refused by name."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ehdnas.core.errors import ExportError, UnsupportedOperatorError, UsageError
from ehdnas.core.graph import share_common, trace


class Forward(nn.Module):
    """A network whose forward is a given function, with one convolution and one batch norm to use."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.conv = nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        return self.function(self, x)


def ops(graph):
    return [node.op for node in graph.nodes]


def traced(function, shape=(3, 8, 8)):
    return trace(Forward(function), shape)


def test_shapes_paths_and_attributes():
    model = nn.Sequential(nn.Conv2d(3, 8, (3, 5), 2, (1, 2), 1, bias=False), nn.Sequential(nn.ReLU()))
    conv, relu = trace(model, (3, 8, 8)).nodes
    assert conv.attrs == {"stride": (2, 2), "padding": (1, 2), "dilation": (1, 1), "groups": 1}
    assert conv.output.shape == (1, 8, 4, 4) and conv.inputs[0].shape == (1, 3, 8, 8)
    assert (conv.path, relu.path) == ("0", "1.0")
    np.testing.assert_array_equal(conv.params["weight"], model[0].weight.detach().numpy())
    np.testing.assert_array_equal(conv.params["bias"], np.zeros(8, np.float32))


def test_parameters_are_copies():
    model = nn.Conv2d(3, 3, 1)
    graph = trace(model, (3, 4, 4))
    before = graph.nodes[0].params["weight"].copy()
    model.weight.data += 1
    np.testing.assert_array_equal(graph.nodes[0].params["weight"], before)


def test_what_inference_drops_is_dropped():
    def forward(model, x):
        unused = F.relu(x)
        del unused
        return F.dropout(model.conv(x).contiguous().clone(), 0.5, model.training)

    assert ops(traced(forward)) == ["conv"]


def test_in_place_operators_change_what_is_read_later():
    def forward(model, x):
        kept = model.norm(model.conv(x))
        changed = F.relu_(kept)
        return kept + changed

    graph = traced(forward)
    assert ops(graph) == ["conv", "affine", "relu", "add"]
    relu, add = graph.nodes[2:]
    assert add.inputs == (relu.output, relu.output)


def test_model_is_left_in_the_mode_it_was_in():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU())
    model[1].eval()
    assert ops(trace(model, (3, 4, 4))) == ["conv", "affine", "relu"]
    assert [module.training for module in model] == [True, False, True]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda m, x: F.relu6(x), ["relu6"]),
        (lambda m, x: torch.clamp(x, 0, 6), ["relu6"]),
        (lambda m, x: torch.clamp(x, min=0), ["relu"]),
        (lambda m, x: F.hardswish(F.hardsigmoid(torch.sigmoid(x))), ["sigmoid", "hardsigmoid", "hardswish"]),
        (lambda m, x: F.avg_pool2d(x, 8), ["global_pool"]),
        (lambda m, x: F.adaptive_avg_pool2d(x, 4), ["avg_pool"]),
        (lambda m, x: x.mean((-1, -2)), ["global_pool", "reshape"]),
        (lambda m, x: F.max_pool2d(x, 2).flatten(1), ["max_pool", "reshape"]),
        (lambda m, x: x * 2 - 1, ["affine", "affine"]),
        (lambda m, x: x - m.conv(x), ["conv", "sub"]),
        (lambda m, x: x[:, :, 1:, 1:][:, :, ::2, :], ["slice"]),
        (lambda m, x: m.conv(F.pad(x, (1, 1, 2, 2))), ["conv"]),
        (lambda m, x: m.conv(F.pad(x, (0, 1, 0, 1))), ["pad", "conv"]),
        (lambda m, x: F.conv2d(x, m.conv.weight * 2), ["conv"]),
    ],
)
def test_operators(function, expected):
    assert ops(traced(function)) == expected


def test_slices_of_slices_are_one():
    node = traced(lambda m, x: x[:, :, 1:7:2, :][:, 1:, 1:, 2:]).nodes[0]
    image = torch.arange(3 * 8 * 8.0).view(1, 3, 8, 8)
    window = tuple(
        slice(*bounds)
        for bounds in zip(node.attrs["starts"], node.attrs["stops"], node.attrs["steps"], strict=True)
    )
    assert torch.equal(image[window], image[:, :, 1:7:2, :][:, 1:, 1:, 2:])


def test_even_padding_moves_into_the_convolution():
    conv = traced(lambda m, x: m.conv(F.pad(x, (1, 1, 2, 2)))).nodes[0]
    assert conv.attrs["padding"] == (2, 1) and conv.inputs[0].shape == (1, 3, 8, 8)


def test_equal_operators_are_shared():
    graph = traced(
        lambda m, x: F.relu(x) + F.max_pool2d(F.relu(x), 3, 1, 1) + F.max_pool2d(F.relu(x), 3, 1, 1)
    )
    assert ops(graph).count("relu") == 3
    assert sorted(ops(share_common(graph))) == ["add", "add", "max_pool", "relu"]


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (lambda m, x: F.max_pool2d(x, 3, 2, ceil_mode=True), "aten.max_pool2d with ceil_mode"),
        (lambda m, x: F.avg_pool2d(x, 3, 2, ceil_mode=True), "aten.avg_pool2d with ceil_mode"),
        (lambda m, x: F.adaptive_avg_pool2d(x, 3), "aten.adaptive_avg_pool2d from"),
        (lambda m, x: F.pad(x, (1, 1), value=1.0), "aten.pad"),
        (lambda m, x: F.pad(x, (1, 1, 1, 1), mode="reflect"), "aten.pad"),
        (lambda m, x: x.transpose(2, 3), "aten.transpose"),
        (lambda m, x: torch.cat([x, x], 2), "aten.cat"),
        (lambda m, x: x * torch.rand_like(x), "aten.rand_like"),
        (lambda m, x: x * x[:, :1], "aten.mul between shapes"),
        (lambda m, x: x.view(1, 3, 4, 16), "aten.view from"),
        (lambda m, x: F.conv_transpose2d(x, m.conv.weight), "aten.conv_transpose2d"),
    ],
)
def test_what_cannot_be_expressed_is_named(function, named):
    with pytest.raises(UnsupportedOperatorError, match=named) as caught:
        traced(function)
    assert "\n" not in str(caught.value) and "own forward" in str(caught.value)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Module()
        self.encoder.rnn = nn.LSTM(48, 4)

    def forward(self, x):
        return self.encoder.rnn(x.flatten(1))[0]


def test_lstm_is_refused_by_name_and_path():
    with pytest.raises(UnsupportedOperatorError, match=r"aten\.lstm at encoder\.rnn"):
        trace(Recurrent(), (3, 4, 4))


def test_batch_norm_without_statistics_is_refused():
    with pytest.raises(UnsupportedOperatorError, match=r"aten\.batch_norm without running statistics at 0"):
        trace(nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False)), (3, 4, 4))


def test_several_outputs_are_refused():
    with pytest.raises(ExportError, match="returns 2 values"):
        traced(lambda m, x: (x, F.relu(x)))


def test_control_flow_on_data_is_one_line_and_silent(capfd):
    with pytest.raises(ExportError, match=r"torch\.export refuses Forward") as caught:
        traced(lambda m, x: x if x.sum() > 0 else -x)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_wrong_shape_is_refused():
    with pytest.raises(ExportError, match="check the input shape"):
        traced(lambda m, x: m.conv(x), (4, 8, 8))
    with pytest.raises(UsageError, match="channels, height, width"):
        traced(lambda m, x: m.conv(x), (3, 0, 8))
