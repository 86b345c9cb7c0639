"""One figure out of several measurements of a file, where the first is not what was expected of it."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median_low

from ehdnas.core.measurement import Measurement
from ehdnas.pipeline.reporter import Reporter

_ALIKE = 0.02  # two measurements of a network on a device that nothing disturbs differ by about 1 %
_AGREE = 3  # measurements that settle a figure
_MOST = 9  # measurements that are taken at most: what disturbs a device may last a minute


def measured(
    take: Callable[[], Measurement], metric: str, before: float | None, reporter: Reporter
) -> Measurement:
    """Return a measurement that is alike what was measured before or, failing that, a few others.

    A figure far from `before`, either way, was disturbed or that one was: it is taken again until three
    agree, whichever they are, and the middle one of these is returned. Where no three of nine do, it is the
    middle one of all. The flags of what is returned tell all figures.
    """
    taken = [take()]
    values = [taken[0].metric(metric)]
    if before is None or abs(values[0] / before - 1) <= _ALIKE:
        return taken[0]
    reporter.say(
        f"verify: {metric} {values[0]:.4g}, where the search measured {before:.4g}; measuring it until "
        f"{_AGREE} agree"
    )
    while (settled := agreed(values)) is None and len(taken) < _MOST:
        taken.append(take())
        values.append(taken[-1].metric(metric))
    used = taken[values.index(median_low(values) if settled is None else settled)]
    counts = f"no {_AGREE} agree and the middle one counts" if settled is None else f"{_AGREE} agree"
    shown = ", ".join(f"{value:.4g}" for value in values)
    flag = f"the search measured {before:.4g}, so it was measured {len(taken)} times: {shown}; {counts}"
    return used.model_copy(update={"flags": [*used.flags, flag]})


def agreed(values: list[float]) -> float | None:
    """Return the middle one of the three values that agree best, None where no three do."""
    ordered = sorted(values)
    groups = [ordered[at : at + _AGREE] for at in range(len(ordered) - _AGREE + 1)]
    tightest = min(groups, key=lambda group: group[-1] / group[0], default=None)
    if tightest is None or tightest[-1] / tightest[0] - 1 > _ALIKE:
        return None
    return tightest[_AGREE // 2]
