"""The free terms of a simulated device, fitted to latencies that its owner measured on the real one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ehdnas.core.errors import UsageError
from ehdnas.core.layers import LayerTable
from ehdnas.pipeline.devices import find_device, set_options
from ehdnas.pipeline.simulate import ModelInputs, layer_table_of
from ehdnas.profilers.base import find_profiler
from ehdnas.profilers.e2e_perf.calibrate import Calibration, calibrate, read_calibration
from ehdnas.profilers.e2e_perf.generic.realistic import GenericRealistic
from ehdnas.profilers.e2e_perf.profiler import E2EPerfProfiler

_FAR = 0.5  # relative error of a row that says that the device is another, or the unit


def calibrate_device(
    name: str, path: Path, terms: list[str], inputs: ModelInputs, save: bool
) -> dict[str, Any]:
    """Fit a device's free terms to a CSV file of `model,latency_ms`; return the terms and each row's error.

    Args:
        inputs: what the file's genotypes are of, and what its modules are fed.
        save: lay the fitted terms over the device's options, in the user's folder.

    Raises:
        UsageError: the device has no such terms, or there are more of them than rows; or it is to be saved
            and a row is far off.
        DataError: the file is no such CSV; the message names the line.
    """
    profiler = find_profiler(find_device(name))
    if not isinstance(profiler, E2EPerfProfiler) or not isinstance(profiler.accelerator, GenericRealistic):
        raise UsageError(f"device '{name}' has no free terms; those of paradigm generic, mode realistic have")
    models: list[str] = []

    def resolve(model: str) -> LayerTable:
        models.append(model)
        return layer_table_of(model, inputs)

    rows = read_calibration(path, resolve)
    before = profiler.accelerator
    fitted = calibrate(before, rows, terms)
    values = {term: float(getattr(fitted.model, term)) for term in terms}
    if save:
        _require_near(models, fitted)
        set_options(name, values)
    return {
        "device": name,
        "terms": values,
        "before": {term: float(getattr(before, term)) for term in terms},
        "undetermined": list(fitted.undetermined),
        "rows": [
            {"model": model, "latency_ms": latency, "error": float(error)}
            for model, (_, latency), error in zip(models, rows, fitted.residuals, strict=True)
        ],
        "saved": save,
    }


def _require_near(models: list[str], fitted: Calibration) -> None:
    """Raise UsageError where the fitted device is nothing like the measured one: it must not be kept."""
    worst = int(np.abs(fitted.residuals).argmax())
    if abs(fitted.residuals[worst]) > _FAR:
        raise UsageError(
            f"not saved: with the best terms '{models[worst]}' is still {fitted.residuals[worst]:+.0%} off; "
            "see whether latency_ms is in milliseconds, and whether this is the device that was measured"
        )
