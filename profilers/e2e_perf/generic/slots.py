"""The slot table published with EH-DNAS: whole DARTS networks timed by adding one figure for each slot."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ehdnas.core.errors import UsageError

# Stem 3080, pool and classifier 2544, the pre-processing of the eight cells 58790.
FIXED_CYCLES = 64_414
# The space and the network shape whose slots the table holds.
SLOT_TABLE_OF = ("darts", "c16x8-3x32x32-10-cifar")
SLOT_TABLES = {"ehdnas-c16x8": "slots_c16x8.csv"}


@cache
def slot_cycles(name: str = "ehdnas-c16x8") -> NDArray[np.int64]:
    """Return a slot table: cycles [28, 8] by slot and choice. Read-only, shared by all callers."""
    path = Path(__file__).with_name(SLOT_TABLES[name])
    table = np.loadtxt(path, delimiter=",", skiprows=4, dtype=np.int64, comments=None)[:, 1:]
    table.flags.writeable = False
    return table


def published_cycles(choices: NDArray[np.integer], name: str = "ehdnas-c16x8") -> NDArray[np.int64]:
    """Return the cycles [n] of the DARTS networks `choices` [n, 28] by the published slot table.

    64414 + the sum of the slots' cycles; at 200 MHz, throughput is 200e6 / cycles. The 14 edges of the
    normal cell come first, node by node and within a node by input, then those of the reduction cell;
    a choice is a column of the table, 0 where the edge is not used.

    Raises:
        UsageError: `choices` is not [n, 28], or holds something other than 0 to 7.
    """
    table = slot_cycles(name)
    slots, operations = table.shape
    if choices.ndim != 2 or choices.shape[1] != slots:
        raise UsageError(f"slot table {name}: choices of shape {list(choices.shape)}; it needs [n, {slots}]")
    if choices.size and not 0 <= int(choices.min()) <= int(choices.max()) < operations:
        raise UsageError(f"slot table {name}: choices must be 0 to {operations - 1}")
    cycles: NDArray[np.int64] = table[np.arange(slots), choices].sum(axis=1)
    return FIXED_CYCLES + cycles
