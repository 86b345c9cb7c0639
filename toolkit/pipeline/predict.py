"""What the predictors of one or several devices say of one network."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from ehdnas.core.errors import DataError, EhdnasError, UsageError
from ehdnas.pipeline.baselines import figures_of
from ehdnas.pipeline.conditions import TABLE
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.fitting import fit, stored_predictor
from ehdnas.pipeline.measurements import list_groups
from ehdnas.pipeline.predictors import basis_of, open_records, require_method
from ehdnas.pipeline.tables import nothing_told, space_hint
from ehdnas.search.predictor.base import MIN_SAMPLES, Predictor
from ehdnas.search.spaces.base import Architecture

_MAX_GENOTYPE_BYTES = 100_000


def read_genotype(text: str) -> str:
    """Return the genotype itself: `text`, or what is in the file it names.

    Raises:
        DataError: the file cannot be read.
    """
    path = Path(text)
    if len(text) > 255 or not path.is_file():
        if re.fullmatch(r"[^()\n{}]*(/[^()\n{}]*|\.(json|txt|onnx|tflite))", text):
            raise DataError(f"{text} is not a file" if path.exists() else f"no such file: {text}")
        return text
    if path.stat().st_size > _MAX_GENOTYPE_BYTES:
        raise DataError(f"{path} is too large for a genotype ({path.stat().st_size:,} bytes)")
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read a genotype from {path}: {error}") from error
    if not text.strip():
        raise DataError(f"{path} is empty; a genotype was expected")
    return text


def predict_genotype(context: Context, genotype: str, metrics: str) -> list[dict[str, Any]]:
    """Return what is predicted for a network, a record for each device and metric.

    Args:
        metrics: one or several by their unit-bearing names, comma-separated, such as `latency_ms,energy_mj`.
            The devices are those that the settings name, comma-separated likewise; boards of one device
            count as that device.

    Raises:
        UsageError: a device has not been profiled for this network size, or does not give a metric.
    """
    require_method(context)
    architecture = _parsed(context, read_genotype(genotype))
    if not context.space.is_valid(architecture):
        text = context.space.text(architecture)
        raise UsageError(
            f"{text[:80]} breaks a rule of space '{context.space.name}', as a cell does whose input does not "
            "reach its output; give a valid network"
        )
    named = [name.strip() for name in metrics.split(",") if name.strip()]
    if not named:
        raise UsageError("--metric names none; the usual one is latency_ms")
    found = []
    for of_device in context.each_device():
        found += [_predict(of_device, architecture, metric) for metric in dict.fromkeys(named)]
    return found


def _parsed(context: Context, text: str) -> Architecture:
    """Return the network; an error says of which space a table's figures are, if of another than this."""
    try:
        return context.space.parse(text)
    except UsageError as error:
        hint = ""
        with suppress(EhdnasError):  # what else is wrong is told where it matters
            groups = list_groups(context.workspace)
            tables = [one.device.name for one in context.each_device() if one.device.kind == TABLE]
            hint = next(filter(None, (space_hint(name, context.space.name, groups) for name in tables)), "")
        raise UsageError(f"{error}{hint}") from error


def _predict(context: Context, architecture: Architecture, metric: str) -> dict[str, Any]:
    predictor = _predictor(context, metric)
    gates = context.space.encode_all([architecture])
    confidence = context.settings.confidence
    with torch.no_grad():
        lower, upper = (float(end) for end in predictor.interval(gates, confidence))
        value = float(predictor(gates))
    promised = upper < float("inf")
    return {
        "device": context.device.name,
        "shape": str(context.shape),
        "metric": metric,
        "value": value,
        "confidence": confidence,
        "lower": lower if promised else None,
        "upper": upper if promised else None,
        "basis": basis_of(context.device),
        "method": predictor.identity.method,
        "held_out": None if predictor.quality is None else figures_of(predictor.quality),
    }


def _predictor(context: Context, metric: str) -> Predictor:
    """Return the stored predictor, or one fitted to what is stored: imported or measured figures, say."""
    if not context.workspace.database.is_file():
        raise UsageError(_nothing(context))
    records = open_records(context)
    found = stored_predictor(context, records, metric)
    if found is not None:
        return found
    count = len(records.measured())
    if count and context.device.kind == TABLE:
        _require_table(count, context.device.name)
    if count < MIN_SAMPLES:
        raise UsageError(_nothing(context))
    return fit(context, records, metric)


def _require_table(count: int, name: str) -> None:
    """Raise UsageError where a predictor cannot be fitted to so many networks of an imported table."""
    if count < MIN_SAMPLES:
        raise UsageError(
            f"{count} networks imported for '{name}': a predictor needs {MIN_SAMPLES} at least; import more"
        )


def _nothing(context: Context) -> str:
    name, space = context.device.name, context.space.name
    if context.device.kind == TABLE:
        return nothing_told(name, space, context.shape, list_groups(context.workspace))
    return (
        f"device '{name}' is not profiled for {context.shape} of '{space}' by the "
        f"{context.settings.protocol} protocol; run `ehdnas profile --device {name}` first"
    )
