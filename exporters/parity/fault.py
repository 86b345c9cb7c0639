"""Where file and network part: the layer, found by bisection over the network's own values."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
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
    traced = _first_traced_wrongly(model, some)
    if traced is not None:
        return f"{traced}, where what was traced already differs from the module"
    layers = [node for node in graph.nodes if len(node.output.shape) == 4 or node is graph.nodes[-1]]
    low, high = 0, len(layers) - 1
    if _agrees(exporter, graph, layers[high], some, calibration):
        return "no layer: exported again, the network agrees; the file is not what was written"
    while low < high:
        middle = (low + high) // 2
        if _agrees(exporter, graph, layers[middle], some, calibration):
            low = middle + 1
        else:
            high = middle
    return _said(layers[low])


def _said(node: Node) -> str:
    return f"{node.op} of {node.path or 'the network itself'}"


def _agrees(
    exporter: Exporter, graph: Graph, node: Node, images: Sequence[Array], calibration: Sequence[Array]
) -> bool:
    import torch

    from ehdnas.core.graph import execute

    part = graph.upto(node)
    with torch.no_grad():
        expected = execute(part, [torch.from_numpy(one) for one in images]).numpy()
    with tempfile.TemporaryDirectory(prefix="ehdnas-") as folder:
        path = Path(folder) / f"part{exporter.suffix}"
        try:
            exporter.export_graph(part, path, images=calibration)
            actual = run_artifact(path, images).outputs
        except EhdnasError:
            return False
    return not breaches(difference(actual, expected), exporter.tolerance)


def _first_traced_wrongly(model: nn.Module, images: Sequence[Array]) -> str | None:
    """Return the first module whose output is not what the graph gives in its place; None if all are."""
    import torch

    from ehdnas.core.graph import eval_mode, execute, trace

    # Before any folding: a folded convolution gives what the batch norm after it gave.
    graph = trace(model, [one.shape[1:] for one in images])
    last = {node.path: node for node in graph.nodes if node.path}
    seen: dict[str, Array] = {}
    hooks = [
        module.register_forward_hook(lambda _, __, made, path=path: seen.update({path: made.numpy().copy()}))
        for path, module in model.named_modules()
        if path in last
    ]
    batch = [torch.from_numpy(one) for one in images]
    try:
        with eval_mode(model), torch.no_grad():
            final = model(*batch).numpy()
    finally:
        for hook in hooks:
            hook.remove()
    made: dict[str, Array] = {}
    with torch.no_grad():
        execute(graph, batch, watch=lambda value, x: _kept(made, value.name, x))
    for path, node in last.items():
        if path in seen and _apart(made[node.output.name], seen[path]):
            return _said(node)
    return _said(graph.nodes[-1]) if _apart(made[graph.output.name], final) else None


def _kept(made: dict[str, Array], name: str, x: Tensor) -> Tensor:
    made[name] = x.numpy()
    return x


def _apart(one: Array, other: Array) -> bool:
    from ehdnas.exporters.base import FLOAT32

    return one.shape == other.shape and bool(breaches(difference(one, other), FLOAT32))
