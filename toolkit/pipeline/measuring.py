"""Sampled networks labelled: simulated by the hundred, or measured on boards for as long as it helps."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from ehdnas.pipeline.context import Context
from ehdnas.pipeline.fleet import measure_on_boards
from ehdnas.pipeline.meter import Meter
from ehdnas.pipeline.targets import Targets
from ehdnas.search.predictor.base import MIN_SAMPLES
from ehdnas.search.spaces.base import Architecture

_CHUNK = 100  # simulated labels in one transaction
# Whether more would help is asked when there are half as many again; a first answer is worth little.
_FIRST_ASKED, _GROWTH = 30, 1.5
# More no longer helps when twice in a row the error fell by less than this share of itself.
_LEAST_GAIN = 0.05


@dataclass
class Limit:
    """How many networks are wanted, and by when, counted from its making."""

    wanted: int
    minutes: float | None = None
    started: float = field(default_factory=time.monotonic)

    def is_over(self) -> bool:
        """Return whether the time is up."""
        return self.minutes is not None and time.monotonic() - self.started > 60 * self.minutes


def label(context: Context, meter: Meter, targets: Iterator[Architecture], limit: Limit) -> None:
    """Simulate the first of `targets` that the limit allows, but for those that are stored."""
    known = {architecture for architecture, _ in meter.measured()}
    done, taken = 0, []
    while done < limit.wanted:
        if limit.is_over():
            context.reporter.warn(f"profile: time is up after {done} of {limit.wanted} networks")
            break
        chunk = list(islice(targets, min(_CHUNK, limit.wanted - done)))
        if not chunk:
            context.reporter.warn(f"profile: '{context.space.name}' has no more networks than these {done}")
            break
        missing = [architecture for architecture in chunk if architecture not in known]
        meter.measure_many(missing)
        taken += missing
        done += len(chunk)
        context.reporter.progress(done, limit.wanted, "networks")
    unfit = set(taken) - {architecture for architecture, _ in meter.measured()}
    if unfit:
        context.reporter.warn(f"profile: {len(unfit)} of {done} networks do not fit {context.device.name}")


def measure(
    context: Context, meter: Meter, targets: Targets, limit: Limit, held_out_error: Callable[[], float] | None
) -> None:
    """Measure what `targets` gives until as many are stored as the limit allows, in rounds that grow.

    Args:
        held_out_error: how far off a predictor is that is fitted to all that is stored; asked after each
            round, and measuring stops where it no longer falls. None measures them all.

    Raises:
        DeviceError, MeasurementError: as `measure_on_boards`.
    """
    space = context.space
    done = min(limit.wanted, len(meter.measured()))
    errors: list[float] = []

    def make(subject: str, folder: Path) -> Path:
        return meter.instrument.candidates.export(space.parse(subject), folder)

    def count() -> None:
        nonlocal done
        done += 1
        context.reporter.progress(done, limit.wanted, "networks")

    while done < limit.wanted and not limit.is_over():
        now = targets.next(min(_next_asked(done), limit.wanted) - done)
        if not now:
            context.reporter.warn(f"profile: '{space.name}' has no more networks than these {done}")
            break
        measure_on_boards(context, meter, [meter.key(one) for one in now], make, limit.is_over, count)
        if done >= limit.wanted or held_out_error is None or limit.is_over():
            continue
        number = len(meter.measured())
        if number >= MIN_SAMPLES:
            errors.append(held_out_error())
            if helps_no_more(errors):
                context.reporter.say(
                    f"profile: {number} networks are enough: the held-out error stays at {errors[-1]:.1%}; "
                    "--all measures the rest"
                )
                break
    if limit.is_over() and done < limit.wanted:
        context.reporter.warn(f"profile: time is up after {done} of {limit.wanted} networks")
    _say_doubtful(context, meter)


def helps_no_more(errors: list[float]) -> bool:
    """Return whether the last two rounds of measuring both brought next to nothing."""
    if len(errors) < 3:
        return False
    before, between, last = errors[-3:]
    return between > (1 - _LEAST_GAIN) * before and last > (1 - _LEAST_GAIN) * min(before, between)


def _next_asked(done: int) -> int:
    at = float(_FIRST_ASKED)
    while round(at) <= done:
        at *= _GROWTH
    return round(at)


def _say_doubtful(context: Context, meter: Meter) -> None:
    """Say how many of the measurements carry a flag, and of which kinds."""
    rows = meter.measured()
    kinds = Counter(flag.split(" ")[0] for _, measurement in rows for flag in measurement.flags)
    doubtful = sum(bool(measurement.flags) for _, measurement in rows)
    if doubtful:
        named = ", ".join(f"{kind} {number}" for kind, number in kinds.most_common())
        context.reporter.warn(
            f"profile: {doubtful} of {len(rows)} measurements are marked ({named}); `ehdnas doctor` says "
            "what would make them steadier"
        )
