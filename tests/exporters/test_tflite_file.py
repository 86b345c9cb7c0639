"""Reading TensorFlow Lite files without an interpreter: good ones in full, bad ones as one line."""

import os
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tflite_files import classifier, convert, edited, weights

from ehdnas.core.errors import DataError
from ehdnas.exporters import find_exporter
from ehdnas.exporters.tflite.file import TfliteFile, parse_tflite, read_tflite, sound_scales
from ehdnas.exporters.tflite.schema import load_schema


def interpreter_of(data):
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_content=data, experimental_op_resolver_type=plain)
    interpreter.allocate_tensors()
    return interpreter


def dilated(tf, image):
    return tf.nn.relu6(tf.nn.conv2d(image, weights(3, 3, 4, 4), 1, "SAME", dilations=2))


@pytest.mark.parametrize("precision", ["int8", "fp32", "float ends"])
def test_it_says_what_the_interpreter_says(precision):
    data = convert(classifier, precision=precision)
    file, interpreter = parse_tflite(data, "net"), interpreter_of(data)
    details = interpreter.get_tensor_details()[: len(file.tensors)]
    for index, (tensor, detail) in enumerate(zip(file.tensors, details, strict=True)):
        assert (tensor.name, tensor.dtype) == (detail["name"], np.dtype(detail["dtype"]).name)
        assert list(tensor.shape) == detail["shape"].tolist() and not tensor.is_dynamic
        quantised = detail["quantization_parameters"]
        assert list(tensor.scales) == quantised["scales"].tolist()
        assert list(tensor.zero_points) == quantised["zero_points"].tolist()
        assert tensor.quantized_dimension == quantised["quantized_dimension"]
        if tensor.constant:
            np.testing.assert_array_equal(file.constant(index), interpreter.get_tensor(index))
            assert tensor.size_bytes == file.constant(index).nbytes
    assert [file.inputs[0], file.outputs[0]] == [
        interpreter.get_input_details()[0]["index"],
        interpreter.get_output_details()[0]["index"],
    ]
    operators = interpreter._get_ops_details()
    assert [operator.name for operator in file.operators] == [found["op_name"] for found in operators]
    for operator, found in zip(file.operators, operators, strict=True):
        assert [list(operator.inputs), list(operator.outputs)] == [
            found["inputs"].tolist(),
            found["outputs"].tolist(),
        ]


def test_constants_and_computed_tensors_are_told_apart():
    file = parse_tflite(convert(classifier), "net")
    computed = {index for operator in file.operators for index in operator.outputs} | set(file.inputs)
    assert {index for index, tensor in enumerate(file.tensors) if not tensor.constant} == computed
    assert file.constant(file.inputs[0]) is None and file.constant(-1) is None
    assert file.constant(len(file.tensors)) is None
    with pytest.raises(ValueError, match="read-only"):
        file.constant(file.operators[0].inputs[1])[:] = 0


def test_options_carry_the_names_of_the_schema():
    (operator,) = parse_tflite(convert(dilated), "net").operators
    assert operator.name == "CONV_2D" and operator.version == 3
    expected = {
        "stride_w": 1,
        "stride_h": 1,
        "dilation_w_factor": 2,
        "dilation_h_factor": 2,
        "padding": "SAME",
        "fused_activation_function": "RELU6",
    }
    assert expected.items() <= operator.options.items()
    dense = parse_tflite(convert(classifier), "net").operators[-2]
    assert dense.name == "FULLY_CONNECTED" and dense.inputs[2] == -1
    assert dense.options["weights_format"] == "DEFAULT" and dense.options["keep_num_dims"] is False


def test_the_exporters_own_files_are_read(darts_like, tmp_path, operators_of):
    path = find_exporter("tflite").export(darts_like, (3, 16, 16), tmp_path / "net.tflite").path
    file = read_tflite(path)
    assert [operator.name for operator in file.operators] == operators_of(path)
    assert file.subgraphs == 1 and file.tensors[file.inputs[0]].shape == (1, 16, 16, 3)
    assert file.metadata["min_runtime_version"].rstrip(b"\0").count(b".") == 2


def test_sizes_that_are_not_fixed_show():
    def change(model):
        model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]].shapeSignature = [-1, 8, 8, 4]

    file = parse_tflite(edited(convert(dilated), change), "net")
    assert [tensor.is_dynamic for tensor in file.tensors].count(True) == 1


def test_a_custom_operator_has_its_own_name_on_one_line():
    def change(model):
        model.operatorCodes[0].builtinCode = model.operatorCodes[0].deprecatedBuiltinCode = 32
        model.operatorCodes[0].customCode = "edge\ntpu\x1b"
        model.subgraphs[0].operators[0].builtinOptionsType = 0
        model.subgraphs[0].operators[0].builtinOptions = None

    (operator,) = parse_tflite(edited(convert(dilated), change), "net").operators
    assert operator.name == "CUSTOM:edge tpu " and operator.options == {}


def test_weights_behind_the_tables_are_found():
    """Files near the 2 GiB limit keep their buffers there."""
    data = convert(dilated)
    before = parse_tflite(data, "net")
    kernel = before.operators[0].inputs[1]
    content = before.constant(kernel).tobytes()

    def move(model):
        buffer = model.buffers[model.subgraphs[0].tensors[kernel].buffer]
        buffer.data, buffer.offset, buffer.size = None, 1 << 16, len(content)

    moved = edited(data, move)
    file = parse_tflite(moved.ljust(1 << 16, b"\0") + content, "net")
    np.testing.assert_array_equal(file.constant(kernel), before.constant(kernel))
    with pytest.raises(DataError, match="net is damaged"):
        parse_tflite(moved.ljust(1 << 16, b"\0") + content[:-1], "net")


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), 1.18e36, 0.0, -0.5])
def test_scales_that_abort_the_interpreter_are_found(scale):
    def change(model):
        tensor = model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]]
        tensor.name, tensor.quantization.scale = b"image", np.array([scale], np.float32)

    assert sound_scales(parse_tflite(convert(dilated), "net")) == []
    (problem,) = sound_scales(parse_tflite(edited(convert(dilated), change), "net"))
    assert problem == f"tensor image has a quantisation scale of {np.float32(scale):g}"


def no_subgraph(model):
    model.subgraphs = []


def operator_reads_beyond(model):
    model.subgraphs[0].operators[0].inputs = [0, 1, 99]


def operator_writes_before(model):
    model.subgraphs[0].operators[0].outputs = [-2]


def no_such_code(model):
    model.subgraphs[0].operators[0].opcodeIndex = 7


def no_such_buffer(model):
    model.subgraphs[0].tensors[0].buffer = 99


def short_constant(model):
    kernel = model.subgraphs[0].tensors[model.subgraphs[0].operators[0].inputs[1]]
    model.buffers[kernel.buffer].data = model.buffers[kernel.buffer].data[:-1]


def shape_of_giants(model):
    model.subgraphs[0].tensors[model.subgraphs[0].operators[0].inputs[1]].shape = [2**31 - 1] * 8


@pytest.mark.parametrize(
    "change",
    [
        no_subgraph,
        operator_reads_beyond,
        operator_writes_before,
        no_such_code,
        no_such_buffer,
        short_constant,
        shape_of_giants,
    ],
    ids=lambda change: change.__name__,
)
def test_what_cannot_be_is_damage(change):
    with pytest.raises(DataError, match=r"^net\.tflite is damaged") as caught:
        parse_tflite(edited(convert(dilated), change), "net.tflite")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot read"), (b"", "not a TensorFlow Lite"), (b"{}" * 99, "not a TensorFlow Lite")],
)
def test_other_files_are_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / "net.tflite").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_tflite(tmp_path / "net.tflite")
    assert "net.tflite" in str(caught.value)


def test_neither_folders_nor_pipes_nor_huge_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(DataError, match="is not a file"):
            read_tflite(path)
    with (tmp_path / "huge.tflite").open("wb") as stream:
        stream.truncate((2 << 30) + 1)
    with pytest.raises(DataError, match=r"huge\.tflite is larger than 2 GiB"):
        read_tflite(tmp_path / "huge.tflite")


def shared(tensors, sizes):
    """Return a file of many tensors that are one, of many sizes: small, but endless to read in full."""
    import flatbuffers

    schema, builder = load_schema(), flatbuffers.Builder(1 << 20)
    shape = builder.CreateNumpyVector(np.ones(sizes, np.int32))
    schema.TensorStart(builder)
    schema.TensorAddShape(builder, shape)
    tensor = schema.TensorEnd(builder)
    schema.SubGraphStartTensorsVector(builder, tensors)
    for _ in range(tensors):
        builder.PrependUOffsetTRelative(tensor)
    vector = builder.EndVector()
    schema.SubGraphStart(builder)
    schema.SubGraphAddTensors(builder, vector)
    graph = schema.SubGraphEnd(builder)
    schema.ModelStartSubgraphsVector(builder, 1)
    builder.PrependUOffsetTRelative(graph)
    graphs = builder.EndVector()
    schema.ModelStart(builder)
    schema.ModelAddSubgraphs(builder, graphs)
    builder.Finish(schema.ModelEnd(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize(("tensors", "sizes"), [(50_000, 100_000), (1_000_000, 1)])
def test_a_small_file_cannot_ask_for_endless_work(tensors, sizes):
    data, start = shared(tensors, sizes), time.monotonic()
    with pytest.raises(DataError, match="damaged"):
        parse_tflite(data, "net")
    assert time.monotonic() - start < 5


def test_metadata_cannot_outgrow_the_file():
    def change(model):
        kernel = model.subgraphs[0].tensors[model.subgraphs[0].operators[0].inputs[1]]
        entries = []
        for place in range(5000):
            entry = load_schema().MetadataT()
            entry.name, entry.buffer = f"{place}".encode(), kernel.buffer
            entries.append(entry)
        model.metadata = entries

    with pytest.raises(DataError, match="metadata is larger than the file"):
        parse_tflite(edited(convert(dilated), change), "net")


def outcome(data):
    try:
        return parse_tflite(data, "net.tflite")
    except DataError as error:
        assert "net.tflite" in str(error) and "\n" not in str(error)
        return None


NUMBERS = st.sampled_from([0, 1, 4, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFC, 0xFFFFFFFF])


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1 << 16), NUMBERS | st.integers(0, 2**32 - 1)), max_size=8))
def test_overwritten_numbers_are_refused_or_read(changes):
    data = bytearray(convert(classifier))
    for place, number in changes:
        start = place * 4 % (len(data) - 4)
        data[start : start + 4] = number.to_bytes(4, "little")
    assert isinstance(outcome(bytes(data)), TfliteFile | None)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 1 << 16),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=20),
)
def test_truncated_and_scribbled_files_are_refused_or_read(length, changes):
    data = bytearray(convert(dilated))
    for place, value in changes:
        data[place % len(data)] = value
    assert isinstance(outcome(bytes(data[: length % (len(data) + 1)])), TfliteFile | None)


def test_every_truncation_is_refused():
    data = convert(dilated)
    read = [length for length in range(0, len(data), 7) if outcome(data[:length])]
    # What no table points to may be missing at the end.
    assert all(length > 0.95 * len(data) for length in read)
