"""TensorFlow Lite, fp32 and fp16 weights, NHWC: for LiteRT on a CPU or GPU."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ehdnas.core.artifact import Tolerance
from ehdnas.core.errors import ExportError
from ehdnas.exporters.base import Exporter, Written, input_names, output_name

if TYPE_CHECKING:
    from ehdnas.core.graph import Array, Graph
    from ehdnas.exporters.quantise import Ranges

METADATA = "ehdnas"
"""Name of the metadata buffer that holds our facts."""

# Tracing and converting share TensorFlow's global state.
_LOCK = threading.Lock()


class TfliteExporter(Exporter):
    """Writes a static TensorFlow Lite graph; input `input` (1, H, W, C), output `logits`."""

    target = "tflite"
    suffix = ".tflite"
    layout = "NHWC"

    def write(self, graph: Graph, path: Path, images: Sequence[Array]) -> Written:
        """Write the graph to `path`.

        Raises:
            UnsupportedOperatorError: an operator has no exact form in TensorFlow Lite.
            ExportError: TensorFlow's converter refuses the network.
        """
        from ehdnas.core.graph import sink_relu

        path.write_bytes(convert(sink_relu(graph), self.configure))
        return Written()

    def embed(self, path: Path, facts: dict[str, Any]) -> None:
        """Put the facts into the file's metadata buffers, as JSON under the name `ehdnas`."""
        from ehdnas.exporters.tflite.metadata import write_metadata

        path.write_bytes(write_metadata(path.read_bytes(), {METADATA: json.dumps(facts).encode()}))

    def configure(self, tf: Any, converter: Any) -> None:
        """Set the converter up for the precision."""

    def toolchain(self) -> dict[str, str]:
        """Return the version of TensorFlow."""
        return {"tensorflow": load_tensorflow().__version__}


class TfliteFp16Exporter(TfliteExporter):
    """Writes weights as float16, half the size; a CPU computes in float32, a GPU delegate in float16."""

    target = "tflite-fp16"
    ending = "_fp16.tflite"
    precision = "fp16"
    # Weights keep 11 bits: some 5e-4 of a weight, more or less averaged out over a layer.
    tolerance = Tolerance(noise=0.02, accuracy_drop=0.01)

    def configure(self, tf: Any, converter: Any) -> None:
        """Ask for float16 weights."""
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]


def convert(graph: Graph, configure: Callable[[Any, Any], None], ranges: Ranges | None = None) -> bytes:
    """Return the graph as a TensorFlow Lite file.

    Args:
        configure: is given TensorFlow and its converter, to set the precision.
        ranges: of the values, for an int8 file.

    Raises:
        UnsupportedOperatorError: an operator has no exact form in TensorFlow Lite.
        ExportError: TensorFlow's converter refuses the network.
    """
    from ehdnas.exporters.tflite.twin import Twin, nhwc

    tf = load_tensorflow()
    with _LOCK:
        # The module owns the function: without an owner the file has no signature, and no names.
        owner = tf.Module()
        twin, name = Twin(tf, graph, ranges), output_name(graph)
        images = [
            tf.TensorSpec(nhwc(value.shape), tf.float32, name=label)
            for value, label in zip(graph.inputs, input_names(graph), strict=True)
        ]
        owner.network = tf.function(
            lambda *images: {name: twin(*images)}, input_signature=images, autograph=False
        )
        function = owner.network.get_concrete_function()
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function], owner)
        # Writing that metadata takes a fifth of the conversion, and no interpreter reads it.
        converter.exclude_conversion_metadata = True
        configure(tf, converter)
        try:
            return bytes(converter.convert())
        except Exception as error:  # the converter raises whatever its passes raise
            reason = str(error).strip().split("\n")[0]
            raise ExportError(f"TensorFlow's converter refuses the network: {reason}") from error


def load_tensorflow() -> Any:
    """Return the TensorFlow module, imported with its start-up banner off."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    import tensorflow

    return tensorflow
