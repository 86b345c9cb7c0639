"""Rows of a layer table from shapes alone: what the torch and the ONNX readers share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod

from ehdnas.core.layers import Layer

Shape = tuple[int, ...]
Pair = tuple[int, int]
# Zeros (before, after) along height and width.
Pads = tuple[Pair, Pair]
NO_PADS: Pads = ((0, 0), (0, 0))


class Unmodelled(Exception):  # noqa: N818 - the readers gather these; a table never raises one
    """No row describes an operator with these operands."""


@dataclass(frozen=True)
class Operand:
    """A tensor that an operator reads.

    `constant` says that it does not depend on the image. `pads` are zeros that a padding operator has put
    around it: `shape` includes them, and a convolution or pooling counts them as its own padding.
    """

    shape: Shape
    constant: bool = False
    pads: Pads = NO_PADS


def windowed(
    operator: str,
    x: Operand,
    out: Shape,
    kernel: Pair,
    stride: Pair = (1, 1),
    pads: Pads = NO_PADS,
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Layer:
    """Return the row of a convolution or pooling of `x` (1, C, H, W) that makes `out` (1, C', H', W').

    Raises:
        Unmodelled: the shapes are not those of one image, or the window is none.
    """
    if min(*kernel, *stride, *dilation, groups) < 1 or min(*pads[0], *pads[1]) < 0:
        raise Unmodelled
    _, cin, high, wide = _image(x.shape)
    _, cout, *size = _image(out)
    (top, bottom), (left, right) = x.pads
    own = [begin + end for begin, end in pads]
    row = Layer(
        name="",
        operator=operator,
        cin=cin,
        cout=cout,
        h=high - top - bottom,
        w=wide - left - right,
        kernel=kernel,
        stride=stride,
        padding=((own[0] + top + bottom + 1) // 2, (own[1] + left + right + 1) // 2),
        dilation=dilation,
        groups=groups,
    )
    settled = operator != "conv_transpose" and [row.h_out, row.w_out] == size
    return row if settled else replace(row, out_size=(size[0], size[1]))


def pool(
    operator: str,
    x: Operand,
    out: Shape,
    kernel: Pair,
    stride: Pair,
    pads: Pads = NO_PADS,
    dilation: Pair = (1, 1),
) -> list[Layer]:
    """Return the rows of a pooling: none for windows of one pixel, and `global_pool` for a mean of all."""
    if x.shape == out and kernel == (1, 1):
        return []
    if operator == "avg_pool" and kernel == x.shape[2:] and (pads, x.pads) == (NO_PADS, NO_PADS):
        return [global_pool(x.shape)]
    return [windowed(operator, x, out, kernel, stride, pads, dilation)]


def resized(x: Operand, out: Shape) -> Layer:
    """Return the row of an upsampling or downsampling by interpolation."""
    return replace(windowed("upsample", x, out, (1, 1)), out_size=(out[2], out[3]))


def global_pool(shape: Shape) -> Layer:
    """Return the row of a mean over height and width, or over the tokens of (1, tokens, channels)."""
    channels, high, wide = (shape[2], shape[1], 1) if len(shape) == 3 else _image(shape)[1:]
    return Layer("", "global_pool", channels, channels, high, wide, (high, wide))


def adaptive_pool(operator: str, x: Operand, out: Shape) -> list[Layer]:
    """Return the rows of a pooling to a given size: windows of the largest size that they can have."""
    size, target = _image(x.shape)[2:], _image(out)[2:]
    if size == target:
        return []
    if target == (1, 1) and operator == "avg_pool":
        return [global_pool(x.shape)]
    strides = [max(have // want, 1) for have, want in zip(size, target, strict=True)]
    kernels = [
        max(have - (want - 1) * step, 1) for have, want, step in zip(size, target, strides, strict=True)
    ]
    return [windowed(operator, x, out, (kernels[0], kernels[1]), (strides[0], strides[1]))]


def elementwise(operator: str, out: Shape) -> Layer:
    """Return the row of an operator that works element by element and makes `out`."""
    channels, high, wide = _volume(out)
    return Layer("", operator, channels, channels, high, wide)


def linear(rows: int, cin: int, cout: int) -> Layer:
    """Return the row of `rows` vectors times one constant matrix (cin, cout)."""
    return Layer("", "linear", cin, cout, rows, 1)


def product(a: Operand, b: Operand) -> Layer:
    """Return the row of a matrix product (..., m, k) x (..., k, n); `linear` where one side is one constant.

    Raises:
        Unmodelled: a side is a vector.
    """
    if min(len(a.shape), len(b.shape)) < 2:
        raise Unmodelled
    *lead, m, k = a.shape
    n = b.shape[-1]
    if b.constant and prod(b.shape[:-2]) == 1:
        return linear(prod(lead) * m, k, n)
    if a.constant and prod(lead) == 1:
        return linear(prod(b.shape[:-2]) * n, k, m)
    batch = max(prod(lead), prod(b.shape[:-2]))
    return Layer("", "matmul", batch * k, batch * n, m, 1, groups=batch)


def attention(query: Operand, key: Operand, value: Operand) -> list[Layer]:
    """Return the rows of softmax(q k') v for (..., tokens, channels): two products and a softmax."""
    scores = (*query.shape[:-1], key.shape[-2])
    turned = Operand((*key.shape[:-2], key.shape[-1], key.shape[-2]))
    return [product(query, turned), elementwise("softmax", scores), product(Operand(scores), value)]


class Folding:
    """Which batch norms cost nothing, because they fold into the convolution or matrix product before them.

    The rule is that of `fold_batch_norm`: the weighted layer's output is read by nothing else, and a concat
    passes the norm on to all that it joins. `uses` says how often each value is read.
    """

    def __init__(self, uses: Mapping[str, int]) -> None:
        self._uses = uses
        self._open: set[str] = set()

    def folds(self, value: str) -> bool:
        """Return whether a batch norm of `value` folds into what made it."""
        return value in self._open and self._uses[value] == 1

    def made(self, value: str) -> None:
        """Note that a weighted layer, or a batch norm (two in a row are one), makes `value`."""
        self._open.add(value)

    def passed(self, value: str, sources: Iterable[str]) -> None:
        """Note that a concat or an identity makes `value` of `sources`."""
        if all(self.folds(source) for source in sources):
            self._open.add(value)


def _image(shape: Shape) -> tuple[int, int, int, int]:
    if len(shape) != 4 or shape[0] != 1:
        raise Unmodelled
    return shape[0], shape[1], shape[2], shape[3]


def _volume(shape: Shape) -> tuple[int, int, int]:
    """Return (channels, height, width) with as many elements as `shape` has."""
    if len(shape) == 4:
        return shape[1], shape[0] * shape[2], shape[3]
    return (shape[-1], prod(shape[:-1]), 1) if shape else (1, 1, 1)
