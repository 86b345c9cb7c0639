"""A cell drawn as a graph: two inputs, the nodes, an operation on every edge, and the concatenation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from ehdnas.report.drawing import FIRST, INK, PAPER, SECOND, draw
from ehdnas.report.layout import Layout, arrange
from ehdnas.report.wording import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Edge = tuple[str, int]
"""The operation of an edge, and the input it starts from: 0 and 1 are the cell's inputs, 2 the first node."""

INPUTS = ("two cells back", "previous cell")
_OUTPUT = "concat"
_MOST_EDGES = 40
_MOST_LETTERS = 24
_BOX = 0.30  # height of a box, in inches, like the other sizes here
_ROOM, _PASSING = 0.44, 0.26
_LETTER, _PADDING, _GAP = 0.078, 0.22, 0.34


def as_edges(cell: Any) -> list[Edge] | None:
    """Return a cell's edges, two a node in the order of the nodes, or None if it is no such cell."""
    if not isinstance(cell, list) or not cell or len(cell) % 2 or len(cell) > _MOST_EDGES:
        return None
    edges: list[Edge] = []
    for at, pair in enumerate(cell):
        match pair:
            case [str(operation), int(source)] if 0 <= source < 2 + at // 2:
                edges.append((printable(operation), source))
            case _:
                return None
    return edges


def describe(edges: list[Edge]) -> str:
    """Return a cell in words."""
    nodes = []
    for at in range(0, len(edges), 2):
        parts = [f"{operation} of {_state(source)}" for operation, source in edges[at : at + 2]]
        nodes.append(f"node {at // 2} adds {' and '.join(parts)}")
    return f"{'; '.join(nodes)}; the output concatenates all nodes"


def cell_figure(name: str, edges: list[Edge]) -> Markup:
    """Return the drawing of a cell, an SVG element."""
    nodes = len(edges) // 2
    labels = [*INPUTS, *(f"node {node}" for node in range(nodes)), _OUTPUT]
    labels += [_short(operation) for operation, _ in edges]
    layout = arrange(_ranks(edges), [_ROOM] * len(labels), _links(edges), _PASSING)
    spans = _columns(labels, layout)
    around = (_BOX + _GAP) / 2
    top, bottom = min(layout.y) - around, max(layout.y) + around
    size = (spans[-1][1] + _GAP, bottom - top)

    def paint(axes: Axes) -> None:
        axes.set_axis_off()
        axes.set_xlim(-_GAP / 2, spans[-1][1] + _GAP / 2)
        axes.set_ylim(bottom, top)
        for path in layout.paths:
            _link(axes, path, layout, spans, to_output=path[-1] == 2 + nodes)
        for vertex, label in enumerate(labels):
            _box(axes, label, spans[layout.rank[vertex]], layout.y[vertex], operation=vertex > 2 + nodes)

    return draw(f"cell-{name}", size, f"The {name} cell as a graph: {describe(edges)}.", paint)


def _state(source: int) -> str:
    return INPUTS[source] if source < 2 else f"node {source - 2}"


def _short(operation: str) -> str:
    return operation if len(operation) <= _MOST_LETTERS else f"{operation[: _MOST_LETTERS - 1]}…"


def _ranks(edges: list[Edge]) -> list[int]:
    """Return the layers of inputs, nodes, output and operations: a node's operations come right before it."""
    states = [0, 0]
    for at in range(0, len(edges), 2):
        states.append(2 + max(states[source] for _, source in edges[at : at + 2]))
    return [*states, max(states) + 1, *(states[2 + at // 2] - 1 for at in range(len(edges)))]


def _links(edges: list[Edge]) -> list[tuple[int, int]]:
    output = 2 + len(edges) // 2
    links = []
    for at, (_, source) in enumerate(edges):
        operation = output + 1 + at
        links += [(source, operation), (operation, 2 + at // 2)]
    return links + [(node, output) for node in range(2, output)]


def _columns(labels: list[str], layout: Layout) -> list[tuple[float, float]]:
    """Return where each layer begins and ends in x: as wide as its longest label."""
    spans: list[tuple[float, float]] = []
    x = 0.0
    for layer in range(max(layout.rank) + 1):
        longest = max(len(label) for v, label in enumerate(labels) if layout.rank[v] == layer)
        width = longest * _LETTER + _PADDING
        spans.append((x, x + width))
        x += width + _GAP
    return spans


def _link(
    axes: Axes, path: list[int], layout: Layout, spans: list[tuple[float, float]], to_output: bool
) -> None:
    """Draw a link: level across the layers it passes, a curve in the gaps between them."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    points = [(spans[layout.rank[path[0]]][1], layout.y[path[0]])]
    codes = [Path.MOVETO]
    for vertex in path[1:]:
        (x0, y0), (left, right), y1 = points[-1], spans[layout.rank[vertex]], layout.y[vertex]
        middle = (x0 + left) / 2
        points += [(middle, y0), (middle, y1), (left, y1)]
        codes += [Path.CURVE4] * 3
        if vertex != path[-1]:
            points.append((right, y1))
            codes.append(Path.LINETO)
    style = {"linestyle": (0, (3, 3)), "alpha": 0.5} if to_output else {"alpha": 0.8}
    axes.add_patch(
        PathPatch(Path(points, codes), fill=False, edgecolor=INK, linewidth=1.1, zorder=1, **style)
    )


def _box(axes: Axes, label: str, span: tuple[float, float], y: float, operation: bool) -> None:
    from matplotlib.patches import FancyBboxPatch

    width = len(label) * _LETTER + _PADDING
    # Boxes end where links end: operations and nodes fill their layer, whatever their label.
    left, width = span[0], max(width, span[1] - span[0])
    colour = FIRST if operation else SECOND if label.startswith("node") else INK
    style = f"round,pad=0,rounding_size={0.05 if operation else 0.15}"
    axes.add_patch(
        FancyBboxPatch(
            (left, y - _BOX / 2), width, _BOX, boxstyle=style,
            facecolor=PAPER, edgecolor=colour, linewidth=1.4, zorder=2,
        )
    )  # fmt: skip
    axes.text(left + width / 2, y, label, ha="center", va="center", fontsize=9, zorder=3)
