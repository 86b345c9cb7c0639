"""A network exported wrongly is never delivered, and the message says at which layer it went wrong."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ehdnas.core import graph as graphs
from ehdnas.core.artifact import Tolerance, read_artifact
from ehdnas.core.errors import DataError, ExportError, ParityError
from ehdnas.core.export_options import ExportOptions
from ehdnas.exporters import Reference, deliver, export_network, find_exporter
from ehdnas.exporters.base import FLOAT32, network_graph
from ehdnas.exporters.onnx import nodes as onnx_nodes
from ehdnas.exporters.parity.difference import accuracy_breach, breaches, difference
from ehdnas.exporters.tflite import twin
from ehdnas.exporters.tflite.int8 import INT8

SHAPE = (3, 16, 16)
IMAGES = np.random.default_rng(0).standard_normal((24, *SHAPE)).astype(np.float32)
QUICK = ExportOptions(calibration="minmax", bias_correction=False)


def delivered(model, target, folder, exporter=None):
    exporter = exporter or find_exporter(target, QUICK)
    path = folder / exporter.file_name()
    return deliver(exporter, path, Reference(model, IMAGES), [SHAPE], [IMAGES], {})


def parting(model, target, folder, exporter=None):
    """Return what the error of a delivery says, having checked that manifest and error agree."""
    with pytest.raises(ParityError, match="disagrees with its network on 24 images") as caught:
        delivered(model, target, folder, exporter)
    assert caught.value.exit_code == 5 and "\n" not in str(caught.value)
    (path,) = (one for one in folder.iterdir() if one.suffix in (".onnx", ".tflite"))
    parity = read_artifact(path).manifest.parity
    assert not parity.passed and parity.failures and parity.fault in str(caught.value)
    assert "FAILED" in path.with_name(path.name + ".md").read_text()
    return parity.fault


def written_wrongly(op, path, change, monkeypatch, emitters=onnx_nodes._EMITTERS):
    """Have the emitter of `op` write another node in the place of the one at `path`."""
    right = emitters[op]

    def wrong(writer, node, *inputs):
        return right(writer, change(node) if node.path == path else node, *inputs)

    monkeypatch.setitem(emitters, op, wrong)


def moved(node):
    """Return a layer with another bias."""
    return replace(node, params={**node.params, "bias": node.params["bias"] + 3})


@pytest.mark.parametrize("target", ["onnx", "tflite", "onnx-int8", "tflite-int8"])
def test_a_layer_written_wrongly_is_found(target, darts_like, tmp_path, monkeypatch):
    emitters = onnx_nodes._EMITTERS if target.startswith("onnx") else twin._EMITTERS
    written_wrongly("conv", "reduce.1.2", moved, monkeypatch, emitters)
    assert parting(darts_like, target, tmp_path) == "conv of reduce.1.2"


def test_a_pool_written_wrongly_is_found(darts_like, tmp_path, monkeypatch):
    window = {"kernel": (1, 1), "padding": (0, 0)}
    smaller = lambda node: replace(node, attrs={**node.attrs, **window})  # noqa: E731
    written_wrongly("max_pool", "normal.2", smaller, monkeypatch)
    assert parting(darts_like, "onnx", tmp_path) == "max_pool of normal.2"


def test_the_last_layer_written_wrongly_is_found(darts_like, tmp_path, monkeypatch):
    written_wrongly("linear", "classifier", moved, monkeypatch)
    assert parting(darts_like, "onnx", tmp_path) == "linear of classifier"


class Deceptive(nn.Module):
    """One thing for torch.export, another when it runs."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, x):
        x = F.relu(x) if torch.compiler.is_compiling() else F.leaky_relu(x, 0.5)
        return self.conv(x)


class Several(nn.Module):
    """Gives more than one tensor; begins with an operator of its own, and ends in a module."""

    def __init__(self, inner):
        super().__init__()
        self.conv, self.inner = nn.Conv2d(3, 8, 3, padding=1), inner

    def forward(self, x):
        x = F.relu(x)
        return self.inner(self.conv(x)), x


class Whole(nn.Module):
    def __init__(self, inner):
        super().__init__()
        torch.manual_seed(0)
        self.several, self.linear = Several(inner), nn.Linear(8, 5)

    def forward(self, x):
        return self.linear(self.several(x)[0].mean((2, 3)))


def test_a_module_that_runs_otherwise_than_it_is_traced(tmp_path):
    fault = parting(Whole(Deceptive()).eval(), "onnx", tmp_path)
    assert fault == "conv of several.inner.conv, where what was traced already differs from the module"


def test_modules_that_give_several_tensors_mislead_nobody(tmp_path, monkeypatch):
    written_wrongly("conv", "several.inner", moved, monkeypatch)
    assert parting(Whole(nn.Conv2d(8, 8, 1)).eval(), "onnx", tmp_path) == "conv of several.inner"


def test_batch_norms_folded_wrongly_are_no_layers_fault(darts_like, tmp_path, monkeypatch):
    right = graphs.fold_batch_norm

    def wrong(graph):
        folded = right(graph)
        return folded.with_nodes(
            [
                replace(node, params={name: 1.1 * value for name, value in node.params.items()})
                for node in folded.nodes
            ]
        )

    monkeypatch.setattr(graphs, "fold_batch_norm", wrong)
    assert "the folding of batch norms changed the network" in parting(darts_like, "onnx", tmp_path)


@pytest.mark.parametrize("target", ["onnx", "tflite-int8"])
def test_a_file_that_was_changed_after_it_was_written(target, darts_like, tmp_path, monkeypatch):
    exporter = find_exporter(target, QUICK)
    right = type(exporter).export_graph
    torch.manual_seed(1)
    other = nn.Sequential(nn.Conv2d(3, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def export_and_overwrite(self, graph, path, metadata=None, images=()):
        artifact = right(self, graph, path, metadata, images)
        if path.parent == tmp_path:  # and not what the search for the fault exports elsewhere
            right(self, network_graph(other, SHAPE), path, metadata, images)
        return artifact

    monkeypatch.setattr(type(exporter), "export_graph", export_and_overwrite)
    fault = parting(darts_like, target, tmp_path, exporter)
    assert fault == "no layer: exported again, the network agrees; the file is not what was written"


@pytest.mark.parametrize("tolerance", [FLOAT32, INT8])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_never_agrees(value, tolerance):
    right = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    wrong = right.copy()
    wrong[0, 0] = value
    for actual, expected in ((right, wrong), (wrong, right), (wrong, wrong), (wrong, -wrong)):
        found = difference(actual, expected)
        assert breaches(found, tolerance)
        assert np.isfinite([found.largest, found.mean, found.noise, found.largest_output]).all()
    assert not breaches(difference(right, right), tolerance)


@pytest.mark.parametrize("target", ["onnx", "tflite-fp16"])
def test_a_network_of_no_numbers_is_not_delivered(target, tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model[0].weight.data[1] = float("nan")
    with pytest.raises(ExportError, match="no numbers for 24 of 24 images"):
        export_network(model, target, tmp_path / "out", IMAGES)
    assert not (tmp_path / "out").exists()


def test_a_constant_answer_is_no_agreement():
    """Noise is against what tells classes apart: a file that answers every class alike has all of it."""
    expected = np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32) + 100
    constant = np.full_like(expected, 100)
    assert difference(constant, expected).noise == pytest.approx(1, abs=0.1)
    assert breaches(difference(constant, expected), INT8)
    assert difference(np.zeros((4, 5), "f4"), np.zeros((4, 5), "f4")).noise == 0
    assert breaches(difference(np.ones((4, 5), "f4"), np.zeros((4, 5), "f4")), INT8)
    single = np.random.default_rng(0).normal(size=(64, 1)).astype(np.float32)
    assert difference(-single, single).noise == pytest.approx(2)


def test_accuracy_that_falls_is_a_failure():
    assert not accuracy_breach(0.9, 0.895, 10_000, INT8)
    (said,) = accuracy_breach(0.9, 0.88, 10_000, INT8)
    assert said == "accuracy falls from 90.00% to 88.00%, more than 1.02%"
    assert not accuracy_breach(0.5, 0.9, 100, INT8)
    assert not accuracy_breach(0.9, 0.1, 100, Tolerance(noise=0.1))


@pytest.mark.parametrize("target", ["onnx", "tflite-int8"])
def test_nothing_to_compare_on_is_an_error(target, darts_like, tmp_path):
    exporter = find_exporter(target, QUICK)
    with pytest.raises(DataError, match="no images to compare file and network on"):
        deliver(
            exporter,
            tmp_path / exporter.file_name(),
            Reference(darts_like, IMAGES[:0]),
            [SHAPE],
            [IMAGES],
            {},
        )
    with pytest.raises(DataError, match="3 labels for 24 images"):
        export_network(darts_like, target, tmp_path, IMAGES, np.zeros(3, np.int64), IMAGES)
    with pytest.raises(DataError, match=r"images has shape \(24, 768\)"):
        export_network(darts_like, target, tmp_path, IMAGES.reshape(24, -1), calibration=IMAGES)


def test_outputs_of_another_shape_are_an_error(darts_like, tmp_path, monkeypatch):
    other = nn.Sequential(nn.Conv2d(3, 7, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    exporter = find_exporter("onnx")
    artifact = exporter.export(other, SHAPE, tmp_path / "model.onnx")
    monkeypatch.setattr(type(exporter), "export_graph", lambda *args: artifact)
    with pytest.raises(ExportError, match=r"shape \(24, 7\), its network \(24, 10\)"):
        delivered(darts_like, "onnx", tmp_path, exporter)
