"""The runtimes that files are timed in."""

from __future__ import annotations

from dataclasses import dataclass

from ehdnas.core.device import Device
from ehdnas.core.errors import UsageError
from ehdnas.core.text import nearest


@dataclass(frozen=True)
class Runtime:
    """A runtime: the suffix of the files it runs, and the Python package that brings it, if one does."""

    name: str
    suffix: str
    package: str = ""


RUNTIMES = {
    one.name: one
    for one in (
        Runtime("litert", ".tflite", "ai-edge-litert"),
        Runtime("onnxruntime", ".onnx", "onnxruntime"),
        Runtime("edgetpu", ".tflite", "ai-edge-litert"),
        Runtime("tensorrt", ".onnx"),
    )
}


def runtime_of(device: Device) -> Runtime:
    """Return the runtime of a device, LiteRT where it names none.

    Raises:
        UsageError: the device names one that is not known.
    """
    name = device.runtime or "litert"
    if name not in RUNTIMES:
        raise UsageError(f"device '{device.name}': unknown runtime '{name}'{nearest(name, RUNTIMES)}")
    return RUNTIMES[name]


def package_for(suffix: str, usual: Runtime) -> str:
    """Return the Python package that runs files of `suffix`: that of the `usual` runtime where it does."""
    runtimes = [usual, *RUNTIMES.values()]
    return next((one.package for one in runtimes if one.suffix == suffix and one.package), usual.package)
