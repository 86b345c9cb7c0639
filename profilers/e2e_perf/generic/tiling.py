"""External memory traffic of layers that do not fit the on-chip buffer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ehdnas.profilers.e2e_perf.generic.design import Design
from ehdnas.profilers.e2e_perf.workload import Array, Columns

# Layers that read each pixel of their input once.
STREAMED = ("max_pool", "avg_pool", "global_pool", "upsample", "mul", "activation", "norm", "softmax")


def dram_bytes(columns: Columns, design: Design, weighted: NDArray[np.bool_]) -> Array:
    """Return the external bytes [d], or [m, d], that layers read and write.

    A map of at most `maps_on_chip_kb` is neither written by the layer that makes it nor read by the next.
    A weighted layer reads what `operand_bytes` says. An addition reads two maps and writes one, or, fused
    into the layer that makes one of them, reads the other. `relu` and `concat` move nothing.

    Args:
        weighted: which layers [d] multiply by weights, or by a second computed operand.
    """
    element = np.asarray(design.bits) / 8
    kept = np.asarray(design.maps_on_chip_kb) * 1024
    reads, writes = (
        np.where(size <= kept, 0.0, size)
        for size in (_inputs(columns) * element, columns.cout * columns.h_out * columns.w_out * element)
    )
    addition = np.where(design.fused_add, writes, 2 * reads + writes)
    moved = np.where(weighted, operand_bytes(columns, design) + writes, 0.0)
    moved = np.where(columns.is_a(*STREAMED), reads + writes, moved)
    return np.where(columns.is_a("add"), addition, moved)


def operand_bytes(columns: Columns, design: Design) -> Array:
    """Return the external bytes [d], or [m, d], that weighted layers read: inputs and weights.

    The buffer is shared out by `weight_share`, and each share is halved where it is double-buffered. The
    input comes in strips of whole rows, whose windows overlap; a row that does not fit is not split. After
    HybridDNN and DNNExplorer, the smaller of: input-stationary, weights read again for each strip; and
    weight-stationary, the input read again for each group of weights. Where either fits, both are read once.
    """
    element = np.asarray(design.bits) / 8
    room = np.asarray(design.buffer_kb) * 1024 / np.where(design.double_buffered, 2, 1)
    inputs, weights = _inputs(columns) * element, second_operand(columns) * element
    strips, halo = _strips(columns, columns.cin * columns.w * element, room * (1 - design.weight_share))
    groups = np.maximum(np.ceil(weights / (room * design.weight_share)), 1)
    inputs = np.where(inputs <= np.asarray(design.maps_on_chip_kb) * 1024, 0.0, inputs + halo)
    return np.minimum(inputs + weights * strips, weights + inputs * groups)


def second_operand(columns: Columns) -> Array:
    """Return the elements [d] that inputs are multiplied by: weights, or a product's second operand."""
    product = columns.cin * columns.cout / columns.groups
    return np.where(columns.is_a("matmul"), product, columns.weights)


def _strips(columns: Columns, row: Array, room: Array) -> tuple[Array, Array]:
    """Return how many strips of rows of `row` bytes the input is cut into, and the bytes read twice."""
    window = (columns.kernel_h - 1) * columns.dilation_h + 1
    grown = columns.is_a("conv_transpose")
    stride = np.where(grown, 1, columns.stride_h)
    made = np.where(grown, columns.h, columns.h_out)
    held = np.maximum(np.floor((np.floor(room / row) - window) / stride) + 1, 1)
    strips = np.where(row * columns.h <= room, 1, np.ceil(made / held))
    return strips, (strips - 1) * np.maximum(window - stride, 0) * row


def _inputs(columns: Columns) -> Array:
    return columns.cin * columns.h * columns.w
