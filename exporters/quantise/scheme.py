"""The int8 scheme: which values have an int8 tensor of their own, and which must share a scale.

Activations are asymmetric per tensor, weights symmetric per output channel (per tensor in linear layers:
older interpreters and the Edge TPU know no other), biases int32. It is the scheme of TensorFlow Lite's
8-bit specification, and ONNX Runtime and the Edge TPU take it too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ehdnas.core.graph import Array, Graph, Node

LOW, HIGH = -128, 127
# A tensor of zeros still needs a scale; anything narrower than this is one, for all int8 can tell.
_NARROWEST = 1e-5

# These have one scale by TensorFlow Lite's specification, whatever they are fed.
_FIXED = {"sigmoid": (0.0, 255 / 256), "softmax": (0.0, 255 / 256), "tanh": (-1.0, 127 / 128)}
# These move values about: their kernels do not rescale.
_SAME_SCALE = frozenset({"max_pool", "avg_pool", "concat", "slice", "pad", "reshape"})
# An activation after one of these is done by the operator itself, so that nothing lies between the two.
_FUSES_ACTIVATION = frozenset({"conv", "linear", "add", "sub", "mul", "affine"})
_FUSED = frozenset({"relu", "relu6"})


@dataclass(frozen=True)
class Range:
    """The real interval that the 256 levels of an int8 tensor span; zero is one of the levels."""

    low: float
    high: float

    @classmethod
    def around(cls, low: float, high: float) -> Range:
        """Return the range that spans [low, high] and zero, moved by half a level so that zero is on one."""
        low, high = min(low, 0.0), max(high, 0.0)
        if high - low < _NARROWEST:
            high = low + _NARROWEST
        step = (high - low) / (HIGH - LOW)
        zero = round(-low / step)
        return cls(-zero * step, (HIGH - LOW - zero) * step)

    @property
    def scale(self) -> float:
        """Real size of one level."""
        return (self.high - self.low) / (HIGH - LOW)

    @property
    def zero_point(self) -> int:
        """The level that stands for 0."""
        return LOW + round(-self.low / self.scale)

    def fake(self, x: Tensor) -> Tensor:
        """Return `x` rounded to the levels; the gradient passes where `x` is inside (straight-through)."""
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, LOW, HIGH)


Ranges = Mapping[str, Range]
"""Value name -> its range, for each value with an int8 tensor of its own."""


def quantised_values(graph: Graph) -> list[str]:
    """Return the names of the values that have a tensor of their own: all but those before a fused ReLU."""
    uses = graph.uses()
    readers = {value.name: node for node in graph.nodes for value in node.inputs}
    names = [value.name for value in graph.inputs]
    for node in graph.nodes:
        reader = readers.get(node.output.name)
        fused = reader is not None and reader.op in _FUSED and uses[node.output.name] == 1
        if not (fused and _fuses_activation(node)):
            names.append(node.output.name)
    return names


def _fuses_activation(node: Node) -> bool:
    # A grouped convolution is several, joined: the activation after it has nothing to be part of.
    grouped = node.op == "conv" and node.attrs["groups"] not in (1, node.inputs[0].shape[1])
    return node.op in _FUSES_ACTIVATION and not grouped


def fixed_ranges(graph: Graph) -> dict[str, Range]:
    """Return the ranges that are not for calibration to choose."""
    return {node.output.name: Range(*_FIXED[node.op]) for node in graph.nodes if node.op in _FIXED}


def share_scales(graph: Graph, ranges: Ranges) -> dict[str, Range]:
    """Return the ranges with those that must be equal widened to what they span together.

    Where pools, concats and the like need no rescaling, the file has no QUANTIZE between operators.
    """
    fixed = fixed_ranges(graph)
    parent = {name: name for name in ranges}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name] = parent[parent[name]]
        return name

    for node in graph.nodes:
        if node.op in _SAME_SCALE:
            tied = [v.name for v in (*node.inputs, node.output) if v.name in ranges and v.name not in fixed]
            for name in tied[1:]:
                parent[root(name)] = root(tied[0])
    members: dict[str, list[Range]] = {}
    for name, found in ranges.items():
        members.setdefault(root(name), []).append(found)
    spans = {
        name: Range.around(min(r.low for r in group), max(r.high for r in group))
        for name, group in members.items()
    }
    return {name: fixed.get(name) or spans[root(name)] for name in ranges}


def weight_scales(node: Node) -> Array:
    """Return the scales [O] of a node's weights: one an output channel, all alike in a linear layer."""
    weight = node.params["weight"]
    largest = np.abs(weight).reshape(len(weight), -1).max(1)
    if node.op == "linear":
        largest = np.full_like(largest, largest.max())
    return np.asarray(np.maximum(largest, _NARROWEST) / HIGH, np.float32)


def fake_weights(weight: Tensor, per_channel: bool) -> Tensor:
    """Return weights [O, ...] rounded to their levels, differentiably (straight-through)."""
    largest = weight.detach().abs().flatten(1).amax(1).clamp(min=_NARROWEST)
    scale = (largest if per_channel else largest.max().expand_as(largest)) / HIGH
    zeros = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zeros, 0, -HIGH, HIGH)
