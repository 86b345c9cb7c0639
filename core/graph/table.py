"""The layer table of a torch network."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import nn

from ehdnas.core.graph.ir import Graph, Node
from ehdnas.core.graph.trace import walk
from ehdnas.core.layers import Layer, LayerTable

_OPERATORS = {
    "conv": "conv",
    "linear": "linear",
    "max_pool": "max_pool",
    "avg_pool": "avg_pool",
    "global_pool": "global_pool",
    "relu": "relu",
    "relu6": "relu",
    "add": "add",
    "sub": "add",
    "mul": "mul",
    "concat": "concat",
}
# A reshape or a slice changes where the next operator reads, not what is computed.
_FREE = frozenset({"reshape", "slice"})


def layer_table(model: nn.Module, input_shape: tuple[int, int, int]) -> LayerTable:
    """Return what `model` computes for one image of `input_shape` (C, H, W), one row an operator.

    Rows are named by module path; an operator of a module's own forward adds its own name to that.
    Batch norm, reshapes and slices are free. Operators that no row describes are counted by name.

    Raises:
        ExportError: torch.export refuses the model, or it does not return one tensor.
        UsageError: `input_shape` is not three positive integers.
    """
    graph = walk(model, input_shape)
    parents = {name for name, module in model.named_modules() if any(module.children())}
    rows = [_row(node, parents) for node in graph.nodes if _operator(node) is not None]
    return LayerTable(tuple(rows), _unsupported(graph))


def _unsupported(graph: Graph) -> dict[str, int]:
    names = [
        str(node.attrs.get("operator", node.op))
        for node in graph.nodes
        if _operator(node) is None and node.op not in _FREE and not node.attrs.get("norm")
    ]
    return dict(Counter(names))


def _operator(node: Node) -> str | None:
    if node.op == "affine" and not node.attrs["norm"]:
        return "add" if (node.params["scale"] == 1).all() else "mul"
    return _OPERATORS.get(node.op)


def _row(node: Node, parents: set[str]) -> Layer:
    name = f"{node.path}.{node.name}".lstrip(".") if node.path in parents else node.path
    # An operator on several values is described by the one it makes: its inputs can broadcast to that.
    shape = node.output.shape if len(node.inputs) > 1 else node.inputs[0].shape
    height, width = shape[2:] if len(shape) == 4 else (1, 1)
    return Layer(
        name=name or node.name,
        operator=str(_operator(node)),
        cin=shape[1],
        cout=node.output.shape[1],
        h=height,
        w=width,
        **_window(node),
    )


def _window(node: Node) -> dict[str, Any]:
    known: dict[str, Any] = {
        key: node.attrs[key] for key in ("stride", "padding", "dilation", "groups") if key in node.attrs
    }
    if node.op == "conv":
        return {**known, "kernel": node.params["weight"].shape[2:]}
    if node.op == "global_pool":
        return {"kernel": node.inputs[0].shape[2:]}
    return {**known, "kernel": node.attrs["kernel"]} if "kernel" in node.attrs else {}
