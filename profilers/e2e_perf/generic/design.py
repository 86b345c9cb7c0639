"""A generic accelerator's parameters, and what they take of an FPGA board."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ehdnas.profilers.e2e_perf.packing import bram18
from ehdnas.profilers.e2e_perf.workload import Array

Value: TypeAlias = float | Array
Flag: TypeAlias = bool | NDArray[np.bool_]

# Fitted to the eight sizes of Xilinx's DPU without extras and with few DSP slices (PG338 v1.2, table 9):
# 20,759 LUTs at 256 MACs a cycle to 44,583 at 2048. Errors −12 to +14 %.
LUT_FIXED, LUT_PER_MAC = 18_067, 15.0
# Partial sums of one output row of 512 pixels. [unverified]
ACCUMULATOR_BITS, ACCUMULATOR_WORDS = 32, 512


@dataclass(frozen=True)
class Design:
    """One design by numbers, or m by arrays [m, 1], which broadcast against layers [d].

    The fields are those of `GenericRealistic`, which says what they are. Unlike there, nothing is checked.
    """

    clock_mhz: Value
    cpf: Value
    kpf: Value
    vector_lanes: Value
    buffer_kb: Value
    ddr_gbps: Value
    pixel_parallel: Value = 1
    depthwise_macs_per_cycle: Value = 0
    fold_kernel: Flag = False
    bits: Value = 8
    weight_share: Value = 0.5
    double_buffered: Flag = True
    maps_on_chip_kb: Value = 0.0
    fused_add: Flag = False
    dsp_clock_ratio: Value = 1.0
    ddr_efficiency: Value = 1.0
    compute_efficiency: Value = 1.0
    layer_overhead_us: Value = 0.0
    image_overhead_us: Value = 0.0

    @property
    def macs_per_cycle(self) -> Value:
        """Multiply-accumulates a cycle of the main array."""
        return self.cpf * self.kpf * self.pixel_parallel

    @property
    def bytes_per_cycle(self) -> Value:
        """External bytes a cycle."""
        return self.ddr_gbps * self.ddr_efficiency * 1e3 / self.clock_mhz


def design_resources(design: Design) -> tuple[Array, Array, Array]:
    """Return DSP slices, blocks of 18 Kbit and LUTs, arrays that broadcast like the design's.

    - DSP: a slice does 16 / bits MACs of its clock, 1 at 16 bits, 2 at 8 (WP486) and 4 at 4 (WP521). With
      `dsp_clock_ratio` 2 that is the DPU's multipliers but for 2 slices, at all eight sizes of PG338 v1.2,
      table 9. Elementwise lanes take none.
    - BRAM: a bank of CPF words for each pixel, one for each output channel, and one of partial sums for each
      pair of them, by the packing of `bram18`. DPU B4096: 512 without partial sums, published 510 in all.
    - LUT: fitted, see `LUT_FIXED`; the vector engine is counted like MACs.
    """
    engines = design.macs_per_cycle + design.depthwise_macs_per_cycle
    dsp = np.ceil(engines * np.asarray(design.bits) / 16 / design.dsp_clock_ratio)
    word = design.cpf * np.asarray(design.bits)
    buffered = design.buffer_kb * 1024 * 8 / word
    maps = np.ceil(buffered * (1 - np.asarray(design.weight_share)) / design.pixel_parallel)
    weights = np.ceil(buffered * design.weight_share / design.kpf)
    sums = bram18(np.asarray(design.kpf * ACCUMULATOR_BITS), np.asarray(ACCUMULATOR_WORDS))
    blocks = design.pixel_parallel * (bram18(word, maps) + sums) + design.kpf * bram18(word, weights)
    lut = np.ceil(LUT_FIXED + LUT_PER_MAC * (engines + np.asarray(design.vector_lanes)))
    return dsp, np.asarray(blocks), lut
