"""A simulation as pictures and as a table for other programs: roofline, timeline, CSV."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from ehdnas.profilers.e2e_perf.simulation import TOGETHER, Simulation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that stay apart for colour-blind eyes: Okabe and Ito, "Color Universal Design", 2008.
_COLOURS = {"compute": "#0072b2", "memory": "#d55e00", "overhead": "#999999", TOGETHER: "#0072b2"}
_COLUMNS = (
    "name",
    "operator",
    "output",
    "macs",
    "cycles",
    "compute_cycles",
    "memory_cycles",
    "bound",
    "dram_bytes",
)


def layers_csv(simulation: Simulation) -> str:
    """Return the per-layer table, parallelism included, as CSV with a header."""
    keys = sorted({key for row in simulation.layers for key in row.design})
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*_COLUMNS, *keys])
    for row in simulation.layers:
        fixed = [getattr(row, name) for name in _COLUMNS]
        fixed[2] = "x".join(map(str, row.output))
        writer.writerow([*fixed, *(row.design.get(key, "") for key in keys)])
    return out.getvalue()


def roofline(simulation: Simulation, device: str) -> str:
    """Return, as SVG, each layer's MAC/s over its MACs per byte of external memory, under the device's roof.

    The roofline model: Williams, Waterman and Patterson, CACM 2009. Layers that compute no MAC, or move
    nothing, have no place in it.
    """
    figure, axes = _figure((7.0, 4.5))
    rows = [row for row in simulation.layers if row.macs and row.dram_bytes and row.cycles]
    for bound, colour in _COLOURS.items():
        chosen = [row for row in rows if row.bound == bound]
        if chosen:
            x = [row.macs / row.dram_bytes for row in chosen]
            axes.scatter(
                x,
                [row.macs / row.cycles * simulation.clock_hz / 1e9 for row in chosen],
                s=18,
                color=colour,
                label=f"{bound} bound",
            )
    _roof(axes, simulation, [row.macs / row.dram_bytes for row in rows])
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("MACs per byte of external memory")
    axes.set_ylabel("10⁹ MAC/s")
    axes.set_title(f"Roofline on {device}, simulated")
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def timeline(simulation: Simulation, device: str) -> str:
    """Return, as SVG, when each layer works on one image: in turn, or side by side in a pipeline."""
    rows = [row for row in simulation.layers if row.cycles]
    figure, axes = _figure((8.0, min(1.0 + 0.16 * len(rows), 60.0)))
    milliseconds = 1e3 / simulation.clock_hz
    for at, row in enumerate(rows):
        left, width = row.start_cycles * milliseconds, row.cycles * milliseconds
        axes.barh(at, width, left=left, height=0.8, color=_COLOURS.get(row.bound, "#999999"))
    axes.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=5)
    axes.invert_yaxis()
    axes.set_xlabel("ms")
    axes.set_title(f"One image on {device}, simulated")
    return _svg(figure)


def _roof(axes: Axes, simulation: Simulation, intensities: list[float]) -> None:
    """Draw what the device could do at best, where that is known."""
    if not intensities or simulation.peak_macs_per_s is None or simulation.dram_bytes_per_s is None:
        return
    peak, bandwidth = simulation.peak_macs_per_s / 1e9, simulation.dram_bytes_per_s / 1e9
    ridge = peak / bandwidth
    x = sorted({min(*intensities, ridge) / 2, ridge, max(*intensities, ridge) * 2})
    axes.plot(x, [min(peak, at * bandwidth) for at in x], color="black", linewidth=1.2, label="roof")


def _figure(size: tuple[float, float]) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    axes.grid(alpha=0.2)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()
