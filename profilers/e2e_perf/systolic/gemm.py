"""Layers as products of matrices, the form in which an array of cells runs them."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ehdnas.profilers.e2e_perf.workload import Array, Columns

PRODUCTS = ("conv", "linear", "matmul", "conv_transpose")


def gemm(columns: Columns, partial_windows: bool = True) -> tuple[Array, Array, Array]:
    """Return M, K and N, each [d], of the product M×K · K×N that one group of each layer is.

    A convolution has M = Ho·Wo windows of K = Kh·Kw·Cin/groups elements, and N = Cout/groups filters; a
    linear layer has a window of Cin for each of its rows. A transposed convolution takes each of the H·W
    inputs through the whole kernel: N = Kh·Kw·Cout/groups. Layers that are not in PRODUCTS are none.

    Args:
        columns: the layers.
        partial_windows: count a last window that hangs over the padded input's edge, as SCALE-Sim does
            (⌈(H − K + s)/s⌉ rows); otherwise only the outputs that the network has. On ResNet-18's
            distinct layers they are 0.6 to 4.0 % of cycles more, by array and dataflow.
    """
    window = columns.kernel_h * columns.kernel_w
    m, k, n = columns.h_out * columns.w_out, window * columns.cin, columns.cout
    if partial_windows:
        m = (columns.h_out + _overhang(columns, "h")) * (columns.w_out + _overhang(columns, "w"))
    transposed = columns.is_a("conv_transpose")
    m = np.where(transposed, columns.h * columns.w, m)
    k, n = np.where(transposed, columns.cin, k), np.where(transposed, window * columns.cout, n)
    return m, k / columns.groups, n / columns.groups


def _overhang(columns: Columns, axis: Literal["h", "w"]) -> NDArray[np.bool_]:
    """Return where [d] the stride leaves a rest of the padded input, on which SCALE-Sim puts a window."""
    size, kernel, stride, pad, dilation = (
        getattr(columns, name)
        for name in (axis, f"kernel_{axis}", f"stride_{axis}", f"pad_{axis}", f"dilation_{axis}")
    )
    # An output size that is given comes from uneven padding: what is left of that is not known.
    settled = np.array([layer.out_size is None for layer in columns.layers], dtype=bool)
    rest: Array = (size + 2 * pad - dilation * (kernel - 1) - 1) % stride
    return settled & (rest > 0)
