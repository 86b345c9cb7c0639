"""An ONNX file as nodes and shapes: parsed, checked and shape-inferred, its weights never looked at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ehdnas.core.errors import DataError
from ehdnas.core.graph.onnx_shapes import check_sizes, first_line, fix_batch, infer, printable

# What protobuf itself can hold, and far more operators than any network has.
MAX_BYTES = 2**31 - 1
MAX_NODES = 100_000
# Shapes, axes and scales are smaller; weights are not needed, and are dropped if they are not.
_KEPT_BYTES = 4096


@dataclass(frozen=True)
class OnnxFile:
    """A model's nodes that its outputs need, in order; a shape has None where a size is not fixed.

    `constants` holds initialisers as TensorProtos, with data only where they are small.
    """

    nodes: list[Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: dict[str, Any]
    shapes: dict[str, tuple[int | None, ...]]
    types: dict[str, int]


def read_onnx(path: Path) -> OnnxFile:
    """Return what the ONNX file at `path` says, for a batch of one, with every shape that can be inferred.

    Raises:
        DataError: the file is absent, damaged or not an ONNX model, a tensor is never made, is made twice
            or is absurdly large, or an input has a size that is not fixed.
    """
    try:
        model = _parse(path)
        return _checked(model)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise DataError(f"{path}: damaged ONNX model: {first_line(error)}; export it again") from error


def _parse(path: Path) -> Any:
    import onnx

    content = _content(path)
    try:
        model = onnx.ModelProto.FromString(content)
    except Exception as error:  # protobuf's DecodeError, which has no stub to import it by
        raise DataError("not an ONNX model, or cut short; export it again") from error
    if not model.graph.node or not model.graph.output:
        raise DataError("not an ONNX model: it has no operators or no outputs; export it again")
    if len(model.graph.node) > MAX_NODES:
        raise DataError(f"{len(model.graph.node)} operators are more than the {MAX_NODES} that are read")
    if model.functions:
        name = printable(model.functions[0].name)
        raise DataError(f"local functions, such as '{name}', are not read; inline them with onnx.inliner")
    return model


def _content(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise DataError(
                f"{size} bytes are more than an ONNX file can have; put the weights in another file"
            )
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}; give an ONNX file") from error


def _checked(model: Any) -> OnnxFile:
    graph = model.graph
    _check_text(graph)
    constants = {tensor.name: tensor for tensor in _constants(graph)}
    inputs = [value for value in graph.input if value.name not in constants]
    for value in inputs:
        fix_batch(value)
    nodes = [node for node in graph.node if not _is_constant(node)]
    outputs = tuple(value.name for value in graph.output)
    _check_order(nodes, [*constants, *(value.name for value in inputs)], outputs)
    shapes, types = infer(model, nodes, inputs, constants)
    live = _live(nodes, outputs)
    return OnnxFile(live, tuple(value.name for value in inputs), outputs, constants, shapes, types)


def _constants(graph: Any) -> Iterator[Any]:
    """Yield every initialiser and constant node as a tensor; those that are not small lose their data."""
    for tensor in graph.initializer:
        yield _bare(tensor, tensor.name)
    for sparse in graph.sparse_initializer:
        yield _bare(sparse.values, sparse.values.name, sparse.dims)
    for node in graph.node:
        if _is_constant(node):
            yield _bare(node.attribute[0].t, node.output[0])


def _is_constant(node: Any) -> bool:
    return (
        node.op_type == "Constant"
        and len(node.output) == 1
        and len(node.attribute) == 1
        and node.attribute[0].name == "value"
    )


def _bare(tensor: Any, name: str, dims: Iterable[int] | None = None) -> Any:
    import onnx

    sizes = tuple(tensor.dims if dims is None else dims)
    check_sizes(name, sizes)
    bare = onnx.TensorProto(name=name, dims=sizes, data_type=tensor.data_type)
    external = tensor.data_location == onnx.TensorProto.EXTERNAL
    if dims is None and not external and tensor.ByteSize() <= _KEPT_BYTES:
        bare.CopyFrom(tensor)
        bare.name = name
    return bare


def _check_text(graph: Any) -> None:
    """Refuse names that are not UTF-8, which protobuf hands out as bytes."""
    values = (*graph.initializer, *graph.input, *graph.output, *graph.node)
    names = [value.name for value in values]
    for node in graph.node:
        names += [node.op_type, node.domain, *node.input, *node.output]
        names += [attribute.name for attribute in node.attribute]
    if not all(isinstance(name, str) for name in names):
        raise DataError("damaged ONNX model: a name in it is not text; export it again")


def _check_order(nodes: list[Any], known: list[str], outputs: Iterable[str]) -> None:
    made = {"", *known}
    for node in nodes:
        _check_made(node.input, made, f"'{printable(node.name or node.op_type)}' reads")
        for name in filter(None, node.output):
            if name in made:
                raise DataError(f"tensor '{printable(name)}' is made twice; export it again")
            made.add(name)
    _check_made(outputs, made, "the model returns")


def _check_made(names: Iterable[str], made: set[str], by: str) -> None:
    for name in names:
        if name not in made:
            raise DataError(
                f"{by} '{printable(name)}', which no operator before it makes: "
                "a missing weight, or a cycle; export it again"
            )


def _live(nodes: list[Any], outputs: Iterable[str]) -> list[Any]:
    needed, kept = set(outputs), []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    return kept[::-1]
