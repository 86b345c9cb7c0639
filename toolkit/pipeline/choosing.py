"""Which networks to measure next: those of the seeded sequence that tell most of all others."""

from __future__ import annotations

from functools import partial

from ehdnas.core.errors import EhdnasError
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.meter import Records
from ehdnas.pipeline.predictors import one_thread, samples, unfitted
from ehdnas.pipeline.targets import Targets, sample_architectures
from ehdnas.search.predictor.choice import choose
from ehdnas.search.spaces.base import Architecture
from ehdnas.settings import DEFAULT_METHOD


def targets_of(context: Context, records: Records, metric: str) -> Targets:
    """Return what to measure on a real device: as the settings say, chosen by what it tells, or as drawn.

    The choice is the project's own predictor's; with another, networks are taken as drawn.
    """
    settings = context.settings
    chosen = settings.choice == "active" and settings.predictor == DEFAULT_METHOD
    by = partial(_most_telling, context, records, metric) if chosen else None
    return Targets(records, sample_architectures(context), by)


def _most_telling(
    context: Context, records: Records, metric: str, candidates: list[Architecture], number: int
) -> list[Architecture]:
    """Return the candidates that say most of all others, or the first ones where that cannot be told."""
    try:
        gates, values = samples(records, metric)
        predictor = unfitted(context, records, metric)
        predictor.require_fittable(gates, values)
        among = context.space.encode_all(candidates)
        with one_thread():
            rows = choose(gates, values, among, number, context.settings.seed, predictor.facts)
    except (EhdnasError, ArithmeticError, RuntimeError) as error:  # measuring must go on
        reason = str(error).partition("\n")[0]
        _say_once(context, f"profile: networks are taken as drawn, for what they tell is not known: {reason}")
        return candidates[:number]
    _say_once(
        context,
        "profile: networks are now chosen by what they tell of all others; --random takes them as drawn",
    )
    return [candidates[row] for row in rows]


def _say_once(context: Context, text: str) -> None:
    if text not in context.said:
        context.said.add(text)
        context.reporter.say(text)
