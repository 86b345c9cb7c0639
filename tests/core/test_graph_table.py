"""Layer tables against multiply-accumulates counted by hand."""

import time

import torch
from torch import nn
from torch.nn import functional as F

from ehdnas.core.graph import layer_table
from ehdnas.core.layers import Layer


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 5, 2, 4, dilation=2, groups=8)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.classifier = nn.Linear(16, 10)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = torch.cat([self.depthwise(x), self.pool(x)], 1)
        return self.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))


def test_rows_and_multiply_accumulates():
    table = layer_table(Small(), (3, 16, 12))
    assert table.layers == (
        Layer("stem", "conv", 3, 8, 16, 12, (3, 3), (1, 1), (1, 1)),
        Layer("relu", "relu", 8, 8, 16, 12),
        Layer("depthwise", "conv", 8, 8, 16, 12, (5, 5), (2, 2), (4, 4), (2, 2), 8),
        Layer("pool", "max_pool", 8, 8, 16, 12, (3, 3), (2, 2), (1, 1)),
        Layer("cat", "concat", 16, 16, 8, 6),
        Layer("adaptive_avg_pool2d", "global_pool", 16, 16, 8, 6, (8, 6)),
        Layer("classifier", "linear", 16, 10, 1, 1),
    )
    assert table.macs == 16 * 12 * 9 * 3 * 8 + 8 * 6 * 25 * 8 + 16 * 10
    assert table.unsupported == ()
    assert (table.layers[5].h_out, table.layers[5].w_out) == (1, 1)


class Reduce(nn.Module):
    def __init__(self):
        super().__init__()
        self.even, self.odd = nn.Conv2d(8, 4, 1, 2, bias=False), nn.Conv2d(8, 4, 1, 2, bias=False)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x):
        x = F.relu(x)
        return self.norm(torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], 1))


def test_a_candidate_operation_alone():
    table = layer_table(nn.Sequential(Reduce()), (8, 16, 16))
    assert [(row.name, row.operator) for row in table.layers] == [
        ("0.relu", "relu"),
        ("0.even", "conv"),
        ("0.odd", "conv"),
        ("0.cat", "concat"),
    ]
    assert table.macs == 2 * 8 * 8 * 8 * 4
    assert (table.layers[2].h, table.layers[2].h_out) == (15, 8)


def test_an_identity_is_an_empty_table():
    assert layer_table(nn.Identity(), (8, 4, 4)).layers == ()


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(4, 4)
        self.act = nn.Hardswish()
        self.scale = nn.Parameter(torch.full((4, 1, 1), 2.0))

    def forward(self, x):
        x = self.act(x * self.scale + 1) * torch.sigmoid(x)
        return self.rnn(x.mean((2, 3)))[0]


def test_what_no_row_describes_is_counted():
    table = layer_table(Mixed(), (4, 8, 8))
    assert [row.operator for row in table.layers] == [
        "mul", "add", "activation", "activation", "mul", "global_pool",
    ]  # fmt: skip
    assert table.unsupported == (("lstm", "rnn"),)


def test_many_small_tables_are_quick():
    layer_table(Reduce(), (8, 16, 16))
    begin = time.perf_counter()
    for _ in range(5):
        layer_table(Reduce(), (8, 16, 16))
    assert (time.perf_counter() - begin) / 5 < 0.5
