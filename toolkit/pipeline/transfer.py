"""Transfer: what was learnt on one device helps where another has few networks measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from torch import Tensor

from ehdnas.core.device import Device
from ehdnas.core.errors import EhdnasError, UsageError
from ehdnas.pipeline.conditions import conditions
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.devices import find_device
from ehdnas.pipeline.meter import Records
from ehdnas.pipeline.ops import with_operation_times
from ehdnas.pipeline.predictors import fitted, identity_of, predictor_path, samples, unfitted
from ehdnas.search.predictor.base import MIN_SAMPLES, Predictor
from ehdnas.search.predictor.ensemble import EnsemblePredictor
from ehdnas.search.predictor.facts import SpaceFacts
from ehdnas.settings import DEFAULT_METHOD, TRANSFER_AUTO, TRANSFER_NONE

_FEW = 100  # networks of its own, from where on a device needs no other's
_TIMES_AS_MANY = 3  # networks of the other device
_MOST = 4  # other devices that are tried
_GAIN = 0.03  # share of itself that the held-out error has to fall by: less may well be chance
_ROWS = 1500  # networks of the other device that are learnt from; more take minutes and tell little more


@dataclass(frozen=True)
class _Other:
    """Another device with networks of the same space and shape that have the metric."""

    records: Records
    gates: Tensor
    values: Tensor

    @property
    def device(self) -> Device:
        return self.records.device


def learnt_from(predictor: Predictor) -> str | None:
    """Return the device whose predictor is among a predictor's features, None where there is none."""
    source = predictor.source if isinstance(predictor, EnsemblePredictor) else None
    return None if source is None else source.identity.device


def is_as_asked(context: Context, predictor: Predictor) -> bool:
    """Return whether a stored predictor has the help that the settings ask for.

    Raises:
        UsageError: they name no device that there is.
    """
    asked, has = _asked(context), learnt_from(predictor)
    return asked == TRANSFER_AUTO or has == (None if asked == TRANSFER_NONE else asked)


def _asked(context: Context) -> str:
    """Return what the settings ask for: auto, none, or the name of another device, boards being the device.

    What they say of a whole project is nothing to the device named itself, nor to a simpler predictor.
    """
    asked = context.settings.transfer
    if context.settings.predictor != DEFAULT_METHOD:
        return TRANSFER_NONE
    if asked in (TRANSFER_AUTO, TRANSFER_NONE):
        return asked
    family = find_device(asked).family
    return TRANSFER_NONE if family == context.device.family else family


def require_source(context: Context, records: Records, metric: str) -> None:
    """Say now, before hours of measuring, that the device that the settings name cannot help.

    Raises:
        UsageError: there is none of that name, it has no networks of this space and shape with this metric,
            it is the device itself, or the predictor is not one that learns from another.
    """
    named, method = context.settings.transfer, context.settings.predictor
    if named in (TRANSFER_AUTO, TRANSFER_NONE):
        return
    if method != DEFAULT_METHOD:
        raise UsageError(f"--transfer {named[:60]}: predictor '{method}' learns from no other device")
    _named(context, records, metric)


def source_for(context: Context, records: Records, metric: str, own: int) -> EnsemblePredictor | None:
    """Return the predictor of the device with the most networks to learn from, None where there is none.

    Args:
        own: how many networks of this device it is to help with; the other has some times as many.

    Raises:
        UsageError: the settings name a device that nothing can be learnt from.
    """
    for other in _candidates(context, records, metric, own):
        context.reporter.say(f"profile: what matters is learnt from {other.device.name}")
        try:
            return _source(context, unfitted(context, records, metric), other)
        except (EhdnasError, ArithmeticError, RuntimeError) as error:  # there are others, and random networks
            _warn_of(context, other, error)
    return None


def transferred(
    context: Context, records: Records, alone: Predictor, gates: Tensor, values: Tensor
) -> Predictor:
    """Return the predictor with the help of the device that helps most, or as it is where none does.

    Helping is judged by the error on networks left out, the same for all.

    Args:
        alone: fitted to gates [n, slots, choices] and values [n] of this device.

    Raises:
        UsageError: the settings name a device that nothing can be learnt from.
    """
    assert alone.quality is not None
    best, tried = None, []
    for other in _candidates(context, records, alone.identity.metric, len(values)):
        with_help = _with_help(context, alone, other, gates, values)
        if with_help is None or with_help.quality is None:
            continue
        tried.append(other.device.name)
        if best is None or best.quality is None or with_help.quality.mape < best.quality.mape:
            best = with_help
    if best is None or best.quality is None:
        return alone
    errors = f"the held-out error is {best.quality.mape:.1%} with it, {alone.quality.mape:.1%} without"
    if best.quality.mape > (1 - _GAIN) * alone.quality.mape:
        context.reporter.say(f"predictor: what was learnt on {', '.join(tried)} is not used: {errors}")
        return alone
    context.reporter.say(f"predictor: what was learnt on {learnt_from(best)} helps: {errors}")
    return best


def _candidates(context: Context, records: Records, metric: str, own: int) -> list[_Other]:
    """Return the devices to try, those with the most networks first."""
    asked = _asked(context)
    if asked not in (TRANSFER_AUTO, TRANSFER_NONE):
        return [_named(context, records, metric)]
    # Simulating more costs next to nothing, and what a simulator says is no measured device's doing.
    if asked == TRANSFER_NONE or own >= _FEW or records.device.simulated:
        return []
    others = [one for one in _others(records, metric) if not one.device.simulated]
    enough = [one for one in others if len(one.values) >= _TIMES_AS_MANY * own]
    return sorted(enough, key=lambda one: -len(one.values))[:_MOST]


def _named(context: Context, records: Records, metric: str) -> _Other:
    """Return the device that the settings name.

    Raises:
        UsageError: it cannot help; the message names those that could.
    """
    named, others = context.settings.transfer, list(_others(records, metric))
    try:
        family = find_device(named).family
        reason = "is the device itself" if family == records.device.family else "has too few networks"
    except UsageError:
        family, reason = "", "is no device"
    for other in others:
        if other.device.name == family:
            return other
    names = ", ".join(sorted(other.device.name for other in others)) or "no other device"
    raise UsageError(
        f"--transfer: '{named[:60]}' {reason}; {metric} of '{records.space.name}' at {records.shape} can be "
        f"learnt from {names}"
    )


def _others(records: Records, metric: str) -> Iterator[_Other]:
    """Yield every other device with enough networks of this space and shape that have the metric."""
    store = records.store
    for group in store.groups():
        same = (group.space, group.shape) == (records.space.name, str(records.shape))
        if not same or group.networks < MIN_SAMPLES or group.device == records.device.family:
            continue
        with suppress(UsageError):  # a device that is described no more, or gives other metrics
            device = find_device(group.device)
            now = (device.precision, conditions(device, records.protocol))
            if now == (group.precision, group.protocol):
                own = Records(device, records.space, records.shape, records.protocol, store)
                yield _Other(own, *samples(own, metric))


def _with_help(
    context: Context, alone: Predictor, other: _Other, gates: Tensor, values: Tensor
) -> EnsemblePredictor | None:
    """Return a predictor fitted with another device's as a feature; None where that cannot be done."""
    try:
        source = _source(context, alone, other)
        predictor = EnsemblePredictor(alone.identity, alone.facts, source)
        fitted(predictor, gates, values, context.settings.seed)
    except (EhdnasError, ArithmeticError, RuntimeError) as error:  # there is one without it
        _warn_of(context, other, error)
        return None
    return predictor


def _warn_of(context: Context, other: _Other, error: Exception) -> None:
    reason = str(error).partition("\n")[0]
    context.reporter.warn(f"predictor: nothing can be learnt from {other.device.name}: {reason}")


def _source(context: Context, alone: Predictor, other: _Other) -> EnsemblePredictor:
    """Return the other device's predictor: from its file if there is a sound one, else fitted to its rows."""
    metric = alone.identity.metric
    source = EnsemblePredictor(identity_of(context, metric, other.device), alone.facts)
    path = predictor_path(context, metric, other.device)
    if path.is_file() and _sees_the_same(context, alone.facts, other):
        with suppress(EhdnasError):
            source.restore(path)
            if source.source is None:  # no chains: they would grow with every fit
                return source
        source = EnsemblePredictor(source.identity, alone.facts)
    fitted(source, other.gates[:_ROWS], other.values[:_ROWS], context.settings.seed)
    return source


def _sees_the_same(context: Context, facts: SpaceFacts, other: _Other) -> bool:
    """Return whether the other device's file was made with these facts: no operation timed on either.

    A source is kept, and read again, with the facts of the predictor that it helps.
    """
    return facts is context.facts and with_operation_times(other.records, context.facts) is context.facts
