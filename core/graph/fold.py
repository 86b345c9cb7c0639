"""Batch norm folded into the convolutions before it."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate

from ehdnas.core.graph.ir import Array, Graph, Node, Value


def fold_batch_norm(graph: Graph) -> Graph:
    """Return the graph with each batch norm (`affine`) folded into the convolution or linear layer before it.

    One that follows a concat is split over what the concat joins. Nothing is folded into a layer
    whose output is also read elsewhere; such a batch norm stays an `affine` node.
    """
    folder = _Folder(graph)
    for node in graph.nodes:
        if node.op == "affine":
            folder.fold(node)
    nodes = [folder.producers[n.output.name] for n in graph.nodes if n.output.name in folder.producers]
    return graph.with_nodes(nodes, folder.renamed)


class _Folder:
    """The graph while it is folded: an `affine` that is gone hands its readers on to its source."""

    def __init__(self, graph: Graph) -> None:
        self.producers = graph.producers()
        self.uses = graph.uses()
        self.renamed: dict[str, Value] = {}

    def fold(self, node: Node) -> None:
        source = self._final(node.inputs[0])
        absorbed = self._absorb(source, node.params["scale"], node.params["shift"])
        if absorbed is None:
            return
        self.producers.update(absorbed)
        del self.producers[node.output.name]
        self.renamed[node.output.name] = source
        self.uses[source.name] = self.uses[node.output.name]

    def _final(self, value: Value) -> Value:
        return self.renamed.get(value.name, value)

    def _absorb(self, value: Value, scale: Array, shift: Array) -> dict[str, Node] | None:
        """Return the nodes that, replaced, make `value * scale + shift`; None where it cannot be done."""
        node = self.producers.get(value.name)
        if node is None or self.uses[value.name] != 1:
            return None
        if node.op in ("conv", "linear"):
            return {value.name: _scaled_weights(node, scale, shift)}
        if node.op == "affine":
            params = {"scale": node.params["scale"] * scale, "shift": node.params["shift"] * scale + shift}
            return {value.name: replace(node, params=params)}
        return self._absorb_concat(node, scale, shift) if node.op == "concat" else None

    def _absorb_concat(self, node: Node, scale: Array, shift: Array) -> dict[str, Node] | None:
        changed: dict[str, Node] = {}
        ends = accumulate(part.shape[1] for part in node.inputs)
        for part, end in zip(node.inputs, ends, strict=True):
            channels = slice(end - part.shape[1], end)
            absorbed = self._absorb(self._final(part), scale[channels], shift[channels])
            if absorbed is None:
                return None
            changed.update(absorbed)
        return changed


def _scaled_weights(node: Node, scale: Array, shift: Array) -> Node:
    weight, bias = node.params["weight"], node.params["bias"]
    column = scale.reshape(-1, *[1] * (weight.ndim - 1))
    return replace(node, params={"weight": weight * column, "bias": bias * scale + shift})
