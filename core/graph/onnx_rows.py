"""How each ONNX operator becomes rows of a layer table. A new one is one more name or handler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ehdnas.core.graph.onnx_names import ELEMENTWISE, FACTOR, FREE
from ehdnas.core.graph.rows import (
    NO_PADS,
    Operand,
    Pads,
    Pair,
    Shape,
    Unmodelled,
    elementwise,
    global_pool,
    pool,
    product,
    resized,
    windowed,
)
from ehdnas.core.layers import Layer


@dataclass(frozen=True)
class Call:
    """One ONNX node: what it reads (None where left out), the shape it makes, and its attributes.

    `ints` are the values of its constant integer inputs, None where they are not known.
    """

    operator: str
    operands: Sequence[Operand | None]
    ints: Sequence[list[int] | None]
    out: Shape
    attributes: dict[str, Any]

    def operand(self, index: int = 0) -> Operand:
        """Return an operand that the operator cannot do without."""
        found = self.operands[index] if index < len(self.operands) else None
        if found is None:
            raise Unmodelled
        return found

    def pair(self, name: str, default: Sequence[int] = (1, 1)) -> Pair:
        """Return an attribute of two dimensions."""
        value = list(self.attributes.get(name) or default)
        if len(value) != 2:
            raise Unmodelled
        return value[0], value[1]

    def listed(self, name: str, index: int) -> list[int] | None:
        """Return integers that older operator sets have as an attribute, and newer ones as an input."""
        if name in self.attributes:
            return list(self.attributes[name])
        return self.ints[index] if index < len(self.ints) else None


def rows(call: Call) -> list[Layer]:
    """Return the unnamed rows of a call.

    Raises:
        Unmodelled: no row describes it.
    """
    if call.operator in FREE:
        return []
    if call.operator in ELEMENTWISE:
        return [elementwise(ELEMENTWISE[call.operator], call.out)]
    if call.operator not in HANDLERS:
        raise Unmodelled
    try:
        return HANDLERS[call.operator](call)
    except (TypeError, ValueError, IndexError) as error:
        raise Unmodelled from error


def zeros_around(call: Call) -> Pads:
    """Return the zeros that a `Pad` puts around height and width; none for any other padding."""
    sizes = call.listed("pads", 1)
    plain = call.attributes.get("mode", b"constant") == b"constant" and not call.attributes.get("value")
    if not plain or len(call.operands) > 2 or sizes is None or len(sizes) != 8:
        return NO_PADS
    if min(sizes) < 0 or any(sizes[index] for index in (0, 1, 4, 5)):
        return NO_PADS
    return (sizes[2], sizes[6]), (sizes[3], sizes[7])


def _pads(call: Call, x: Operand, kernel: Pair, stride: Pair, dilation: Pair) -> Pads:
    """Return the zeros on each side; `SAME_UPPER` has the odd one behind, `SAME_LOWER` in front."""
    auto = call.attributes.get("auto_pad", b"NOTSET")
    if auto == b"NOTSET":
        top, left, bottom, right = call.attributes.get("pads") or (0, 0, 0, 0)
        return (top, bottom), (left, right)
    if auto == b"VALID":
        return NO_PADS
    sides = []
    for axis in (0, 1):
        reach = (call.out[2 + axis] - 1) * stride[axis] + (kernel[axis] - 1) * dilation[axis] + 1
        total = max(reach - x.shape[2 + axis], 0)
        less = total // 2
        sides.append((less, total - less) if auto == b"SAME_UPPER" else (total - less, less))
    return sides[0], sides[1]


def _conv(call: Call) -> list[Layer]:
    x, weight = call.operand(), call.operand(FACTOR[call.operator])
    # The weight decides, not `kernel_shape`, which must agree with it and may be left out.
    high, wide = weight.shape[2:]
    kernel = high, wide
    stride, dilation = call.pair("strides"), call.pair("dilations")
    pads = _pads(call, x, kernel, stride, dilation)
    groups = call.attributes.get("group", 1)
    operator = "conv_transpose" if call.operator == "ConvTranspose" else "conv"
    inward = weight.shape[0] if operator == "conv_transpose" else weight.shape[1] * groups
    if inward != x.shape[1]:
        raise Unmodelled
    return [windowed(operator, x, call.out, kernel, stride, pads, dilation, groups)]


def _pool(call: Call) -> list[Layer]:
    x, kernel = call.operand(), call.pair("kernel_shape", ())
    stride, dilation = call.pair("strides"), call.pair("dilations")
    operator = "max_pool" if call.operator == "MaxPool" else "avg_pool"
    pads = _pads(call, x, kernel, stride, dilation)
    return pool(operator, x, call.out, kernel, stride, pads, dilation)


def _global_average(call: Call) -> list[Layer]:
    return [global_pool(call.operand().shape)]


def _global_max(call: Call) -> list[Layer]:
    shape = call.operand().shape
    high, wide = shape[2:]
    return [windowed("max_pool", call.operand(), call.out, (high, wide))]


def _reduce_mean(call: Call) -> list[Layer]:
    rank = len(call.operand().shape)
    axes = {axis % rank for axis in call.listed("axes", 1) or []}
    if axes != {4: {2, 3}, 3: {1}}.get(rank):
        raise Unmodelled
    return _global_average(call)


def _gemm(call: Call) -> list[Layer]:
    a, b = call.operand(), call.operand(1)
    turned = [
        Operand(side.shape[::-1], side.constant) if call.attributes.get(key) else side
        for key, side in (("transA", a), ("transB", b))
    ]
    bias = call.operands[2] if len(call.operands) > 2 else None
    added = [] if bias is None or bias.constant else [elementwise("add", call.out)]
    return [product(*turned), *added]


def _matmul(call: Call) -> list[Layer]:
    return [product(call.operand(), call.operand(FACTOR[call.operator]))]


def _resize(call: Call) -> list[Layer]:
    return [resized(call.operand(), call.out)]


HANDLERS: dict[str, Callable[[Call], list[Layer]]] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "ConvInteger", "QLinearConv"), _conv),
    **dict.fromkeys(("MaxPool", "AveragePool"), _pool),
    **dict.fromkeys(("MatMul", "MatMulInteger", "QLinearMatMul"), _matmul),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    "GlobalAveragePool": _global_average,
    "GlobalMaxPool": _global_max,
    "ReduceMean": _reduce_mean,
    "Gemm": _gemm,
}
