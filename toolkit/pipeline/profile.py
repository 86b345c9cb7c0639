"""The profile stage: sample the space, measure on the device, fit the predictor."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ehdnas.core.budget import Budget
from ehdnas.core.device import Device
from ehdnas.core.errors import UsageError
from ehdnas.core.images.dataset import normalise
from ehdnas.core.text import duration
from ehdnas.pipeline.baselines import baselines_of, figures_of
from ehdnas.pipeline.candidates import Candidates, Images, require_possible
from ehdnas.pipeline.choosing import targets_of
from ehdnas.pipeline.conditions import TABLE
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.fitting import fit, stored_predictor
from ehdnas.pipeline.measuring import Limit, label, measure
from ehdnas.pipeline.meter import PROTOCOLS, Instrument, Meter, Records
from ehdnas.pipeline.predictors import (
    basis_of,
    fitted,
    open_records,
    require_method,
    samples,
    unfitted,
)
from ehdnas.pipeline.targets import sample_architectures
from ehdnas.pipeline.transfer import learnt_from, require_source
from ehdnas.profilers.base import find_profiler
from ehdnas.profilers.store.store import MeasurementStore
from ehdnas.search.predictor.base import Predictor
from ehdnas.search.spaces.sound import require_sound
from ehdnas.settings import export_options

SAMPLES_SIMULATED = 2000
SAMPLES_MEASURED = 40
SAMPLES_IN_TIME = 1000  # where minutes are given: the clock ends it, or that more no longer helps
_CALIBRATION_IMAGES = 32


@dataclass(frozen=True)
class Profile:
    """A profiled device: how good its predictor is, and what simpler ones make of the same networks."""

    metric: str
    predictor: Predictor
    records: Records
    baselines: list[dict[str, Any]] = field(default_factory=list)

    @property
    def meter(self) -> Meter:
        """What measures more networks there; only where the device can be measured."""
        assert isinstance(self.records, Meter)
        return self.records

    def summary(self) -> dict[str, Any]:
        """Return the result as JSON-able data."""
        assert self.predictor.quality is not None
        device = self.records.device
        return {
            "device": device.name,
            "metric": self.metric,
            "basis": basis_of(device),
            "method": self.predictor.identity.method,
            "transfer": learnt_from(self.predictor),
            "held_out": figures_of(self.predictor.quality),
            "baselines": self.baselines,
        }


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
    """Say now what no device, board or compiler would let happen, before data are loaded and hours spent.

    Raises:
        UsageError: the device exists as a table of imported figures alone, or there is no such predictor; or
            a space of the user's own does not work.
        DeviceError: it cannot be reached.
    """
    require_method(context)
    if context.device.kind == TABLE:
        name = context.device.name
        raise UsageError(
            f"device '{name}' is a table of imported figures, and nothing more can be measured there; "
            f"`ehdnas predict GENOTYPE --device {name}` asks what was learnt from them"
        )
    if not type(context.space).__module__.startswith("ehdnas."):  # ours are tested
        require_sound(context.space, context.shape)
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

    Networks already measured count; the same seed and the same measurements ask for the same networks. The
    first is the space's reference network, which relative budgets refer to. On a real device later ones are
    chosen by what they tell, and measuring stops as soon as more networks make the predictor no better,
    unless `every` one is wanted. Where none is wanted, and for a table of imported figures, the predictor is
    fitted to what is stored.

    Raises:
        DeviceError: the device cannot be used.
        UsageError: the time was too short for the fewest samples a predictor needs, or there is no such
            device to transfer from.
    """
    if context.settings.samples == 0 or context.device.kind == TABLE:
        require_method(context)
        records = open_records(context)
        require_source(context, records, metric)
        return _fitted(context, records, metric)
    require_usable(context)
    meter = open_meter(context)
    require_source(context, meter, metric)
    context.say_data()
    context.remember()
    context.reporter.say(_plan(context, meter, minutes))
    limit = Limit(_wanted(context, minutes), minutes)
    if context.device.simulated:
        label(context, meter, sample_architectures(context), limit)
    else:
        helped = None if every else partial(_held_out_error, context, meter, metric)
        measure(context, meter, targets_of(context, meter, metric), limit, helped)
    return _fitted(context, meter, metric)


def _fitted(context: Context, records: Records, metric: str) -> Profile:
    predictor = fit(context, records, metric)
    return Profile(metric, predictor, records, baselines_of(context, records, predictor))


def _held_out_error(context: Context, meter: Meter, metric: str) -> float:
    """Return the mean relative error, on networks left out, of a predictor fitted to all that is stored."""
    predictor = unfitted(context, meter, metric)
    try:
        return fitted(predictor, *samples(meter, metric), context.settings.seed).mape
    except UsageError:
        return float("inf")  # too few yet, or all the same: go on measuring


def ensure_predictor(context: Context, metric: str) -> Profile:
    """Return the profile the workspace has for this device, space, shape and metric, or make it."""
    require_usable(context)
    meter = open_meter(context)
    require_source(context, meter, metric)
    predictor = stored_predictor(context, meter, metric)
    if predictor is not None:
        known = f"profile: {len(meter.measured())} networks of this size are known on {context.device.name}"
        if known not in context.said:
            context.said.add(known)
            context.reporter.say(f"{known}, and its predictor of {metric}")
        return Profile(metric, predictor, meter, baselines_of(context, meter, predictor))
    if len(meter.measured()) >= _wanted(context):
        return _fitted(context, meter, metric)
    context.reporter.say(f"profile: {context.device.name} has no predictor for this network size yet")
    return profile(context, metric)


def refined(context: Context, profiled: Profile) -> Profile:
    """Return a profile whose predictor is fitted again, to all that is measured by now, and kept.

    It is compared with no baselines, which would take as long again.
    """
    return Profile(profiled.metric, fit(context, profiled.meter, profiled.metric), profiled.meter)


def reference_value(context: Context, meter: Meter, budget: Budget) -> float:
    """Return the reference network's value of the budget's metric, measured if it has not been."""
    return meter.measure(context.space.reference).metric(budget.metric)


def _wanted(context: Context, minutes: float | None = None) -> int:
    """Return how many networks: as asked, as many as the time allows, or the usual number."""
    if context.settings.samples is not None:
        return context.settings.samples
    if context.device.simulated:
        return SAMPLES_SIMULATED
    return SAMPLES_MEASURED if minutes is None else SAMPLES_IN_TIME


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
