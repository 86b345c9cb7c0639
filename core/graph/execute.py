"""A graph run by torch: what an exported file is compared with, and what quantisation is worked out on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ehdnas.core.graph.ir import Array, Graph, Node, Value

Params = Mapping[str, Tensor]
Watch = Callable[[Value, Tensor], Tensor]
"""Sees every value as it is made, the inputs first, and returns what is to stand in its place."""

# Elements of one batch of input images: what a batch makes on its way through a large network must fit.
_BATCH_ELEMENTS = 1 << 18


def params_of(node: Node) -> dict[str, Tensor]:
    """Return a node's parameters as tensors that share their memory."""
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in node.params.items()}


def apply(node: Node, params: Params, *inputs: Tensor) -> Tensor:
    """Return what one node makes of its inputs [n, ...]; n need not be the graph's batch of one."""
    made: Tensor = _OPERATORS[node.op](node, params, *inputs)
    return made


def execute(
    graph: Graph,
    images: Sequence[Tensor],
    params: Callable[[Node], Params] = params_of,
    watch: Watch = lambda value, made: made,
) -> Tensor:
    """Return the graph's output for a batch of images [n, C, H, W], one tensor for each of its inputs.

    Args:
        params: what to use for a node's parameters, for those that are being trained or quantised.
        watch: see `Watch`.
    """
    values = {value.name: watch(value, image) for value, image in zip(graph.inputs, images, strict=True)}
    left = graph.uses()
    for node in graph.nodes:
        made = apply(node, params(node), *(values[value.name] for value in node.inputs))
        values[node.output.name] = watch(node.output, made)
        for value in node.inputs:
            left[value.name] -= 1
            if not left[value.name]:
                values.pop(value.name, None)
    return values[graph.output.name]


def batches(images: Sequence[Array]) -> list[tuple[Tensor, ...]]:
    """Return images [n, C, H, W], one array an input, cut into batches that a network's run has room for."""
    size = max(1, _BATCH_ELEMENTS // max(1, sum(one[0].size for one in images)))
    size = min(64, max(4, size))
    starts = range(0, len(images[0]), size)
    return [
        tuple(torch.from_numpy(np.ascontiguousarray(one[i : i + size], np.float32)) for one in images)
        for i in starts
    ]


def _conv(node: Node, params: Params, x: Tensor) -> Tensor:
    attrs = node.attrs
    return F.conv2d(
        x, params["weight"], params["bias"],
        stride=attrs["stride"], padding=attrs["padding"], dilation=attrs["dilation"], groups=attrs["groups"],
    )  # fmt: skip


def _linear(node: Node, params: Params, x: Tensor) -> Tensor:
    return F.linear(x, params["weight"], params["bias"])


def _affine(node: Node, params: Params, x: Tensor) -> Tensor:
    shape = (1, -1) + (1,) * (x.dim() - 2)
    return x * params["scale"].reshape(shape) + params["shift"].reshape(shape)


def _max_pool(node: Node, params: Params, x: Tensor) -> Tensor:
    made: Tensor = F.max_pool2d(x, **_window(node))
    return made


def _avg_pool(node: Node, params: Params, x: Tensor) -> Tensor:
    return F.avg_pool2d(x, **_window(node), count_include_pad=False)


def _window(node: Node) -> dict[str, Any]:
    attrs = node.attrs
    return {"kernel_size": attrs["kernel"], "stride": attrs["stride"], "padding": attrs["padding"]}


def _slice(node: Node, params: Params, x: Tensor) -> Tensor:
    bounds = zip(node.attrs["starts"], node.attrs["stops"], node.attrs["steps"], strict=True)
    _, *rest = (slice(*bound) for bound in bounds)
    return x[(slice(None), *rest)]


def _pad(node: Node, params: Params, x: Tensor) -> Tensor:
    top, bottom, left, right = node.attrs["pads"]
    return F.pad(x, (left, right, top, bottom))


_OPERATORS: dict[str, Callable[..., Tensor]] = {
    "conv": _conv,
    "linear": _linear,
    "affine": _affine,
    "relu": lambda node, params, x: F.relu(x),
    "relu6": lambda node, params, x: F.relu6(x),
    "leaky_relu": lambda node, params, x: F.leaky_relu(x, node.attrs["slope"]),
    "hardswish": lambda node, params, x: F.hardswish(x),
    "hardsigmoid": lambda node, params, x: F.hardsigmoid(x),
    "sigmoid": lambda node, params, x: torch.sigmoid(x),
    "tanh": lambda node, params, x: torch.tanh(x),
    "softmax": lambda node, params, x: torch.softmax(x, 1),
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "global_pool": lambda node, params, x: x.mean((2, 3), keepdim=True),
    "add": lambda node, params, x, y: x + y,
    "sub": lambda node, params, x, y: x - y,
    "mul": lambda node, params, x, y: x * y,
    "concat": lambda node, params, *parts: torch.cat(parts, 1),
    "slice": _slice,
    "pad": _pad,
    "reshape": lambda node, params, x: x.reshape(len(x), *node.output.shape[1:]),
}
