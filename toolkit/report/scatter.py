"""Predicted against measured, on networks the predictor had not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from ehdnas.report.data import PointsData, PredictorData
from ehdnas.report.drawing import FIRST, INK, draw
from ehdnas.report.wording import percent, quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 1500
"""Points drawn at most: beyond it the page grows and the eye gains nothing."""


def scatter_figure(points: PointsData, predictor: PredictorData, figure: str = "scatter") -> Markup:
    """Return the scatter as an SVG element, with the line of equality and the ±10 % band.

    Args:
        figure: what its parts are called after; no two figures of a page may share it.
    """
    step = max(1, -(-len(points.measured) // MOST))
    seen = np.asarray(points.measured[::step])
    said = np.asarray(points.predicted[::step])
    name, unit = quantity(predictor.metric)
    margin = 0.05 * max(float(np.ptp(np.concatenate([seen, said]))), 0.1 * float(seen.max()))
    low = min(seen.min(), said.min()) - margin
    high = max(seen.max(), said.max()) + margin

    def paint(axes: Axes) -> None:
        ends = np.array([low, high])
        axes.fill_between(
            ends, 0.9 * ends, 1.1 * ends, color=INK, alpha=0.1, linewidth=0, label="within ±10 %"
        )
        axes.plot(ends, ends, color=INK, linewidth=1, linestyle=":", label="equal")
        axes.scatter(seen, said, s=12, color=FIRST, alpha=0.6, linewidths=0, label="a network")
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        axes.set_aspect("equal")
        axes.set_xlabel(f"{predictor.basis} {name} ({unit})")
        axes.set_ylabel(f"predicted {name} ({unit})")
        axes.legend(fontsize=9)

    held = predictor.held_out
    alternative = (
        f"Scatter of predicted against {predictor.basis} {name} for {len(seen)} networks that the predictor "
        f"had not seen, from {seen.min():.4g} to {seen.max():.4g} {unit}; {percent(held.within10)} lie "
        f"within 10 % of the line of equality, rank correlation {held.spearman:.3f}."
    )
    return draw(figure, (4.8, 4.5), alternative, paint)
