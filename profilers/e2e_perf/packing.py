"""How many blocks of 18 Kbit a memory takes on a Xilinx FPGA."""

from __future__ import annotations

import numpy as np

from ehdnas.profilers.e2e_perf.workload import Array

# Port widths of a block in bits, and how many words it holds at each: UG473 and UG573.
_SHAPES = ((1, 16_384), (2, 8_192), (4, 4_096), (9, 2_048), (18, 1_024), (36, 512))


def bram18(width: Array, depth: Array) -> Array:
    """Return blocks of 18 Kbit for memories of `depth` words of `width` bits; both broadcast.

    After DNNBuilder (Zhang et al., ICCAD 2018): pairs of blocks, 72 bits by 512 words, for whole multiples
    of 72 bits; one more column of blocks for what is left, in the narrowest shape that is wide enough (two
    where 36 bits are not).
    """
    width, depth = np.broadcast_arrays(np.asarray(width, dtype=float), np.asarray(depth, dtype=float))
    rest = width % 72
    blocks = 2 * (width // 72) * np.ceil(depth / 512)
    last = np.where(rest > 36, np.ceil(depth / 512), 0.0)
    rest = np.where(rest > 36, rest - 36, rest)
    narrowest = np.zeros_like(depth)
    for bits, words in reversed(_SHAPES):
        narrowest = np.where(rest <= bits, np.ceil(depth / words), narrowest)
    total: Array = blocks + last + np.where(rest > 0, narrowest, 0.0)
    return total
