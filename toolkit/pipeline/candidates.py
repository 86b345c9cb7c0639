"""Candidate networks, and parts of them, as files for a device to time; their weights are random."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ehdnas.core.device import Device
from ehdnas.core.errors import NotCompiledError, UsageError
from ehdnas.core.export_options import ExportOptions
from ehdnas.exporters.base import Exporter, find_exporter
from ehdnas.exporters.edgetpu.compiler import CompilerOptions, find_compiler
from ehdnas.search.spaces.base import Architecture, NetworkShape, Part, Space

Images = NDArray[np.float32]

_TARGETS = {
    ("litert", "fp32"): "tflite",
    ("litert", "fp16"): "tflite-fp16",
    ("litert", "int8"): "tflite-int8",
    ("onnxruntime", "fp32"): "onnx",
    ("onnxruntime", "int8"): "onnx-int8",
    ("edgetpu", "int8"): "edgetpu",
    ("tensorrt", "fp32"): "tensorrt",
    ("tensorrt", "fp16"): "tensorrt",
}
_FEATURES = 16  # random features that calibrate a part
# Tracing and the converter are not safe in several threads, and two of them would not be faster here.
_ONE_AT_A_TIME = threading.Lock()


def target_of(device: Device) -> str:
    """Return the export target whose files a device times.

    Raises:
        UsageError: nothing is exported for its runtime at its precision.
    """
    runtime = device.runtime or "litert"
    found = _TARGETS.get((runtime, device.precision))
    if found is None:
        known = ", ".join(f"{one} at {precision}" for one, precision in _TARGETS)
        raise UsageError(
            f"device '{device.name}': no files for runtime '{runtime}' at precision '{device.precision}'; "
            f"known: {known}"
        )
    return found


def require_possible(device: Device, options: ExportOptions) -> None:
    """Refuse, before data are loaded and hours are spent, a device whose files cannot be made.

    Raises:
        UsageError: nothing is exported for its runtime at its precision.
        NotCompiledError: it takes compiled files alone, and no compiler is there.
        DeviceError: the host that the compiler is on cannot be reached.
    """
    if device.simulated or target_of(device) != "edgetpu":
        return
    compiler = find_compiler(CompilerOptions.of(options))
    if compiler is None:
        raise NotCompiledError(
            f"device '{device.name}' is measured with compiled files, and no edgetpu_compiler is on PATH; "
            "install it, or set compiler to docker:IMAGE or ssh:USER@HOST in ehdnas.toml"
        )
    compiler.version()


class Candidates:
    """Exports architectures of one space and shape, and parts of them, for one device.

    Args:
        images: gives normalised images [n, C, H, W]; asked when the device's files must be calibrated.
    """

    def __init__(
        self,
        device: Device,
        space: Space,
        shape: NetworkShape,
        images: Callable[[], Images] | None = None,
        options: ExportOptions | None = None,
    ) -> None:
        self._device, self._space, self._shape = device, space, shape
        self._images, self._options = images, options

    def export(self, architecture: Architecture, folder: Path) -> Path:
        """Return the file, in `folder`, of a network.

        Raises:
            NotCompiledError: the device takes compiled files alone, and no compiler is there.
            ExportError: the target cannot express the network.
        """
        with _ONE_AT_A_TIME:
            network = untrained(self._space, architecture, self._shape)
            return self._write(network, [self._shape.image], folder)

    def export_part(self, part: Part, folder: Path) -> Path:
        """Return the file, in `folder`, of a part of a network. Raises as `export` does."""
        with _ONE_AT_A_TIME:
            return self._write(part.module.eval(), part.inputs, folder)

    def _write(self, network: nn.Module, shapes: Sequence[tuple[int, int, int]], folder: Path) -> Path:
        exporter = find_exporter(target_of(self._device), self._options)
        path = folder / exporter.file_name("network")
        calibration = self._calibration(exporter, shapes)
        artifact = exporter.export(network, shapes, path, calibration=calibration)
        if exporter.target != "edgetpu":
            return path
        # What the compiler made is what the Edge TPU runs; the file it was made from runs on the CPU.
        return exporter.finish(artifact)[0].path

    def _calibration(self, exporter: Exporter, shapes: Sequence[tuple[int, int, int]]) -> list[Images] | None:
        if not exporter.needs_images:
            return None
        if self._images is not None and list(shapes) == [self._shape.image]:
            return [self._images()]
        rng = np.random.default_rng(0)
        return [rng.standard_normal((_FEATURES, *shape)).astype(np.float32) for shape in shapes]


def untrained(space: Space, architecture: Architecture, shape: NetworkShape) -> nn.Module:
    """Return a network with random weights, fixed by its architecture: a clock does not care which."""
    with torch.random.fork_rng():
        torch.manual_seed(space.seed_of(architecture))
        return space.network(architecture, shape).eval()
