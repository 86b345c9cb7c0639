"""The network once more, in TensorFlow and NHWC, so that its converter has nothing left to transpose.

Each rule here is exact, and chosen for what TensorFlow Lite makes of it: no TRANSPOSE, no PADV2 (its
infinite padding aborts int8 interpreters), no custom or Flex operator, one operator a convolution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ehdnas.core.errors import UnsupportedOperatorError
from ehdnas.core.graph import Graph, Node, Value
from ehdnas.exporters.windows import Axis, axes

_UNARY = frozenset({"relu", "relu6", "hardswish", "hardsigmoid", "sigmoid"})


def nhwc(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return an NCHW shape as NHWC; a shape of another rank as it is."""
    return (shape[0], *shape[2:], shape[1]) if len(shape) == 4 else shape


class Twin:
    """Emits a graph as TensorFlow operators; `tf` is the TensorFlow module."""

    def __init__(self, tf: Any, graph: Graph) -> None:
        self.tf = tf
        self.graph = graph
        # Values flattened from more than one pixel: their elements are in NHWC order. Their (C, H, W).
        self.flattened: dict[str, tuple[int, ...]] = {}

    def __call__(self, image: Any) -> dict[str, Any]:
        """Return the logits of an NHWC image, under the name of the output."""
        values = {self.graph.input.name: image}
        for node in self.graph.nodes:
            self._track_order(node)
            inputs = [values[value.name] for value in node.inputs]
            values[node.output.name] = _EMITTERS[node.op](self, node, *inputs)
        if self.graph.output.name in self.flattened:
            raise _refusal(self.graph.nodes[-1], "of an image, as the network's output,")
        return {"logits": values[self.graph.output.name]}

    def _track_order(self, node: Node) -> None:
        source = node.inputs[0]
        if node.op == "reshape" and sum(size > 1 for size in source.shape) > 1 and _pixels(source) > 1:
            self.flattened[node.output.name] = source.shape[1:]
            return
        found = [value for value in node.inputs if value.name in self.flattened]
        if found and node.op in _UNARY:
            self.flattened[node.output.name] = self.flattened[source.name]
        elif found and node.op != "linear":
            raise _refusal(node, "on a flattened image")


def _pixels(value: Value) -> int:
    return value.shape[2] * value.shape[3]


def _refusal(node: Node, why: str) -> UnsupportedOperatorError:
    place = f"at {node.path}" if node.path else "in the network's own forward"
    return UnsupportedOperatorError(
        f"{node.op} {why} {place} has no exact form in TensorFlow Lite; replace it"
    )


def _padded(twin: Twin, image: Any, high: Axis, wide: Axis) -> tuple[Any, str]:
    """Return the image and the TensorFlow padding that make torch's windows."""
    if high.is_same and wide.is_same:
        return image, "SAME"
    if high.padding == wide.padding == 0:
        return image, "VALID"
    pads = [[0, 0], [high.padding, high.end], [wide.padding, wide.end], [0, 0]]
    return twin.tf.pad(image, pads), "VALID"


def _conv(twin: Twin, node: Node, image: Any) -> Any:
    tf, weight, groups = twin.tf, node.params["weight"], node.attrs["groups"]
    image, padding = _padded(twin, image, *axes(node))
    window = {
        "strides": [1, *node.attrs["stride"], 1],
        "dilations": [1, *node.attrs["dilation"], 1],
        "padding": padding,
    }
    channels = node.inputs[0].shape[1]
    if groups == channels and groups > 1:
        # (C x M, 1, kh, kw) -> (kh, kw, C, M). The raw operator also takes stride and dilation together.
        kernel = weight.reshape(channels, -1, *weight.shape[2:]).transpose(2, 3, 0, 1)
        made = tf.raw_ops.DepthwiseConv2dNative(input=image, filter=kernel, **window)
    elif groups == 1:
        made = tf.raw_ops.Conv2D(input=image, filter=weight.transpose(2, 3, 1, 0), **window)
    else:
        # A grouped CONV_2D is of a version that not every interpreter and compiler takes.
        kernels = np.split(weight.transpose(2, 3, 1, 0), groups, axis=-1)
        parts = zip(tf.split(image, groups, axis=-1), kernels, strict=True)
        made = tf.concat([tf.raw_ops.Conv2D(input=part, filter=k, **window) for part, k in parts], axis=-1)
    return tf.nn.bias_add(made, node.params["bias"])


def _linear(twin: Twin, node: Node, vector: Any) -> Any:
    weight = node.params["weight"]
    order = twin.flattened.get(node.inputs[0].name)
    if order is not None:
        weight = weight.reshape(-1, *order).transpose(0, 2, 3, 1).reshape(weight.shape)
    return twin.tf.nn.bias_add(twin.tf.matmul(vector, weight.T), node.params["bias"])


def _affine(twin: Twin, node: Node, value: Any) -> Any:
    scale, shift = node.params["scale"], node.params["shift"]
    scaled = value if (scale == 1).all() else value * scale
    return scaled if (shift == 0).all() else scaled + shift


def _max_pool(twin: Twin, node: Node, image: Any) -> Any:
    pool = twin.tf.nn.max_pool2d
    high, wide = axes(node)
    kernel, stride = node.attrs["kernel"], node.attrs["stride"]
    if high.is_same and wide.is_same:
        return pool(image, kernel, stride, "SAME")
    if high.padding == wide.padding == 0:
        return pool(image, kernel, stride, "VALID")
    if high.is_centred and wide.is_centred:
        # Padding would have to be with minus infinity; SAME needs none, and the second pool only picks.
        return pool(pool(image, kernel, 1, "SAME"), 1, stride, "VALID")
    raise _refusal(node, f"with kernel {kernel}, stride {stride} and padding {node.attrs['padding']}")


def _avg_pool(twin: Twin, node: Node, image: Any) -> Any:
    pool = twin.tf.nn.avg_pool2d
    high, wide = axes(node)
    kernel, stride = node.attrs["kernel"], node.attrs["stride"]
    if high.padding == wide.padding == 0:
        return pool(image, kernel, stride, "VALID")
    # TensorFlow leaves padding out of the mean.
    excluded = not node.attrs["count_include_pad"]
    if excluded and high.is_same and wide.is_same:
        return pool(image, kernel, stride, "SAME")
    pads = [[0, 0], [high.padding, high.end], [wide.padding, wide.end], [0, 0]]
    mean = pool(twin.tf.pad(image, pads), kernel, stride, "VALID")
    if not excluded:
        return mean
    inside = high.inside[:, None] * wide.inside[None, :]
    return mean * (kernel[0] * kernel[1] / inside)[None, :, :, None].astype(np.float32)


def _slice(twin: Twin, node: Node, image: Any) -> Any:
    bounds = [nhwc(node.attrs[key]) for key in ("starts", "stops", "steps")]
    return twin.tf.strided_slice(image, *bounds)


def _pad(twin: Twin, node: Node, image: Any) -> Any:
    top, bottom, left, right = node.attrs["pads"]
    return twin.tf.pad(image, [[0, 0], [top, bottom], [left, right], [0, 0]])


def _hardsigmoid(twin: Twin, node: Node, value: Any) -> Any:
    return twin.tf.nn.relu6(value + 3.0) * (1 / 6)


# The pattern that the converter knows as HARD_SWISH.
def _hardswish(twin: Twin, node: Node, value: Any) -> Any:
    return value * twin.tf.nn.relu6(value + 3.0) * (1 / 6)


_EMITTERS: dict[str, Callable[..., Any]] = {
    "conv": _conv,
    "linear": _linear,
    "affine": _affine,
    "relu": lambda twin, node, x: twin.tf.nn.relu(x),
    "relu6": lambda twin, node, x: twin.tf.nn.relu6(x),
    "hardswish": _hardswish,
    "hardsigmoid": _hardsigmoid,
    "sigmoid": lambda twin, node, x: twin.tf.sigmoid(x),
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "global_pool": lambda twin, node, x: twin.tf.reduce_mean(x, [1, 2], keepdims=True),
    "add": lambda twin, node, x, y: x + y,
    "sub": lambda twin, node, x, y: x - y,
    "mul": lambda twin, node, x, y: x * y,
    "concat": lambda twin, node, *parts: twin.tf.concat(parts, axis=-1),
    "slice": _slice,
    "pad": _pad,
    "reshape": lambda twin, node, x: twin.tf.reshape(x, nhwc(node.output.shape)),
}
