"""Does an exported file give on the device what it gives here? Its kernels are others: not always."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ehdnas.core.artifact import Manifest, TensorSpec, read_artifact
from ehdnas.core.errors import ParityError
from ehdnas.core.images.dataset import normalise
from ehdnas.exporters import run_artifact
from ehdnas.exporters.base import FLOAT32
from ehdnas.exporters.parity.difference import breaches, difference
from ehdnas.pipeline.context import Context
from ehdnas.profilers.board.profiler import BoardProfiler

_IMAGES = 200
# Of the classes of a quantised file, so many may differ: a sum rounded the other way tips a close call.
_CLASSES_APART = 0.005

Images = NDArray[np.float32]


def compare_on_device(context: Context, profiler: BoardProfiler, path: Path) -> dict[str, Any]:
    """Run test images through a file on the device and here; return how the outputs compare, JSON-able.

    A file that was compiled for an Edge TPU is compared with the one it was compiled from.

    Raises:
        ParityError: they differ by more than float32 or a quantised file's rounding explains.
        DataError, DeviceError, MeasurementError: it could not be run, here or there.
        UsageError: the device's own tool gives no outputs.
    """
    manifest = read_artifact(path).manifest
    source = manifest.details.get("compiled_from")
    here_path = path.with_name(source["file"]) if source else path
    test, meta = context.dataset.test, manifest.metadata
    images = normalise(test.images[:_IMAGES], meta["mean"], meta["std"])
    context.reporter.say(f"verify: {len(images)} test images through it on {profiler.device.name} and here")
    here = run_artifact(here_path, images).outputs
    raw = profiler.outputs(path, _as_fed(images, manifest.inputs[0]))
    there = _real(raw, manifest.outputs[0])
    found = _compared(manifest, there, here)
    if found["failures"]:
        raise ParityError(
            f"{path.name} gives other outputs on {profiler.device.name} than here: {found['failures'][0]}; "
            "look at the runtime's version there (`ehdnas doctor`)"
        )
    found["accuracy"] = float((there.argmax(1) == test.labels[: len(there)]).mean())
    return found


def _as_fed(images: Images, tensor: TensorSpec) -> NDArray[np.generic]:
    """Return images (n, C, H, W) as the file takes them: its layout and type, quantised by its own scale."""
    fed = images.transpose(0, 2, 3, 1) if tensor.layout == "NHWC" else images
    if not tensor.scale:
        return np.ascontiguousarray(fed, dtype=tensor.dtype)
    limits = np.iinfo(tensor.dtype)
    whole = np.round(fed / np.float32(tensor.scale)) + (tensor.zero_point or 0)
    return np.ascontiguousarray(np.clip(whole, limits.min, limits.max).astype(tensor.dtype))


def _real(outputs: NDArray[np.generic], tensor: TensorSpec) -> Images:
    values = outputs.astype(np.float32)
    return values if not tensor.scale else (values - (tensor.zero_point or 0)) * np.float32(tensor.scale)


def _compared(manifest: Manifest, there: Images, here: Images) -> dict[str, Any]:
    if there.shape != here.shape:
        failures = [f"their shape is {list(there.shape)}, here {list(here.shape)}"]
        return {"images": len(here), "failures": failures}
    if not np.isfinite(there).all():
        return {"images": len(here), "failures": ["not all of them are numbers"]}
    apart = difference(there, here)
    failures = [] if manifest.inputs[0].scale or manifest.precision != "fp32" else breaches(apart, FLOAT32)
    changed = int((there.argmax(1) != here.argmax(1)).sum())
    allowed = max(1, math.ceil(_CLASSES_APART * len(here)))
    if changed > allowed:
        failures.append(f"{changed} of {len(here)} images change class, more than the {allowed} allowed")
    return {
        "images": len(here),
        "max_difference": apart.largest,
        "top1_agreement": 1 - changed / len(here),
        "failures": failures,
    }
