"""The graph's own types: what an exporter has to express, and nothing of torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

Shape = tuple[int, int, int]
"""One image: (channels, height, width)."""


@dataclass(frozen=True)
class Value:
    """A float32 tensor of the graph; a four-dimensional `shape` is NCHW, and N is 1."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Node:
    """One operator: `inputs` -> `output`, done by the module at `path`.

    | op | attrs | params |
    |---|---|---|
    | `conv` | stride, padding, dilation (height, width), groups | weight (O, I / groups, kh, kw), bias (O) |
    | `linear` | | weight (O, I), bias (O) |
    | `affine` (`x * scale + shift` per channel) | norm: whether it was a batch norm | scale, shift (C) |
    | `relu`, `relu6`, `hardswish`, `hardsigmoid`, `sigmoid`, `tanh` | | |
    | `leaky_relu` | slope | |
    | `softmax` (over the classes) | | |
    | `max_pool` | kernel, stride, padding | |
    | `avg_pool` (padding left out of the mean) | kernel, stride, padding | |
    | `global_pool` (mean over height and width, both kept) | | |
    | `add`, `sub`, `mul`, `concat` (channels) | | |
    | `slice` | starts, stops, steps: one a dimension | |
    | `pad` (zeros) | pads (top, bottom, left, right) | |
    | `reshape` | | |
    | `unsupported` (never in what `trace` returns) | operator, refusal | |
    """

    op: str
    name: str
    inputs: tuple[Value, ...]
    output: Value
    attrs: dict[str, Any] = field(default_factory=dict)
    params: dict[str, Array] = field(default_factory=dict)
    path: str = ""


@dataclass(frozen=True, eq=False)
class Graph:
    """A network for a batch of one: nodes in execution order, inputs (one, but for a cell), one output."""

    inputs: tuple[Value, ...]
    output: Value
    nodes: tuple[Node, ...]

    def producers(self) -> dict[str, Node]:
        """Return the node that makes each value, by the value's name."""
        return {node.output.name: node for node in self.nodes}

    def uses(self) -> Counter[str]:
        """Return how often each value is read, by name; being the graph's output counts as once."""
        counts = Counter(value.name for node in self.nodes for value in node.inputs)
        counts[self.output.name] += 1
        return counts

    def with_nodes(self, nodes: list[Node], renamed: dict[str, Value] | None = None) -> Graph:
        """Return the graph with other nodes, reading `renamed[name]` where `name` was read.

        Nodes that the output does not depend on are left out. `renamed` maps to final values.
        """
        names = renamed or {}
        rewired = [replace(node, inputs=tuple(names.get(v.name, v) for v in node.inputs)) for node in nodes]
        output = names.get(self.output.name, self.output)
        return Graph(self.inputs, output, _live(rewired, output))

    def upto(self, node: Node) -> Graph:
        """Return the part of the graph that makes one node's output."""
        return Graph(self.inputs, node.output, _live(list(self.nodes), node.output))


def shapes_of(shape: Shape | Sequence[Shape]) -> tuple[Shape, ...]:
    """Return the shapes of a network's inputs, given as one shape or as several."""
    several = not all(isinstance(size, int) for size in shape)
    return tuple(shape) if several else (shape,)  # type: ignore[arg-type, return-value]


def _live(nodes: list[Node], output: Value) -> tuple[Node, ...]:
    needed = {output.name}
    kept = []
    for node in reversed(nodes):
        if node.output.name in needed:
            kept.append(node)
            needed.update(value.name for value in node.inputs)
    return tuple(reversed(kept))
