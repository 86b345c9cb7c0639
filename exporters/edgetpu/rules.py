"""Which operators of an int8 file the Edge TPU would run, by the rules of its compiler and without it.

The compiler is closed and its rules are published in part: this says what is known to map, and leaves on the
CPU what is not certain. What one operator may be is in `limits`; here is what holds for all of them.
"""

from __future__ import annotations

import math
from collections import Counter

from pydantic import BaseModel, ConfigDict

from ehdnas.exporters.edgetpu.limits import LIMITATION, Node, why_not
from ehdnas.exporters.tflite.file import TfliteFile, TfliteOperator, TfliteTensor

MAPPED = "Mapped to Edge TPU"
# The compiler's own words, which our reasons begin with.
_SUBGRAPH = "More than one subgraph is not supported"
_TYPE = "Operation is working on an unsupported data type"
_RANK = "Tensor has unsupported rank (up to 3 innermost dimensions mapped)"
_VERSION = "Operation version not supported"
_UNPARSED = "Model could not be parsed"

# The lowest versions that compiler 16.0 is known to refuse, the whole file with them (google-coral/edgetpu
# issues 631, 845 and 879, google-coral/libedgetpu issue 71). Of other operators no limit is published.
_REFUSED_VERSIONS = {"CONV_2D": 6, "EXP": 2, "QUANTIZE": 3, "TRANSPOSE_CONV": 4}

_MEBIBYTE = 1 << 20
_SRAM_BYTES = 8 * _MEBIBYTE
# Of 6.9 to 7.9 MiB that compilers report, the least.
_CACHE_BYTES = int(6.9 * _MEBIBYTE)
_ITEM_BYTES = {"bool": 1, "int8": 1, "uint8": 1, "int16": 2, "float16": 2, "int64": 8, "float64": 8}

_RESIZED = "depending on sizes, the compiler may leave a resized image to the CPU"
_CAVEATS = {
    "RESHAPE": "the compiler may leave a RESHAPE of large tensors to the CPU",
    "RESIZE_BILINEAR": _RESIZED,
    "RESIZE_NEAREST_NEIGHBOR": _RESIZED,
}


class OperatorVerdict(BaseModel):
    """Whether one operator maps; `reason` is "" when it does, and `output` names its first output."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int
    operator: str
    version: int
    output: str
    maps: bool
    reason: str


class StaticReport(BaseModel):
    """What would map, operator by operator, and an estimate of the memory that takes.

    `parameters_bytes` are the weights and biases of what maps: `cached_bytes` of them fit on the chip,
    `streamed_bytes` cross the bus at each inference. `largest_activation_bytes` is of one computed tensor.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    operators: list[OperatorVerdict]
    on_tpu: int
    on_cpu: int
    parameters_bytes: int
    cached_bytes: int
    streamed_bytes: int
    largest_activation_bytes: int
    notes: list[str]

    @classmethod
    def empty(cls) -> StaticReport:
        """Return the report on a part of a network that takes no operator at all."""
        nothing = dict.fromkeys(
            (
                "on_tpu",
                "on_cpu",
                "parameters_bytes",
                "cached_bytes",
                "streamed_bytes",
                "largest_activation_bytes",
            ),
            0,
        )
        return cls(operators=[], notes=[], **nothing)

    def table(self) -> list[tuple[str, int, str]]:
        """Return (operator, count, status) rows as the compiler prints them, in the order of the file."""
        rows = Counter((verdict.operator, verdict.reason or MAPPED) for verdict in self.operators)
        return [(operator, count, status) for (operator, status), count in rows.items()]


def check_file(file: TfliteFile) -> StaticReport:
    """Return what of `file`, its first subgraph, the Edge TPU would run."""
    verdicts = _verdicts(file)
    mapped = [file.operators[verdict.index] for verdict in verdicts if verdict.maps]
    parameters = _parameters_bytes(file, mapped)
    largest = max((0, *map(_activation_bytes, file.tensors)))
    cached = min(parameters, _CACHE_BYTES)
    return StaticReport(
        operators=verdicts,
        on_tpu=len(mapped),
        on_cpu=len(verdicts) - len(mapped),
        parameters_bytes=parameters,
        cached_bytes=cached,
        streamed_bytes=parameters - cached,
        largest_activation_bytes=largest,
        notes=_notes(file, verdicts, parameters - cached, largest),
    )


def _verdicts(file: TfliteFile) -> list[OperatorVerdict]:
    refused = next((operator for operator in file.operators if _is_refused(operator)), None)
    verdicts = []
    # Tensors that the CPU computes: the TPU takes one partition, so what follows from them stays there too.
    on_cpu: set[int] = set()
    for index, operator in enumerate(file.operators):
        node = Node(file, operator)
        reason = _reason(node)
        if not reason and refused:
            reason = f"{_UNPARSED}: {refused.name} version {refused.version}"
        if not reason and not on_cpu.isdisjoint(operator.inputs):
            reason = _SUBGRAPH
        if reason and not _is_entry(node):
            on_cpu.update(output for output in operator.outputs if output >= 0)
        verdicts.append(
            OperatorVerdict(
                index=index,
                operator=operator.name,
                version=operator.version,
                output=next((file.tensors[output].name for output in operator.outputs if output >= 0), ""),
                maps=not reason,
                reason=reason,
            )
        )
    return verdicts


def _is_refused(operator: TfliteOperator) -> bool:
    return operator.version >= _REFUSED_VERSIONS.get(operator.name, operator.version + 1)


def _is_entry(node: Node) -> bool:
    """Return whether the operator quantises the network's input: published logs map what follows one."""
    inputs = node.operator.inputs
    return node.operator.name == "QUANTIZE" and set(inputs) <= set(node.file.inputs)


def _reason(node: Node) -> str:
    """Return why the operator does not map by itself; "" when it does."""
    operator, tensors = node.operator, node.file.tensors
    if _is_refused(operator):
        return f"{_VERSION}: {operator.name} version {operator.version}"
    around = [tensors[index] for index in (*operator.inputs, *operator.outputs) if index >= 0]
    if any(tensor.is_dynamic for tensor in around):
        return f"{LIMITATION}: a tensor of dynamic size"
    # Biases, shapes and axes are int32 constants.
    if any(
        tensor.dtype not in (("int8", "uint8", "int32") if tensor.constant else ("int8", "uint8"))
        for tensor in around
    ):
        return _TYPE
    reason = why_not(node)
    if not reason and any(
        size != 1 for tensor in around if not tensor.constant for size in tensor.shape[:-3]
    ):
        return _RANK
    return reason


def _parameters_bytes(file: TfliteFile, operators: list[TfliteOperator]) -> int:
    inputs = {index for operator in operators for index in operator.inputs if index >= 0}
    # Shapes and axes are constants too, but carry no scale.
    tensors = (file.tensors[index] for index in inputs)
    return sum(tensor.size_bytes for tensor in tensors if tensor.constant and tensor.scales)


def _activation_bytes(tensor: TfliteTensor) -> int:
    return 0 if tensor.constant else math.prod(tensor.shape) * _ITEM_BYTES.get(tensor.dtype, 4)


def _notes(file: TfliteFile, verdicts: list[OperatorVerdict], streamed: int, largest: int) -> list[str]:
    notes = sorted({_CAVEATS[v.operator] for v in verdicts if v.maps and v.operator in _CAVEATS})
    if refused := next((operator for operator in file.operators if _is_refused(operator)), None):
        notes.insert(0, f"the compiler refuses a file with {refused.name} version {refused.version}")
    if any(operator.name == "CUSTOM:edgetpu-custom-op" for operator in file.operators):
        notes.append("the file has been compiled for the Edge TPU already; check the one it was made from")
    if any(file.tensors[index].dtype not in ("int8", "uint8") for index in file.inputs):
        notes.append("an input is not int8 or uint8; export the network quantised, inputs included")
    if file.subgraphs > 1:
        notes.append(f"only the first of {file.subgraphs} subgraphs was checked")
    if streamed:
        notes.append(
            f"{streamed / _MEBIBYTE:.2f} MiB of parameters do not fit on the chip and cross the bus each time"
        )
    if largest > _SRAM_BYTES:
        notes.append(
            f"an activation of {largest / _MEBIBYTE:.1f} MiB is larger than the chip's memory; "
            "the compiler may refuse large activations"
        )
    return notes
