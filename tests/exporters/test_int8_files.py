"""Files of the int8 and fp16 targets: what is in them, and that they are one and the same network."""

from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional as F

from ehdnas.core.errors import ExportError
from ehdnas.core.export_options import ExportOptions
from ehdnas.core.graph import sink_relu
from ehdnas.core.images.dataset import load_data, normalise
from ehdnas.exporters import Reference, check_parity, find_exporter, run_artifact
from ehdnas.exporters.base import network_graph
from ehdnas.exporters.quantise import quantise
from ehdnas.exporters.quantise.lower import lower_for_int8
from ehdnas.exporters.quantise.simulate import simulate
from ehdnas.exporters.tflite.file import parse_tflite, read_tflite
from ehdnas.exporters.tflite.int8 import _require_int8

INT8_TFLITE = ["tflite-int8", "edgetpu"]
SHAPE = (3, 16, 16)
IMAGES = np.random.default_rng(0).standard_normal((48, *SHAPE)).astype(np.float32)
# One way to choose ranges is enough where what matters is what is written.
QUICK = ExportOptions(calibration="minmax", bias_correction=False)

# The highest versions that tflite_runtime 2.14.0 takes, found by giving its interpreter each operator in each
# version; they are those of tensorflow/lite/core/kernels/register.cc at that release.
KNOWN_TO_2_14 = {
    "ADD": 5, "AVERAGE_POOL_2D": 3, "CONCATENATION": 4, "CONV_2D": 7, "DEPTHWISE_CONV_2D": 7, "DEQUANTIZE": 5,
    "FULLY_CONNECTED": 10, "HARD_SWISH": 1, "LEAKY_RELU": 2, "LOGISTIC": 3, "MAX_POOL_2D": 3, "MEAN": 3,
    "MUL": 7, "PAD": 4, "QUANTIZE": 3, "RELU": 3, "RELU6": 3, "RESHAPE": 1, "SLICE": 6, "SOFTMAX": 3,
    "SPLIT": 4, "STRIDED_SLICE": 8, "SUB": 5, "TANH": 3,
}  # fmt: skip


class Forward(nn.Module):
    def __init__(self, function, inner=8):
        super().__init__()
        torch.manual_seed(0)
        self.function = function
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.linear = nn.Linear(inner, 5)

    def forward(self, *images):
        return self.function(self, *images)


def export(target, model, folder, options=QUICK, shape=SHAPE, images=IMAGES):
    exporter = find_exporter(target, options)
    path = folder / exporter.file_name()
    return exporter.export(model.eval(), shape, path, calibration=images), exporter


def interpreter_of(path):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    return interpreter.get_input_details()[0], interpreter.get_output_details()[0]


@pytest.mark.parametrize("target", INT8_TFLITE)
def test_darts_is_int8_throughout_and_never_rescales(target, darts_like, tmp_path):
    artifact, _ = export(target, darts_like, tmp_path)
    file = read_tflite(artifact.path)
    assert {tensor.dtype for tensor in file.tensors} == {"int8", "int32"}
    names = Counter(operator.name for operator in file.operators)
    assert not {"QUANTIZE", "DEQUANTIZE", "TRANSPOSE", "PADV2", "MUL"} & set(names)
    assert all(one.version <= KNOWN_TO_2_14[one.name] for one in file.operators)
    dilated = [one.options.get("dilation_h_factor", 1) for one in file.operators]
    assert max(dilated) == (2 if target == "tflite-int8" else 1)


def test_weights_are_per_channel_but_in_linear_layers(darts_like, tmp_path):
    artifact, _ = export("tflite-int8", darts_like, tmp_path)
    file = read_tflite(artifact.path)
    seen = Counter()
    for operator in file.operators:
        if operator.name not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            continue
        image, weight, bias = (file.tensors[index] for index in operator.inputs[:3])
        seen[operator.name] += 1
        channels = weight.shape[weight.quantized_dimension]
        assert len(weight.scales) == (1 if operator.name == "FULLY_CONNECTED" else channels)
        assert weight.dtype == "int8" and set(weight.zero_points) == {0}
        assert np.abs(file.constant(operator.inputs[1]).astype(int)).max() == 127  # never -128
        assert bias.dtype == "int32" and set(bias.zero_points) == {0}
        np.testing.assert_allclose(bias.scales, np.multiply(image.scales, weight.scales), rtol=1e-5)
    assert min(seen[name] for name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")) >= 1


@pytest.mark.parametrize("int8_io", ["int8", "uint8"])
@pytest.mark.parametrize("target", INT8_TFLITE)
def test_the_manifest_says_what_the_interpreter_says(target, int8_io, tmp_path):
    model = Forward(lambda m, x: m.linear(F.relu(m.first(x)).mean((2, 3))))
    artifact, exporter = export(target, model, tmp_path, QUICK.model_copy(update={"int8_io": int8_io}))
    (taken,), (given,) = artifact.manifest.inputs, artifact.manifest.outputs
    for spec, found in zip((taken, given), interpreter_of(artifact.path), strict=True):
        assert spec.dtype == int8_io == np.dtype(found["dtype"]).name
        scale, zero = found["quantization"]
        assert spec.scale == pytest.approx(scale, rel=1e-6) and spec.zero_point == zero
        assert spec.shape == found["shape"].tolist()
    parity = check_parity(artifact, Reference(model, IMAGES), exporter.tolerance)
    assert parity.passed and parity.noise < 0.05
    # uint8 is int8 moved by 128, done once at each end.
    names = [operator.name for operator in read_tflite(artifact.path).operators]
    ends = 2 if int8_io == "uint8" else 0
    assert names.count("QUANTIZE") == ends
    assert {t.dtype for t in read_tflite(artifact.path).tensors} <= {"int8", "int32", int8_io}


def simulated(model, images, options=QUICK):
    """Return what the int8 network of a model gives by torch's reckoning."""
    graph = lower_for_int8(sink_relu(network_graph(model.eval(), [one.shape[1:] for one in images])))
    quantised = quantise(graph, images, options)
    with torch.no_grad():
        return simulate(quantised.graph, quantised.ranges, [torch.from_numpy(one) for one in images]).numpy()


def test_both_targets_are_what_torch_reckons(network, tmp_path):
    """Rounding the other way here and there may move a file by as much as rounding moves it at all."""
    expected = simulated(network, [IMAGES])
    with torch.no_grad():
        real = network(torch.from_numpy(IMAGES)).numpy()
    noise = np.sqrt(((expected - real) ** 2).mean())
    for target in ("tflite-int8", "onnx-int8"):
        artifact, _ = export(target, network, tmp_path)
        made = run_artifact(artifact.path, IMAGES).outputs
        assert np.sqrt(((made - expected) ** 2).mean()) < 1.5 * noise
        assert np.sqrt(((made - real) ** 2).mean()) < 1.5 * noise
        assert np.corrcoef(made.ravel(), expected.ravel())[0, 1] > 0.999


def activations(m, x):
    x = F.hardswish(torch.tanh(F.silu(m.second(F.leaky_relu(m.first(x), 0.2)))))
    joined = torch.cat([F.max_pool2d(torch.sigmoid(x), 3, 1, 1), F.hardsigmoid(x)], 1)
    return torch.softmax(m.linear(joined.mean((2, 3))) * 3, 1)


POOLS = {
    "ReLU after a max pool": lambda m, x: F.relu(F.max_pool2d(m.first(x), 2)),
    "ReLU after a mean": lambda m, x: F.relu(F.avg_pool2d(m.first(x), 2)),
    "ReLU6 after a mean without padding": lambda m, x: F.relu6(
        F.avg_pool2d(m.first(x), 3, 1, 1, count_include_pad=False)
    ),
    "a mean of windows that reach unevenly over the edge": lambda m, x: F.avg_pool2d(
        m.first(x), 2, 2, 1, count_include_pad=False
    ),
    "ReLU after a pool of the image": lambda m, x: m.first(F.relu(F.max_pool2d(x, 2))),
}


@pytest.mark.parametrize("target", ["tflite-int8", "onnx-int8"])
@pytest.mark.parametrize("name", ["activations", *POOLS])
def test_operators_that_int8_is_awkward_with(target, name, tmp_path):
    if name == "activations":
        model = Forward(activations, 16)
    else:
        model = Forward(lambda m, x: m.linear(POOLS[name](m, x).mean((2, 3))))
    artifact, exporter = export(target, model, tmp_path)
    parity = check_parity(artifact, Reference(model, IMAGES), exporter.tolerance)
    # A softmax's scale is fixed: what tells untrained classes apart is a few levels.
    assert parity.passed and parity.noise < (0.1 if name == "activations" else 0.02)


def test_a_network_of_two_inputs(tmp_path):
    model = Forward(lambda m, x, y: m.linear((m.first(x) - F.relu(m.second(y))).mean((2, 3))))
    shapes = [SHAPE, (8, 16, 16)]
    images = [IMAGES, np.random.default_rng(1).standard_normal((48, 8, 16, 16)).astype(np.float32) * 5]
    for target in ("tflite-int8", "onnx-int8"):
        artifact, exporter = export(target, model, tmp_path, shape=shapes, images=images)
        assert [one.name for one in artifact.manifest.inputs] == ["input0", "input1"]
        parity = check_parity(artifact, Reference(model, images), exporter.tolerance)
        assert parity.passed and parity.noise < 0.02


@pytest.mark.parametrize("target", ["tflite-int8", "onnx-int8"])
def test_biases_far_from_what_training_gives(target, tmp_path):
    """One number throughout, which TensorFlow's converter scales wrongly; and much with weights of zero.

    Such weights are what a pruned batch norm leaves. Steps of theirs would overflow the bias.
    """
    model = Forward(lambda m, x: m.linear(m.second(m.first(x)).mean((2, 3))))
    with torch.no_grad():
        model.first.weight *= torch.linspace(0.2, 2, 8).view(8, 1, 1, 1)
        model.first.bias[:] = -0.5
        model.second.weight *= 50
        model.second.weight[1] = 0
        model.second.bias[1] = 50
    artifact, exporter = export(target, model, tmp_path)
    assert check_parity(artifact, Reference(model, IMAGES), exporter.tolerance).noise < 0.05


def test_onnx_holds_pairs_and_levels(darts_like, tmp_path):
    artifact, _ = export("onnx-int8", darts_like, tmp_path)
    model = onnx.load(artifact.path)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == 17
    stored = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    producers = {node.output[0]: node for node in model.graph.node}
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    for node in layers:
        weight, bias = (producers[name] for name in node.input[1:3])
        levels, scales, _ = (stored[name] for name in weight.input)
        assert levels.dtype == np.int8 and levels.min() >= -127
        assert len(scales) == len(levels)
        assert (len(set(scales.tolist())) == 1) == (node.op_type == "Gemm")
        assert stored[bias.input[0]].dtype == np.int32
        assert producers[node.input[0]].op_type == "DequantizeLinear"
    assert len(layers) == 13  # the batch norm after a pool is one
    ends = [(one.name, one.type.tensor_type.elem_type) for one in (*model.graph.input, *model.graph.output)]
    assert ends == [("input", onnx.TensorProto.FLOAT), ("logits", onnx.TensorProto.FLOAT)]
    assert artifact.manifest.inputs[0].scale is None


class Digits(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False),
            nn.Conv2d(16, 32, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(32, 10),
        )


@pytest.fixture(scope="module")
def digits():
    """A network trained on real digits for a few seconds, its calibration and its test images."""
    data = load_data("digits", 0)
    train = normalise(data.train.images, data.mean, data.std)
    torch.manual_seed(0)
    model = Digits()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    images, labels = torch.from_numpy(train), torch.from_numpy(data.train.labels)
    for _ in range(8):
        for rows in torch.randperm(len(images)).split(64):
            loss = F.cross_entropy(model(images[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval(), train[:256], normalise(data.test.images, data.mean, data.std), data.test.labels


@pytest.mark.parametrize("target", ["tflite-int8", "edgetpu", "onnx-int8", "tflite-fp16"])
def test_a_trained_network_keeps_its_accuracy(target, digits, tmp_path):
    model, train, images, labels = digits
    artifact, exporter = export(target, model, tmp_path, ExportOptions(), (1, 8, 8), train)
    parity = check_parity(artifact, Reference(model, images, labels), exporter.tolerance)
    assert parity.passed and parity.accuracy_before > 0.9
    assert abs(parity.accuracy_before - parity.accuracy_after) <= 0.01
    assert parity.top1_agreement >= 0.98 and parity.accuracy_images == len(images) > 300


def test_what_is_left_in_float_is_refused(tmp_path):
    model = Forward(lambda m, x: m.linear(m.first(x).mean((2, 3))))
    artifact, _ = export("tflite", model, tmp_path)
    with pytest.raises(ExportError, match=r"left CONV_2D \(.*\) in float; use an operator") as caught:
        _require_int8(parse_tflite(artifact.path.read_bytes(), "net"))
    assert "\n" not in str(caught.value)


def test_fp16_is_half_the_size_and_as_good(tmp_path):
    model = nn.Sequential(
        nn.Conv2d(3, 128, 3), nn.ReLU(), nn.Conv2d(128, 128, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    full, _ = export("tflite", model, tmp_path)
    half, exporter = export("tflite-fp16", model, tmp_path)
    assert half.manifest.size_bytes == pytest.approx(full.manifest.size_bytes / 2, rel=0.05)
    assert "float16" in {tensor.dtype for tensor in read_tflite(half.path).tensors}
    parity = check_parity(half, Reference(model, IMAGES[:8]), exporter.tolerance)
    assert parity.passed and 0 < parity.noise < 2e-3
