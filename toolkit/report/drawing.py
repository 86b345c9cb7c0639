"""From matplotlib to SVG that lives inside a page: in the page's colours and font, in light and dark."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colours that stand for the page's own until the SVG is written, since matplotlib knows no CSS.
INK = "#010203"
FIRST = "#010204"
SECOND = "#010205"
PAPER = "#010206"
_CSS = {INK: "currentColor", FIRST: "var(--first)", SECOND: "var(--second)", PAPER: "var(--paper)"}

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name with two dollar signs is a name
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "font.size": 10,
    "lines.linewidth": 1.8,
}


def draw(name: str, size: tuple[float, float], alternative: str, paint: Callable[[Axes], None]) -> Markup:
    """Return an `<svg>` element of what `paint` draws; equal inputs give equal text.

    Args:
        name: unlike that of any other figure of the page, since references within the page rest on it.
        size: width and height in inches; the page scales it.
        alternative: what the figure shows, for those who do not see it.
    """
    # Chatter about font caches and missing glyphs; the page brings its own fonts anyway.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    out = io.StringIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**_STYLE, "svg.hashsalt": name})
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure.subplots())
        figure.savefig(out, format="svg", metadata={"Date": None})
    return _inline(out.getvalue(), alternative)


def _inline(document: str, alternative: str) -> Markup:
    """Return an SVG document as an element: no prologue, metadata or style, the page's colours and font."""
    svg = document[document.index("<svg") :].rstrip()
    svg = re.sub(r"\s*<metadata>.*?</metadata>|\s*<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.S)
    svg = re.sub(r"(?<=: )#0102\d\d(?=[;\"])", lambda found: _CSS[found[0]], svg)
    svg = re.sub(r" font-family: [^;\"]*;?", "", svg)
    # matplotlib numbers what it draws alike in every figure, and an id may occur once in a page.
    used = set(re.findall(r"#([\w.-]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)
    label = f'<svg role="img" aria-label="{escape(alternative)}" '
    return Markup(svg.replace("<svg ", label, 1))  # noqa: S704 - matplotlib escapes texts, and we the label
