"""Named entries in a TensorFlow Lite file: a genotype or a version travels with the network it belongs to.

The file is unpacked and packed again with the generated schema (0.1 s for 20 MB), which keeps every operator,
tensor and weight as it is. Buffers come out aligned to 16 bytes, as the schema asks and as interpreters that
map the file want them; the plain generated packer would align them to 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ehdnas.core.errors import ExportError
from ehdnas.exporters.tflite.file import damage_is_data_error, parse_tflite, read_model, read_tflite
from ehdnas.exporters.tflite.schema import load_schema

_ALIGNMENT = 16


def read_metadata(path: Path) -> dict[str, bytes]:
    """Return the metadata of the file at `path`, by name.

    Raises:
        DataError: the file is absent, damaged or no TensorFlow Lite file.
    """
    return read_tflite(path).metadata


def write_metadata(source: Path | bytes, entries: Mapping[str, bytes]) -> bytes:
    """Return the file `source` (a path, or its content) with `entries` in its metadata.

    An entry replaces one of its name; all others stay. Nothing is written to disk.

    Raises:
        DataError: the file is absent, damaged or no TensorFlow Lite file.
        ExportError: the file holds what cannot be carried over unchanged, such as operators newer than the
            installed schema or weights behind its tables.
    """
    data, name = (read_model(source), str(source)) if isinstance(source, Path) else (source, "the file")
    before = parse_tflite(data, name)
    with damage_is_data_error(name):
        model = load_schema().ModelT.InitFromPackedBuf(data, 0)
        _require_known(model, name)
        _insert(model, entries)
        written = _pack(model, len(data) + sum(map(len, entries.values())))
    # The schema's packer is generated code of another release than the one that wrote the file.
    if parse_tflite(written, name) != replace(before, metadata=before.metadata | dict(entries)):
        raise ExportError(f"{name} cannot be written again unchanged; install a newer ai-edge-litert")
    return written


def _require_known(model: Any, name: str) -> None:
    """Refuse what unpacking has lost or would move.

    Raises:
        ExportError: there is some.
    """
    if any((buffer.offset or 0) > 1 for buffer in model.buffers or []):
        raise ExportError(f"{name} keeps weights behind its tables, which would move; export it below 2 GiB")
    for operator in (operator for graph in model.subgraphs for operator in graph.operators or []):
        lost = operator.builtinOptionsType and operator.builtinOptions is None
        if lost or (operator.builtinOptions2Type and operator.builtinOptions2 is None):
            raise ExportError(f"{name} has operators newer than the schema; install a newer ai-edge-litert")


def _insert(model: Any, entries: Mapping[str, bytes]) -> None:
    schema = load_schema()
    model.buffers = list(model.buffers or [])
    names = {name.encode() for name in entries}
    replaced = [entry.buffer for entry in model.metadata or [] if entry.name in names]
    model.metadata = [entry for entry in model.metadata or [] if entry.name not in names]
    tensors = (tensor for graph in model.subgraphs for tensor in graph.tensors or [])
    used = {holder.buffer for holder in (*model.metadata, *tensors)}
    for index in set(replaced) - used:
        # Emptied, not removed: every other buffer keeps its index.
        model.buffers[index].data = None
    for name, content in entries.items():
        entry, buffer = schema.MetadataT(), schema.BufferT()
        entry.name, entry.buffer, buffer.data = name, len(model.buffers), content
        model.metadata.append(entry)
        model.buffers.append(buffer)


def _pack(model: Any, size_bytes: int) -> bytes:
    import flatbuffers

    model.buffers = [_AlignedBuffer(buffer.data) for buffer in model.buffers]
    # Room for all of it from the start: a builder that grows copies what it holds.
    builder = flatbuffers.Builder(size_bytes + (size_bytes >> 4) + 4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


class _AlignedBuffer:
    """A buffer for the generated packer to call."""

    def __init__(self, data: Any) -> None:
        self.data = b"" if data is None else bytes(data)

    def Pack(self, builder: Any) -> int:  # noqa: N802  (the packer's name for it)
        schema = load_schema()
        offset = None
        if self.data:
            builder.Prep(_ALIGNMENT, len(self.data))
            offset = builder.CreateByteVector(self.data)
        schema.BufferStart(builder)
        if offset is not None:
            schema.BufferAddData(builder, offset)
        return int(schema.BufferEnd(builder))
