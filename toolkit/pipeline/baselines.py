"""What simpler predictors make of the same networks: rows for the predictor's own figures to stand beside."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ehdnas.core.errors import EhdnasError, UsageError
from ehdnas.core.files import read_json, write_json
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.meter import Records
from ehdnas.pipeline.predictors import one_thread, predictor_path, samples
from ehdnas.search.predictor.base import Predictor
from ehdnas.search.predictor.facts import OP_LATENCY
from ehdnas.search.predictor.methods import METHODS, make_predictor
from ehdnas.search.predictor.quality import Quality, quality_of

_OF_OPERATIONS = "op-sum"


def figures_of(quality: Quality) -> dict[str, Any]:
    """Return the figures of merit as JSON-able data, without the values of every network.

    `coverage90` is there only where it is known. Of a fit it is not: its interval comes from the very errors
    on networks left out that it would be judged by.
    """
    figures = asdict(quality)
    unknown = ["coverage90"] if quality.coverage90 is None else []
    return {key: figures[key] for key in figures if key not in ("predicted", "measured", *unknown)}


def baselines_of(context: Context, records: Records, predictor: Predictor) -> list[dict[str, Any]]:
    """Return what every other method gives on the networks that a fitted predictor was judged by.

    One record a method: `method` and the figures of `figures_of`, or `method` and `problem`, in words, where
    it cannot be fitted. Kept beside the predictor, so that they are reckoned once; none where the predictor
    was fitted to other networks than are stored now, which could not be compared.
    """
    quality = predictor.quality
    if quality is None:
        return []
    path = _path(context, predictor)
    known = _known(path, predictor, quality)
    if known is not None:
        return known
    try:
        gates, values = samples(records, predictor.identity.metric)
    except UsageError:
        return []
    methods = [one for one in METHODS if one != predictor.identity.method and _applies(one, predictor)]
    with one_thread():
        rows = [_row(predictor, method, gates, values, context.settings.seed) for method in methods]
    found = [row for row in rows if row is not None]
    if len(found) == len(rows):  # else they are of other networks, and may be of the same ones next time
        write_json(path, {"of": _of(predictor, quality), "baselines": found})
    return found


def _applies(method: str, predictor: Predictor) -> bool:
    """Return whether to ask a method at all: a sum of times is nothing where no operation was timed."""
    costs = predictor.facts.costs
    return method != _OF_OPERATIONS or (costs is not None and OP_LATENCY in costs.names)


def _row(
    predictor: Predictor, method: str, gates: Tensor, values: Tensor, seed: int
) -> dict[str, Any] | None:
    assert predictor.quality is not None
    try:
        other = make_predictor(replace(predictor.identity, method=method), predictor.facts)
        other.require_fittable(gates, values)
        rows, guessed = other.held_out(gates, values, seed)
    except (EhdnasError, ArithmeticError, RuntimeError) as error:  # a baseline may fail, a profile must not
        return {"method": method, "problem": str(error).partition("\n")[0]}
    if method == "constant":  # its folds' medians differ, which says nothing of an order
        guessed = torch.full_like(guessed, float(guessed.median()))
    seen = values[rows].double()
    if seen.tolist() != predictor.quality.measured:
        return None
    return {"method": method, **figures_of(quality_of(guessed.exp().numpy(), seen.numpy()))}


def _of(predictor: Predictor, quality: Quality) -> dict[str, Any]:
    """Return what baselines are kept for: they hold for this fit alone, and for these methods."""
    costs = predictor.facts.costs
    return {
        "method": predictor.identity.method,
        "held_out": figures_of(quality),
        "methods": list(METHODS),
        "costs": [] if costs is None else list(costs.names),
    }


def _known(path: Path, predictor: Predictor, quality: Quality) -> list[dict[str, Any]] | None:
    # Absent or damaged, it is made again: nothing in it was measured.
    with suppress(EhdnasError, OSError, KeyError, TypeError):
        kept = read_json(path)
        if kept["of"] == _of(predictor, quality):
            rows: list[dict[str, Any]] = kept["baselines"]
            return rows
    return None


def _path(context: Context, predictor: Predictor) -> Path:
    return predictor_path(context, predictor.identity.metric).with_suffix(".baselines.json")
