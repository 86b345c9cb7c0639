"""What the Edge TPU compiler takes of each operator: `RULES`, one small function an operator.

Sources: our own notes on the compiler, and two copies of the vendor's table of supported operations (the
original: coral.ai/docs/edgetpu/models-intro). One is of developer.axis.com (ARTPEC-7, supported ops), read
from ADD to RESIZE_BILINEAR; the other, of 2019 (github.com/dgist-datalab/Datalab_Intern, Edge_TPU), gave the
limits of SOFTMAX, SQUEEZE and STRIDED_SLICE, some of which a later compiler may have lifted. Where experience
and the table disagree, an operator counts as unsupported: TRANSPOSE, PADV2, DIV, STABLEHLO_*, grouped and
dilated depthwise convolutions. Not here, for want of a source: the runtime version an operator needs, the
sizes from which RESHAPE and RESIZE_* stay on the CPU, and limits of RSQRT, SLICE, SPACE_TO_DEPTH, SPLIT,
SQUARED_DIFFERENCE, SUB, SUM (other than REDUCE_MAX's) and TRANSPOSE_CONV, if there are any.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ehdnas.exporters.tflite.file import TfliteFile, TfliteOperator, TfliteTensor

# The compiler's own words, which our reasons begin with.
UNSUPPORTED = "Operation not supported"
LIMITATION = "Operation is otherwise supported, but not mapped"
PARAMETER = "Filter, bias, or other param is not constant at compile-time"

_SOFTMAX_ELEMENTS = 16_000


@dataclass(frozen=True)
class Node:
    """An operator of a file, and the tensors around it; LookupError stands for one that is not there."""

    file: TfliteFile
    operator: TfliteOperator

    def has(self, position: int) -> bool:
        """Return whether there is an input at `position`."""
        return position < len(self.operator.inputs) and self.operator.inputs[position] >= 0

    def input(self, position: int) -> TfliteTensor:
        """Return the input at `position`."""
        if not self.has(position):
            raise LookupError(f"input {position}")
        return self.file.tensors[self.operator.inputs[position]]

    def output(self) -> TfliteTensor:
        """Return the first output."""
        found = [index for index in self.operator.outputs if index >= 0]
        if not found:
            raise LookupError("the output")
        return self.file.tensors[found[0]]

    def integers(self, position: int) -> list[int]:
        """Return the values of the constant input at `position`, in a row."""
        self.input(position)
        values = self.file.constant(self.operator.inputs[position])
        if values is None or values.dtype.kind not in "iu":
            raise LookupError(f"constant {position}")
        return [int(value) for value in values.ravel()]

    def touches_batch(self, axes: list[int]) -> bool:
        """Return whether `axes` of the first input hold its outermost one, which is the batch."""
        rank = len(self.input(0).shape)
        return rank > 1 and any(axis % rank == 0 for axis in axes)


Check = Callable[[Node], str]


def why_not(node: Node) -> str:
    """Return why the compiler does not map the operator, by what it is; "" when it does."""
    try:
        return RULES.get(node.operator.name, _unsupported)(node)
    except LookupError as error:
        return f"{LIMITATION}: {error} is missing"


def _limit(what: str) -> str:
    return f"{LIMITATION}: {what}"


def _unsupported(node: Node) -> str:
    return UNSUPPORTED


def _unlimited(node: Node) -> str:
    return ""


def _unfused(node: Node) -> str:
    activation = node.operator.options.get("fused_activation_function", "NONE")
    return "" if activation == "NONE" else _limit(f"fused activation {activation}")


def _concatenation(node: Node) -> str:
    tensors = node.file.tensors
    constants = [index for index in node.operator.inputs if index >= 0 and tensors[index].constant]
    if not constants or _unfused(node):
        return _unfused(node)
    # A zero, as a real number, is stored as the zero point.
    zeros = [np.all(node.file.constant(index) == (*tensors[index].zero_points, 0)[0]) for index in constants]
    if len(node.operator.inputs) == 2 and len(constants) == 1 and all(zeros):
        return ""
    return _limit("a constant input must be one of two and all zeros")


def _conv(node: Node) -> str:
    if _inner(node.input(0)) != _inner(node.input(1)):
        return f"{UNSUPPORTED}: grouped convolution"
    return "" if _dilation(node)[0] == _dilation(node)[1] else _limit("dilation differs in x and y")


def _depthwise(node: Node) -> str:
    # The vendor's table allows equal dilations; whether they map is unsettled.
    return (
        "" if _dilation(node) == (1, 1) else _limit("a dilated depthwise convolution is not certain to map")
    )


def _dilation(node: Node) -> tuple[int, int]:
    options = node.operator.options
    return options.get("dilation_w_factor", 1), options.get("dilation_h_factor", 1)


def _fully_connected(node: Node) -> str:
    weights_format = node.operator.options.get("weights_format", "DEFAULT")
    if weights_format != "DEFAULT":
        return _limit(f"weights of format {weights_format}")
    return "" if _is_row(node.output()) else _limit("the output has more than one dimension")


def _softmax(node: Node) -> str:
    if not _is_row(node.input(0)):
        return _limit("the input has more than one dimension")
    elements = _inner(node.input(0))
    return "" if elements <= _SOFTMAX_ELEMENTS else _limit(f"more than {_SOFTMAX_ELEMENTS} elements")


def _is_row(tensor: TfliteTensor) -> bool:
    return math.prod(tensor.shape) == _inner(tensor)


def _inner(tensor: TfliteTensor) -> int:
    return (1, *tensor.shape)[-1]


def _reduction(node: Node) -> str:
    return _limit("a reduction over the batch dimension") if node.touches_batch(node.integers(1)) else ""


def _mean(node: Node) -> str:
    rank, z = len(node.input(0).shape) or 1, _inner(node.input(0))
    if z % 4 and any(axis % rank == rank - 1 for axis in node.integers(1)):
        return _reduction(node) or _limit(f"a reduction over z = {z}, which is not a multiple of 4")
    return _reduction(node)


def _pad(node: Node) -> str:
    pads_batch = any(node.integers(1)[:2]) and node.touches_batch([0])
    return _limit("padding of the batch dimension") if pads_batch else ""


def _pack(node: Node) -> str:
    axis = node.operator.options.get("axis", 0) % (len(node.input(0).shape) + 1)
    return "" if axis else _limit("packing in the batch dimension")


def _prelu(node: Node) -> str:
    shape = node.input(1).shape
    return "" if all(size == 1 for size in shape[:-1]) else _limit("alpha has more than one dimension")


def _squeeze(node: Node) -> str:
    sizes = [str(size) for size in node.input(0).shape]
    leading = next((place for place, size in enumerate(sizes) if size != "1"), len(sizes))
    return _limit("only leading dimensions of 1 can go") if "1" in sizes[leading:] else ""


def _strided_slice(node: Node) -> str:
    options = node.operator.options
    if options.get("ellipsis_mask", 0) or options.get("new_axis_mask", 0):
        return _limit("an ellipsis or a new axis")
    return "" if set(node.integers(3)) <= {1} else _limit("a stride other than 1")


def _rule(check: Check = _unlimited, constant: tuple[int, ...] = ()) -> Check:
    """Return `check`, made to ask first that the inputs at the positions `constant` are constants."""

    def checked(node: Node) -> str:
        computed = any(node.has(position) and not node.input(position).constant for position in constant)
        return PARAMETER if computed else check(node)

    return checked


# An operator that is not here does not map.
RULES: dict[str, Check] = {
    "ADD": _rule(),
    "AVERAGE_POOL_2D": _rule(_unfused),
    "CONCATENATION": _rule(_concatenation),
    "CONV_2D": _rule(_conv, constant=(1, 2)),
    "DEPTHWISE_CONV_2D": _rule(_depthwise, constant=(1, 2)),
    "EXPAND_DIMS": _rule(constant=(1,)),
    "FULLY_CONNECTED": _rule(_fully_connected, constant=(1, 2)),
    "L2_NORMALIZATION": _rule(),
    "LOGISTIC": _rule(),
    "MAXIMUM": _rule(),
    "MAX_POOL_2D": _rule(_unfused),
    "MEAN": _rule(_mean, constant=(1,)),
    "MINIMUM": _rule(),
    "MUL": _rule(),
    "PACK": _rule(_pack),
    "PAD": _rule(_pad, constant=(1,)),
    "PRELU": _rule(_prelu, constant=(1,)),
    "QUANTIZE": _rule(),
    "REDUCE_MAX": _rule(_reduction, constant=(1,)),
    "REDUCE_MIN": _rule(_reduction, constant=(1,)),
    "RELU": _rule(),
    "RELU6": _rule(),
    "RELU_N1_TO_1": _rule(),
    "RESHAPE": _rule(constant=(1,)),
    "RESIZE_BILINEAR": _rule(constant=(1,)),
    "RESIZE_NEAREST_NEIGHBOR": _rule(constant=(1,)),
    "RSQRT": _rule(),
    "SLICE": _rule(constant=(1, 2)),
    "SOFTMAX": _rule(_softmax),
    "SPACE_TO_DEPTH": _rule(),
    "SPLIT": _rule(constant=(0,)),
    "SQUARED_DIFFERENCE": _rule(),
    "SQUEEZE": _rule(_squeeze),
    "STRIDED_SLICE": _rule(_strided_slice, constant=(1, 2, 3)),
    "SUB": _rule(),
    "SUM": _rule(_reduction, constant=(1,)),
    "TANH": _rule(),
    "TRANSPOSE_CONV": _rule(constant=(0, 1, 3)),
}
