"""Metadata in TensorFlow Lite files: it reads back, and the network is the same to the bit."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tflite_files import classifier, convert, edited, weights

from ehdnas.core.errors import DataError, EhdnasError, ExportError
from ehdnas.exporters import find_exporter
from ehdnas.exporters.tflite.file import parse_tflite
from ehdnas.exporters.tflite.metadata import read_metadata, write_metadata
from ehdnas.exporters.tflite.schema import load_schema

ENTRIES = {"ehdnas.genotype": '{"normal": ["é"]}'.encode(), "ehdnas.note": b"\x00\xff" * 9}


def outputs_of(data, seed=0):
    """Return the outputs for random images as bytes, by the default kernels and by the plain ones."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    found = []
    for kernels in (OpResolverType.AUTO, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES):
        interpreter = Interpreter(model_content=data, experimental_op_resolver_type=kernels)
        interpreter.allocate_tensors()
        (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
        images = np.random.default_rng(seed).normal(
            0, 1 if taken["dtype"] == np.float32 else 60, (4, *taken["shape"])
        )
        for image in images.astype(taken["dtype"]):
            interpreter.set_tensor(taken["index"], image)
            interpreter.invoke()
            found.append(interpreter.get_tensor(given["index"]).tobytes())
    assert len(set(found)) > 2
    return found


def buffer_starts(data):
    """Return where the content of each buffer begins, as the schema has it."""
    model = load_schema().Model.GetRootAs(data, 0)
    buffers = [model.Buffers(index) for index in range(model.BuffersLength())]
    return [b._tab.Vector(b._tab.Offset(4)) for b in buffers if b.DataLength()]


@pytest.mark.parametrize("precision", ["int8", "fp32", "float ends"])
def test_the_network_is_the_same_to_the_bit(precision):
    data = convert(classifier, precision=precision)
    written = write_metadata(data, ENTRIES)
    assert outputs_of(written) == outputs_of(data)
    before, after = parse_tflite(data, "before"), parse_tflite(written, "after")
    assert (after.operators, after.tensors, after.inputs) == (before.operators, before.tensors, before.inputs)
    for index in range(len(before.tensors)):
        np.testing.assert_array_equal(after.constant(index), before.constant(index))
    assert after.metadata == before.metadata | ENTRIES


def test_entries_are_where_the_schema_puts_them():
    written = write_metadata(convert(classifier), ENTRIES)
    model = load_schema().Model.GetRootAs(written, 0)
    found = {}
    for index in range(model.MetadataLength()):
        entry = model.Metadata(index)
        found[entry.Name().decode()] = model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()
    assert found.items() >= ENTRIES.items()
    assert found["min_runtime_version"].startswith(b"1.")
    assert model.Version() == 3 and written[4:8] == b"TFL3"


def test_an_exported_network_carries_metadata(darts_like, tmp_path):
    path = find_exporter("tflite").export(darts_like, (3, 16, 16), tmp_path / "net.tflite").path
    before = read_metadata(path)
    written = write_metadata(path, ENTRIES)
    assert outputs_of(written) == outputs_of(path.read_bytes())
    assert read_metadata(path) == before
    path.write_bytes(written)
    assert read_metadata(path) == before | ENTRIES


def test_signatures_keep_their_names(tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    data = convert(classifier)
    before, after = Interpreter(model_content=data), Interpreter(model_content=write_metadata(data, ENTRIES))
    assert after.get_signature_list() == before.get_signature_list()


def test_buffers_are_aligned():
    starts = buffer_starts(write_metadata(convert(classifier), ENTRIES))
    assert len(starts) > 8 and all(start % 16 == 0 for start in starts)


def test_an_entry_replaces_the_one_of_its_name():
    data = write_metadata(convert(classifier), {"a": b"first " * 100, "b": b"kept"})
    again = write_metadata(data, {"a": b"second"})
    metadata = parse_tflite(again, "net").metadata
    assert metadata["a"] == b"second" and metadata["b"] == b"kept" and len(metadata) == 4
    assert b"first" not in again and len(again) < len(data)
    assert write_metadata(data, {}) == data
    assert parse_tflite(write_metadata(data, {"a": b"", "": b"no name"}), "net").metadata.items() >= {
        ("a", b""),
        ("", b"no name"),
    }


def test_a_buffer_that_others_use_is_not_emptied():
    def share(model):
        entry = load_schema().MetadataT()
        kernel = model.subgraphs[0].tensors[model.subgraphs[0].operators[0].inputs[1]]
        entry.name, entry.buffer = b"kernel", kernel.buffer
        model.metadata.append(entry)

    data = edited(convert(classifier), share)
    written = write_metadata(data, {"kernel": b"none"})
    assert outputs_of(written) == outputs_of(data)
    assert parse_tflite(written, "net").metadata["kernel"] == b"none"


def test_twenty_megabytes_take_a_fraction_of_a_second():
    data = convert(lambda tf, image: image @ weights(2200, 2300), shape=(1, 2200), precision="fp32")
    assert len(data) > 20_000_000
    seconds = []
    for _ in range(3):
        start = time.monotonic()
        written = write_metadata(data, ENTRIES)
        seconds.append(time.monotonic() - start)
    assert min(seconds) < 0.7
    assert len(written) < len(data) + 4096 and outputs_of(written) == outputs_of(data)


def newer_operator(model):
    model.subgraphs[0].operators[0].builtinOptionsType = 251
    model.subgraphs[0].operators[0].builtinOptions = None


def distant_weights(model):
    model.buffers[-1].data, model.buffers[-1].offset, model.buffers[-1].size = None, 64, 4


@pytest.mark.parametrize(
    ("change", "message"), [(newer_operator, "newer than the schema"), (distant_weights, "would move")]
)
def test_what_would_be_lost_is_refused(change, message):
    with pytest.raises(ExportError, match=message):
        write_metadata(edited(convert(classifier), change), ENTRIES)


def test_absent_and_damaged_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*net\.tflite"):
        write_metadata(tmp_path / "net.tflite", ENTRIES)
    (tmp_path / "net.tflite").write_bytes(convert(classifier)[:2000])
    for act in (read_metadata, lambda path: write_metadata(path, ENTRIES)):
        with pytest.raises(DataError, match=r"net\.tflite is damaged"):
            act(tmp_path / "net.tflite")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=12))
def test_scribbled_files_are_refused_or_written(changes):
    data = bytearray(convert(classifier))
    for place, value in changes:
        data[place % len(data)] = value
    try:
        assert parse_tflite(write_metadata(bytes(data), ENTRIES), "net").metadata.items() >= ENTRIES.items()
    except EhdnasError as error:
        assert "\n" not in str(error)
