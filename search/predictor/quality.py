"""Held-out figures of merit, the same for every predictor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from ehdnas.search.predictor.base import Quality

Values = NDArray[np.float64]


def quality_of(predicted: Values, measured: Values) -> Quality:
    """Compare predictions with values the predictor never saw; both [n], in the metric's unit."""
    error = np.abs(predicted / measured - 1)
    constant = np.abs(np.median(measured) / measured - 1)
    varied = np.ptp(predicted) > 0 and np.ptp(measured) > 0
    return Quality(
        samples=len(measured),
        spearman=float(spearmanr(predicted, measured).statistic) if varied else 0.0,
        within10=float(np.mean(error <= 0.1)),
        mape=float(np.mean(error)),
        constant_within10=float(np.mean(constant <= 0.1)),
        predicted=predicted.tolist(),
        measured=measured.tolist(),
    )
