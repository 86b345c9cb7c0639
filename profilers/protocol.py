"""How long and how often a model is run: part of what a measurement means, so part of its key."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Protocol:
    """Warm-up, runs and processes of one measurement; durations in seconds.

    Warming up lasts at least `warmup_runs` runs and `warmup_s`, timing at least `runs` runs and `min_s`;
    each of the two ends at `max_s` whatever is missing. All of it happens in `processes` fresh processes.
    """

    name: str
    warmup_runs: int
    warmup_s: float
    runs: int
    min_s: float
    max_s: float
    processes: int

    @property
    def settings_hash(self) -> str:
        """16 hex digits that differ whenever a setting does; the name does not count."""
        settings = {key: value for key, value in asdict(self).items() if key != "name"}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


STANDARD = Protocol("standard", warmup_runs=5, warmup_s=0.5, runs=50, min_s=2.0, max_s=60.0, processes=3)
QUICK = Protocol("quick", warmup_runs=3, warmup_s=0.1, runs=20, min_s=0.3, max_s=10.0, processes=1)
