"""The workspace's predictor of a device's metric: fitted to what is stored, saved, and read again."""

from __future__ import annotations

from ehdnas.core.errors import DataError, UsageError
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.meter import Records
from ehdnas.pipeline.predictors import fitted, predictor_path, samples, unfitted
from ehdnas.pipeline.transfer import is_as_asked, transferred
from ehdnas.search.predictor.base import Predictor


def stored_predictor(context: Context, records: Records, metric: str) -> Predictor | None:
    """Return the workspace's predictor for this context, None where there is none.

    One that is damaged, of another format, of another method or with another device's help than the settings
    ask for is fitted again, which is said.

    Raises:
        UsageError: it has to be fitted again, and too few networks are stored.
    """
    path = predictor_path(context, metric)
    if not path.is_file():
        return None
    predictor = unfitted(context, records, metric)
    try:
        predictor.restore(path)
    except DataError as error:
        context.reporter.warn(f"{error}; fitting it again")
        return fit(context, records, metric)
    except UsageError:
        method = context.settings.predictor
        context.reporter.warn(f"predictor: the one stored is not of method '{method}'; fitting it again")
        return fit(context, records, metric)
    if not is_as_asked(context, predictor):
        asked = context.settings.transfer
        context.reporter.say(f"predictor: the one stored is not of --transfer {asked}; fitting it again")
        return fit(context, records, metric)
    return predictor


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
