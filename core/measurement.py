"""A measurement: the raw samples, the statistics over them, and how they were taken."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

Basis = Literal["measured", "simulated"]


class Statistics(BaseModel):
    """Statistics over the runs of one model on one device; times in milliseconds.

    `median_ms` is the median of the processes' medians, the most repeatable of the usual statistics;
    `spread` is the range of those medians over `median_ms`;
    `drift` compares the last third of the runs with the first (a positive drift hints at throttling).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    median_ms: float = Field(gt=0, allow_inf_nan=False)
    p90_ms: float = Field(gt=0, allow_inf_nan=False)
    min_ms: float = Field(gt=0, allow_inf_nan=False)
    spread: float = Field(ge=0, allow_inf_nan=False)
    drift: float = Field(default=0.0, allow_inf_nan=False)
    runs: int = Field(ge=1)
    processes: int = Field(ge=1)

    @classmethod
    def over(cls, processes: list[list[float]]) -> Statistics:
        """Return the statistics over `processes`: one list of run times in ms for each process."""
        medians = [float(np.median(runs)) for runs in processes]
        every = np.concatenate([np.asarray(runs, dtype=np.float64) for runs in processes])
        median = float(np.median(medians))
        thirds = [(_third(runs, 0), _third(runs, -1)) for runs in processes]
        return cls(
            median_ms=median,
            p90_ms=float(np.percentile(every, 90)),
            min_ms=float(every.min()),
            spread=(max(medians) - min(medians)) / median,
            drift=float(np.median([last / first - 1 for first, last in thirds])),
            runs=len(every),
            processes=len(processes),
        )


class Measurement(BaseModel):
    """What one model did on one device.

    `basis` says whether a clock or a model of the device gave the figure: a simulated figure is never
    called measured. `samples_ms` holds each process's raw run times and is empty when simulated.
    `passport` states the circumstances (governor, frequency, temperature, threads, versions, SHA-256).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    basis: Basis
    metrics: dict[str, float]
    statistics: Statistics | None = None
    samples_ms: list[list[float]] = Field(default_factory=list)
    passport: dict[str, Any] = Field(default_factory=dict)
    flags: list[str] = Field(default_factory=list)

    def metric(self, name: str) -> float:
        """Return a metric by its unit-bearing name, such as `latency_ms` or `throughput_fps`."""
        return self.metrics[name]


def _third(runs: list[float], which: int) -> float:
    size = max(1, len(runs) // 3)
    return float(np.median(runs[:size] if which == 0 else runs[-size:]))
