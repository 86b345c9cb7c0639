"""The int8 network as torch computes it: rounded weights, rounded activations, gradients through both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ehdnas.core.graph import Array, Graph, Node, Params, Value, apply, batches, execute, params_of
from ehdnas.exporters.parity.difference import difference
from ehdnas.exporters.quantise.scheme import Ranges, fake_weights


def fake_params(node: Node, params: Params | None = None) -> Params:
    """Return a node's parameters, or those given in their place, with the weights rounded to int8."""
    found = params_of(node) if params is None else params
    if "weight" not in found:
        return found
    return {**found, "weight": fake_weights(found["weight"], per_channel=node.op == "conv")}


def simulate(graph: Graph, ranges: Ranges, images: Sequence[Tensor]) -> Tensor:
    """Return what the int8 network gives for a batch [n, C, H, W] of each input, as real numbers."""

    def watch(value: Value, made: Tensor) -> Tensor:
        return ranges[value.name].fake(made) if value.name in ranges else made

    return execute(graph, images, fake_params, watch)


def noise_of(graph: Graph, ranges: Ranges, images: Sequence[Array], expected: Sequence[Tensor]) -> float:
    """Return the error of the simulated outputs relative to what tells classes apart, as parity's `noise`."""
    with torch.no_grad():
        made = torch.cat([simulate(graph, ranges, batch) for batch in batches(images)])
    return difference(made.numpy(), torch.cat(list(expected)).numpy()).noise


def correct_bias(graph: Graph, ranges: Ranges, images: Sequence[Array]) -> Graph:
    """Return the graph with the mean error that rounding leaves in each channel taken out of the biases.

    The float and the int8 network are walked side by side, so that each layer is corrected for the
    errors of those before it too (Nagel et al., Data-Free Quantization, ICCV 2019, appendix D).
    """
    batch = tuple(torch.from_numpy(np.ascontiguousarray(one, np.float32)) for one in images)
    true = dict(zip((value.name for value in graph.inputs), batch, strict=True))
    rounded = {name: _rounded(name, x, ranges) for name, x in true.items()}
    left = graph.uses()
    nodes: list[Node] = []
    with torch.no_grad():
        for node in graph.nodes:
            made = apply(node, params_of(node), *(true[value.name] for value in node.inputs))
            sources = [rounded[value.name] for value in node.inputs]
            approximate = apply(node, fake_params(node), *sources)
            if "bias" in node.params:
                error = (made - approximate).transpose(0, 1).flatten(1).mean(1)
                bias = node.params["bias"] + error.numpy()
                node = replace(node, params={**node.params, "bias": bias})
                approximate = apply(node, fake_params(node), *sources)
            true[node.output.name] = made
            rounded[node.output.name] = _rounded(node.output.name, approximate, ranges)
            nodes.append(node)
            for value in node.inputs:
                left[value.name] -= 1
                if not left[value.name]:
                    del true[value.name], rounded[value.name]
    return graph.with_nodes(nodes)


def _rounded(name: str, x: Tensor, ranges: Ranges) -> Tensor:
    return ranges[name].fake(x) if name in ranges else x
