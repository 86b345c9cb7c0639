"""Accuracy against what a network takes: candidates, the chosen one, published networks, the front."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from ehdnas.report.data import BudgetData, SearchData
from ehdnas.report.drawing import FIRST, INK, SECOND, draw
from ehdnas.report.wording import printable, quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Point = tuple[float, float]
"""A value of the metric, and an accuracy in percent."""


def tradeoff_figure(search: SearchData, budget: BudgetData, name: str) -> Markup | None:
    """Return the figure for one budget as an SVG element; None where fewer than two networks are known."""
    chosen, candidates = _candidates(search, budget)
    published = {
        printable(one.name): (figure.value, 100 * one.supernet_accuracy)
        for one in search.landmarks
        for figure in one.figures
        if (figure.device, figure.metric) == (budget.device, budget.metric)
    }
    everything = [*chosen, *candidates, *published.values()]
    if len(everything) < 2:
        return None
    what, unit = quantity(budget.metric)
    front = front_of(everything, rising=budget.metric == "throughput_fps")

    def paint(axes: Axes) -> None:
        axes.axvline(budget.bound, color=INK, linewidth=1, linestyle="--", label="budget")
        if len(front) > 1:
            axes.plot(*_columns(front), color=INK, linewidth=0.8, alpha=0.6, label="front of all shown")
        kinds = (
            (candidates, "candidate", FIRST, "o", 18),
            (list(published.values()), "published", SECOND, "s", 24),
            (chosen, "chosen", FIRST, "*", 120),
        )
        for points, label, colour, marker, size in kinds:
            if points:
                x, y = _columns(points)
                axes.scatter(x, y, s=size, marker=marker, color=colour, alpha=0.8, linewidths=0, label=label)
        for label, (value, accuracy) in published.items():
            axes.annotate(label, (value, accuracy), (5, 4), textcoords="offset points", fontsize=7)
        axes.margins(0.12)
        axes.set_xlabel(f"{what} ({unit})")
        axes.set_ylabel("accuracy with shared weights (%)")
        axes.legend(fontsize=8)

    told = "; ".join(
        f"{label} {value:.4g} {unit} and {share:.1f} %" for label, (value, share) in published.items()
    )
    picked = "".join(
        f" The chosen one is at {value:.4g} {unit} and {share:.1f} %." for value, share in chosen
    )
    alternative = (
        f"Scatter of accuracy with shared weights against {what} for {len(candidates)} candidates and "
        f"{len(published)} published networks; the budget is at {budget.bound:.4g} {unit}.{picked} {told}"
    )
    return draw(name, (6.4, 4.4), alternative.strip(), paint)


def front_of(points: list[Point], rising: bool) -> list[Point]:
    """Return the points that none of the others beats in both, from left to right.

    Args:
        rising: whether more of the metric is better.
    """
    found: list[Point] = []
    for value, accuracy in sorted(points, key=lambda point: (-point[0] if rising else point[0], -point[1])):
        if not found or accuracy > found[-1][1]:
            found.append((value, accuracy))
    return sorted(found)


def _columns(points: list[Point]) -> tuple[list[float], list[float]]:
    return [value for value, _ in points], [accuracy for _, accuracy in points]


def _candidates(search: SearchData, budget: BudgetData) -> tuple[list[Point], list[Point]]:
    """Return where the chosen network stands, if that is known, and where the other candidates do."""
    chosen: list[Point] = []
    others: list[Point] = []
    for one in search.candidates:
        for figure in one.figures:
            if one.supernet_accuracy is not None and (figure.device, figure.metric) == (
                budget.device,
                budget.metric,
            ):
                mine = chosen if one.genotype == search.genotype else others
                mine.append((figure.value, 100 * one.supernet_accuracy))
    return chosen, others
