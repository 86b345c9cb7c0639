"""The designs of a generic accelerator that a board can hold, and the best of them for each network."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ehdnas.core.errors import MeasurementError
from ehdnas.profilers.e2e_perf.boards import Board
from ehdnas.profilers.e2e_perf.generic.costs import design_costs
from ehdnas.profilers.e2e_perf.generic.design import Design, design_resources
from ehdnas.profilers.e2e_perf.workload import Array, Columns

# Every combination is tried: powers of two, as wide as the largest boards allow.
CHANNELS = (4, 8, 16, 32, 64)
PIXELS = (1, 2, 4, 8, 16)
BUFFERS_KB = (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
WEIGHT_SHARES = (0.25, 0.5, 0.75)
# Lanes of the engine for depthwise convolutions; 0: the main array runs them.
DEPTHWISE = (0, 64, 256, 1024)
_CHUNK = 2_000


@dataclass(frozen=True)
class Designs:
    """m designs that fit a board: their parameters as arrays [m, 1], and what they take, arrays [m]."""

    design: Design
    dsp: Array
    bram18: Array
    lut: Array

    def __len__(self) -> int:
        return len(self.dsp)

    def parameters(self, at: int) -> dict[str, float]:
        """Return what sets a design apart from the others."""
        chosen = {name: float(np.asarray(getattr(self.design, name))[at, 0]) for name in _FREE}
        return {name: int(value) if value.is_integer() else value for name, value in chosen.items()}


_FREE = ("cpf", "kpf", "pixel_parallel", "buffer_kb", "weight_share", "depthwise_macs_per_cycle")


def designs_for(board: Board, fixed: Design, utilisation: float) -> Designs:
    """Return the designs that use at most `utilisation` of a board, all else as in `fixed`.

    The design `fixed` itself is among them, if it fits.

    Raises:
        MeasurementError: not even the smallest fits; the message says what is short.
    """
    grid = product(CHANNELS, CHANNELS, PIXELS, BUFFERS_KB, WEIGHT_SHARES, DEPTHWISE)
    own = [float(np.asarray(getattr(fixed, name))) for name in _FREE]
    rows = np.array([own, *grid], dtype=np.float64)
    every = _with(fixed, rows)
    used = [np.broadcast_to(part, (len(rows), 1))[:, 0] for part in design_resources(every)]
    limits = [np.floor(utilisation * limit) for limit in (board.dsp, board.bram18, board.lut)]
    fits = np.logical_and.reduce([part <= limit for part, limit in zip(used, limits, strict=True)])
    if not fits.any():
        raise MeasurementError(_shortage(used, limits))
    dsp, bram, lut = (part[fits] for part in used)
    return Designs(_with(fixed, rows[fits]), dsp, bram, lut)


def require_fit(design: Design, board: Board, utilisation: float) -> None:
    """Raise MeasurementError, saying what is short, unless one design fits a board."""
    used = [np.atleast_1d(part) for part in design_resources(design)]
    limits = [np.floor(utilisation * limit) for limit in (board.dsp, board.bram18, board.lut)]
    if any(part[0] > limit for part, limit in zip(used, limits, strict=True)):
        raise MeasurementError(_shortage(used, limits))


def best_design(
    columns: Columns, counts: NDArray[np.int64], designs: Designs
) -> tuple[NDArray[np.int64], Array]:
    """Return, for each network of `counts` [n, d], the design of the fewest cycles, and its cycles, [n]."""
    cycles = design_costs(columns, designs.design).cycles
    # Single precision to choose by, which is twice as fast; what is chosen is summed exactly.
    coarse = np.ascontiguousarray(cycles.T, dtype=np.float32)
    chunks = [counts[start : start + _CHUNK].astype(np.float32) for start in range(0, len(counts), _CHUNK)]
    found = np.concatenate([(chunk @ coarse).argmin(axis=1) for chunk in chunks])
    return found, np.einsum("nd,nd->n", counts, cycles[found])


def _with(fixed: Design, rows: Array) -> Design:
    known = {field.name: getattr(fixed, field.name) for field in fields(fixed)}
    return Design(**{**known, **{name: rows[:, [at]] for at, name in enumerate(_FREE)}})


def _shortage(used: list[Array], limits: list[float]) -> str:
    short = [
        f"{part.min():,.0f} {name} needed, {limit:,.0f} usable, {part.min() - limit:,.0f} short"
        for name, part, limit in zip(("DSP slices", "blocks of 18 Kbit", "LUTs"), used, limits, strict=True)
        if part.min() > limit
    ]
    detail = "; ".join(short) or "no design meets all of the board's limits at once"
    return f"the accelerator does not fit its board: {detail}"
