"""The Edge TPU compiler's rules, checked without it: on files of TensorFlow's converter, and made by hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tflite_files import classifier, convert, edited, weights

from ehdnas.core.errors import DataError
from ehdnas.exporters import find_exporter
from ehdnas.exporters.edgetpu.limits import RULES
from ehdnas.exporters.edgetpu.rules import StaticReport, check_file
from ehdnas.exporters.tflite.file import TfliteFile, TfliteOperator, TfliteTensor, parse_tflite, read_tflite

SUBGRAPH = "More than one subgraph is not supported"
TYPE = "Operation is working on an unsupported data type"
LIMITATION = "Operation is otherwise supported, but not mapped: "


def report_of(network, **options):
    return check_file(parse_tflite(convert(network, **options), "net"))


def verdicts(report):
    return [(verdict.operator, verdict.reason) for verdict in report.operators]


def conv(tf, image, *, padding="SAME", **options):
    return tf.nn.conv2d(image, weights(3, 3, image.shape[-1], 4), 1, padding, **options)


def test_a_clean_network_maps_whole():
    report = report_of(classifier)
    assert report.table() == [
        (name, 1, "Mapped to Edge TPU")
        for name in [
            "CONV_2D",
            "DEPTHWISE_CONV_2D",
            "MAX_POOL_2D",
            "CONCATENATION",
            "MEAN",
            "FULLY_CONNECTED",
            "SOFTMAX",
        ]
    ]
    assert (report.on_tpu, report.on_cpu, report.notes) == (7, 0, [])
    # Two kernels, their int32 biases, and the dense layer; not the axes of the mean.
    assert report.parameters_bytes == 3 * 3 * 4 * 8 + 8 * 4 + 3 * 3 * 8 + 8 * 4 + 16 * 10
    assert report.cached_bytes == report.parameters_bytes and report.streamed_bytes == 0
    assert report.largest_activation_bytes == 8 * 8 * 4
    assert report.operators[0].output and report.operators[0].version == 3
    assert StaticReport.model_validate_json(report.model_dump_json()) == report


def dilated_depthwise(tf, x):
    return tf.raw_ops.DepthwiseConv2dNative(
        input=x, filter=weights(3, 3, 4, 1), strides=[1] * 4, padding="SAME", dilations=[1, 2, 2, 1]
    )


def with_constant(value):
    return lambda tf, x: tf.concat([tf.nn.max_pool2d(x, 2, 2, "VALID"), tf.constant(value)], 3)


def padded(rows):
    return lambda tf, x: tf.pad(x, [[rows, 0], [1, 0], [0, 1], [0, 0]])


MAPS = [
    ("CONV_2D", lambda tf, x: tf.nn.relu6(conv(tf, x))),
    ("CONV_2D", lambda tf, x: conv(tf, x, dilations=2)),
    ("CONCATENATION", with_constant(0 * weights(1, 4, 4, 2))),
    ("MEAN", lambda tf, x: tf.reduce_mean(x, (1, 2))),
    ("MEAN", lambda tf, x: tf.reduce_mean(x, 3)),
    ("PAD", padded(0)),
    ("STRIDED_SLICE", lambda tf, x: x[:, 1:, 1:]),
    ("TRANSPOSE_CONV", lambda tf, x: tf.nn.conv2d_transpose(x, weights(3, 3, 4, 4), (1, 16, 16, 4), 2)),
    ("RESIZE_NEAREST_NEIGHBOR", lambda tf, x: tf.image.resize(x, (16, 16), "nearest")),
    ("RESIZE_BILINEAR", lambda tf, x: tf.image.resize(x, (16, 16))),
    ("SUM", lambda tf, x: tf.reduce_sum(x, (1, 2))),
    ("REDUCE_MAX", lambda tf, x: tf.reduce_max(x, (1, 2))),
    ("SPLIT", lambda tf, x: tf.add(*tf.split(x, 2, 3))),
    ("SQUARED_DIFFERENCE", lambda tf, x: tf.math.squared_difference(x, x * 2)),
    ("MINIMUM", lambda tf, x: tf.maximum(x, 0.0) - tf.minimum(x, 0.0)),
    ("TANH", lambda tf, x: tf.tanh(tf.sigmoid(x))),
    ("SPACE_TO_DEPTH", lambda tf, x: tf.nn.space_to_depth(x, 2)),
]


@pytest.mark.parametrize(("operator", "network"), MAPS, ids=[name for name, _ in MAPS])
def test_what_the_tables_take_maps(operator, network):
    report = report_of(network)
    assert operator in [verdict.operator for verdict in report.operators]
    assert report.on_cpu == 0, verdicts(report)


STAYS = [
    (
        dilated_depthwise,
        "DEPTHWISE_CONV_2D",
        LIMITATION + "a dilated depthwise convolution is not certain to map",
    ),
    (
        lambda tf, x: conv(tf, x, padding="VALID", dilations=(1, 2)),
        "CONV_2D",
        LIMITATION + "dilation differs",
    ),
    (lambda tf, x: tf.transpose(x, (0, 2, 1, 3)), "TRANSPOSE", "Operation not supported"),
    (
        lambda tf, x: tf.pad(x, [[0, 0], [1, 0], [0, 1], [0, 0]], constant_values=1.0),
        "PADV2",
        "Operation not",
    ),
    (lambda tf, x: x / (1 + x * x), "DIV", "Operation not supported"),
    (lambda tf, x: tf.nn.gelu(x), "GELU", "Operation not supported"),
    (lambda tf, x: tf.nn.relu(tf.nn.max_pool2d(x, 2, 2, "VALID")), "MAX_POOL_2D", "fused activation RELU"),
    (
        lambda tf, x: tf.nn.relu6(tf.nn.avg_pool2d(x, 2, 2, "VALID")),
        "AVERAGE_POOL_2D",
        "fused activation RELU6",
    ),
    (with_constant(weights(1, 4, 4, 2)), "CONCATENATION", LIMITATION + "a constant input must be"),
    (lambda tf, x: tf.reduce_mean(x[..., :3], 3), "MEAN", "z = 3, which is not a multiple of 4"),
    (padded(1), "PAD", LIMITATION + "padding of the batch dimension"),
    (lambda tf, x: x[:, ::2, ::2], "STRIDED_SLICE", LIMITATION + "a stride other than 1"),
    (lambda tf, x: tf.nn.softmax(x), "SOFTMAX", LIMITATION + "the input has more than one dimension"),
    (lambda tf, x: tf.reshape(x, (64, 4)) @ weights(4, 5), "FULLY_CONNECTED", "the output has more than one"),
    (lambda tf, x: tf.stack([x[0], x[0] * 2]), "PACK", LIMITATION + "packing in the batch dimension"),
]


@pytest.mark.parametrize(("network", "operator", "reason"), STAYS, ids=[name for _, name, _ in STAYS])
def test_what_they_do_not_take_stays_and_says_why(network, operator, reason):
    report = report_of(network)
    (found,) = [verdict for verdict in report.operators if verdict.operator == operator]
    assert not found.maps and reason in found.reason
    assert report.on_cpu == 1, verdicts(report)


def test_a_batch_has_too_many_dimensions():
    report = report_of(conv, shape=(2, 8, 8, 4))
    rank = "Tensor has unsupported rank (up to 3 innermost dimensions mapped)"
    assert verdicts(report) == [("CONV_2D", rank)]


def test_a_float_network_maps_nothing(darts_like, tmp_path):
    path = find_exporter("tflite").export(darts_like, (3, 16, 16), tmp_path / "net.tflite").path
    report = check_file(read_tflite(path))
    assert report.on_tpu == 0 and {verdict.reason for verdict in report.operators} <= {
        TYPE,
        "Operation not supported",
    }
    assert report.parameters_bytes == report.cached_bytes == report.streamed_bytes == 0
    assert report.notes == ["an input is not int8 or uint8; export the network quantised, inputs included"]


def test_what_follows_an_unsupported_operator_stays_on_the_cpu():
    def network(tf, image):
        image = tf.nn.relu(conv(tf, image))
        turned = conv(tf, tf.transpose(image, (0, 2, 1, 3)))
        return tf.reduce_mean(turned + tf.nn.max_pool2d(image, 3, 1, "SAME"), (1, 2))

    report = report_of(network)
    # The pool beside it does not depend on it.
    assert sorted(verdicts(report)) == [
        ("ADD", SUBGRAPH),
        ("CONV_2D", ""),
        ("CONV_2D", SUBGRAPH),
        ("MAX_POOL_2D", ""),
        ("MEAN", SUBGRAPH),
        ("TRANSPOSE", "Operation not supported"),
    ]
    assert (report.on_tpu, report.on_cpu) == (2, 4)
    assert ("CONV_2D", 1, "Mapped to Edge TPU") in report.table()
    assert ("CONV_2D", 1, SUBGRAPH) in report.table()
    assert report.parameters_bytes == 3 * 3 * 4 * 4 + 4 * 4


def test_quantising_a_float_input_leaves_the_rest_on_the_tpu():
    report = report_of(classifier, precision="float ends")
    assert [(v.operator, v.maps) for v in report.operators if not v.maps] == [
        ("QUANTIZE", False),
        ("DEQUANTIZE", False),
    ]
    assert report.on_tpu == 7 and "an input is not int8" in report.notes[0]


def test_a_version_that_the_compiler_refuses_refuses_the_file():
    """Grouped convolutions come as CONV_2D version 6."""

    def network(tf, image):
        return tf.nn.conv2d(tf.nn.max_pool2d(image, 2, 2, "VALID"), weights(3, 3, 2, 4), 1, "SAME")

    report = report_of(network)
    assert report.on_tpu == 0 and verdicts(report) == [
        ("MAX_POOL_2D", "Model could not be parsed: CONV_2D version 6"),
        ("CONV_2D", "Operation version not supported: CONV_2D version 6"),
    ]
    assert report.notes == ["the compiler refuses a file with CONV_2D version 6"]

    def older(model):
        for code in model.operatorCodes:
            code.version = 3

    again = check_file(parse_tflite(edited(convert(network), older), "net"))
    assert verdicts(again) == [
        ("MAX_POOL_2D", ""),
        ("CONV_2D", "Operation not supported: grouped convolution"),
    ]


def tensor(shape=(1, 8, 8, 4), dtype="int8", constant=False, size_bytes=0, **changes):
    fields = {
        "name": "t",
        "is_dynamic": False,
        "scales": (0.1,),
        "zero_points": (3,),
        "quantized_dimension": 0,
    }
    return TfliteTensor(
        **{
            **fields,
            "shape": shape,
            "dtype": dtype,
            "constant": constant,
            "size_bytes": size_bytes,
            **changes,
        }
    )


def file_of(name, *inputs, output=None, version=1, options=None, constants=None):
    """Return a file of one operator; `constants` are the values of inputs by position."""
    tensors = (*inputs, output or tensor())
    places = tuple(range(len(inputs)))
    operator = TfliteOperator(name, version, places, (len(inputs),), options or {})
    values = tuple((constants or {}).get(place) for place in range(len(tensors)))
    taken = tuple(place for place in places if not tensors[place].constant)
    return TfliteFile((operator,), tensors, taken, (len(inputs),), {}, 1, values)


def constant(values, dtype="int32"):
    import numpy as np

    values = np.array(values, dtype)
    return tensor(values.shape, dtype, True, values.nbytes, scales=(), zero_points=()), values


@pytest.mark.parametrize("name", sorted({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}))
def test_parameters_must_be_constant(name):
    file = file_of(name, tensor((1, 4)), tensor((5, 4)), output=tensor((1, 5)))
    (verdict,) = check_file(file).operators
    assert verdict.reason == "Filter, bias, or other param is not constant at compile-time"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dtype": "int16"}, TYPE),
        ({"dtype": "float32"}, TYPE),
        ({"dtype": "int32"}, TYPE),
        ({"is_dynamic": True}, LIMITATION + "a tensor of dynamic size"),
        ({"shape": (1, 1, 8, 8, 4)}, ""),
        ({"shape": (1, 2, 8, 8, 4)}, "Tensor has unsupported rank (up to 3 innermost dimensions mapped)"),
        ({"dtype": "uint8"}, ""),
    ],
)
def test_tensors_around_an_operator(changes, reason):
    for file in (file_of("RELU", tensor(**changes)), file_of("RELU", tensor(), output=tensor(**changes))):
        assert check_file(file).operators[0].reason == reason


def test_one_of_a_kind():
    """What the converter does not make, or not of its own accord."""

    def reason(*arguments, **options):
        return check_file(file_of(*arguments, **options)).operators[0].reason.removeprefix(LIMITATION)

    weight = tensor((5, 4), constant=True)
    dense = ("FULLY_CONNECTED", tensor((1, 4)), weight)
    assert reason(*dense, output=tensor((1, 5)), options={"weights_format": "DEFAULT"}) == ""
    shuffled = {"weights_format": "SHUFFLED4x16INT8"}
    assert reason(*dense, output=tensor((1, 5)), options=shuffled) == "weights of format SHUFFLED4x16INT8"
    assert reason("SOFTMAX", tensor((1, 16_000)), output=tensor((1, 16_000))) == ""
    assert reason("SOFTMAX", tensor((1, 16_001)), output=tensor((1, 16_001))) == "more than 16000 elements"
    assert reason("PRELU", tensor(), tensor((1, 1, 4), constant=True)) == ""
    assert reason("PRELU", tensor(), tensor((8, 8, 4), constant=True)) == "alpha has more than one dimension"
    assert reason("SQUEEZE", tensor((1, 1, 8, 4)), output=tensor((8, 4))) == ""
    assert reason("SQUEEZE", tensor((1, 8, 1, 4))) == "only leading dimensions of 1 can go"
    ones, values = constant([1, 1, 1, 1])
    slices = ("STRIDED_SLICE", tensor(), ones, ones, ones)
    assert reason(*slices, constants={3: values}) == ""
    assert reason(*slices, constants={3: values}, options={"new_axis_mask": 2}) == "an ellipsis or a new axis"
    axes, values = constant([-4, 1])
    for name in ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"):
        found = reason(name, tensor(), axes, constants={1: values})
        assert found == "a reduction over the batch dimension"
    assert reason("ADD", tensor(), tensor(), options={"fused_activation_function": "RELU"}) == ""
    for name in ("STABLEHLO_REDUCE_WINDOW", "CUSTOM:Flex", "UNKNOWN_999", "LSTM", "DEQUANTIZE"):
        assert reason(name, tensor()) == "Operation not supported"


@pytest.mark.parametrize(("name", "version"), [("QUANTIZE", 3), ("TRANSPOSE_CONV", 4), ("EXP", 2)])
def test_versions_known_to_be_refused(name, version):
    (verdict,) = check_file(file_of(name, tensor(), version=version)).operators
    assert verdict.reason == f"Operation version not supported: {name} version {version}"
    (verdict,) = check_file(file_of(name, tensor(), version=version - 1)).operators
    assert "version" not in verdict.reason


def test_more_parameters_than_fit_are_streamed():
    size = 10 << 20
    weight = tensor((size,), constant=True, size_bytes=size)
    report = check_file(file_of("MUL", tensor((1, size)), weight, output=tensor((1, size))))
    assert report.parameters_bytes == size and report.cached_bytes == int(6.9 * 2**20)
    assert report.cached_bytes + report.streamed_bytes == size and report.largest_activation_bytes == size
    streaming, large = report.notes
    assert "3.10 MiB of parameters do not fit" in streaming and "10.0 MiB is larger" in large


def test_notes_say_what_else_to_know():
    assert "resized image" in report_of(MAPS[8][1]).notes[0]
    compiled = check_file(file_of("CUSTOM:edgetpu-custom-op", tensor()))
    assert "compiled for the Edge TPU already" in compiled.notes[0]
    assert report_of(classifier).notes == []


@pytest.mark.parametrize("name", sorted(RULES))
def test_an_operator_without_its_inputs_is_not_mapped_and_not_fatal(name):
    """Files are not trusted: an operator can lack any input, output or constant, or have no dimensions."""
    scalar = tensor((), constant=True)
    for inputs in ([], [tensor(())], [tensor(), tensor()], [scalar] * 4, [tensor((0,)), scalar]):
        for output in (tensor(()), tensor()):
            report = check_file(file_of(name, *inputs, output=output))
            assert report.on_tpu + report.on_cpu == 1
    assert check_file(TfliteFile((TfliteOperator(name, 1, (-1,), (), {}),), (), (), (), {}, 1)).operators


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=12))
def test_any_file_that_can_be_read_can_be_checked(changes):
    data = bytearray(convert(classifier))
    for place, value in changes:
        data[place % len(data)] = value
    try:
        file = parse_tflite(bytes(data), "net")
    except DataError:
        return
    report = check_file(file)
    assert report.on_tpu + report.on_cpu == len(file.operators)
    assert sum(count for _, count, _ in report.table()) == len(file.operators)
