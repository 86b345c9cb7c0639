"""How long and how often a model is run: part of what a measurement means, so part of its key."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from ehdnas.core.errors import UsageError

_LONGEST_MINUTES = 24 * 60


@dataclass(frozen=True)
class Protocol:
    """Warm-up, runs and processes of one measurement; durations in seconds.

    Warming up lasts at least `warmup_runs` runs and `warmup_s`, timing at least `runs` runs and `min_s`;
    each of the two ends at `max_s` whatever is missing. All of it happens in `processes` fresh processes.
    With `window_s` the timing is also reported in windows of that many seconds.
    """

    name: str
    warmup_runs: int
    warmup_s: float
    runs: int
    min_s: float
    max_s: float
    processes: int
    window_s: float = 0.0

    @property
    def settings_hash(self) -> str:
        """16 hex digits that differ whenever a setting does; the name does not count."""
        settings = {key: value for key, value in asdict(self).items() if key != "name"}
        if not self.window_s:  # as it was before there were windows: what is stored keeps its key
            del settings["window_s"]
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def usable_for_verdict(self) -> bool:
        """Whether a budget may be called kept or missed on the strength of it: the standard one alone."""
        return self.settings_hash == STANDARD.settings_hash


STANDARD = Protocol("standard", warmup_runs=5, warmup_s=0.5, runs=50, min_s=2.0, max_s=60.0, processes=3)
QUICK = Protocol("quick", warmup_runs=3, warmup_s=0.1, runs=20, min_s=0.3, max_s=10.0, processes=1)


def sustained(minutes: float) -> Protocol:
    """Return the protocol that shows what heat does: one process timed for so long, in windows of 10 s.

    Raises:
        UsageError: `minutes` is not above 0, or longer than a day.
    """
    if not 0 < minutes <= _LONGEST_MINUTES:  # so NaN is refused too
        raise UsageError(f"sustained timing of {minutes:g} minutes: give 1 to {_LONGEST_MINUTES}")
    timing_s = 60.0 * minutes
    return Protocol(
        "sustained",
        warmup_runs=5,
        warmup_s=0.5,
        runs=1,
        min_s=timing_s,
        max_s=timing_s,
        processes=1,
        window_s=10.0,
    )
