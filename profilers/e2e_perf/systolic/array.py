"""The systolic paradigm: matrix products on an array of R×C cells, timed by SCALE-Sim's arithmetic."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ehdnas.core.errors import UsageError
from ehdnas.profilers.e2e_perf.paradigm import Sequential
from ehdnas.profilers.e2e_perf.simulation import Costs
from ehdnas.profilers.e2e_perf.systolic.gemm import PRODUCTS, gemm
from ehdnas.profilers.e2e_perf.workload import Array, Columns, require_modelled

Dataflow = Literal["os", "ws", "is"]
DATAFLOWS = get_args(Dataflow)

# How often the vector unit touches each element: a softmax takes the maximum, the sum and the quotient.
PASSES = {"max_pool": 1, "avg_pool": 1, "global_pool": 1, "relu": 1, "activation": 1, "add": 1, "mul": 1,
          "upsample": 1, "norm": 2, "softmax": 3, "concat": 0, "conv_transpose": 1}  # fmt: skip
# Done on the way to the next layer: they read and write no external memory of their own.
IN_PASSING = ("relu", "activation", "concat")
OPERATORS = frozenset(PRODUCTS) | frozenset(PASSES)
PARTIAL_SUM_BYTES = 4


def systolic_cycles(
    columns: Columns, rows: int, cols: int, dataflow: Dataflow, partial_windows: bool = True
) -> NDArray[np.int64]:
    """Return the stall-free cycles [d] of d layers on an array of `rows` × `cols`; 0 for no matrix product.

    The formulas are those of SCALE-Sim 3.0.0, and equal its report to the cycle (`bench/scale_sim.py`):
    with M windows of K elements and N filters (`gemm`),

    - output-stationary: ⌈M/R⌉·⌈N/C⌉·(K + R + C − 2) − 1
    - weight-stationary: ⌈K/R⌉·⌈N/C⌉·(M + 2R + C − 2) − 1
    - input-stationary: ⌈K/R⌉·⌈M/C⌉·(N + 2R + C − 2) − 1

    Every fold fills and drains the array alone, and the count is the number of the last cycle, from 0. A
    group of a convolution is a product of its own, with Cin/groups and Cout/groups channels, and the
    groups run one after another: a depthwise layer keeps one column (os, ws) busy. SCALE-Sim has no
    groups; this is what it reports for them as that many layers. A linear layer has M = 1 for a vector.

    Args:
        columns: the layers.
        rows: R, at least 1.
        cols: C, at least 1.
        dataflow: which operand stays in the cells: "os" outputs, "ws" weights, "is" inputs.
        partial_windows: see `gemm`; SCALE-Sim counts them.

    Raises:
        UsageError: a size of the array is not positive, or there is no such dataflow.
    """
    if dataflow not in DATAFLOWS or min(rows, cols) < 1:
        raise UsageError(
            f"systolic array {rows}x{cols}, dataflow '{dataflow}': sizes start at 1, and dataflows are "
            + ", ".join(DATAFLOWS)
        )
    inner, outer, streamed = _folds(gemm(columns, partial_windows), rows, cols, dataflow)
    load = 0 if dataflow == "os" else rows
    cycles = columns.groups * (inner * outer * (streamed + load + rows + cols - 2) - 1)
    return np.where(columns.is_a(*PRODUCTS), cycles, 0).astype(np.int64)


def _folds(
    product: tuple[Array, Array, Array], rows: int, cols: int, dataflow: Dataflow
) -> tuple[Array, Array, Array]:
    """Return the folds over the rows (inner loop) and the columns (outer), and what streams in each."""
    m, k, n = product
    on_rows, on_cols, streamed = {"os": (m, n, k), "ws": (k, n, m), "is": (k, m, n)}[dataflow]
    return np.ceil(on_rows / rows), np.ceil(on_cols / cols), streamed


class Systolic(Sequential):
    """A systolic array with a vector unit beside it; the layers run in turn.

    `rows`, `cols`, `dataflow` and `partial_windows` are those of `systolic_cycles`. What is no matrix
    product takes elements × passes / `vector_lanes` cycles, not overlapped with the array: a pool touches
    every element of its windows, a norm passes twice, a softmax three times, and the products of a
    transposed convolution are added up there. `concat` costs nothing.

    With `bytes_per_cycle` of external memory a layer takes the longer of its compute and its transfer,
    as if double buffering hid all of the shorter one. Every layer reads its inputs and writes its outputs;
    an operand that does not fit half of its memory (`input_sram_bytes`, `weight_sram_bytes`, and
    `output_sram_bytes` for partial sums of 32 bits) is moved again in every fold that needs it. Memories
    that are not given are large enough. This side is a bound of the usual form, not SCALE-Sim's memory
    simulation, and was compared with none.
    """

    paradigm: ClassVar[str] = "systolic"
    mode: ClassVar[str] = "reference"

    rows: int = Field(gt=0, le=1 << 16)
    cols: int = Field(gt=0, le=1 << 16)
    dataflow: Dataflow
    vector_lanes: int = Field(gt=0, le=1 << 16)
    partial_windows: bool = True
    bytes_per_cycle: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    input_sram_bytes: int | None = Field(default=None, gt=0)
    weight_sram_bytes: int | None = Field(default=None, gt=0)
    output_sram_bytes: int | None = Field(default=None, gt=0)

    def costs(self, columns: Columns) -> Costs:
        """Return the compute, the transfers and the cycles of d layers, each [d].

        Raises:
            MeasurementError: a layer's operator or its sizes are not modelled; the message names it.
        """
        require_modelled(columns, OPERATORS)
        array = systolic_cycles(columns, self.rows, self.cols, self.dataflow, self.partial_windows)
        compute = array.astype(np.float64) + np.ceil(_vector_elements(columns) / self.vector_lanes)
        moved = self._dram_bytes(columns)
        memory = np.ceil(moved / (self.bytes_per_cycle or np.inf))
        return Costs(np.maximum(compute, memory), compute, memory, np.zeros_like(moved), moved)

    def _dram_bytes(self, columns: Columns) -> Array:
        word, outputs = columns.bits / 8, columns.cout * columns.h_out * columns.w_out
        inputs = columns.cin * columns.h * columns.w * word * np.where(columns.is_a("add", "mul"), 2, 1)
        product = columns.is_a(*PRODUCTS)
        moved = inputs + outputs * word + np.where(product, self._weights_and_again(columns, inputs), 0)
        return np.where(columns.is_a(*IN_PASSING), 0, moved)

    def _weights_and_again(self, columns: Columns, inputs: Array) -> Array:
        """Return the bytes [d] of the weights, and of all that one fold has moved and another needs too.

        The outer loop goes over the array's columns, the inner one over its rows. One operand is the same
        in every turn of the outer loop; of another, the part that belongs to the columns is the same in
        every turn of the inner loop. What does not fit is moved in every turn.
        """
        m, k, n = product = gemm(columns, self.partial_windows)
        inner, outer, streamed = _folds(product, self.rows, self.cols, self.dataflow)
        groups, word = columns.groups, columns.bits / 8
        weights = k * n * groups * word
        if self.dataflow == "is":
            kept, kept_memory, part = weights, self.weight_sram_bytes, m
        else:
            kept, kept_memory, part = inputs, self.input_sram_bytes, n
        slab = streamed * np.minimum(part, self.cols)
        if self.dataflow == "os":
            turned, slab_bytes, slab_memory = weights, slab * word, self.weight_sram_bytes
        else:  # partial sums, each written in one turn and read in the next
            turned, slab_bytes = 2 * m * n * groups * PARTIAL_SUM_BYTES, slab * PARTIAL_SUM_BYTES
            slab_memory = self.output_sram_bytes
        across = (outer - 1) * kept * _exceeds(kept / groups, kept_memory)
        down = (inner - 1) * turned * _exceeds(slab_bytes, slab_memory)
        moved: Array = weights + across + down
        return moved


def _exceeds(size: Array, memory: int | None) -> NDArray[np.bool_]:
    """Return which operands [d] of `size` bytes are too large for half a memory; the other half loads."""
    return size > (np.inf if memory is None else memory / 2)


def _vector_elements(columns: Columns) -> Array:
    """Return the elements [d] that the vector unit touches, each as often as it does."""
    passes = np.array([PASSES.get(operator, 0) for operator in columns.operator])
    transposed = columns.is_a("conv_transpose")
    pixels = np.where(transposed, columns.h * columns.w, columns.h_out * columns.w_out)
    elements: Array = passes * pixels * columns.cout * columns.kernel_h * columns.kernel_w
    return elements
