"""The profile stage: sample the space, measure on the device, fit the predictor."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ehdnas.core.budget import Budget
from ehdnas.core.device import Device
from ehdnas.core.errors import DataError, UsageError
from ehdnas.core.images.dataset import normalise
from ehdnas.core.measurement import Measurement
from ehdnas.core.text import duration
from ehdnas.pipeline.candidates import Candidates, Images, require_possible
from ehdnas.pipeline.conditions import conditions
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.measuring import Limit, label, measure
from ehdnas.pipeline.meter import PROTOCOLS, Instrument, Meter
from ehdnas.profilers.base import find_profiler
from ehdnas.profilers.store.store import MeasurementStore
from ehdnas.search.loop import step_seed
from ehdnas.search.predictor.base import MIN_SAMPLES, Identity, Predictor
from ehdnas.search.predictor.embedding import EmbeddingPredictor
from ehdnas.search.predictor.quality import Quality
from ehdnas.search.spaces.base import Architecture, Space
from ehdnas.settings import export_options

SAMPLES_SIMULATED = 2000
SAMPLES_MEASURED = 40
SAMPLES_IN_TIME = 1000  # where minutes are given: the clock ends it, or that more no longer helps
_CALIBRATION_IMAGES = 32


@dataclass(frozen=True)
class Profile:
    """A profiled device: what was measured and how good the predictor is."""

    device: str
    metric: str
    predictor: Predictor
    meter: Meter

    def summary(self) -> dict[str, Any]:
        """Return the result as JSON-able data."""
        quality = self.predictor.quality
        assert quality is not None
        figures = {
            key: value for key, value in asdict(quality).items() if key not in ("predicted", "measured")
        }
        basis = "simulated" if self.meter.device.simulated else "measured"
        return {"device": self.device, "metric": self.metric, "basis": basis, "held_out": figures}


def open_meter(context: Context) -> Meter:
    """Return the meter of the context's device, on the workspace's store."""
    protocol = PROTOCOLS[context.settings.protocol]
    candidates = Candidates(
        context.device, context.space, context.shape, partial(_some_images, context),
        export_options(context.settings),
    )  # fmt: skip
    instrument = Instrument(
        context.device, context.space, context.shape, protocol, context.boards, candidates
    )
    return Meter(instrument, MeasurementStore(context.workspace.database))


def require_usable(context: Context) -> None:
    """Say now what no device, board or compiler would let happen, before data are loaded and hours spent."""
    for board in context.boards:
        find_profiler(board)
    require_possible(context.device, export_options(context.settings))


def _some_images(context: Context) -> Images:
    """Return a few training images, normalised, for int8 files whose accuracy nobody will ask for."""
    dataset = context.dataset
    return normalise(dataset.train.images[:_CALIBRATION_IMAGES], dataset.mean, dataset.std)


def profile(
    context: Context, metric: str = "latency_ms", minutes: float | None = None, every: bool = False
) -> Profile:
    """Measure sampled networks until there are enough or the time is up, then fit the predictor.

    Networks already measured count; the same seed asks for the same networks. The first is the space's
    reference network, which relative budgets refer to. On a real device measuring stops as soon as more
    networks make the predictor no better, unless `every` one is wanted.

    Raises:
        DeviceError: the device cannot be used.
        UsageError: the time was too short for the fewest samples a predictor needs.
    """
    require_usable(context)
    meter = open_meter(context)
    context.say_data()
    context.reporter.say(_plan(context, meter, minutes))
    limit = Limit(_wanted(context, minutes), minutes)
    if context.device.simulated:
        label(context, meter, sample_architectures(context), limit)
    else:
        helped = None if every else partial(_held_out_error, context, meter, metric)
        measure(context, meter, sample_architectures(context), limit, helped)
    return Profile(context.device.name, metric, fit(context, meter, metric), meter)


def _held_out_error(context: Context, meter: Meter, metric: str) -> float:
    """Return the mean relative error, on networks left out, of a predictor fitted to all that is stored."""
    predictor = EmbeddingPredictor(identity_of(context, metric))
    return fitted(context, predictor, meter.measured(), metric).mape


def sample_architectures(context: Context) -> Iterator[Architecture]:
    """Yield the reference network and then random ones without end, each fixed by the seed and its number.

    Every other one leans towards a few choices, as the networks do that a search under a budget arrives
    at: uniform samples alone leave those outside of what the predictor has seen.
    """
    space, seed = context.space, context.settings.seed
    seen = {space.reference}
    yield space.reference
    for number in count():
        at = step_seed(seed, "profile", number)
        drawn = _leaning(space, at) if number % 2 else space.sample(np.random.default_rng(at))
        if drawn not in seen:
            seen.add(drawn)
            yield drawn


def _leaning(space: Space, seed: int) -> Architecture:
    """Return a draw from the space's own distribution with each choice made likelier or rarer throughout."""
    generator = torch.Generator().manual_seed(seed)
    strength = 4 * torch.rand(1, generator=generator)
    bias = strength * torch.randn(space.choices, generator=generator)
    return space.decode(space.relax(space.initial_logits() + bias, 1.0, generator))


def ensure_predictor(context: Context, metric: str) -> Profile:
    """Return the profile the workspace has for this device, space, shape and metric, or make it."""
    require_usable(context)
    meter = open_meter(context)
    path = predictor_path(context, metric)
    if path.is_file():
        predictor = EmbeddingPredictor(identity_of(context, metric))
        try:
            predictor.restore(path)
        except DataError as error:
            context.reporter.warn(f"{error}; fitting it again")
            return Profile(context.device.name, metric, fit(context, meter, metric), meter)
        return Profile(context.device.name, metric, predictor, meter)
    if len(meter.measured()) >= _wanted(context):
        return Profile(context.device.name, metric, fit(context, meter, metric), meter)
    context.reporter.say(f"profile: {context.device.name} has no predictor for this network size yet")
    return profile(context, metric)


def fit(context: Context, meter: Meter, metric: str) -> Predictor:
    """Fit the predictor to all that is stored, save it, and say how good it is."""
    rows = meter.measured()
    context.reporter.say(f"predictor: fitting {metric} to {len(rows)} networks")
    predictor = EmbeddingPredictor(identity_of(context, metric))
    fitted(context, predictor, rows, metric)
    predictor.save(predictor_path(context, metric))
    return predictor


def fitted(
    context: Context, predictor: Predictor, rows: list[tuple[Architecture, Measurement]], metric: str
) -> Quality:
    """Fit a predictor to measured networks; return its quality on those left out in turn.

    Raises:
        UsageError: the device does not give this metric, or there are too few networks.
    """
    name = context.device.name
    told = [(one, measurement.metrics[metric]) for one, measurement in rows if metric in measurement.metrics]
    if rows and not told:
        known = ", ".join(sorted(rows[0][1].metrics))
        raise UsageError(f"device '{name}' gives no {metric}; budgets there are on {known}")
    if len(told) < MIN_SAMPLES:
        raise UsageError(
            f"{len(told)} networks measured on {name}: a predictor needs at least {MIN_SAMPLES}; profile more"
        )
    gates = context.space.encode_all([architecture for architecture, _ in told])
    values = [value for _, value in told]
    # One thread: at this size more only get in each other's way, and the sums stay in one order.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return predictor.fit(gates, torch.tensor(values, dtype=torch.float64), context.settings.seed)
    finally:
        torch.set_num_threads(threads)


def identity_of(context: Context, metric: str) -> Identity:
    """Return what a predictor must be made for to serve this context."""
    space = context.space
    return Identity(
        method="embedding",
        space=space.name,
        slots=space.slots,
        choices=space.choices,
        shape=str(context.shape),
        device=context.device.name,
        conditions=conditions(context.device, PROTOCOLS[context.settings.protocol]),
        metric=metric,
    )


def predictor_path(context: Context, metric: str) -> Path:
    """Return where the workspace keeps the predictor of this device, space, shape and metric."""
    who = identity_of(context, metric)
    parts = (who.device, who.space, who.shape, who.metric, who.conditions)
    name = "--".join(re.sub(r"[^\w.-]", "_", part) for part in parts)
    return context.workspace.predictors / f"{name}.safetensors"


def reference_value(context: Context, meter: Meter, budget: Budget) -> float:
    """Return the reference network's value of the budget's metric, measured if it has not been."""
    return meter.measure(context.space.reference).metric(budget.metric)


def _wanted(context: Context, minutes: float | None = None) -> int:
    """Return how many networks: as asked, as many as the time allows, or the usual number."""
    if context.device.simulated:
        return context.settings.samples or SAMPLES_SIMULATED
    return context.settings.samples or (SAMPLES_MEASURED if minutes is None else SAMPLES_IN_TIME)


def _fixed_seconds(device: Device) -> float:
    """Return what comes before the first network: the parts' layer tables, or TensorFlow's import."""
    return 8 if device.simulated else 6


def _seconds_each(meter: Meter) -> float:
    """Return about how long one network takes: on a device, mostly what the protocol asks for."""
    if meter.device.simulated:
        return 0.002
    protocol = meter.instrument.protocol
    return 1.5 + protocol.processes * (protocol.warmup_s + protocol.min_s + 1)


def _plan(context: Context, meter: Meter, minutes: float | None) -> str:
    device, wanted = context.device, _wanted(context, minutes)
    verb = "simulate" if device.simulated else "export and time"
    known = min(wanted, len(meter.measured()))
    seconds = _fixed_seconds(device) + (wanted - known) * _seconds_each(meter) / len(context.boards)
    limit = "" if minutes is None else f", at most {duration(60 * minutes)}"
    boards = [board.name for board in context.boards]
    where = f"{len(boards)} boards of {device.name}" if len(boards) > 1 else boards[0]
    return (
        f"profile: {verb} {wanted} networks ({context.shape}) on {where}, "
        f"{known} known already; about {duration(seconds)}{limit}"
    )
