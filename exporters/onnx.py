"""ONNX, fp32, NCHW: for ONNX Runtime, OpenCV's dnn module and TensorRT."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ehdnas.core.errors import ExportError
from ehdnas.core.graph import Graph, Node, Value
from ehdnas.exporters.base import Exporter

# The oldest that has HardSwish with room to spare: runtimes on boards lag by years.
_OPSET = 17
_IR_VERSION = 8
_PLAIN = {
    "relu": "Relu",
    "hardswish": "HardSwish",
    "sigmoid": "Sigmoid",
    "global_pool": "GlobalAveragePool",
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
}


class OnnxExporter(Exporter):
    """Writes a static ONNX graph of opset 17; input `input` (1, C, H, W), output `logits`."""

    target = "onnx"
    suffix = ".onnx"
    layout = "NCHW"

    def write(self, graph: Graph, path: Path, metadata: dict[str, Any]) -> None:
        """Write the graph to `path`; `metadata` goes into the model's metadata_props as well.

        Raises:
            ExportError: ONNX's own checker refuses the model.
        """
        model = _model(graph)
        texts = {
            key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()
        }
        helper.set_model_props(model, texts)
        try:
            onnx.checker.check_model(model, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise ExportError(f"ONNX's checker refuses the model: {error}") from error
        path.write_bytes(model.SerializeToString())

    def toolchain(self) -> dict[str, str]:
        """Return the version of ONNX."""
        return {"onnx": onnx.__version__}


def _model(graph: Graph) -> Any:
    writer = _Writer(graph)
    for node in graph.nodes:
        writer.add(node)
    body = helper.make_graph(
        writer.nodes,
        "network",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, graph.input.shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, graph.output.shape)],
        writer.constants,
    )
    opset = [helper.make_opsetid("", _OPSET)]
    return helper.make_model(body, opset_imports=opset, ir_version=_IR_VERSION, producer_name="ehdnas")


class _Writer:
    """ONNX nodes and constants, as the graph's nodes are added one by one."""

    def __init__(self, graph: Graph) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._names = {graph.input.name: "input", graph.output.name: "logits"}

    def add(self, node: Node) -> None:
        """Add what expresses one node of the graph."""
        if node.op in _PLAIN:
            self.emit(node, _PLAIN[node.op])
        else:
            _EMITTERS[node.op](self, node)

    def emit(self, node: Node, operator: str, *constants: str, **attributes: Any) -> None:
        """Add an ONNX operator that reads the node's inputs, then constants, and makes the node's output."""
        inputs = [self._name(value.name) for value in node.inputs]
        output = self._name(node.output.name)
        self.nodes.append(
            helper.make_node(operator, [*inputs, *constants], [output], name=node.name, **attributes)
        )

    def constant(self, node: Node, role: str, value: Any, dtype: type = np.float32) -> str:
        """Add a constant and return its name."""
        name = f"{node.name}.{role}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype=dtype), name))
        return name

    def _name(self, name: str) -> str:
        # A prefix keeps the graph's own names apart from "input" and "logits".
        return self._names.get(name, f"/{name}")


def _conv(writer: _Writer, node: Node) -> None:
    weight = writer.constant(node, "weight", node.params["weight"])
    bias = writer.constant(node, "bias", node.params["bias"])
    writer.emit(
        node,
        "Conv",
        weight,
        bias,
        kernel_shape=node.params["weight"].shape[2:],
        strides=node.attrs["stride"],
        pads=node.attrs["padding"] * 2,
        dilations=node.attrs["dilation"],
        group=node.attrs["groups"],
    )


def _linear(writer: _Writer, node: Node) -> None:
    weight = writer.constant(node, "weight", node.params["weight"])
    bias = writer.constant(node, "bias", node.params["bias"])
    writer.emit(node, "Gemm", weight, bias, transB=1)


def _affine(writer: _Writer, node: Node) -> None:
    shape = (1, -1) + (1,) * (len(node.output.shape) - 2)
    scale = writer.constant(node, "scale", node.params["scale"].reshape(shape))
    shift = writer.constant(node, "shift", node.params["shift"].reshape(shape))
    scaled = Value(f"{node.name}.scaled", node.output.shape)
    writer.emit(replace(node, name=scaled.name, output=scaled), "Mul", scale)
    writer.emit(replace(node, inputs=(scaled,)), "Add", shift)


def _relu6(writer: _Writer, node: Node) -> None:
    writer.emit(node, "Clip", writer.constant(node, "min", 0.0), writer.constant(node, "max", 6.0))


def _hardsigmoid(writer: _Writer, node: Node) -> None:
    writer.emit(node, "HardSigmoid", alpha=1 / 6, beta=0.5)


def _max_pool(writer: _Writer, node: Node) -> None:
    writer.emit(node, "MaxPool", **_window(node))


def _avg_pool(writer: _Writer, node: Node) -> None:
    count = int(node.attrs["count_include_pad"])
    writer.emit(node, "AveragePool", count_include_pad=count, **_window(node))


def _window(node: Node) -> dict[str, Any]:
    attrs = node.attrs
    return {"kernel_shape": attrs["kernel"], "strides": attrs["stride"], "pads": attrs["padding"] * 2}


def _concat(writer: _Writer, node: Node) -> None:
    writer.emit(node, "Concat", axis=1)


def _slice(writer: _Writer, node: Node) -> None:
    roles = {"starts": node.attrs["starts"], "ends": node.attrs["stops"]}
    names = [writer.constant(node, role, values, np.int64) for role, values in roles.items()]
    axes = writer.constant(node, "axes", range(len(node.attrs["starts"])), np.int64)
    steps = writer.constant(node, "steps", node.attrs["steps"], np.int64)
    writer.emit(node, "Slice", *names, axes, steps)


def _pad(writer: _Writer, node: Node) -> None:
    top, bottom, left, right = node.attrs["pads"]
    pads = [0, 0, top, left, 0, 0, bottom, right]
    writer.emit(node, "Pad", writer.constant(node, "pads", pads, np.int64), mode="constant")


def _reshape(writer: _Writer, node: Node) -> None:
    writer.emit(node, "Reshape", writer.constant(node, "shape", node.output.shape, np.int64))


_EMITTERS: dict[str, Callable[[_Writer, Node], None]] = {
    "conv": _conv,
    "linear": _linear,
    "affine": _affine,
    "relu6": _relu6,
    "hardsigmoid": _hardsigmoid,
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "concat": _concat,
    "slice": _slice,
    "pad": _pad,
    "reshape": _reshape,
}
