"""ONNX, fp32, NCHW: for ONNX Runtime, OpenCV's dnn module and TensorRT."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
from onnx import TensorProto, helper

from ehdnas.core.errors import ExportError
from ehdnas.exporters.base import Exporter, Written
from ehdnas.exporters.onnx.nodes import Writer

if TYPE_CHECKING:
    from ehdnas.core.graph import Array, Graph
    from ehdnas.exporters.quantise import Ranges

# The oldest that has HardSwish with room to spare: runtimes on boards lag by years.
_OPSET = 17
_IR_VERSION = 8


class OnnxExporter(Exporter):
    """Writes a static ONNX graph of opset 17; input `input` (1, C, H, W), output `logits`."""

    target = "onnx"
    suffix = ".onnx"
    layout = "NCHW"

    def write(self, graph: Graph, path: Path, images: Sequence[Array]) -> Written:
        """Write the graph to `path`.

        Raises:
            ExportError: ONNX's own checker refuses the model.
        """
        write_model(graph, path)
        return Written()

    def embed(self, path: Path, facts: dict[str, Any]) -> None:
        """Put the facts into the model's metadata_props, one a key, values that are no text as JSON."""
        model = onnx.load(path)
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}
        helper.set_model_props(model, texts)
        path.write_bytes(model.SerializeToString())

    def toolchain(self) -> dict[str, str]:
        """Return the version of ONNX."""
        return {"onnx": onnx.__version__}


def write_model(graph: Graph, path: Path, ranges: Ranges | None = None) -> None:
    """Write the graph to `path`, with quantise and dequantise pairs where `ranges` are given.

    Raises:
        ExportError: ONNX's own checker refuses the model.
    """
    model = _model(graph, ranges)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"ONNX's checker refuses the model: {error}") from error
    path.write_bytes(model.SerializeToString())


def _model(graph: Graph, ranges: Ranges | None) -> Any:
    writer = Writer(graph, ranges)
    for node in graph.nodes:
        writer.add(node)
    *inputs, output = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape) for name, value in writer.ends()
    )
    body = helper.make_graph(writer.nodes, "network", inputs, [output], writer.constants)
    opset = [helper.make_opsetid("", _OPSET)]
    return helper.make_model(body, opset_imports=opset, ir_version=_IR_VERSION, producer_name="ehdnas")
