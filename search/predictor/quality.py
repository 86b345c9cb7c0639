"""Held-out figures of merit, the same for every predictor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Quality:
    """How good a predictor is on architectures it was not fitted on.

    `within10` is the share within ±10 %, `mape` the mean relative error, `coverage90` the share that the
    90 % interval held, where there was one. `constant_within10` is the share for a constant guess (the
    median), which any predictor has to be compared with. `predicted` and `measured` are those
    architectures' values, in the metric's unit.
    """

    samples: int
    spearman: float
    kendall: float
    within10: float
    mape: float
    coverage90: float | None
    constant_within10: float
    predicted: list[float]
    measured: list[float]


def quality_of(predicted: Values, measured: Values, coverage90: float | None = None) -> Quality:
    """Compare predictions with values the predictor never saw; both [n], in the metric's unit."""
    error = np.abs(predicted / measured - 1)
    constant = np.abs(np.median(measured) / measured - 1)
    varied = np.ptp(predicted) > 0 and np.ptp(measured) > 0
    return Quality(
        samples=len(measured),
        spearman=float(spearmanr(predicted, measured).statistic) if varied else 0.0,
        kendall=float(kendalltau(predicted, measured).statistic) if varied else 0.0,
        within10=float(np.mean(error <= 0.1)),
        mape=float(np.mean(error)),
        coverage90=coverage90,
        constant_within10=float(np.mean(constant <= 0.1)),
        predicted=predicted.tolist(),
        measured=measured.tolist(),
    )
