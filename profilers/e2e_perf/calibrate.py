"""Fits the free terms of a generic accelerator to latencies that were measured on it."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from ehdnas.core.errors import DataError, EhdnasError, UsageError
from ehdnas.core.layers import LayerTable
from ehdnas.core.text import nearest
from ehdnas.profilers.e2e_perf.generic.realistic import GenericRealistic
from ehdnas.profilers.e2e_perf.workload import Array, Workload

# term -> bounds, and where the search starts.
FREE_TERMS = {
    "layer_overhead_us": (0.0, 1e3, 10.0),
    "image_overhead_us": (0.0, 1e5, 100.0),
    "ddr_efficiency": (0.02, 1.0, 0.5),
    "compute_efficiency": (0.02, 1.0, 0.8),
}
# Where one kind of layer binds, a term may have no slope: the efficiencies start from each of these as well.
_STARTS = (0.1, 0.2, 0.4, 0.6, 0.9)


@dataclass(frozen=True)
class Calibration:
    """A fitted accelerator, and (predicted − measured) / measured [n] of the rows it was fitted to.

    `undetermined` has the terms that the rows do not settle: at a bound, without effect on any row, or such
    that a change of one is undone by a change of others.
    """

    model: GenericRealistic
    residuals: Array
    undetermined: tuple[str, ...]


def calibrate(
    model: GenericRealistic, rows: Sequence[tuple[LayerTable, float]], free: Sequence[str]
) -> Calibration:
    """Return the accelerator with its `free` terms fitted: bounded least squares on relative errors.

    Args:
        rows: networks and their latencies in ms, at least as many as there are free terms.
        free: names of `FREE_TERMS`.

    Raises:
        UsageError: no free term, an unknown one, one twice, or more of them than rows.
        DataError: a latency is not a positive number.
        MeasurementError: a layer is not modelled; the message names it.
    """
    _check(rows, free)
    workload = Workload.of_networks([table for table, _ in rows])
    measured = np.array([latency for _, latency in rows])
    low, high, start = np.array([FREE_TERMS[term] for term in free]).T

    def residuals(scaled: Array) -> Array:
        changed = model.model_copy(update=dict(zip(free, (scaled * start).tolist(), strict=True)))
        relative: Array = changed.figures(workload).latency_s * 1e3 / measured - 1
        return relative

    fits = [
        least_squares(residuals, first / start, bounds=(low / start, high / start), xtol=1e-12, x_scale="jac")
        for first in _first_guesses(free, start)
    ]
    best = min(fits, key=lambda fit: float(fit.cost))
    fitted = dict(zip(free, np.clip(best.x * start, low, high).tolist(), strict=True))
    at_bound = np.minimum(best.x * start - low, high - best.x * start) < 1e-3 * start
    loose = at_bound | _interchangeable(np.asarray(best.jac))
    undetermined = tuple(term for term, is_loose in zip(free, loose, strict=True) if is_loose)
    return Calibration(model.model_copy(update=fitted), residuals(best.x), undetermined)


def read_calibration(path: Path, resolve: Callable[[str], LayerTable]) -> list[tuple[LayerTable, float]]:
    """Return the rows of a CSV file with the columns `model` and `latency_ms`; others are ignored.

    Args:
        resolve: gives the layer table of a model by what the file calls it.

    Raises:
        DataError: the file cannot be read as that; the message names it and the line.
        EhdnasError: whatever `resolve` raises of that, with the line before it.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}; give a CSV file of model,latency_ms") from error
    reader = csv.DictReader(StringIO(text), skipinitialspace=True, strict=True)
    rows = []
    try:
        for name in ("model", "latency_ms"):
            if name not in (reader.fieldnames or ()):
                found = ",".join(reader.fieldnames or ()) or "nothing"
                raise DataError(
                    f"{path}: line 1: no column '{name}' in '{found[:80]}'; it must have model,latency_ms"
                )
        for row in reader:
            where = f"{path}: line {reader.line_num}"
            model = (row["model"] or "").strip()
            if not model:
                raise DataError(f"{where}: no model; give model,latency_ms")
            latency = _latency(row["latency_ms"], where)
            rows.append((_resolved(model, resolve, where), latency))
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: {error}; give plain CSV") from error
    if not rows:
        raise DataError(f"{path}: no rows; give a line model,latency_ms for each measured network")
    return rows


def _resolved(model: str, resolve: Callable[[str], LayerTable], where: str) -> LayerTable:
    try:
        return resolve(model)
    except EhdnasError as error:
        raise type(error)(f"{where}: {error}") from error


def _latency(text: str | None, where: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        raise DataError(f"{where}: latency_ms '{text or ''}' is not a number; give milliseconds") from None
    if not (math.isfinite(value) and value > 0):
        raise DataError(f"{where}: latency_ms is {value:g}; give a positive number of milliseconds")
    return value


def _check(rows: Sequence[tuple[LayerTable, float]], free: Sequence[str]) -> None:
    for term in free:
        if term not in FREE_TERMS:
            raise UsageError(f"calibration: unknown free term '{term}'{nearest(term, FREE_TERMS)}")
    if not free or len(set(free)) < len(free):
        raise UsageError("calibration: give each term to fit once: " + ", ".join(FREE_TERMS))
    if len(rows) < len(free):
        raise UsageError(
            f"calibration: {len(rows)} measured networks cannot settle {len(free)} free terms; "
            "measure more networks or free fewer terms"
        )
    for at, (_, latency) in enumerate(rows, start=1):
        if not (math.isfinite(latency) and latency > 0):
            raise DataError(f"calibration: row {at}: latency_ms is {latency:g}; give a positive number")


def _interchangeable(jacobian: Array) -> NDArray[np.bool_]:
    """Return which columns of [n, terms] vanish, or have a share in a combination of columns that does."""
    norms = np.linalg.norm(jacobian, axis=0)
    vanishing = norms < 1e-9
    _, sizes, directions = np.linalg.svd(jacobian / np.where(vanishing, 1.0, norms))
    null = np.abs(directions[sizes < 1e-4])
    found: NDArray[np.bool_] = vanishing | (null > 0.1).any(axis=0)
    return found


def _first_guesses(free: Sequence[str], start: Array) -> list[Array]:
    """Return where to search from: the start, and others for the efficiencies, each with each."""
    choices = [
        _STARTS if term.endswith("_efficiency") else (value,) for term, value in zip(free, start, strict=True)
    ]
    return [start, *(np.array(guess) for guess in product(*choices))]
