"""Operators that int8 has no good word for, said with those it has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ehdnas.core.graph import Graph, Node, Value


def lower_for_int8(graph: Graph, hardswish: bool = False) -> Graph:
    """Return the graph with per-channel scaling as a depthwise convolution, no hard sigmoid, no pool's ReLU.

    A convolution has a scale for each channel and an int32 shift, a multiplication by a constant one
    scale for all. With `hardswish` that operator is written out too, for targets that have none.
    """
    graph = _part_pools(graph)
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op == "affine" and len(node.output.shape) == 4:
            nodes.append(
                _scaling(node, node.inputs[0], node.output, node.params["scale"], node.params["shift"])
            )
        elif node.op == "affine":
            nodes += _split(node)
        elif node.op == "hardsigmoid" and len(node.output.shape) == 4:
            nodes += _hard_sigmoid(node, node.inputs[0], node.output)
        elif node.op == "hardswish" and hardswish and len(node.output.shape) == 4:
            gate = Value(f"{node.name}_gate", node.output.shape)
            product = replace(node, op="mul", inputs=(node.inputs[0], gate))
            nodes += [*_hard_sigmoid(node, node.inputs[0], gate), product]
        else:
            nodes.append(node)
    return graph.with_nodes(nodes)


def _part_pools(graph: Graph) -> Graph:
    """Return the graph with no ReLU as all that follows a pool.

    TensorFlow's converter makes the two one operator, and then refuses it: a pool cannot rescale, as a ReLU
    must. Before a max pool the ReLU gives the same; after an average pool a convolution can have it.
    """
    uses, producers = graph.uses(), graph.producers()
    nodes: list[Node] = []
    moved = False
    for node in graph.nodes:
        before = producers.get(node.inputs[0].name)
        if node.op not in ("relu", "relu6") or before is None or uses[before.output.name] != 1:
            nodes.append(node)
        elif before.op == "max_pool":
            early = Value(f"{node.name}_early", before.inputs[0].shape)
            nodes.append(replace(node, name=early.name, inputs=before.inputs, output=early))
            nodes.append(replace(before, inputs=(early,), output=node.output))
            moved = True
        elif before.op == "avg_pool":
            copy = Value(f"{node.name}_copy", node.output.shape)
            ones = np.ones(copy.shape[1], np.float32)
            nodes += [_scaling(before, before.output, copy, ones, 0 * ones), replace(node, inputs=(copy,))]
        else:
            nodes.append(node)
    # What a ReLU was moved past may have been one of several pools.
    return _part_pools(graph.with_nodes(nodes)) if moved else graph.with_nodes(nodes)


def _split(node: Node) -> list[Node]:
    """Return the scaling and the shifting of a vector as two operators, so that each result has a range."""
    scale, shift = node.params["scale"], node.params["shift"]
    scaled = Value(f"{node.name}_scaled", node.output.shape)
    return [
        replace(node, name=scaled.name, output=scaled, params={"scale": scale, "shift": 0 * shift}),
        replace(node, inputs=(scaled,), params={"scale": np.ones_like(scale), "shift": shift}),
    ]


def _hard_sigmoid(node: Node, x: Value, output: Value) -> list[Node]:
    """Return relu6(x + 3) / 6, as in Howard et al., Searching for MobileNetV3 (2019), section 5.2."""
    shifted, clipped = (Value(f"{node.name}_{part}", x.shape) for part in ("shifted", "clipped"))
    channels = x.shape[1]
    ones = np.ones(channels, np.float32)
    return [
        _scaling(node, x, shifted, ones, 3 * ones),
        Node("relu6", clipped.name, (shifted,), clipped, path=node.path),
        _scaling(node, clipped, output, ones / 6, 0 * ones),
    ]


def _scaling(node: Node, x: Value, output: Value, scale: np.ndarray, shift: np.ndarray) -> Node:
    """Return `x * scale + shift` per channel as a 1×1 depthwise convolution."""
    params = {"weight": scale.reshape(-1, 1, 1, 1), "bias": shift}
    attrs = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": x.shape[1]}
    return Node("conv", output.name, (x,), output, attrs, params, node.path)


def expand_dilated(graph: Graph) -> Graph:
    """Return the graph with each dilated kernel written out with zeros: 3×3 of dilation 2 becomes 5×5.

    Exact, and larger and slower on a CPU; compilers that know no dilation take it.
    """
    return graph.with_nodes([_expanded(node) if _is_dilated(node) else node for node in graph.nodes])


def _is_dilated(node: Node) -> bool:
    return node.op == "conv" and tuple(node.attrs["dilation"]) != (1, 1)


def _expanded(node: Node) -> Node:
    weight = node.params["weight"]
    high, wide = node.attrs["dilation"]
    rows, columns = ((size - 1) * step + 1 for size, step in zip(weight.shape[2:], (high, wide), strict=True))
    spread = np.zeros((*weight.shape[:2], rows, columns), np.float32)
    spread[:, :, ::high, ::wide] = weight
    attrs = {**node.attrs, "dilation": (1, 1)}
    return replace(node, attrs=attrs, params={**node.params, "weight": spread})
