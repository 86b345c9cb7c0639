"""Where file and network part: the layer, found by bisection over the network's own values."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ehdnas.core.errors import EhdnasError
from ehdnas.exporters.parity.difference import breaches, difference
from ehdnas.exporters.parity.run import run_artifact

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ehdnas.core.graph import Graph, Node
    from ehdnas.exporters.base import Exporter

Array = NDArray[Any]

_IMAGES = 8


def find_fault(
    exporter: Exporter, model: nn.Module, graph: Graph, images: Sequence[Array], calibration: Sequence[Array]
) -> str:
    """Return in words where the exported network parts from `model`.

    First the graph against the model's own modules: what differs there was traced wrongly. Then the
    network cut off after a layer is exported and run, for ever fewer candidates, until one is left.

    Args:
        images: a few are used, to compare on.
        calibration: as `Exporter.export`.
    """
    some = [one[:_IMAGES] for one in images]
    seen = _given_by_modules(model, some)
    traced = _first_traced_wrongly(model, seen, some)
    if traced is not None:
        return f"{traced}, where what was traced already differs from the module"
    if _apart(_run(graph, some), seen[""]):
        return "no layer: every module is traced rightly; the folding of batch norms changed the network"
    last = graph.nodes[-1]
    if _agrees(exporter, graph, last, some, calibration):
        return "no layer: exported again, the network agrees; the file is not what was written"
    return _said(_bisect(graph, last, lambda node: _agrees(exporter, graph, node, some, calibration)))


def _bisect(graph: Graph, wrong: Node, agrees: Callable[[Node], bool]) -> Node:
    """Return a node that is wrong though all that it depends on agrees.

    A branch that agrees says nothing of the one beside it: only what a node depends on is cleared with it.
    """
    cleared: set[str] = set()
    while True:
        within = {
            node.name: {one.name for one in graph.upto(node).nodes} - cleared
            for node in graph.upto(wrong).nodes
            if node is not wrong and node.name not in cleared and len(node.output.shape) == 4
        }
        if not within:
            return wrong
        # The one that leaves as many whether it agrees or not.
        middle = min(within, key=lambda name: abs(2 * len(within[name]) - len(within)))
        node = next(one for one in graph.nodes if one.name == middle)
        if agrees(node):
            cleared |= within[middle]
        else:
            wrong = node


def _said(node: Node) -> str:
    return f"{node.op} of {node.path or 'the network itself'}"


def _agrees(
    exporter: Exporter, graph: Graph, node: Node, images: Sequence[Array], calibration: Sequence[Array]
) -> bool:
    part = graph.upto(node)
    expected = _run(part, images)
    with tempfile.TemporaryDirectory(prefix="ehdnas-") as folder:
        path = Path(folder) / f"part{exporter.suffix}"
        try:
            exporter.export_graph(part, path, images=calibration)
            actual = run_artifact(path, images).outputs
        except EhdnasError:
            return False
    return not breaches(difference(actual, expected), exporter.tolerance)


def _run(graph: Graph, images: Sequence[Array]) -> Array:
    import torch

    from ehdnas.core.graph import execute

    with torch.no_grad():
        return execute(graph, [torch.from_numpy(one) for one in images]).numpy()


def _first_traced_wrongly(model: nn.Module, seen: dict[str, Array], images: Sequence[Array]) -> str | None:
    """Return the first module whose output, in `seen`, is not what the graph gives; None if all are."""
    import torch

    from ehdnas.core.graph import execute, trace

    # Before any folding: a folded convolution gives what the batch norm after it gave.
    graph = trace(model, [one.shape[1:] for one in images])
    made: dict[str, Array] = {}
    with torch.no_grad():
        batch = [torch.from_numpy(one) for one in images]
        execute(graph, batch, watch=lambda value, x: _kept(made, value.name, x))
    within = {path: [node for node in graph.nodes if _is_within(node, path)] for path in seen if path}
    within[""] = [graph.nodes[-1]]
    # In the order in which they finish, the innermost first: the first is not wrong for another's sake.
    order = {node.name: index for index, node in enumerate(graph.nodes)}
    paths = sorted((p for p in within if within[p]), key=lambda p: (order[within[p][-1].name], -len(p)))
    for path in paths:
        # A module's result is any of its own nodes' or of those of the modules inside it.
        alike = [made[n.output.name] for n in within[path] if made[n.output.name].shape == seen[path].shape]
        if alike and all(_apart(one, seen[path]) for one in alike):
            return _said(within[path][-1])
    return None


def _given_by_modules(model: nn.Module, images: Sequence[Array]) -> dict[str, Array]:
    """Return what each module gives, by its path (the model's own is empty), if that is one tensor."""
    import torch

    from ehdnas.core.graph import eval_mode

    seen: dict[str, Array] = {}

    def see(path: str, made: Any) -> None:
        if isinstance(made, torch.Tensor):
            seen[path] = made.cpu().numpy().copy()

    hooks = [
        module.register_forward_hook(lambda _, __, made, path=path: see(path, made))
        for path, module in model.named_modules()
    ]
    first = next(model.parameters(), None)
    device = torch.device("cpu") if first is None else first.device
    try:
        with eval_mode(model), torch.no_grad():
            model(*(torch.from_numpy(one).to(device) for one in images))
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _is_within(node: Node, path: str) -> bool:
    return node.path == path or node.path.startswith(f"{path}.")


def _kept(made: dict[str, Array], name: str, x: Tensor) -> Tensor:
    made[name] = x.numpy()
    return x


def _apart(one: Array, other: Array) -> bool:
    from ehdnas.exporters.base import FLOAT32

    return bool(breaches(difference(one, other), FLOAT32))
