"""Curves over epochs: of the search and of the training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from ehdnas.report.drawing import FIRST, INK, SECOND, draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE = (4.6, 2.9)

History = Sequence[dict[str, float]]
"""One record an epoch; a record may lack what its epoch did not compute."""


@dataclass(frozen=True)
class Line:
    """A curve: the records' key, its name in the legend, and what its values are multiplied by."""

    key: str
    label: str
    scale: float = 1.0


@dataclass(frozen=True)
class Level:
    """A level line across the figure, in the figure's unit."""

    value: float
    label: str


def curve_figure(
    name: str, title: str, unit: str, history: History, lines: Sequence[Line], level: Level | None = None
) -> Markup | None:
    """Return curves over epochs as an SVG element, or None where no record has any of them.

    Args:
        unit: the name of the vertical axis, with its unit.
    """
    curves = [(line, *_points(history, line)) for line in lines]
    curves = [curve for curve in curves if curve[1]]
    if not curves:
        return None

    def paint(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        for (line, epochs, values), colour, dashes in zip(curves, (FIRST, SECOND), ("-", "--"), strict=False):
            marker = "o" if len(values) < 3 else ""
            axes.plot(epochs, values, color=colour, linestyle=dashes, marker=marker, label=line.label)
        if level is not None:
            axes.axhline(level.value, color=INK, linewidth=1, linestyle=":", label=level.label)
        axes.set_xlabel("epoch")
        axes.set_ylabel(unit)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(curves) > 1 or level is not None:
            axes.legend(fontsize=9)

    said = [_said(line, epochs, values) for line, epochs, values in curves]
    if level is not None:
        said.append(f"{level.label} at {level.value:.4g}")
    return draw(name, _SIZE, f"{title}, {unit} by epoch: {'; '.join(said)}.", paint)


def _points(history: History, line: Line) -> tuple[list[float], list[float]]:
    kept = [record for record in history if line.key in record and "epoch" in record]
    return [record["epoch"] + 1 for record in kept], [record[line.key] * line.scale for record in kept]


def _said(line: Line, epochs: list[float], values: list[float]) -> str:
    ends = [
        f"{value:.4g} in epoch {epoch:.0f}"
        for epoch, value in ((epochs[0], values[0]), (epochs[-1], values[-1]))
    ]
    return f"{line.label} from {ends[0]} to {ends[1]}"
