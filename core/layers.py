"""The layer table: what a network computes, one row an operator, with no weights and no framework."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Layer:
    """One operator of a network, for a batch of one image.

    `h` and `w` are the height and width of its *input*. `operator` is one of `conv`, `linear`,
    `max_pool`, `avg_pool`, `global_pool`, `relu`, `add`, `mul`, `concat`.
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

    @property
    def h_out(self) -> int:
        """Height of the output."""
        return _size(self.h, self.kernel[0], self.stride[0], self.padding[0], self.dilation[0])

    @property
    def w_out(self) -> int:
        """Width of the output."""
        return _size(self.w, self.kernel[1], self.stride[1], self.padding[1], self.dilation[1])

    @property
    def macs(self) -> int:
        """Multiply-accumulates, groups respected; 0 for anything but `conv` and `linear`."""
        if self.operator not in ("conv", "linear"):
            return 0
        return (
            self.h_out * self.w_out * self.kernel[0] * self.kernel[1] * (self.cin // self.groups) * self.cout
        )

    @property
    def weights(self) -> int:
        """Weight elements, biases left out."""
        if self.operator not in ("conv", "linear"):
            return 0
        return self.kernel[0] * self.kernel[1] * (self.cin // self.groups) * self.cout


@dataclass(frozen=True)
class LayerTable:
    """A network's layers in execution order; operators that no row describes are counted, never dropped."""

    layers: tuple[Layer, ...]
    unsupported: dict[str, int] = field(default_factory=dict)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the whole network."""
        return sum(layer.macs for layer in self.layers)


def _size(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
