"""One file that is there already, timed on a device; what was measured before is not measured again."""

from __future__ import annotations

from pathlib import Path

from ehdnas.core.device import Device
from ehdnas.core.errors import DataError, UsageError
from ehdnas.core.files import sha256
from ehdnas.core.measurement import Measurement
from ehdnas.pipeline.conditions import conditions
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.meter import PROTOCOLS
from ehdnas.profilers.base import FileProfiler, find_profiler
from ehdnas.profilers.protocol import sustained as sustained_for
from ehdnas.profilers.store.store import Key, MeasurementStore


def measure_file(
    context: Context, path: Path, sustained_minutes: float | None = None, again: bool = False
) -> Measurement:
    """Time a .tflite or .onnx file on the context's device, or return what it did there before.

    Args:
        sustained_minutes: run on for so long, and say what is left of the speed at the end.
        again: measure it even if this very file has been measured on this device in this way.

    Raises:
        UsageError: the device is a simulated one, which takes no files.
        DataError: there is no such file.
        DeviceError: the device cannot be reached, or lacks a runtime.
        MeasurementError: the runtime refused the model, or was brought down by it.
    """
    board, name = _one_board(context), path.name
    profiler = find_profiler(board)
    if not isinstance(profiler, FileProfiler):
        raise UsageError(f"device '{board.name}' is simulated and takes no files; use `ehdnas simulate`")
    if not path.is_file():
        raise DataError(f"{path} is not a file" if path.exists() else f"no such file: {path}")
    protocol = PROTOCOLS[context.settings.protocol]
    if sustained_minutes is not None:
        protocol = sustained_for(sustained_minutes)
    key = Key(
        device=board.family,
        space="file",
        shape=path.suffix,
        subject=sha256(path),
        precision=board.precision,
        protocol=conditions(board, protocol),
    )
    with MeasurementStore(context.workspace.database) as store:
        found = None if again else store.find(key)
        if found is not None:
            when, where = (found.passport.get(key, "") for key in ("measured_at", "board"))
            context.reporter.say(
                f"measure: {name} was measured on {where or board.family} before ({when}); --again repeats it"
            )
            return found
        context.reporter.say(f"measure: {name} on {board.name}, {protocol.name} protocol")
        with profiler:
            measurement = profiler.measure(path, protocol)
        store.add(key, measurement)
        return measurement.model_copy(update={"device": board.family})


def _one_board(context: Context) -> Device:
    first, *others = context.boards
    if others and "," in (context.settings.device or ""):
        raise UsageError(f"measure times a file on one device; name one of {context.settings.device}")
    return first
