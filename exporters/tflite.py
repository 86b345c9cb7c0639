"""TensorFlow Lite, fp32, NHWC: for LiteRT on a CPU, and the ground that quantised targets build on."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ehdnas.core.errors import ExportError
from ehdnas.exporters.base import Exporter

if TYPE_CHECKING:
    from ehdnas.core.graph import Graph

# Tracing and converting share TensorFlow's global state.
_LOCK = threading.Lock()


class TfliteExporter(Exporter):
    """Writes a static TensorFlow Lite graph; input `input` (1, H, W, C), output `logits`."""

    target = "tflite"
    suffix = ".tflite"
    layout = "NHWC"

    def write(self, graph: Graph, path: Path, metadata: dict[str, Any]) -> None:
        """Write the graph to `path`; `metadata` is left to the manifest, the format has no place for it.

        Raises:
            UnsupportedOperatorError: an operator has no exact form in TensorFlow Lite.
            ExportError: TensorFlow's converter refuses the network.
        """
        path.write_bytes(convert(graph))

    def toolchain(self) -> dict[str, str]:
        """Return the version of TensorFlow."""
        return {"tensorflow": load_tensorflow().__version__}


def convert(graph: Graph) -> bytes:
    """Return the graph as a TensorFlow Lite file.

    Raises:
        UnsupportedOperatorError: an operator has no exact form in TensorFlow Lite.
        ExportError: TensorFlow's converter refuses the network.
    """
    from ehdnas.exporters.twin import Twin, nhwc

    tf = load_tensorflow()
    with _LOCK:
        # The module owns the function: without an owner the file has no signature, and no names.
        owner = tf.Module()
        image = tf.TensorSpec(nhwc(graph.input.shape), tf.float32, name="input")
        owner.network = tf.function(Twin(tf, graph), input_signature=[image], autograph=False)
        function = owner.network.get_concrete_function()
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function], owner)
        # Writing that metadata takes a fifth of the conversion, and no interpreter reads it.
        converter.exclude_conversion_metadata = True
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
