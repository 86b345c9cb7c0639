"""The layer table: what a network computes, one row an operator, with no weights and no framework."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod

WEIGHTED = frozenset({"conv", "conv_transpose", "linear"})


@dataclass(frozen=True)
class Layer:
    """One operator of a network, for a batch of one image.

    `h` and `w` are the height and width of its *input*. `padding` is that of each side; where the sides
    differ it is half of both together, rounded up. `out_size` is given where the window does not settle
    the output's height and width. `operator` is one of:

    | operator | what | sizes |
    |---|---|---|
    | `conv` | convolution, grouped and depthwise ones included | |
    | `conv_transpose` | transposed convolution | `out_size` always given |
    | `linear` | matrix product with a constant | h: rows, 1 for a vector |
    | `matmul` | b products (m, k) x (k, n) of computed values | cin bk, cout bn, groups b, h m |
    | `max_pool`, `avg_pool` | pooling; uneven adaptive windows by the largest | |
    | `global_pool` | mean over height and width, or over tokens | kernel: all of the input |
    | `upsample` | nearest, bilinear or bicubic resizing | `out_size` always given |
    | `relu` | ReLU, ReLU6 and every other clamp | |
    | `activation` | any other function of single elements: sigmoid, hardswish, GELU, exp, ... | |
    | `add` | add, subtract, minimum or maximum, by elements or with a constant | |
    | `mul` | multiply or divide, by elements or with a constant; a batch norm of its own | |
    | `norm` | layer, group, instance or local response norm: statistics of the image itself | |
    | `softmax` | softmax and its logarithm | |
    | `concat` | concatenation | |

    Vectors and tokens, which have no height and width, have their last dimension as channels and the
    rows of all others as `h`. An operator on several values is described by the one it makes.
    """

    name: str
    operator: str
    cin: int
    cout: int
    h: int
    w: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    bits: int = 16
    out_size: tuple[int, int] | None = None

    @property
    def h_out(self) -> int:
        """Height of the output."""
        if self.out_size is not None:
            return self.out_size[0]
        return _size(self.h, self.kernel[0], self.stride[0], self.padding[0], self.dilation[0])

    @property
    def w_out(self) -> int:
        """Width of the output."""
        if self.out_size is not None:
            return self.out_size[1]
        return _size(self.w, self.kernel[1], self.stride[1], self.padding[1], self.dilation[1])

    @property
    def macs(self) -> int:
        """Multiply-accumulates, groups respected; 0 for anything but convolutions and matrix products."""
        if self.operator not in WEIGHTED and self.operator != "matmul":
            return 0
        # A transposed convolution takes every input pixel through the whole kernel.
        pixels = self.h * self.w if self.operator == "conv_transpose" else self.h_out * self.w_out
        return pixels * self._products

    @property
    def weights(self) -> int:
        """Weight elements, biases left out; 0 for anything but `conv`, `conv_transpose` and `linear`."""
        return self._products if self.operator in WEIGHTED else 0

    @property
    def _products(self) -> int:
        return prod(self.kernel) * (self.cin // self.groups) * self.cout


@dataclass(frozen=True)
class LayerTable:
    """A network's layers in execution order.

    `unsupported` has the operators that no row describes, as (operator, layer name) in execution order.
    """

    layers: tuple[Layer, ...]
    unsupported: tuple[tuple[str, str], ...] = ()

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the whole network."""
        return sum(layer.macs for layer in self.layers)

    def refusal(self, by: str) -> str:
        """Return the line that says what `by` does not model; empty where every operator has a row."""
        if not self.unsupported:
            return ""
        (operator, name), *rest = self.unsupported
        line = f"layer '{name}': {by} does not model '{operator}'"
        counts = [f"{other} ({count})" for other, count in Counter(other for other, _ in rest).most_common()]
        listed = ", ".join(counts[:4]) + (", ..." if len(counts) > 4 else "")
        return f"{line}, and {len(rest)} more: {listed}" if rest else line


def _size(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
