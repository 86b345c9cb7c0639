"""How each node of the graph is said in ONNX, and where its values are quantised."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from ehdnas.core.graph import Graph, Node, Value
from ehdnas.exporters.base import input_names, output_name
from ehdnas.exporters.quantise.scheme import HIGH, Range, Ranges, weight_scales

_PLAIN = {
    "relu": "Relu",
    "hardswish": "HardSwish",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "global_pool": "GlobalAveragePool",
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
}


_MOST_LEVELS = 1 << 30  # of a bias, in an int32


class Writer:
    """ONNX nodes and constants, as the graph's nodes are added one by one.

    With `ranges` each value that has one passes through QuantizeLinear and DequantizeLinear, and weights
    are stored as int8: what runtimes take for an int8 operator.
    """

    def __init__(self, graph: Graph, ranges: Ranges | None = None) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._graph = graph
        self._ranges = ranges or {}
        self._names = {value.name: name for name, value in self.ends()}
        self._read: dict[str, str] = {}
        for value in graph.inputs:
            if value.name in self._ranges:
                self._read[value.name] = self._quantised(value.name, self._names[value.name])

    def ends(self) -> Iterator[tuple[str, Value]]:
        """Yield the inputs and then the output, as (name in the file, value)."""
        yield from zip(input_names(self._graph), self._graph.inputs, strict=True)
        yield output_name(self._graph), self._graph.output

    def add(self, node: Node) -> None:
        """Add what expresses one node of the graph."""
        if node.op in _PLAIN:
            self.emit(node, _PLAIN[node.op])
        else:
            _EMITTERS[node.op](self, node)

    def emit(self, node: Node, operator: str, *constants: str, **attributes: Any) -> None:
        """Add an ONNX operator that reads the node's inputs, then constants, and makes the node's output."""
        inputs = [self._read.get(value.name, self._name(value.name)) for value in node.inputs]
        value = node.output.name
        output = f"/{value}.real" if value in self._ranges else self._name(value)
        self.nodes.append(
            helper.make_node(operator, [*inputs, *constants], [output], name=node.name, **attributes)
        )
        if value in self._ranges:
            self._read[value] = self._quantised(value, output)

    def constant(self, node: Node, role: str, value: Any, dtype: type = np.float32) -> str:
        """Add a constant and return its name."""
        return self._store(f"{node.name}.{role}", value, dtype)

    def weights(self, node: Node) -> tuple[str, str]:
        """Add a node's weight and bias, int8 and int32 where its input is quantised; return their names."""
        found = self._ranges.get(node.inputs[0].name)
        weight, bias = node.params["weight"], node.params["bias"]
        if found is None:
            return self.constant(node, "weight", weight), self.constant(node, "bias", bias)
        # A channel whose weights are next to nothing would have steps too small for its bias in 32 bits.
        scales = np.maximum(weight_scales(node), np.abs(bias) / np.float32(found.scale * _MOST_LEVELS))
        levels = np.round(weight / scales.reshape(-1, *[1] * (weight.ndim - 1)))
        steps = scales * np.float32(found.scale)
        return (
            self._dequantised(f"{node.name}.weight", np.clip(levels, -HIGH, HIGH), scales, np.int8),
            self._dequantised(f"{node.name}.bias", np.round(bias / steps), steps, np.int32),
        )

    def _dequantised(self, name: str, levels: Any, scales: Any, dtype: type) -> str:
        stored = [
            self._store(f"{name}.levels", levels, dtype),
            self._store(f"{name}.scale", scales, np.float32),
            self._store(f"{name}.zero", np.zeros(len(scales)), dtype),
        ]
        self.nodes.append(helper.make_node("DequantizeLinear", stored, [name], name=name, axis=0))
        return name

    def _quantised(self, value: str, source: str) -> str:
        """Add a quantise and dequantise pair after `source` and return what readers of the value read."""
        found: Range = self._ranges[value]
        scale = self._store(f"/{value}.scale", found.scale, np.float32)
        zero = self._store(f"/{value}.zero", found.zero_point, np.int8)
        levels = f"/{value}.levels"
        read = self._name(value) if value == self._graph.output.name else f"/{value}.read"
        self.nodes.append(helper.make_node("QuantizeLinear", [source, scale, zero], [levels], name=levels))
        self.nodes.append(helper.make_node("DequantizeLinear", [levels, scale, zero], [read], name=read))
        return read

    def _store(self, name: str, value: Any, dtype: type) -> str:
        self.constants.append(numpy_helper.from_array(np.array(value, dtype=dtype, order="C"), name))
        return name

    def _name(self, name: str) -> str:
        # A prefix keeps the graph's own names apart from "input" and "logits".
        return self._names.get(name, f"/{name}")


def _conv(writer: Writer, node: Node) -> None:
    writer.emit(
        node,
        "Conv",
        *writer.weights(node),
        kernel_shape=node.params["weight"].shape[2:],
        strides=node.attrs["stride"],
        pads=node.attrs["padding"] * 2,
        dilations=node.attrs["dilation"],
        group=node.attrs["groups"],
    )


def _linear(writer: Writer, node: Node) -> None:
    writer.emit(node, "Gemm", *writer.weights(node), transB=1)


def _affine(writer: Writer, node: Node) -> None:
    shape = (1, -1) + (1,) * (len(node.output.shape) - 2)
    scale, shift = (node.params[role].reshape(shape) for role in ("scale", "shift"))
    if (shift == 0).all():
        writer.emit(node, "Mul", writer.constant(node, "scale", scale))
        return
    if not (scale == 1).all():
        scaled = Value(f"{node.name}.scaled", node.output.shape)
        first = replace(node, name=scaled.name, output=scaled)
        writer.emit(first, "Mul", writer.constant(node, "scale", scale))
        node = replace(node, inputs=(scaled,))
    writer.emit(node, "Add", writer.constant(node, "shift", shift))


def _relu6(writer: Writer, node: Node) -> None:
    writer.emit(node, "Clip", writer.constant(node, "min", 0.0), writer.constant(node, "max", 6.0))


def _leaky_relu(writer: Writer, node: Node) -> None:
    writer.emit(node, "LeakyRelu", alpha=node.attrs["slope"])


def _softmax(writer: Writer, node: Node) -> None:
    writer.emit(node, "Softmax", axis=1)


def _hardsigmoid(writer: Writer, node: Node) -> None:
    # OpenCV (4.14, 5.0) computes HardSigmoid wrongly between a convolution and a multiplication.
    shifted, clipped = (Value(f"{node.name}.{part}", node.output.shape) for part in ("shifted", "clipped"))
    first = replace(node, name=shifted.name, output=shifted)
    writer.emit(first, "Add", writer.constant(node, "three", 3.0))
    _relu6(writer, replace(node, name=clipped.name, inputs=(shifted,), output=clipped))
    writer.emit(replace(node, inputs=(clipped,)), "Mul", writer.constant(node, "sixth", 1 / 6))


def _max_pool(writer: Writer, node: Node) -> None:
    writer.emit(node, "MaxPool", **_window(node))


def _avg_pool(writer: Writer, node: Node) -> None:
    writer.emit(node, "AveragePool", count_include_pad=0, **_window(node))


def _window(node: Node) -> dict[str, Any]:
    attrs = node.attrs
    return {"kernel_shape": attrs["kernel"], "strides": attrs["stride"], "pads": attrs["padding"] * 2}


def _concat(writer: Writer, node: Node) -> None:
    writer.emit(node, "Concat", axis=1)


def _slice(writer: Writer, node: Node) -> None:
    roles = {"starts": node.attrs["starts"], "ends": node.attrs["stops"]}
    names = [writer.constant(node, role, values, np.int64) for role, values in roles.items()]
    axes = writer.constant(node, "axes", range(len(node.attrs["starts"])), np.int64)
    steps = writer.constant(node, "steps", node.attrs["steps"], np.int64)
    writer.emit(node, "Slice", *names, axes, steps)


def _pad(writer: Writer, node: Node) -> None:
    top, bottom, left, right = node.attrs["pads"]
    pads = [0, 0, top, left, 0, 0, bottom, right]
    writer.emit(node, "Pad", writer.constant(node, "pads", pads, np.int64), mode="constant")


def _reshape(writer: Writer, node: Node) -> None:
    writer.emit(node, "Reshape", writer.constant(node, "shape", node.output.shape, np.int64))


_EMITTERS: dict[str, Callable[[Writer, Node], None]] = {
    "conv": _conv,
    "linear": _linear,
    "affine": _affine,
    "relu6": _relu6,
    "hardsigmoid": _hardsigmoid,
    "leaky_relu": _leaky_relu,
    "softmax": _softmax,
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "concat": _concat,
    "slice": _slice,
    "pad": _pad,
    "reshape": _reshape,
}
