"""What a TensorFlow Lite file says, read without an interpreter, whose process a bad file can abort."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ehdnas.core.errors import DataError
from ehdnas.exporters.tflite.schema import DAMAGE, Tables, enum_name

Array = NDArray[Any]

_MAX_BYTES = 2 << 30  # flatbuffers' own limit
_INTEGERS = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
_NUMPY_TYPES = {"bool", "float16", "float32", "float64"} | _INTEGERS
_MAX_SCALE = 1e30


@dataclass(frozen=True)
class TfliteTensor:
    """A tensor; `size_bytes` is of its constant data, 0 for what is computed.

    `scales` and `zero_points` are empty unless it is quantised, and of one element a slice along
    `quantized_dimension` where it is quantised per channel.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    constant: bool
    size_bytes: int
    is_dynamic: bool
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    quantized_dimension: int


@dataclass(frozen=True)
class TfliteOperator:
    """An operator: inputs and outputs are indices of tensors, -1 for one that is left out.

    `options` holds the fields of the operator's builtin options, such as `stride_w`, by snake-case name.
    """

    name: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, Any]


@dataclass(frozen=True)
class TfliteFile:
    """The first of `subgraphs` subgraphs of a TensorFlow Lite file, and the file's metadata."""

    operators: tuple[TfliteOperator, ...]
    tensors: tuple[TfliteTensor, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    metadata: dict[str, bytes]
    subgraphs: int
    _constants: tuple[Array | None, ...] = field(repr=False, compare=False, default=())

    def constant(self, index: int) -> Array | None:
        """Return the read-only values of a constant tensor in its shape; None if computed or left out.

        Types that numpy lacks and sparse tensors come as their bytes.
        """
        return self._constants[index] if 0 <= index < len(self._constants) else None


def read_tflite(path: Path) -> TfliteFile:
    """Return what the file at `path` says.

    Raises:
        DataError: it is absent, unreadable, larger than 2 GiB, damaged or no TensorFlow Lite file.
    """
    return parse_tflite(read_model(path), str(path))


def read_model(path: Path) -> bytes:
    """Return the bytes of the file at `path`.

    Raises:
        DataError: it is absent, unreadable, no regular file or larger than 2 GiB.
    """
    try:
        # A pipe or a device would never end.
        if path.exists() and not path.is_file():
            raise DataError(f"{path} is not a file; give a .tflite file")
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(f"{path} is larger than 2 GiB; no TensorFlow Lite file is")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def parse_tflite(data: bytes, name: str) -> TfliteFile:
    """Return what a file of content `data` says; messages call it `name`.

    Raises:
        DataError: it is larger than 2 GiB, damaged or no TensorFlow Lite file.
    """
    if len(data) > _MAX_BYTES:
        raise DataError(f"{name} is larger than 2 GiB; no TensorFlow Lite file is")
    if data[4:8] != b"TFL3":
        raise DataError(f"{name} is not a TensorFlow Lite file; export the network again")
    with damage_is_data_error(name):
        return _file(Tables(data))


@contextmanager
def damage_is_data_error(name: str) -> Iterator[None]:
    """Turn what the flatbuffer accessors raise on a damaged file into one line that names it.

    Raises:
        DataError: the body came upon damage.
    """
    try:
        yield
    except DAMAGE as error:
        raise DataError(f"{name} is damaged ({error}); export the network again") from error


def sound_scales(file: TfliteFile) -> list[str]:
    """Return the tensors whose quantisation scale is not finite, not positive or absurd, in words.

    Such a file aborts the process of the interpreter that loads it, so it must be found before.
    """
    problems = []
    for tensor in file.tensors:
        wrong = [scale for scale in tensor.scales if not 0 < scale <= _MAX_SCALE]
        if wrong:
            problems.append(f"tensor {tensor.name or '(unnamed)'} has a quantisation scale of {wrong[0]:g}")
    return problems


def _file(tables: Tables) -> TfliteFile:
    subgraphs = tables.length(tables.model, "Subgraphs")
    if not subgraphs:
        raise ValueError("it has no subgraph")
    graph = tables.model.Subgraphs(0)
    found = [_tensor(tables, table) for table in tables.tables(graph, "Tensors")]
    codes = [_code(tables, table) for table in tables.tables(tables.model, "OperatorCodes")]
    return TfliteFile(
        operators=tuple(
            _operator(tables, table, codes, len(found)) for table in tables.tables(graph, "Operators")
        ),
        tensors=tuple(tensor for tensor, _ in found),
        inputs=tables.indices(graph, "Inputs", len(found)),
        outputs=tables.indices(graph, "Outputs", len(found)),
        metadata=_metadata(tables),
        subgraphs=subgraphs,
        _constants=tuple(values for _, values in found),
    )


def _code(tables: Tables, code: Any) -> tuple[str, int]:
    # Codes above 127 stand in the newer of the two fields; the older then holds a placeholder.
    name = enum_name("BuiltinOperator", max(code.DeprecatedBuiltinCode(), code.BuiltinCode()))
    return (f"CUSTOM:{tables.text(code.CustomCode())}" if name == "CUSTOM" else name), code.Version()


def _operator(tables: Tables, operator: Any, codes: list[tuple[str, int]], tensors: int) -> TfliteOperator:
    name, version = codes[operator.OpcodeIndex()]
    return TfliteOperator(
        name=name,
        version=version,
        inputs=tables.indices(operator, "Inputs", tensors),
        outputs=tables.indices(operator, "Outputs", tensors),
        options=tables.options(operator),
    )


def _tensor(tables: Tables, tensor: Any) -> tuple[TfliteTensor, Array | None]:
    shape = tables.numbers(tensor, "Shape")
    signature = tables.numbers(tensor, "ShapeSignature")
    quantisation = tensor.Quantization()
    dtype = enum_name("TensorType", tensor.Type()).lower()
    raw = tables.buffer(tensor.Buffer())
    # A constant without elements has no data either.
    constant = bool(raw.size) or (tensor.Buffer() > 0 and 0 in shape)
    described = TfliteTensor(
        name=tables.text(tensor.Name()),
        shape=shape,
        dtype=dtype,
        constant=constant,
        size_bytes=raw.size,
        is_dynamic=min((*shape, *signature), default=0) < 0,
        scales=tables.numbers(quantisation, "Scale") if quantisation else (),
        zero_points=tables.numbers(quantisation, "ZeroPoint") if quantisation else (),
        quantized_dimension=quantisation.QuantizedDimension() if quantisation else 0,
    )
    return described, _values(raw, described, tensor.Sparsity() is not None) if constant else None


def _values(raw: Array, tensor: TfliteTensor, is_sparse: bool) -> Array:
    if is_sparse or tensor.dtype not in _NUMPY_TYPES:
        return raw
    kind = np.dtype(tensor.dtype).newbyteorder("<")
    if raw.size != math.prod(tensor.shape) * kind.itemsize:
        raise ValueError(f"{tensor.dtype} {tensor.name} of shape {list(tensor.shape)} has {raw.size} bytes")
    return raw.view(kind).reshape(tensor.shape)


def _metadata(tables: Tables) -> dict[str, bytes]:
    found = []
    for entry in tables.tables(tables.model, "Metadata"):
        name = entry.Name() or b""
        tables.charge(len(name))
        found.append((name.decode("utf-8", "replace"), tables.buffer(entry.Buffer())))
    # Entries may share a buffer: with a copy for each, a small file would fill the memory.
    if sum(raw.size for _, raw in found) > len(tables.data):
        raise ValueError("its metadata is larger than the file")
    return {name: raw.tobytes() for name, raw in found}
