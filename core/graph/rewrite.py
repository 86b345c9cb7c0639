"""Rewrites that leave the function computed as it is and the graph shorter."""

from __future__ import annotations

from dataclasses import replace

from ehdnas.core.graph.ir import Graph, Node, Value


def merge_geometry(graph: Graph) -> Graph:
    """Return the graph with slices of slices merged, and even zero padding done by the convolution after."""
    uses, producers = graph.uses(), graph.producers()
    nodes: list[Node] = []
    for node in graph.nodes:
        before = producers.get(node.inputs[0].name) if node.inputs else None
        merged = node
        if before is not None and uses[before.output.name] == 1:
            merged = _merge(before, node)
        producers[node.output.name] = merged
        nodes.append(merged)
    return graph.with_nodes(nodes)


def _merge(before: Node, node: Node) -> Node:
    if (before.op, node.op) == ("slice", "slice"):
        return replace(node, inputs=before.inputs, attrs=_compose(before, node))
    if (before.op, node.op) == ("pad", "conv"):
        top, bottom, left, right = before.attrs["pads"]
        if (top, left) == (bottom, right):
            high, wide = node.attrs["padding"]
            attrs = {**node.attrs, "padding": (high + top, wide + left)}
            return replace(node, inputs=before.inputs, attrs=attrs)
    return node


def _compose(first: Node, second: Node) -> dict[str, tuple[int, ...]]:
    starts, steps = first.attrs["starts"], first.attrs["steps"]
    begin = tuple(s + t * b for s, t, b in zip(starts, steps, second.attrs["starts"], strict=True))
    stride = tuple(t * u for t, u in zip(steps, second.attrs["steps"], strict=True))
    size = second.output.shape
    return {
        "starts": begin,
        "stops": tuple(b + (n - 1) * s + 1 for b, n, s in zip(begin, size, stride, strict=True)),
        "steps": stride,
    }


def share_common(graph: Graph) -> Graph:
    """Return the graph with equal operators on equal inputs computed once.

    Cells that open each branch with a ReLU compute the same one several times. Nodes with parameters
    are left alone: comparing weights costs more than the rare duplicate would.
    """
    seen: dict[tuple[object, ...], Value] = {}
    renamed: dict[str, Value] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        inputs = tuple(renamed.get(value.name, value) for value in node.inputs)
        key = (node.op, inputs, node.output.shape, tuple(sorted(node.attrs.items())))
        if node.params or key not in seen:
            seen.setdefault(key, node.output)
            nodes.append(node)
        else:
            renamed[node.output.name] = seen[key]
    return graph.with_nodes(nodes, renamed)


def sink_relu(graph: Graph) -> Graph:
    """Return the graph with a ReLU that is all that follows a concat done before it, on each of its parts.

    What made the parts can then do the ReLU itself, as convolutions and additions do for nothing, and the
    largest tensors of a cell are not read and written once more.
    """
    uses, producers = graph.uses(), graph.producers()
    nodes: list[Node] = []
    for node in graph.nodes:
        before = producers.get(node.inputs[0].name)
        if (
            node.op == "relu"
            and before is not None
            and before.op == "concat"
            and uses[before.output.name] == 1
        ):
            nodes += _relu_first(before, node)
        else:
            nodes.append(node)
    return share_common(graph.with_nodes(nodes))


def _relu_first(concat: Node, relu: Node) -> list[Node]:
    parts = [Value(f"{relu.name}_{index}", part.shape) for index, part in enumerate(concat.inputs)]
    relus = [
        replace(relu, name=value.name, inputs=(part,), output=value)
        for part, value in zip(concat.inputs, parts, strict=True)
    ]
    return [*relus, replace(concat, inputs=tuple(parts), output=relu.output)]
