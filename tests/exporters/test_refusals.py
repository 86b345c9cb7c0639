"""Networks that cannot be exported: one line that names what is wrong, and nothing left behind."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ehdnas.core.errors import ExportError, UnsupportedOperatorError, UsageError
from ehdnas.exporters import export_network, find_exporter

IMAGES = np.random.default_rng(0).standard_normal((8, 3, 12, 12)).astype(np.float32)


class Forward(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function
        self.body = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        return self.function(self.body(x))


def mean(x):
    return x.mean((2, 3))


def chosen(x):
    y = mean(x)
    return y[:, torch.nonzero(y.flatten() > 0).flatten()]


REFUSED = {
    "control flow": (lambda x: mean(x) if x.sum() > 0 else mean(-x), "no control flow"),
    "a shape that depends on the data": (chosen, r"aten\.nonzero whose result's shape depends on the data"),
    "a number taken from the data": (lambda x: mean(x) * x.max().item(), r"aten\.item"),
    "two outputs": (lambda x: (mean(x), x), "returns 2 values"),
    "an output without input": (lambda x: torch.ones(1, 4), "does not depend on its input"),
    "channels last": (lambda x: x.permute(0, 2, 3, 1).mean((1, 2)), r"aten\.permute"),
    "attention": (
        lambda x: F.scaled_dot_product_attention(*[x.flatten(2)] * 3).mean(2),
        r"aten\.scaled_dot_product_attention",
    ),
    "layer norm": (lambda x: mean(F.layer_norm(x, x.shape[1:])), r"aten\.layer_norm"),
    "an index": (lambda x: mean(x).argmax(1), r"aten\.argmax"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_exported_is_named(name, tmp_path):
    function, reason = REFUSED[name]
    with pytest.raises(ExportError, match=reason) as caught:
        export_network(Forward(function).eval(), "tflite", tmp_path / "out", IMAGES)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_an_lstm_is_refused_by_name_and_module(tmp_path):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x):
            return self.encoder(x.flatten(2).transpose(1, 2))[0][:, -1]

    with pytest.raises(UnsupportedOperatorError, match=r"aten\.lstm at encoder"):
        export_network(Recurrent(), "onnx", tmp_path, IMAGES)


@pytest.mark.parametrize("shape", [(3, 0, 12), (3, 12), (3, 12, -1)])
def test_a_shape_that_is_none_is_refused(shape, tmp_path):
    with pytest.raises(UsageError, match=r"is not \(channels, height, width\)"):
        find_exporter("onnx").export(nn.Conv2d(3, 8, 3), shape, tmp_path / "net.onnx")


def test_images_that_do_not_fit_the_network_are_one_line(tmp_path):
    with pytest.raises(ExportError, match="check the input shape") as caught:
        export_network(nn.Conv2d(4, 8, 3), "onnx", tmp_path, IMAGES)
    assert "\n" not in str(caught.value)
