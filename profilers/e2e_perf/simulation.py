"""What a simulation gives: figures for the whole network, and for every layer what it takes and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ehdnas.core.layers import Layer
from ehdnas.profilers.e2e_perf.workload import Array

# Energy of one operation at 45 nm in pJ: Horowitz, ISSCC 2014, "Computing's energy problem", as quoted by
# github stillwater-sc/esim, energysim/database/energy.py. Bits -> pJ of a multiply and an add: integers at 8
# bits (.2 + .03), floating point at 16 (1.1 + .4) and 32 (3.7 + .9; integers of 32 bits take 3.1 + .1).
# 4 bits is halved from 8, which nobody has measured there. [unverified]
_MAC_PJ = {4: 0.115, 8: 0.23, 16: 1.5, 32: 4.6}
# 32 bits from DRAM and from an SRAM of 32 KB: Han et al., "EIE", ISCA 2016, Table I, which credits Horowitz.
# The paper of 2014 itself gives 1300-2600 for 64 bits of DRAM, so 640 is at its low end, and 10 for 64 bits
# of an 8 KB cache.
_DRAM_PJ_PER_BYTE = 640 / 4
_SRAM_PJ_PER_BYTE = 5 / 4
ENERGY_SOURCE = "45 nm-equivalent estimate from Horowitz, ISSCC 2014; not the power of any board"


TOGETHER = "compute or memory"
"""What bounds a layer where the formula does not tell the two apart."""


@dataclass(frozen=True)
class Costs:
    """What d layers cost: arrays [d], in cycles and bytes of external memory.

    `cycles` is what counts; `compute` and `memory` are what it was made from, and `overhead` a part of it.
    """

    cycles: Array
    compute: Array
    memory: Array
    overhead: Array
    dram_bytes: Array
    apart: bool = True
    """Whether `compute` and `memory` are what they say; else `compute` holds all of it."""

    def bounds(self) -> list[str]:
        """Return, for each layer, what makes it take as long as it does."""
        if not self.apart:
            return [TOGETHER if cycles > 0 else "free" for cycles in self.cycles]
        names = np.array(["compute", "memory", "overhead"])
        which = np.argmax([self.compute, self.memory, self.overhead], axis=0)
        return [
            str(name) if cycles > 0 else "free"
            for name, cycles in zip(names[which], self.cycles, strict=True)
        ]


@dataclass(frozen=True)
class Resources:
    """What a design takes of a board. `bram18` counts blocks of 18 Kbit; `lut` is an estimate, if any."""

    dsp: int
    bram18: int
    lut: int | None = None


@dataclass(frozen=True)
class LayerCost:
    """One row of the per-layer table: `start_cycles` is when the layer begins on an image.

    `design` is the layer's own parallelism, where it has one.
    """

    name: str
    operator: str
    output: tuple[int, int, int]
    macs: int
    start_cycles: float
    cycles: float
    compute_cycles: float
    memory_cycles: float
    bound: str
    dram_bytes: float
    design: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Simulation:
    """A network on an accelerator.

    `replicas` results leave together every `interval_s`; `latency_s` is from an image in to its result out,
    `image_cycles` what every image takes besides its layers. `bottleneck` is what a faster accelerator would
    change first. `design` is the accelerator's own parameters; `resources`, `peak_macs_per_s` and
    `dram_bytes_per_s`, what it could do at best, are None where the paradigm does not model them.
    """

    clock_hz: float
    latency_s: float
    interval_s: float
    replicas: int
    layers: tuple[LayerCost, ...]
    image_cycles: float
    design: dict[str, Any]
    resources: Resources | None
    energy_45nm_mj: float
    bottleneck: str
    peak_macs_per_s: float | None = None
    dram_bytes_per_s: float | None = None
    by: str = "the layer formulas"

    @property
    def throughput_fps(self) -> float:
        """Images a second."""
        return self.replicas / self.interval_s

    @property
    def dram_gbps(self) -> float:
        """External bandwidth in use, GB/s."""
        return sum(row.dram_bytes for row in self.layers) * self.throughput_fps / 1e9

    def as_json(self) -> dict[str, Any]:
        """Return the whole simulation as JSON-able data, units in the names."""
        return {
            "latency_ms": self.latency_s * 1e3,
            "throughput_fps": self.throughput_fps,
            "bottleneck": self.bottleneck,
            "resources": None if self.resources is None else asdict(self.resources),
            "dram_gbps": self.dram_gbps,
            "peak_macs_per_s": self.peak_macs_per_s,
            "dram_bytes_per_s": self.dram_bytes_per_s,
            "energy_45nm_mj": self.energy_45nm_mj,
            "energy_source": ENERGY_SOURCE,
            "replicas": self.replicas,
            "image_cycles": self.image_cycles,
            "design": self.design,
            "by": self.by,
            "layers": [asdict(row) for row in self.layers],
        }


def layer_costs(
    layers: Sequence[Layer],
    costs: Costs,
    designs: Sequence[dict[str, Any]] | None = None,
    fills: Array | None = None,
) -> tuple[LayerCost, ...]:
    """Return the per-layer table of d layers, each of which begins `fills` [d] cycles after the one before.

    Without `fills` they run in turn.
    """
    starts = np.cumsum(costs.cycles if fills is None else fills)
    rows = []
    for at, (layer, bound) in enumerate(zip(layers, costs.bounds(), strict=True)):
        rows.append(
            LayerCost(
                name=layer.name,
                operator=layer.operator,
                output=(layer.cout, layer.h_out, layer.w_out),
                macs=layer.macs,
                start_cycles=float(starts[at - 1]) if at else 0.0,
                cycles=float(costs.cycles[at]),
                compute_cycles=float(costs.compute[at]),
                memory_cycles=float(costs.memory[at]),
                bound=bound,
                dram_bytes=float(costs.dram_bytes[at]),
                design=designs[at] if designs else {},
            )
        )
    return tuple(rows)


def energy_45nm_mj(layers: Sequence[Layer], dram_bytes: float) -> float:
    """Return the energy of one image in mJ at 45 nm: its MACs, their on-chip reads, and external memory.

    Every MAC reads two operands from a 32 KB SRAM, which a good dataflow avoids: an upper estimate.
    """
    picojoules = dram_bytes * _DRAM_PJ_PER_BYTE
    for layer in layers:
        bits = min((known for known in _MAC_PJ if known >= layer.bits), default=32)
        picojoules += layer.macs * (_MAC_PJ[bits] + 2 * bits / 8 * _SRAM_PJ_PER_BYTE)
    return picojoules * 1e-9
