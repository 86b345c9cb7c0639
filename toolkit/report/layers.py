"""Where a network's time goes: its costliest layers, as bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from ehdnas.report.data import LayerData
from ehdnas.report.drawing import FIRST, draw
from ehdnas.report.wording import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 15
_LONGEST = 44  # letters of a name


def layers_figure(layers: Sequence[LayerData], name: str) -> Markup:
    """Return the costliest layers, the first of them on top, as an SVG element."""
    shown = costliest(layers)

    def paint(axes: Axes) -> None:
        times, names = [one.latency_ms for one in shown], [_short(one.name) for one in shown]
        # By their places, not their names: two layers may be called alike.
        axes.barh(range(len(shown)), times, tick_label=names, color=FIRST, alpha=0.8)
        axes.invert_yaxis()
        axes.set_xlabel("latency (ms)")
        axes.set_ylabel("layer")
        axes.tick_params(axis="y", labelsize=8)
        axes.grid(axis="y", visible=False)

    total = sum(one.latency_ms for one in layers)
    told = "; ".join(f"{printable(one.name)} {one.latency_ms:.3g} ms" for one in shown[:5])
    alternative = (
        f"Bars of the {len(shown)} layers that take longest, of {len(layers)} that take {total:.4g} ms. "
        f"First: {told}."
    )
    return draw(name, (7.2, 0.9 + 0.28 * len(shown)), alternative, paint)


def costliest(layers: Sequence[LayerData]) -> list[LayerData]:
    """Return the layers that take longest, those first."""
    return sorted(layers, key=lambda one: -one.latency_ms)[:MOST]


def _short(name: str) -> str:
    name = printable(name)
    return name if len(name) <= _LONGEST else f"…{name[1 - _LONGEST :]}"
