"""Layer tables of ONNX files: the same as the network's own, and one line for each file that is not right."""

import tempfile
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from ehdnas.core.errors import DataError
from ehdnas.core.graph import layer_table, read_onnx_table
from ehdnas.core.layers import Layer
from ehdnas.exporters.onnx.exporter import OnnxExporter


def costly(table):
    """The rows that compute or pool, without their names."""
    return Counter(
        (row.operator, row.cin, row.cout, row.h, row.w, row.kernel, row.stride, row.padding, row.dilation,
         row.groups, row.out_size)
        for row in table.layers
        if row.operator in ("conv", "conv_transpose", "linear", "max_pool", "avg_pool", "global_pool")
    )  # fmt: skip


def weight(name, *dims, dtype=TensorProto.FLOAT):
    """A constant of a shape, with no data: nothing may read it."""
    return TensorProto(name=name, dims=dims, data_type=dtype)


def ints(name, *values):
    return numpy_helper.from_array(np.array(values, np.int64), name)


def saved(path, nodes, constants=(), shape=(1, 8, 14, 13), opset=20, **more):
    shown = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_empty_tensor_value_info(nodes[-1].output[0])]
    graph = helper.make_graph(nodes, "g", shown, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9, **more)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def read(tmp_path):
    """Read the table of the nodes given, whose last output is the model's."""

    def reader(nodes, constants=(), **more):
        return read_onnx_table(saved(tmp_path / "net.onnx", nodes, constants, **more))

    return reader


def node(operator, inputs, output="y", **attributes):
    return helper.make_node(operator, inputs.split(), [output], name=f"n_{output}", **attributes)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "mobilenet_v1"])
def test_what_our_exporter_writes_has_the_networks_own_rows(zoo, name, tmp_path):
    model = zoo.ZOO[name]()
    own = layer_table(model, (3, 64, 64))
    OnnxExporter().export(model, (3, 64, 64), tmp_path / "net.onnx")
    found = read_onnx_table(tmp_path / "net.onnx")
    assert (found.macs, found.unsupported) == (own.macs, ())
    assert sum(row.weights for row in found.layers) == sum(row.weights for row in own.layers)
    assert costly(found) == costly(own)


@pytest.mark.parametrize(("name", "size"), [("inception_v1", 96), ("alexnet", 224)])
def test_what_torch_writes_has_the_networks_own_rows_and_external_data_is_not_opened(
    zoo, name, size, tmp_path
):
    model = zoo.ZOO[name]().eval()
    own = layer_table(model, (3, size, size))
    path = tmp_path / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (torch.zeros(1, 3, size, size),), str(path), dynamo=True, verbose=False)
    Path(f"{path}.data").unlink()
    found = read_onnx_table(path)
    assert (found.macs, found.unsupported) == (own.macs, ())
    assert costly(found) == costly(own)


AUTO = [
    ("SAME_UPPER", 2, 3),
    ("SAME_LOWER", 2, 3),
    ("SAME_UPPER", 1, 4),
    ("SAME_LOWER", 1, 2),
    ("VALID", 2, 3),
]


@pytest.mark.parametrize(("auto_pad", "stride", "kernel"), AUTO)
@pytest.mark.parametrize("operator", ["Conv", "MaxPool"])
def test_automatic_padding_gives_the_right_size(read, operator, auto_pad, stride, kernel):
    inputs, constants = ("x w", [weight("w", 8, 8, kernel, kernel)]) if operator == "Conv" else ("x", [])
    found = read(
        [node(operator, inputs, auto_pad=auto_pad, strides=[stride] * 2, kernel_shape=[kernel] * 2)],
        constants,
    )
    (row,) = found.layers
    if auto_pad == "VALID":
        assert (row.h_out, row.w_out, row.padding) == (
            (14 - kernel) // stride + 1,
            (13 - kernel) // stride + 1,
            (0, 0),
        )
    else:
        assert (row.h_out, row.w_out) == (-(-14 // stride), -(-13 // stride))


def test_uneven_pads_are_halved_and_the_output_is_right(read):
    nodes = [node("Pad", "x pads", "p"), node("Conv", "p w", strides=[2, 2], pads=[0, 0, 1, 0])]
    (row,) = read(nodes, [ints("pads", 0, 0, 1, 0, 0, 0, 1, 1), weight("w", 4, 8, 3, 3)]).layers
    # Height 14 + 1 + 1 + 1, width 13 + 1; both output sizes are floor((n - 3) / 2) + 1.
    assert (row.h, row.w, row.padding, row.h_out, row.w_out) == (14, 13, (2, 1), 8, 6)


@pytest.mark.parametrize(
    ("nodes", "constants", "expected"),
    [
        ([node("Relu", "x", "a"), node("Clip", "a", "b"), node("HardSwish", "b")], [],
         "relu relu activation"),
        ([node("Sigmoid", "x", "a"), node("Mul", "x a", "b"), node("Add", "b b")], [], "activation mul add"),
        ([node("ReduceMean", "x axes")], [ints("axes", 2, 3)], "global_pool"),
        ([node("GlobalAveragePool", "x", "a"), node("Flatten", "a", "b"), node("Gemm", "b w", transB=1)],
         [weight("w", 10, 8)], "global_pool linear"),
        ([node("GlobalMaxPool", "x")], [], "max_pool"),
        ([node("AveragePool", "x", kernel_shape=[14, 13])], [], "global_pool"),
        ([node("Conv", "x w", "a"), node("BatchNormalization", "a s s s s")],
         [weight("w", 4, 8, 1, 1), weight("s", 4)], "conv"),
        ([node("BatchNormalization", "x s s s s", "a"), node("Conv", "a w")],
         [weight("w", 4, 8, 1, 1), weight("s", 8)], "mul conv"),
        ([node("Concat", "x x", "a", axis=1), node("Softmax", "a")], [], "concat softmax"),
        ([node("Resize", "x roi scales")],
         [weight("roi", 0), numpy_helper.from_array(np.float32([1, 1, 2, 2]), "scales")], "upsample"),
        ([node("ConvTranspose", "x w", strides=[2, 2], output_padding=[1, 1])],
         [weight("w", 8, 4, 3, 3)], "conv_transpose"),
        ([node("Transpose", "x", "a", perm=[0, 1, 3, 2]), node("MatMul", "x a", "b"),
          node("LayerNormalization", "b s")], [weight("s", 14)], "matmul norm"),
        ([node("Shape", "x", "s", start=2), node("Shape", "x", "h", end=2),
          node("Concat", "h s", "t", axis=0), node("Relu", "x", "a"), node("Reshape", "a t")], [], "relu"),
    ],
)  # fmt: skip
def test_operators(read, nodes, constants, expected):
    table = read(nodes, constants)
    assert ([row.operator for row in table.layers], table.unsupported) == (expected.split(), ())


def quantised(source, output):
    pair = [("QuantizeLinear", source, f"{output}_q"), ("DequantizeLinear", f"{output}_q", output)]
    return [node(operator, f"{start} scale zero", end) for operator, start, end in pair]


def test_quantisation_is_free_and_sets_the_bits(read):
    constants = [
        numpy_helper.from_array(np.float32(1), "scale"), numpy_helper.from_array(np.int8(0), "zero"),
        weight("w_q", 4, 8, 3, 3, dtype=TensorProto.INT8), weight("v", 4, 4, 1, 1),
    ]  # fmt: skip
    nodes = [
        *quantised("x", "a"), node("DequantizeLinear", "w_q scale zero", "w"), node("Conv", "a w", "b"),
        *quantised("b", "c"), node("MaxPool", "c", "d", kernel_shape=[2, 2]), node("Conv", "d v"),
    ]  # fmt: skip
    assert [(row.operator, row.bits) for row in read(nodes, constants).layers] == [
        ("conv", 8), ("max_pool", 8), ("conv", 16),
    ]  # fmt: skip
    scales = "x_q scale zero w_q scale zero scale zero"
    whole = [node("QuantizeLinear", "x scale zero", "x_q"), node("QLinearConv", scales)]
    assert [(row.operator, row.bits, row.macs) for row in read(whole, constants[:3]).layers] == [
        ("conv", 8, 12 * 11 * 9 * 8 * 4),
    ]  # fmt: skip


def test_a_symbolic_batch_is_one(read):
    table = read([node("Conv", "x w")], [weight("w", 4, 8, 3, 3)], shape=("batch", 8, 14, 13))
    assert table.layers == (Layer("n_y", "conv", 8, 4, 14, 13, (3, 3)),)


def test_unknown_operators_and_subgraphs_are_named_and_what_follows_has_no_row(read):
    branch = helper.make_graph([node("Relu", "x", "r")], "b", [], [helper.make_empty_tensor_value_info("r")])
    condition = numpy_helper.from_array(np.array(True), "yes")
    pooled = node("MaxPool", "x", "p", kernel_shape=[2, 2])
    table = read(
        [
            pooled,
            node("If", "yes", "c", then_branch=branch, else_branch=branch),
            node("Einsum", "p c", equation="abcd,aefg->ab"),
        ],
        [condition],
    )
    assert [row.operator for row in table.layers] == ["max_pool"]
    assert table.unsupported == (("Einsum", "n_y"),)
    recurrent = [node("Det", "m", "d"), node("Relu", "d")]
    assert read([node("MatMul", "x w", "m"), *recurrent], [weight("w", 13, 14)]).unsupported == (
        ("Det", "n_d"),
    )


@pytest.mark.parametrize(
    ("nodes", "constants", "more", "what"),
    [
        ([node("Relu", "x")], [], {"shape": (1, 8, "high", 13)}, "tensor 'x' has a size that is not fixed"),
        ([node("Relu", "x")], [], {"shape": (4, 8, 14, 13)}, "input 'x' has a batch of 4"),
        ([node("Relu", "x")], [], {"shape": (1, 2**40, 14, 13)}, "tensor 'x' of shape .* cannot be right"),
        ([node("Conv", "x w")], [], {}, "'n_y' reads 'w', which no operator before it makes"),
        ([node("Conv", "x w")], [weight("w", 2**33, 2**33, 1, 1)], {},
         "tensor 'w' of shape .* cannot be right"),
        ([node("Conv", "x w")], [weight("w", 8, -8, 1, 1)], {}, "tensor 'w' of shape .* cannot be right"),
        ([node("Add", "x b", "a"), node("Relu", "a", "b")], [], {}, "reads 'b', which .* a cycle"),
        ([node("Relu", "x", "x")], [], {}, "tensor 'x' is made twice"),
        ([node("MatMul", "x w")], [weight("w", 9, 9)], {}, "cannot infer its shapes"),
        ([node("NonZero", "x", "a"), node("Cast", "a", "b", to=1), node("Relu", "b")], [], {},
         "'a' has a size"),
        ([node("Relu", "x")], [], {"functions": [helper.make_function(
            "d", "F", ["i"], ["o"], [node("Relu", "i", "o")], [helper.make_opsetid("", 20)])]},
         "functions, such as 'F'"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_line(read, nodes, constants, more, what):
    with pytest.raises(DataError, match=what) as caught:
        read(nodes, constants, **more)
    assert "net.onnx: " in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 100,
        b"not a model",
        b"\x3a\xff\xff\xff\xff\x07abc",
        np.random.default_rng(0).bytes(5000),
    ],
)
def test_a_file_that_is_no_model_is_one_line(tmp_path, content):
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(DataError, match="not an ONNX model"):
        read_onnx_table(path)
    with pytest.raises(DataError, match=r"absent\.onnx: cannot be read: No such file"):
        read_onnx_table(tmp_path / "absent.onnx")


def small():
    block = nn.Sequential(nn.Conv2d(4, 4, 3, 2, 1, groups=2), nn.ReLU6(), nn.MaxPool2d(2), nn.Hardswish())
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )


@pytest.fixture(scope="module")
def content():
    with tempfile.TemporaryDirectory() as folder:
        return OnnxExporter().export(small(), (3, 16, 16), Path(folder) / "net.onnx").path.read_bytes()


# The weights' bytes cannot matter: damage goes to the structure, which is what is left without them.
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_bytes_are_a_table_or_one_line(content, data):
    model = onnx.ModelProto.FromString(content)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.ClearField("raw_data")
    damaged = bytearray(model.SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        path.write_bytes(damaged[: data.draw(st.just(len(damaged)) | st.integers(0, len(damaged)))])
        try:
            table = read_onnx_table(path)
        except DataError as error:
            assert "\n" not in str(error) and str(error).isprintable()
        else:
            assert table.macs >= 0 and all(min(row.h_out, row.w_out) > 0 for row in table.layers)
