"""The layer table of an ONNX file."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from ehdnas.core.errors import DataError
from ehdnas.core.graph.onnx_file import OnnxFile, read_onnx
from ehdnas.core.graph.onnx_names import FACTOR, FREE, IDENTITIES
from ehdnas.core.graph.onnx_rows import Call, rows, zeros_around
from ehdnas.core.graph.onnx_shapes import fixed, printable
from ehdnas.core.graph.rows import NO_PADS, Folding, Operand, Pads, Shape, Unmodelled, elementwise
from ehdnas.core.layers import WEIGHTED, Layer, LayerTable


def read_onnx_table(path: Path) -> LayerTable:
    """Return what the network in an ONNX file computes for one image, without running it.

    Rows are named by node, or by what an unnamed node makes. Shapes come from ONNX's own inference. Weights'
    sizes are read from their headers, and their data is not looked at; files with external data are never
    opened, wherever their paths point. A batch that is not fixed is taken as 1. Reshapes and the like,
    slices, zero padding and quantisation are free, and so is a batch norm that folds into a layer before
    it; a layer that reads dequantised values alone has their `bits`. Uneven padding is read as
    `Layer.padding` says. Subgraphs (If, Loop, Scan) and operators of other domains are `unsupported`.

    Raises:
        DataError: the file is absent, damaged or not an ONNX model, uses local functions, or has a size
            that is not fixed, other than the batch; one line, which names the file.
    """
    model = read_onnx(path)
    try:
        return _Reader(model).table()
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except (ValueError, IndexError, OverflowError) as error:
        raise DataError(f"{path}: damaged ONNX model: {printable(str(error))}; export it again") from error


class _Unshaped(Exception):  # noqa: N818 - an unsupported operator's result, whose readers cannot have rows
    pass


class _Reader:
    """One pass over the nodes. What does not depend on an input is a constant, and makes no row."""

    def __init__(self, model: OnnxFile) -> None:
        self._model = model
        read = Counter(name for node in model.nodes for name in node.input)
        self._folding = Folding(read + Counter(model.outputs))
        self._computed = set(model.inputs)
        self._unshaped: set[str] = set()
        self._pads: dict[str, Pads] = {}
        self._bits: dict[str, int] = {}
        self._layers: list[Layer] = []
        self._unsupported: list[tuple[str, str]] = []

    def table(self) -> LayerTable:
        for node in self._model.nodes:
            self._pass_bits(node)
            # A shape is a constant, whatever it is the shape of.
            if self._computed.intersection(node.input) and node.op_type not in ("Shape", "Size"):
                self._computed.update(filter(None, node.output))
                self._visit(node)
        return LayerTable(tuple(self._layers), tuple(self._unsupported))

    def _visit(self, node: Any) -> None:
        name = printable(node.name or node.output[0])
        operator = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        try:
            found = self._rows(node, operator)
        except (Unmodelled, _Unshaped):
            self._unsupported.append((printable(operator), name))
            self._unshaped.update(set(node.output) - set(self._model.shapes))
            return
        bits = self._bits_of(node)
        self._layers += [replace(row, name=name, bits=bits or row.bits) for row in found]

    def _rows(self, node: Any, operator: str) -> list[Layer]:
        source, made = node.input[0], node.output[0]
        if operator in IDENTITIES:
            self._pads[made] = self._pads.get(source, NO_PADS)
            self._folding.passed(made, [source])
            return []
        if operator == "BatchNormalization":
            free = self._folding.folds(source)
            self._folding.made(made)
            return [] if free else [elementwise("mul", self._shape(made))]
        call = self._call(node, operator)
        found = rows(call)
        if operator == "Pad":
            self._pads[made] = zeros_around(call)
        elif operator == "Concat":
            self._folding.passed(made, node.input)
        elif any(row.operator in WEIGHTED for row in found):
            self._folding.made(made)
        return found

    def _call(self, node: Any, operator: str) -> Call:
        from onnx.helper import get_attribute_value

        return Call(
            operator,
            [self._operand(name) if name else None for name in node.input],
            [self._ints(name) for name in node.input],
            self._shape(node.output[0]),
            {attribute.name: get_attribute_value(attribute) for attribute in node.attribute},
        )

    def _operand(self, name: str) -> Operand:
        return Operand(self._shape(name), name not in self._computed, self._pads.get(name, NO_PADS))

    def _shape(self, name: str) -> Shape:
        if name in self._unshaped:
            raise _Unshaped
        shape = self._model.shapes.get(name)
        if shape is None:
            raise DataError(f"tensor '{printable(name)}' has no shape that can be inferred; export it again")
        sizes = fixed(name, shape)
        if name in self._computed and 0 in sizes:
            raise DataError(f"tensor '{printable(name)}' of shape {sizes} is empty; export it again")
        return sizes

    def _ints(self, name: str) -> list[int] | None:
        from onnx import TensorProto
        from onnx.numpy_helper import to_array

        tensor = self._model.constants.get(name)
        if tensor is None or tensor.data_type not in (TensorProto.INT32, TensorProto.INT64):
            return None
        try:
            return [int(value) for value in to_array(tensor).ravel()]
        except ValueError:  # its data was not kept
            return None

    def _pass_bits(self, node: Any) -> None:
        if node.op_type == "DequantizeLinear":
            self._note_bits(node.output[0], [node.input[0]])
        elif node.op_type in FREE | IDENTITIES and node.op_type != "QuantizeLinear":
            bits = self._bits.get(node.input[0])
            self._bits.update({node.output[0]: bits} if bits else {})

    def _note_bits(self, made: str, sources: list[str]) -> None:
        widths = [_WIDTHS.get(self._model.types.get(name, 0)) for name in sources]
        known = [width for width in widths if width is not None]
        if known and len(known) == len(widths):
            self._bits[made] = max(known)

    def _bits_of(self, node: Any) -> int | None:
        """Return the bits of the values that a node works on, where all of them are quantised."""
        last = FACTOR.get(node.op_type)
        sources = [name for name in node.input if name in self._computed]
        if last is not None:
            sources = [node.input[0], node.input[last]]
            if node.op_type.startswith("QLinear") or node.op_type.endswith("Integer"):
                self._note_bits(node.output[0], sources)
                return self._bits.pop(node.output[0], None)
        widths = [self._bits.get(name) for name in sources]
        known = [width for width in widths if width is not None]
        if not known or len(known) < len(widths):
            return None
        return max(known)


# Bits of ONNX's integer types, by TensorProto.DataType: u8, i8, u16, i16, u4, i4, u2, i2.
_WIDTHS = {2: 8, 3: 8, 4: 16, 5: 16, 21: 4, 22: 4, 25: 2, 26: 2}
