"""TensorFlow Lite, int8 throughout: for CPUs, NPUs, and as the Edge TPU compiler's input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ehdnas.core.artifact import Tolerance
from ehdnas.core.errors import ExportError
from ehdnas.exporters.base import Written, input_names, output_name
from ehdnas.exporters.tflite.exporter import TfliteExporter, convert
from ehdnas.exporters.tflite.file import TfliteFile, parse_tflite, sound_scales

if TYPE_CHECKING:
    from ehdnas.core.graph import Array, Graph
    from ehdnas.exporters.quantise import Quantised

INT8 = Tolerance(noise=0.2, accuracy_drop=0.01)


class TfliteInt8Exporter(TfliteExporter):
    """Writes a file with no float tensor: int8 (or uint8) input and output, int8 weights and activations.

    The scales come from `ehdnas.exporters.quantise`, not from TensorFlow: the converter is told them.
    """

    target = "tflite-int8"
    ending = "_int8.tflite"
    precision = "int8"
    needs_images = True
    tolerance = INT8

    def write(self, graph: Graph, path: Path, images: Sequence[Array]) -> Written:
        """Write the graph to `path`, its scales chosen on `images`.

        Raises:
            UnsupportedOperatorError: an operator has no exact form in TensorFlow Lite.
            ExportError: TensorFlow's converter refuses the network, or fine-tuning diverged.
            DataError: the images cannot calibrate the network.
        """
        from ehdnas.exporters.quantise import quantise

        quantised = quantise(self.lower(graph), images, self.options)
        data = convert(quantised.graph, self.configure, quantised.ranges)
        _require_int8(parse_tflite(data, path.name))
        path.write_bytes(data)
        return self._described(quantised)

    def lower(self, graph: Graph) -> Graph:
        """Return the graph in operators that int8 has good words for."""
        from ehdnas.core.graph import sink_relu
        from ehdnas.exporters.quantise.lower import lower_for_int8

        return lower_for_int8(sink_relu(graph))

    def configure(self, tf: Any, converter: Any) -> None:
        """Ask for int8 throughout, with one scale for the weights of a linear layer."""
        # Not OpsSet.TFLITE_BUILTINS_INT8: it insists on calibrating by itself.
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        dtype = getattr(tf, self.options.int8_io)
        converter.inference_input_type = converter.inference_output_type = dtype
        # Per-channel linear layers are of a version that older interpreters and the Edge TPU do not take.
        converter._experimental_disable_per_channel_quantization_for_dense_layers = True

    def _described(self, quantised: Quantised) -> Written:
        graph, shift = quantised.graph, 128 if self.options.int8_io == "uint8" else 0
        names = [*input_names(graph), output_name(graph)]
        values = [*graph.inputs, graph.output]
        ranges = [quantised.ranges[value.name] for value in values]
        return Written(
            dtype=self.options.int8_io,
            scales={name: (r.scale, r.zero_point + shift) for name, r in zip(names, ranges, strict=True)},
            details={"quantisation": quantised.report},
        )


def _require_int8(file: TfliteFile) -> None:
    """Return if the file computes in integers alone, with scales that an interpreter survives.

    Raises:
        ExportError: an operator was left in float, or a scale would abort the interpreter.
    """
    unsound = sound_scales(file)
    if unsound:
        raise ExportError(
            f"the int8 network is not sound: {unsound[0]}; give calibration images like real ones"
        )
    for operator in file.operators:
        if any(file.tensors[index].dtype.startswith("float") for index in operator.outputs):
            raise ExportError(
                f"TensorFlow's converter left {operator.name} ({file.tensors[operator.outputs[0]].name}) in "
                "float; use an operator that TensorFlow Lite has in int8"
            )
