"""The predictor of a device's metric: what it is for, what it is fitted to, where the workspace keeps it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ehdnas.core.device import Device
from ehdnas.core.errors import UsageError
from ehdnas.core.text import nearest
from ehdnas.pipeline.conditions import TABLE, conditions
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.meter import Records, find_protocol
from ehdnas.pipeline.ops import with_operation_times
from ehdnas.pipeline.tables import nothing_told
from ehdnas.profilers.store.store import MeasurementStore
from ehdnas.search.predictor.base import MIN_SAMPLES, Identity, Predictor
from ehdnas.search.predictor.methods import METHODS, make_predictor
from ehdnas.search.predictor.quality import Quality

_MOST_OF_A_TABLE = 1000


def basis_of(device: Device) -> str:
    """Return how the figures came about that a device's predictor is fitted to, in a word."""
    return "simulated" if device.simulated else "imported" if device.kind == TABLE else "measured"


def require_method(context: Context) -> None:
    """Raise UsageError, naming the nearest, where the settings ask for a predictor that there is not."""
    method = context.settings.predictor
    if method not in METHODS:
        raise UsageError(f"unknown predictor '{method}'{nearest(method, METHODS)}")


def open_records(context: Context) -> Records:
    """Return what the workspace has stored of the context's device, space, shape and protocol."""
    protocol = find_protocol(context.settings.protocol)
    store = MeasurementStore(context.workspace.database)
    return Records(context.device, context.space, context.shape, protocol, store)


def unfitted(context: Context, records: Records, metric: str) -> Predictor:
    """Return a predictor of the method that the settings name, not fitted yet.

    It is given all that is known of the space: costs by the layers, and, where every operation was timed
    on the device alone, those times.
    """
    facts = with_operation_times(records, context.facts)
    return make_predictor(identity_of(context, metric), facts)


def identity_of(context: Context, metric: str, device: Device | None = None) -> Identity:
    """Return what a predictor must be made for to serve this context, or one like it of another device."""
    space, device = context.space, device or context.device
    return Identity(
        method=context.settings.predictor,
        space=space.name,
        slots=space.slots,
        choices=space.choices,
        shape=str(context.shape),
        device=device.name,
        conditions=conditions(device, find_protocol(context.settings.protocol)),
        metric=metric,
    )


def predictor_path(context: Context, metric: str, device: Device | None = None) -> Path:
    """Return where the workspace keeps the predictor of this device, or another, space, shape and metric.

    There is one, of whichever method was fitted last: another is made from the measurements in seconds.
    """
    who = identity_of(context, metric, device)
    parts = (who.device, who.space, who.shape, who.metric, who.conditions)
    name = "--".join(re.sub(r"[^\w.-]", "_", part) for part in parts)
    return context.workspace.predictors / f"{name}.safetensors"


def fitted(predictor: Predictor, gates: Tensor, values: Tensor, seed: int) -> Quality:
    """Fit a predictor; return its quality on networks left out in turn."""
    with one_thread():
        return predictor.fit(gates, values, seed)


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread: at this size more get in each other's way; sums stay in one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def samples(records: Records, metric: str) -> tuple[Tensor, Tensor]:
    """Return the networks that are stored with this metric: gates [n, slots, choices] and values [n].

    Of a table of imported figures that has many, some are drawn, always the same ones.

    Raises:
        UsageError: the device does not give this metric, or there are too few networks.
    """
    name, rows = records.device.name, records.measured()
    if not rows and records.device.kind == TABLE:
        raise UsageError(nothing_told(name, records.space.name, records.shape, records.store.groups()))
    if not rows:
        of = f"'{records.space.name}' at {records.shape}"
        raise UsageError(f"nothing is stored of {of} on {name}; profile it, or choose --space and the size")
    told = [(one, measurement.metrics[metric]) for one, measurement in rows if metric in measurement.metrics]
    if rows and not told:
        known = ", ".join(sorted({key for _, measurement in rows for key in measurement.metrics}))
        raise UsageError(f"device '{name}' gives no {metric}; what it gives is {known}")
    if len(told) < MIN_SAMPLES:
        known, more = (
            ("imported for", "import") if records.device.kind == TABLE else ("measured on", "profile")
        )
        raise UsageError(
            f"{len(told)} networks {known} {name}: a predictor needs at least {MIN_SAMPLES}; {more} more"
        )
    if records.device.kind == TABLE and len(told) > _MOST_OF_A_TABLE:
        # Tables may be sorted, and what a fit takes grows with the cube of the networks.
        rng = np.random.default_rng(0)
        told = [told[row] for row in sorted(rng.permutation(len(told))[:_MOST_OF_A_TABLE])]
    gates = records.space.encode_all([architecture for architecture, _ in told])
    return gates, torch.tensor([value for _, value in told], dtype=torch.float64)
