"""The shapes of an ONNX model's tensors, inferred and checked."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Any

from ehdnas.core.errors import DataError
from ehdnas.core.graph.rows import Shape

# Far more than any network that an accelerator is built for.
MAX_RANK = 8
MAX_ELEMENTS = 2**36


def printable(name: str) -> str:
    """Return a name out of a file as it may be shown: no control characters, no great length."""
    kept = "".join(character if character.isprintable() else "?" for character in name)
    return kept if len(kept) <= 100 else f"{kept[:97]}..."


def fix_batch(value: Any) -> None:
    """Make an input's batch 1 where it is not fixed.

    Raises:
        DataError: another size is not fixed, or the batch is another; names the input.
    """
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        raise DataError(f"input '{printable(value.name)}' has no shape; export with a fixed input shape")
    for axis, dim in enumerate(kind.shape.dim):
        if axis == 0 and dim.dim_value <= 0:
            dim.dim_value = 1
        if dim.dim_value <= 0:
            raise _not_fixed(value.name)
    sizes = [dim.dim_value for dim in kind.shape.dim]
    if len(sizes) == 4 and sizes[0] != 1:
        name = printable(value.name)
        raise DataError(f"input '{name}' has a batch of {sizes[0]}; export for one image, or for any number")
    check_sizes(value.name, sizes)


def _not_fixed(name: str) -> DataError:
    return DataError(
        f"tensor '{printable(name)}' has a size that is not fixed, other than the batch; "
        "export with a fixed input shape"
    )


def check_sizes(name: str, sizes: Iterable[int]) -> None:
    """Raise a DataError that names the tensor if no network has one of these sizes."""
    dims = tuple(sizes)
    if len(dims) > MAX_RANK or min(dims, default=1) < 0 or prod(dims) > MAX_ELEMENTS:
        shown = dims[:MAX_RANK]
        raise DataError(f"tensor '{printable(name)}' of shape {shown} cannot be right; export it again")


def infer(
    model: Any, nodes: list[Any], inputs: list[Any], constants: dict[str, Any]
) -> tuple[dict[str, tuple[int | None, ...]], dict[str, int]]:
    """Return the shapes and TensorProto.DataTypes of all tensors, by name, as ONNX's own inference has them.

    Raises:
        DataError: it finds that the model contradicts itself.
    """
    import onnx

    plain = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    # What the file claims about its own shapes is left out: nothing then hangs on it.
    outputs = [onnx.ValueInfoProto(name=value.name) for value in model.graph.output]
    plain.graph.CopyFrom(
        onnx.GraphProto(name="g", node=nodes, input=inputs, output=outputs, initializer=constants.values())
    )
    try:
        result = onnx.shape_inference.infer_shapes(plain, check_type=True, strict_mode=True, data_prop=True)
    except Exception as error:  # onnx raises bare RuntimeErrors too
        raise DataError(f"ONNX cannot infer its shapes: {first_line(error)}; export it again") from error
    found = (*inputs, *result.graph.value_info, *result.graph.output)
    values = {value.name: value.type.tensor_type for value in found}
    shapes = {name: _shape(kind) for name, kind in values.items() if kind.HasField("shape")}
    shapes.update((name, tuple(tensor.dims)) for name, tensor in constants.items())
    for name, shape in shapes.items():
        check_sizes(name, [size or 0 for size in shape])
    types = {name: kind.elem_type for name, kind in values.items()}
    return shapes, {**types, **{name: tensor.data_type for name, tensor in constants.items()}}


def _shape(kind: Any) -> tuple[int | None, ...]:
    return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim)


def fixed(name: str, shape: tuple[int | None, ...]) -> Shape:
    """Return `shape` if every size in it is fixed.

    Raises:
        DataError: one is not; names the tensor.
    """
    sizes = tuple(size for size in shape if size is not None)
    if len(sizes) < len(shape):
        raise _not_fixed(name)
    return sizes


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, as it may be shown."""
    lines = [line for line in str(error).strip().split("\n") if line.strip()]
    return printable(lines[0]) if lines else type(error).__name__
