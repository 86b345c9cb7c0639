"""Several runs beside each other, as one page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ehdnas.report.data import ReportData, TrainData, VerifiedFigure
from ehdnas.report.drawing import FIRST, INK, draw
from ehdnas.report.figures import Figure
from ehdnas.report.page import environment
from ehdnas.report.wording import printable, quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_Point = tuple[str, VerifiedFigure, TrainData]


def render_comparison(runs: Sequence[ReportData]) -> str:
    """Return the page of several runs as the text of an HTML file; what is said of `render` holds of it."""
    page = environment().get_template("comparison.html").render(
        runs=runs, drawn=_figures(runs), differing=_differing(runs), standard_error=standard_error
    )  # fmt: skip
    return page.encode(errors="replace").decode()


def standard_error(trained: TrainData) -> float:
    """Return the standard error of a test accuracy, a share of 1, by the number of images."""
    accuracy = trained.test_accuracy
    return math.sqrt(accuracy * (1 - accuracy) / trained.test_images)


def _differing(runs: Sequence[ReportData]) -> dict[str, list[Any]]:
    """Return the settings that are not the same in all runs, with each run's."""
    names = dict.fromkeys(name for one in runs for name in one.settings)
    values = {name: [one.settings.get(name) for one in runs] for name in names}
    return {name: own for name, own in values.items() if any(value != own[0] for value in own)}


def _figures(runs: Sequence[ReportData]) -> list[Figure]:
    """Return accuracy against each metric of each device that two runs at least have."""
    points: dict[tuple[str, str, str], list[_Point]] = {}
    for one in runs:
        if one.verify is not None and one.train is not None:
            for figure in one.verify.figures:
                key = (figure.device, figure.metric, figure.basis)
                points.setdefault(key, []).append((one.run, figure, one.train))
    shared = [(key, own) for key, own in points.items() if len({run for run, _, _ in own}) > 1]
    return [_drawn(f"compared-{number}", *one) for number, one in enumerate(shared)]


def _drawn(name: str, key: tuple[str, str, str], points: list[_Point]) -> Figure:
    device, metric, basis = key
    what, unit = quantity(metric)

    def paint(axes: Axes) -> None:
        values = [figure.value for _, figure, _ in points]
        shares = [100 * trained.test_accuracy for _, _, trained in points]
        errors = [100 * standard_error(trained) for _, _, trained in points]
        axes.errorbar(values, shares, errors, fmt="o", color=FIRST, ecolor=INK, elinewidth=1, capsize=3)
        for value, share, (run, _, _) in zip(values, shares, points, strict=True):
            axes.annotate(printable(run), (value, share), (6, 6), textcoords="offset points", fontsize=8)
        axes.margins(0.25)
        axes.set_xlabel(f"{basis} {what} ({unit})")
        axes.set_ylabel("test accuracy (%)")

    told = "; ".join(
        f"{printable(run)} {figure.value:.4g} {unit} and {100 * trained.test_accuracy:.1f} %"
        for run, figure, trained in points
    )
    caption = "The bars are one standard error, by the number of test images."
    title = f"Accuracy against {what} on {device}, {basis}"
    return Figure(title, draw(name, (6.4, 4.2), f"{title}: {told}.", paint), caption)
