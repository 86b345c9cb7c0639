"""ONNX, int8 in QDQ form: float input and output, quantise and dequantise pairs around every operator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ehdnas.exporters.base import Written
from ehdnas.exporters.onnx.exporter import OnnxExporter, write_model
from ehdnas.exporters.tflite.int8 import INT8

if TYPE_CHECKING:
    from ehdnas.core.graph import Array, Graph


class OnnxInt8Exporter(OnnxExporter):
    """Writes the same int8 network as the `tflite-int8` target, scale for scale, for ONNX Runtime."""

    target = "onnx-int8"
    ending = "_int8.onnx"
    precision = "int8"
    needs_images = True
    tolerance = INT8

    def write(self, graph: Graph, path: Path, images: Sequence[Array]) -> Written:
        """Write the graph to `path`, its scales chosen on `images`.

        Raises:
            ExportError: ONNX's own checker refuses the model, or fine-tuning diverged.
            DataError: the images cannot calibrate the network.
        """
        from ehdnas.core.graph import sink_relu
        from ehdnas.exporters.quantise import quantise
        from ehdnas.exporters.quantise.lower import lower_for_int8

        quantised = quantise(lower_for_int8(sink_relu(graph)), images, self.options)
        write_model(quantised.graph, path, quantised.ranges)
        return Written(details={"quantisation": quantised.report})
