"""The workspace's predictor of a device's metric: fitted to what is stored, saved, and read again."""

from __future__ import annotations

from ehdnas.core.errors import DataError, UsageError
from ehdnas.pipeline.conditions import TABLE
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.meter import Records
from ehdnas.pipeline.predictors import fitted, predictor_path, samples, unfitted
from ehdnas.pipeline.transfer import is_as_asked, transferred
from ehdnas.search.predictor.base import MIN_SAMPLES, Predictor, folds_of


def stored_predictor(context: Context, records: Records, metric: str) -> Predictor | None:
    """Return the workspace's predictor for this context, None where there is none.

    One that is damaged, of another format, of another method or with another device's help than the settings
    ask for is fitted again, which is said; so is one of an imported table that has grown since.

    Raises:
        UsageError: it has to be fitted again, and too few networks are stored.
    """
    path = predictor_path(context, metric)
    if not path.is_file():
        return None
    predictor = unfitted(context, records, metric)
    try:
        predictor.restore(path)
    except (DataError, UsageError) as error:
        context.reporter.warn(f"predictor: {error}; fitting it again")
        return fit(context, records, metric)
    if not is_as_asked(context, predictor):
        asked = context.settings.transfer
        context.reporter.say(f"predictor: the one stored is not of --transfer {asked}; fitting it again")
        return fit(context, records, metric)
    # Of a device, `profile` decides when: a search measures candidates, and the next must find the same.
    if context.device.kind == TABLE and _is_outdated(records, metric, predictor):
        context.reporter.say("predictor: more networks were imported since it was fitted; fitting it again")
        return fit(context, records, metric)
    return predictor


def _is_outdated(records: Records, metric: str, predictor: Predictor) -> bool:
    """Return whether a predictor was judged by other values than it would be if it were fitted now."""
    try:
        _, values = samples(records, metric)
    except UsageError:
        return False  # what it was fitted to is not here, and it is what there is
    if predictor.quality is None or len(values) < MIN_SAMPLES:
        return False
    held = sum(len(fold) for fold, _ in folds_of(len(values), 0))
    return held != predictor.quality.samples


def fit(context: Context, records: Records, metric: str) -> Predictor:
    """Fit the predictor to all that is stored, save it, and say to how much and with whose help.

    Raises:
        UsageError: the device does not give this metric, there are too few networks, or the settings name a
            device that nothing can be learnt from.
    """
    gates, values = samples(records, metric)
    context.reporter.say(f"predictor: fitting {metric} to {len(values)} networks")
    predictor = unfitted(context, records, metric)
    fitted(predictor, gates, values, context.settings.seed)
    predictor = transferred(context, records, predictor, gates, values)
    predictor.save(predictor_path(context, metric))
    return predictor
