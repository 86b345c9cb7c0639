"""Held-out figures of merit, the same for every predictor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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

    @staticmethod
    def told(fields: dict[str, Any]) -> Quality:
        """Return what a file tells of a predictor's quality.

        Raises:
            TypeError, ValueError: a field is missing, too many or of another kind.
        """
        quality = Quality(**fields)
        figures = (
            quality.spearman,
            quality.kendall,
            quality.within10,
            quality.mape,
            quality.constant_within10,
        )
        values = [*figures, *quality.predicted, *quality.measured, quality.coverage90 or 0.0]
        if not isinstance(quality.samples, int) or not all(
            isinstance(value, float | int) for value in values
        ):
            raise ValueError("its quality is not told in numbers")
        if len(quality.predicted) != len(quality.measured):
            raise ValueError("its quality tells of more predictions than measurements, or of fewer")
        return quality


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
