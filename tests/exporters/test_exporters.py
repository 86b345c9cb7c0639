"""Networks as files of each target: equal to torch, and made of the operators that targets are quick at."""

import json
import subprocess
import sys
from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from ehdnas.core.errors import ExportError, UnsupportedOperatorError
from ehdnas.exporters import Reference, check_parity, find_exporter


@pytest.fixture(params=["onnx", "tflite"])
def exporter(request):
    return find_exporter(request.param)


def test_network_agrees_with_torch(exporter, network, images, tmp_path):
    artifact = exporter.export(network, (3, 16, 16), tmp_path / f"net{exporter.suffix}")
    parity = check_parity(artifact, Reference(network, images), exporter.tolerance)
    assert parity.passed and parity.max_difference <= 1e-4
    assert parity.top1_agreement == 1.0


def test_darts_in_tflite_has_no_detours(darts_like, tmp_path, operators_of):
    artifact = find_exporter("tflite").export(darts_like, (3, 16, 16), tmp_path / "net.tflite")
    counts = Counter(operators_of(artifact.path))
    # stem, four pointwise, two of the factorised reduce; four depthwise, dilated and strided ones included,
    # and the strided average pool, which is quicker as one than as a pool of a padded copy
    assert counts["CONV_2D"] == 7
    assert counts["DEPTHWISE_CONV_2D"] == 5
    assert counts["MAX_POOL_2D"] == 2
    assert counts["AVERAGE_POOL_2D"] == 1
    allowed = {
        "CONV_2D", "DEPTHWISE_CONV_2D", "MAX_POOL_2D", "AVERAGE_POOL_2D", "ADD", "MUL", "RELU", "PAD",
        "CONCATENATION", "STRIDED_SLICE", "SLICE", "MEAN", "RESHAPE", "FULLY_CONNECTED",
    }  # fmt: skip
    assert set(counts) <= allowed


def test_relu_is_fused_and_even_padding_is_free(tmp_path, operators_of):
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 10)).eval()
    artifact = find_exporter("tflite").export(model, (3, 16, 16), tmp_path / "net.tflite")
    assert [name for name in operators_of(artifact.path) if name != "RESHAPE"] == [
        "CONV_2D",
        "MEAN",
        "FULLY_CONNECTED",
    ]


def test_hardswish_is_one_operator(tmp_path, operators_of):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    artifact = find_exporter("tflite").export(model, (3, 16, 16), tmp_path / "net.tflite")
    assert "HARD_SWISH" in operators_of(artifact.path)


@pytest.mark.parametrize("size", [15, 16])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(
    "layer",
    [
        lambda stride: nn.MaxPool2d(3, stride, 1),
        lambda stride: nn.MaxPool2d((2, 5), stride, (1, 2)),
        lambda stride: nn.AvgPool2d(3, stride, 1, count_include_pad=False),
        lambda stride: nn.AvgPool2d((5, 3), stride, (2, 1), count_include_pad=True),
        lambda stride: nn.Conv2d(3, 4, (3, 5), stride, (1, 2)),
    ],
    ids=["max", "max of even windows", "avg", "avg with padding", "conv"],
)
def test_windows_are_exact_in_tensorflow(layer, stride, size):
    """Against the twin run eagerly, which is quick: every odd size, stride and padding rule."""
    from ehdnas.core.graph import trace
    from ehdnas.exporters.tflite.exporter import load_tensorflow
    from ehdnas.exporters.tflite.twin import Twin

    torch.manual_seed(0)
    model, image = layer(stride), torch.randn(1, 3, size, size)
    twin = Twin(load_tensorflow(), trace(model, (3, size, size)))
    made = twin(image.numpy().transpose(0, 2, 3, 1)).numpy().transpose(0, 3, 1, 2)
    np.testing.assert_allclose(made, model(image).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("size", [15, 16])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_dilated_depthwise_is_one_exact_operator(stride, size, tmp_path, operators_of):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3, stride, 2, dilation=2, groups=3), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model = nn.Sequential(*layers)
    exporter = find_exporter("tflite")
    artifact = exporter.export(model, (3, size, size), tmp_path / "net.tflite")
    images = np.random.default_rng(0).standard_normal((3, 3, size, size)).astype(np.float32)
    assert check_parity(artifact, Reference(model, images), exporter.tolerance).max_difference <= 1e-5
    names = [name for name in operators_of(artifact.path) if name not in ("PAD", "MEAN", "RESHAPE")]
    assert names == ["DEPTHWISE_CONV_2D"]


def test_tflite_refuses_an_order_it_cannot_keep(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten())
    with pytest.raises(UnsupportedOperatorError, match=r"reshape .* at 1 "):
        find_exporter("tflite").export(model, (3, 4, 4), tmp_path / "net.tflite")


def test_a_network_that_does_nothing_is_refused(exporter, tmp_path):
    with pytest.raises(ExportError, match="nothing to export"):
        exporter.export(nn.Identity(), (3, 4, 4), tmp_path / f"net{exporter.suffix}")


def test_onnx_speaks_to_old_runtimes_and_carries_metadata(darts_like, tmp_path):
    metadata = {"genotype": {"normal": [1, 2]}, "note": "as is"}
    find_exporter("onnx").export(darts_like, (3, 16, 16), tmp_path / "net.onnx", metadata)
    model = onnx.load(tmp_path / "net.onnx")
    assert model.opset_import[0].version == 17 and model.ir_version == 8
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert properties.items() >= {"genotype": '{"normal": [1, 2]}', "note": "as is"}.items()
    assert json.loads(properties["versions"])["onnx"] == onnx.__version__
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["input", "logits"]
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}


def test_tflite_signature_names_input_and_output(darts_like, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    find_exporter("tflite").export(darts_like, (3, 16, 16), tmp_path / "net.tflite")
    signature = Interpreter(model_path=str(tmp_path / "net.tflite")).get_signature_list()
    assert signature == {"serving_default": {"inputs": ["input"], "outputs": ["logits"]}}


def test_the_package_loads_no_framework():
    check = (
        "import sys, ehdnas.exporters\n"
        "found = {'torch', 'tensorflow', 'onnx', 'onnxruntime', 'ai_edge_litert'} & set(sys.modules)\n"
        "sys.exit(' '.join(found) or 0)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_export_to_tflite_says_nothing(tmp_path):
    script = (
        "from pathlib import Path\nfrom torch import nn\nfrom ehdnas.exporters import find_exporter\n"
        "model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
        f"find_exporter('tflite').export(model, (3, 8, 8), Path({str(tmp_path)!r}, 'net.tflite'))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
