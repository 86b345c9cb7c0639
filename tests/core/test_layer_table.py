"""Layer tables of real networks: known multiply-accumulates, and every kind of operator they have."""

import time
from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ehdnas.core.errors import ExportError, UnsupportedOperatorError
from ehdnas.core.graph import layer_table, trace
from ehdnas.core.layers import Layer, LayerTable

IMAGE = (3, 224, 224)


class Forward(nn.Module):
    """A network whose forward is a given function, with the modules it uses."""

    def __init__(self, function, **modules):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        return self.function(self, x)


def rows(function, shape=(8, 14, 14), **modules):
    table = layer_table(Forward(function, **modules), shape)
    assert table.unsupported == ()
    return table.layers


def operators(function, shape=(8, 14, 14), **modules):
    return [row.operator for row in rows(function, shape, **modules)]


# Multiply-accumulates at 224x224 without biases, as published with torchvision's models (to four figures).
@pytest.mark.parametrize(
    ("name", "giga"),
    [
        ("resnet18", 1.814),
        ("resnet50", 4.089),
        ("vgg16", 15.47),
        ("mobilenet_v2", 0.3008),
        ("alexnet", 0.7142),
    ],
)
def test_known_multiply_accumulates(zoo, name, giga):
    with torch.device("meta"):
        table = layer_table(zoo.ZOO[name](), IMAGE)
    assert table.macs / 1e9 == pytest.approx(giga, rel=3e-4)
    assert table.unsupported == ()


def test_mobilenet_v1_and_inception_v1_are_those_of_their_papers(zoo):
    with torch.device("meta"):
        mobile, inception = (layer_table(zoo.ZOO[n](), IMAGE) for n in ("mobilenet_v1", "inception_v1"))
    assert mobile.macs == pytest.approx(569e6, rel=1e-3)  # Howard et al. 2017, table 8: 569 M
    assert Counter(row.operator for row in inception.layers)["conv"] == 57
    assert [row.h_out for row in inception.layers if row.stride == (2, 2)] == [112, 56, 28, 14, 7]


def test_the_rows_agree_with_what_torch_computes(zoo):
    model, seen = zoo.inception_v1().eval(), []
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d):
            module.register_forward_hook(lambda m, args, out: seen.append(tuple(out.shape[1:])))
    with torch.no_grad():
        model(torch.zeros(1, 3, 96, 80))
    computed = list(seen)  # torch.export runs the hooks as well
    table = layer_table(model, (3, 96, 80))
    assert computed == [
        (row.cout, row.h_out, row.w_out) for row in table.layers if row.operator in ("conv", "max_pool")
    ]


def test_resnet50_takes_at_most_two_seconds(zoo):
    model = zoo.resnet50()
    layer_table(nn.Identity(), IMAGE)  # torch loads the rest of torch.export at its first use
    begin = time.process_time()
    layer_table(model, IMAGE)
    assert time.process_time() - begin < 2


class MobileV3(nn.Module):
    """A block of MobileNetV3: depthwise, squeeze and excite, hard activations."""

    def __init__(self):
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(8, 8, 5, 2, 2, groups=8, bias=False), nn.BatchNorm2d(8)
        self.squeeze, self.excite = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)
        self.act = nn.Hardswish(inplace=True)

    def forward(self, x):
        x = self.act(self.norm(self.depthwise(x)))
        return x * F.hardsigmoid(self.excite(F.relu6(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))


def test_squeeze_and_excite():
    table = layer_table(MobileV3(), (8, 14, 14))
    assert table.layers == (
        Layer("depthwise", "conv", 8, 8, 14, 14, (5, 5), (2, 2), (2, 2), groups=8),
        Layer("act", "activation", 8, 8, 7, 7),
        Layer("adaptive_avg_pool2d", "global_pool", 8, 8, 7, 7, (7, 7)),
        Layer("squeeze", "conv", 8, 2, 1, 1),
        Layer("relu6", "relu", 2, 2, 1, 1),
        Layer("excite", "conv", 2, 8, 1, 1),
        Layer("hardsigmoid", "activation", 8, 8, 1, 1),
        Layer("mul", "mul", 8, 8, 7, 7),
    )


def test_a_batch_norm_that_folds_into_nothing_is_a_multiplication():
    dense = {"norm": nn.BatchNorm2d(8), "conv": nn.Conv2d(8, 8, 3, padding=1)}
    assert operators(lambda m, x: torch.cat([x, m.conv(F.relu(m.norm(x)))], 1), **dense) == [
        "mul", "relu", "conv", "concat",
    ]  # fmt: skip
    assert operators(lambda m, x: m.norm(m.conv(x)), **dense) == ["conv"]
    # The convolution's own output is read too, so that the norm cannot go into it.
    assert operators(lambda m, x: m.norm(m.conv(x)) + m.conv.weight.sum(), **dense) == ["conv", "add"]
    assert operators(lambda m, x: (lambda y: m.norm(y) + y)(m.conv(x)), **dense) == ["conv", "mul", "add"]
    statistics = nn.BatchNorm2d(8, track_running_stats=False)
    assert operators(lambda m, x: m.norm(m.conv(x)), **{**dense, "norm": statistics}) == ["conv", "norm"]


def test_channel_shuffle_is_free():
    def shuffle(m, x):
        one, two = x.chunk(2, 1)
        x = torch.cat([one, m.conv(two)], 1)
        return x.view(1, 2, 4, 14, 14).transpose(1, 2).contiguous().view(1, 8, 14, 14)

    assert operators(shuffle, conv=nn.Conv2d(4, 4, 1)) == ["conv", "concat"]


def test_upsampling_and_transposed_convolutions():
    up = nn.ConvTranspose2d(8, 4, 3, 2, 1, output_padding=1)
    (row,) = rows(lambda m, x: m.up(x), up=up)
    assert (row.operator, row.h_out, row.w_out, row.padding) == ("conv_transpose", 28, 28, (1, 1))
    # Every input pixel meets 9 x 8 x 4 weights.
    assert (row.macs, row.weights) == (14 * 14 * 9 * 8 * 4, 9 * 8 * 4)
    for mode in ("nearest", "bilinear", "bicubic"):
        (row,) = rows(lambda m, x, mode=mode: F.interpolate(x, size=(30, 20), mode=mode))
        assert (row.operator, row.h, row.h_out, row.w_out) == ("upsample", 14, 30, 20)


@pytest.mark.parametrize("module", [
    nn.MaxPool2d(3, 2, ceil_mode=True), nn.AvgPool2d(2, 3, 1, ceil_mode=True), nn.MaxPool2d(3, 1, 1, 2),
    nn.AdaptiveAvgPool2d(5), nn.AdaptiveMaxPool2d((3, 1)), nn.AdaptiveAvgPool2d(20),
    nn.Conv2d(8, 8, 4, padding="same"), nn.Conv2d(8, 8, 3, 2, padding=(2, 0), dilation=(2, 1)),
    nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(8, 8, 3, 2)),
    nn.Sequential(nn.ZeroPad2d((3, 0, 1, 2)), nn.MaxPool2d(2, 1)),
    nn.Sequential(nn.ZeroPad2d(2), nn.Conv2d(8, 8, 3, 2)),
])  # fmt: skip
def test_output_sizes_are_torchs_own(module):
    (row,) = layer_table(module, (8, 14, 13)).layers
    assert (row.h, row.w) == (14, 13)
    assert (1, row.cout, row.h_out, row.w_out) == module(torch.zeros(1, 8, 14, 13)).shape


def test_attention():
    encoder = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    table = layer_table(
        Forward(lambda m, x: m.block(x.flatten(2).transpose(1, 2)), block=encoder), (32, 7, 7)
    )
    assert table.unsupported == ()
    # Tokens 49, width 32: projections 4·32², products 2·49·32, feed-forward 2·32·64 a token.
    assert table.macs == 49 * (4 * 32**2 + 2 * 49 * 32 + 2 * 32 * 64)
    assert sum(row.weights for row in table.layers) == 4 * 32**2 + 2 * 32 * 64
    assert [row.operator for row in table.layers] == [
        "linear", "matmul", "softmax", "matmul", "linear", "add", "norm",
        "linear", "relu", "linear", "add", "norm",
    ]  # fmt: skip


def test_products_of_computed_values_have_no_weights():
    def scores(m, x):
        tokens = x.flatten(2).transpose(1, 2)
        return F.gelu(torch.softmax(tokens @ tokens.transpose(1, 2), -1)) @ (tokens @ m.weight)

    first, soft, gelu, linear, last = rows(scores, weight=nn.Parameter(torch.zeros(8, 5)))
    assert (first.operator, first.macs, first.weights) == ("matmul", 196 * 8 * 196, 0)
    assert (soft.operator, gelu.operator) == ("softmax", "activation")
    assert (linear.operator, linear.macs, linear.weights) == ("linear", 196 * 8 * 5, 40)
    assert last.macs == 196 * 196 * 5


def test_what_depends_on_weights_alone_and_what_nothing_reads_is_free():
    def forward(m, x):
        F.relu(x)
        return F.conv2d(x, torch.sigmoid(m.conv.weight) * 2)

    assert operators(forward, conv=nn.Conv2d(8, 8, 3)) == ["conv"]


def test_in_place_operators_stay_though_nothing_reads_their_result():
    def forward(m, x):
        y = m.conv(x)
        F.relu_(y)
        return y

    assert operators(forward, conv=nn.Conv2d(8, 8, 3)) == ["conv", "relu"]


def test_a_table_describes_what_no_exporter_writes_and_trace_still_refuses_it():
    model = Forward(lambda m, x: F.interpolate(F.gelu(x), scale_factor=2))
    assert [row.operator for row in layer_table(model, (8, 4, 4)).layers] == ["activation", "upsample"]
    with pytest.raises(UnsupportedOperatorError, match=r"aten\.gelu"):
        trace(model, (8, 4, 4))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.ModuleDict({"lstm": nn.LSTM(8, 8)})

    def forward(self, x):
        return F.rrelu(self.encoder["lstm"](x.mean((2, 3)))[0].cumsum(1).cumsum(1))


def test_an_lstm_is_one_line_with_its_layer():
    table = layer_table(Recurrent(), (8, 4, 4))
    assert table.unsupported[0] == ("lstm", "encoder.lstm")
    line = table.refusal("E2E-Perf")
    assert line.startswith(
        "layer 'encoder.lstm': E2E-Perf does not model 'lstm', and 3 more: cumsum (2), rrelu"
    )
    assert layer_table(nn.Identity(), (8, 4, 4)).refusal("E2E-Perf") == ""
    assert LayerTable((), (("lstm", "a"),)).refusal("X") == "layer 'a': X does not model 'lstm'"


def test_control_flow_names_the_module_it_is_in():
    class Gate(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    model = nn.Sequential(nn.ReLU(), nn.Sequential(Gate()))
    with pytest.raises(ExportError, match=r"torch\.export refuses Sequential at '1\.0'") as caught:
        layer_table(model, (8, 4, 4))
    assert "\n" not in str(caught.value)


def test_a_shape_that_depends_on_the_data_is_one_line():
    with pytest.raises(ExportError, match=r"nonzero.* depends on the data") as caught:
        layer_table(Forward(lambda m, x: F.relu(x.nonzero())), (8, 4, 4))
    assert "\n" not in str(caught.value)
