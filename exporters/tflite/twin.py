"""The network once more, in TensorFlow and NHWC, so that its converter has nothing left to transpose.

Each rule here is exact, and chosen for what TensorFlow Lite makes of it: no TRANSPOSE, no PADV2 (its
infinite padding aborts int8 interpreters), no custom or Flex operator, one operator a convolution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ehdnas.core.errors import UnsupportedOperatorError
from ehdnas.core.graph import Array, Graph, Node, Value
from ehdnas.exporters.quantise.scheme import Ranges
from ehdnas.exporters.tflite.windows import Axis, axes

_UNARY = frozenset({"relu", "relu6", "leaky_relu", "hardswish", "hardsigmoid", "sigmoid", "tanh"})


def nhwc(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return an NCHW shape as NHWC; a shape of another rank as it is."""
    return (shape[0], *shape[2:], shape[1]) if len(shape) == 4 else shape


class Twin:
    """Emits a graph as TensorFlow operators; `tf` is the TensorFlow module.

    With `ranges` every value that has one is marked with it (a fake-quant operator), which is how the
    converter is told the scales of an int8 file.
    """

    def __init__(self, tf: Any, graph: Graph, ranges: Ranges | None = None) -> None:
        self.tf = tf
        self.graph = graph
        self.ranges = ranges
        # Values flattened from more than one pixel: their elements are in NHWC order. Their (C, H, W).
        self.flattened: dict[str, tuple[int, ...]] = {}

    def __call__(self, *images: Any) -> Any:
        """Return the output for NHWC images, one for each input of the graph."""
        values = {v.name: self.mark(image, v) for v, image in zip(self.graph.inputs, images, strict=True)}
        for node in self.graph.nodes:
            self._track_order(node)
            inputs = [values[value.name] for value in node.inputs]
            values[node.output.name] = self.mark(_EMITTERS[node.op](self, node, *inputs), node.output)
        if self.graph.output.name in self.flattened:
            raise _refusal(self.graph.nodes[-1], "of an image, as the network's output,")
        return values[self.graph.output.name]

    def mark(self, made: Any, value: Value) -> Any:
        """Return what was made of a value, marked with its range where it has one."""
        found = None if self.ranges is None else self.ranges.get(value.name)
        if found is None:
            return made
        return self.tf.quantization.fake_quant_with_min_max_args(made, found.low, found.high)

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
        return tf.nn.bias_add(made, _bias(twin, node.params["bias"]))
    # A grouped CONV_2D is of a version that not every interpreter and compiler takes: each group is its own.
    kernels = np.split(weight.transpose(2, 3, 1, 0), groups, axis=-1)
    biases = np.split(node.params["bias"], groups)
    images = [image] if groups == 1 else tf.split(image, groups, axis=-1)
    parts = [
        tf.nn.bias_add(tf.raw_ops.Conv2D(input=part, filter=kernel, **window), _bias(twin, bias))
        for part, kernel, bias in zip(images, kernels, biases, strict=True)
    ]
    return parts[0] if groups == 1 else tf.concat([twin.mark(one, node.output) for one in parts], axis=-1)


def _bias(twin: Twin, bias: Array) -> Array:
    # The converter quantises a bias that is one number throughout by the scale of the first channel alone.
    if twin.ranges is None or not bias.any() or (bias != bias[0]).any():
        return bias
    return np.append(np.nextafter(bias[:1], np.float32(np.inf)), bias[1:])


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
    # Padding would have to be with minus infinity. A window that reaches over the edge holds the edge too,
    # so that the edge once more changes no maximum.
    return pool(_with_edges(twin, image, high, wide), kernel, stride, "VALID")


def _with_edges(twin: Twin, image: Any, high: Axis, wide: Axis) -> Any:
    """Return the image with its outermost rows and columns repeated where windows reach beyond them."""
    tf = twin.tf
    first, last = image[:, :1], image[:, -1:]
    if high.padding or high.end:
        image = tf.concat([*[first] * high.padding, image, *[last] * high.end], 1)
    first, last = image[:, :, :1], image[:, :, -1:]
    if wide.padding or wide.end:
        image = tf.concat([*[first] * wide.padding, image, *[last] * wide.end], 2)
    return image


def _avg_pool(twin: Twin, node: Node, image: Any) -> Any:
    pool = twin.tf.nn.avg_pool2d
    high, wide = axes(node)
    kernel, stride = node.attrs["kernel"], node.attrs["stride"]
    if high.padding == wide.padding == 0:
        return pool(image, kernel, stride, "VALID")
    if high.is_same and wide.is_same:
        return pool(image, kernel, stride, "SAME")
    if twin.ranges is not None and high.is_centred and wide.is_centred:
        # In int8 the mask below would have a scale of its own; here nothing is rescaled.
        return _depthwise(twin, twin.mark(pool(image, kernel, 1, "SAME"), node.output), (1, 1), stride, 1.0)
    # A convolution pads as it reads; a pool would have the image copied into a larger one first.
    pads = [[0, 0], [high.padding, high.end], [wide.padding, wide.end], [0, 0]]
    mean = _depthwise(twin, twin.tf.pad(image, pads), kernel, stride, 1 / (kernel[0] * kernel[1]))
    mean = twin.mark(mean, node.output)
    # The zeros were counted; what they took off the mean is put back.
    inside = high.inside[:, None] * wide.inside[None, :]
    return mean * (kernel[0] * kernel[1] / inside)[None, :, :, None].astype(np.float32)


def _depthwise(
    twin: Twin, image: Any, kernel: tuple[int, int], stride: tuple[int, int], weight: float
) -> Any:
    """Return the depthwise convolution, without padding, whose weights are all one number."""
    weights = np.full((*kernel, image.shape[-1], 1), weight, np.float32)
    return twin.tf.raw_ops.DepthwiseConv2dNative(
        input=image, filter=weights, strides=[1, *stride, 1], padding="VALID"
    )


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
    "leaky_relu": lambda twin, node, x: twin.tf.nn.leaky_relu(x, node.attrs["slope"]),
    "sigmoid": lambda twin, node, x: twin.tf.sigmoid(x),
    "tanh": lambda twin, node, x: twin.tf.tanh(x),
    "softmax": lambda twin, node, x: twin.tf.nn.softmax(x),
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
