"""How each ATen operator becomes rows of a layer table. A new one is one more name or handler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ehdnas.core.graph.aten_names import ELEMENTWISE, FREE
from ehdnas.core.graph.rows import (
    NO_PADS,
    Operand,
    Pads,
    Pair,
    Shape,
    Unmodelled,
    adaptive_pool,
    attention,
    elementwise,
    global_pool,
    pool,
    product,
    resized,
    windowed,
)
from ehdnas.core.layers import Layer

Handler = Callable[..., list[Layer]]
Ints = int | list[int]

HANDLERS: dict[str, Handler] = {}


def rows(operator: str, out: Shape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Layer]:
    """Return the unnamed rows of one call that makes `out`; tensors among its arguments are `Operand`s.

    Raises:
        Unmodelled: no row describes the call.
    """
    if operator in FREE:
        return []
    if operator in ELEMENTWISE:
        return [elementwise(ELEMENTWISE[operator], out)]
    if operator not in HANDLERS:
        raise Unmodelled
    try:
        return HANDLERS[operator](out, *args, **kwargs)
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        # An overload that the handler was not written for.
        raise Unmodelled from error


def zeros_around(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Pads:
    """Return the zeros that a padding operator puts around height and width; none for any other padding."""
    found: list[Any] = [*args[1:], *kwargs.values()]
    sizes, rest = list(found[0]), [value for value in found[1:] if value not in ("constant", None)]
    if any(rest) or min(sizes, default=0) < 0 or any(sizes[4:]):
        return NO_PADS
    left, right, top, bottom = (*sizes, 0, 0)[:4]
    return (top, bottom), (left, right)


def _handles(*names: str) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return register


def _pair(value: Ints) -> Pair:
    sizes = [value] if isinstance(value, int) else list(value)
    return sizes[0], sizes[-1]


def _even(padding: Ints) -> Pads:
    high, wide = _pair(padding)
    return (high, high), (wide, wide)


@_handles("conv2d")
def _conv(
    out: Shape,
    x: Operand,
    weight: Operand,
    bias: Operand | None = None,
    stride: Ints = 1,
    padding: Ints | str = 0,
    dilation: Ints = 1,
    groups: int = 1,
) -> list[Layer]:
    kernel, spread = _pair(list(weight.shape[2:])), _pair(dilation)
    if isinstance(padding, str):
        # "same" puts the odd one of its zeros behind.
        total = [step * (size - 1) * (padding == "same") for step, size in zip(spread, kernel, strict=True)]
        top, left = (size // 2 for size in total)
        pads = (top, total[0] - top), (left, total[1] - left)
    else:
        pads = _even(padding)
    return [windowed("conv", x, out, kernel, _pair(stride), pads, spread, groups)]


@_handles("conv_transpose2d")
def _conv_transpose(
    out: Shape,
    x: Operand,
    weight: Operand,
    bias: Operand | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
) -> list[Layer]:
    kernel = _pair(list(weight.shape[2:]))
    row = windowed("conv_transpose", x, out, kernel, _pair(stride), _even(padding), _pair(dilation), groups)
    return [row]


@_handles("linear")
def _linear(out: Shape, x: Operand, weight: Operand, bias: Operand | None = None) -> list[Layer]:
    return [product(x, Operand(weight.shape[::-1], weight.constant))]


@_handles("matmul", "mm", "bmm")
def _matmul(out: Shape, x: Operand, y: Operand) -> list[Layer]:
    return [product(x, y)]


@_handles("addmm", "baddbmm")
def _addmm(out: Shape, bias: Operand, x: Operand, y: Operand, **_: float) -> list[Layer]:
    return [product(x, y)] if bias.constant else [product(x, y), elementwise("add", out)]


@_handles("scaled_dot_product_attention")
def _attention(
    out: Shape, query: Operand, key: Operand, value: Operand, mask: Operand | None = None, *_: Any, **__: Any
) -> list[Layer]:
    return attention(query, key, value)


@_handles("max_pool2d", "max_pool2d_with_indices")
def _max_pool(
    out: Shape,
    x: Operand,
    kernel: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
) -> list[Layer]:
    step = _pair(stride or kernel)
    return pool("max_pool", x, out, _pair(kernel), step, _even(padding), _pair(dilation))


@_handles("avg_pool2d")
def _avg_pool(
    out: Shape, x: Operand, kernel: Ints, stride: Ints | None = None, padding: Ints = 0, *_: Any, **__: Any
) -> list[Layer]:
    return pool("avg_pool", x, out, _pair(kernel), _pair(stride or kernel), _even(padding))


@_handles("adaptive_avg_pool2d")
def _adaptive_avg_pool(out: Shape, x: Operand, size: list[int]) -> list[Layer]:
    return adaptive_pool("avg_pool", x, out)


@_handles("adaptive_max_pool2d")
def _adaptive_max_pool(out: Shape, x: Operand, size: list[int]) -> list[Layer]:
    return adaptive_pool("max_pool", x, out)


@_handles("mean")
def _mean(out: Shape, x: Operand, dims: list[int] | None = None, keepdim: bool = False) -> list[Layer]:
    rank = len(x.shape)
    if {dim % rank for dim in dims or []} != {4: {2, 3}, 3: {1}}.get(rank):
        raise Unmodelled
    return [global_pool(x.shape)]


@_handles("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d", "_upsample_nearest_exact2d")
def _upsample(out: Shape, x: Operand, *_: Any, **__: Any) -> list[Layer]:
    return [resized(x, out)]
