"""Which networks to measure next: those of the seeded sequence that tell most of all others."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ehdnas.core.errors import EhdnasError
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.meter import Records
from ehdnas.pipeline.predictors import one_thread, samples, unfitted
from ehdnas.pipeline.targets import FIRST, Targets, sample_architectures
from ehdnas.pipeline.transfer import source_for
from ehdnas.search.predictor.choice import choose
from ehdnas.search.predictor.ensemble import EnsemblePredictor
from ehdnas.search.spaces.base import Architecture
from ehdnas.settings import DEFAULT_METHOD


def targets_of(context: Context, records: Records, metric: str) -> Targets:
    """Return what to measure on a real device: as the settings say, chosen by what it tells, or as drawn.

    The first are chosen by the kernels of another device's predictor where there is one to learn from, and
    else as drawn; later ones by their own. The choice is the project's own predictor's; with another,
    networks are taken as drawn.
    """
    settings, sequence = context.settings, sample_architectures(context)
    if settings.choice != "active" or settings.predictor != DEFAULT_METHOD:
        return Targets(records, sequence)
    source = source_for(context, records, metric, FIRST) if len(records.measured()) < FIRST else None
    by = _Chooser(context, records, metric, source).most_telling
    return Targets(records, sequence, by, as_drawn=FIRST if source is None else 0)


@dataclass(frozen=True)
class _Chooser:
    """Chooses by the predictor fitted to what is measured so far; the first ones by that of `source`."""

    context: Context
    records: Records
    metric: str
    source: EnsemblePredictor | None

    def most_telling(self, candidates: list[Architecture], number: int) -> list[Architecture]:
        """Return the candidates that say most of all others, or the first where that cannot be told."""
        try:
            rows, said = self._told_by(candidates, number)
        except (EhdnasError, ArithmeticError, RuntimeError) as error:  # measuring must go on
            reason = str(error).partition("\n")[0]
            _say_once(
                self.context,
                f"profile: networks are taken as drawn, for what they tell is not known: {reason}",
            )
            return candidates[:number]
        _say_once(self.context, f"profile: {said}; --random takes them as drawn")
        return [candidates[row] for row in rows]

    def _told_by(self, candidates: list[Architecture], number: int) -> tuple[list[int], str]:
        """Return the rows of the most telling candidates, and by what they were chosen."""
        space, seed = self.context.space, self.context.settings.seed
        predictor = unfitted(self.context, self.records, self.metric)
        among = space.encode_all(candidates)
        if self.source is not None and len(self.records.measured()) < FIRST:
            known = [space.encode(architecture) for architecture, _ in self.records.measured()]
            gates = torch.stack(known) if known else among[:0]
            with one_thread():
                rows = choose(
                    gates, torch.ones(len(gates)), among, number, seed, predictor.facts, self.source
                )
            by = self.source.identity.device
            return rows, f"the first {FIRST} networks are chosen by what matters on {by}"
        gates, values = samples(self.records, self.metric)
        predictor.require_fittable(gates, values)
        with one_thread():
            rows = choose(gates, values, among, number, seed, predictor.facts)
        return rows, "networks are now chosen by what they tell of all others"


def _say_once(context: Context, text: str) -> None:
    if text not in context.said:
        context.said.add(text)
        context.reporter.say(text)
