"""A budget: a metric, a bound and a unit, absolute ("latency <= 20 ms") or relative ("0.7x")."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ehdnas.core.errors import UsageError
from ehdnas.core.text import nearest

# unit -> (metric, factor to the metric's own unit)
_UNITS = {
    "us": ("latency_ms", 1e-3),
    "ms": ("latency_ms", 1.0),
    "s": ("latency_ms", 1e3),
    "fps": ("throughput_fps", 1.0),
    "uj": ("energy_mj", 1e-3),
    "mj": ("energy_mj", 1.0),
    "j": ("energy_mj", 1e3),
}
_RELATIONS = {"latency": "<=", "throughput": ">=", "energy": "<="}
_HELP = "write for example 'latency <= 20 ms', 'throughput >= 500 fps' or '0.7x'"
_NUMBER = r"(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)"
_ABSOLUTE = re.compile(rf"(?:([A-Za-z]+)\s*)?(<=|>=|<|>)?\s*{_NUMBER}\s*([A-Za-zµ]+)")
_RELATIVE = re.compile(rf"{_NUMBER}\s*[x×]")


@dataclass(frozen=True)
class Budget:
    """A bound on one metric of the network on the device.

    `metric` is `latency_ms`, `throughput_fps` or `energy_mj`, and `bound` is in that unit. A budget
    with `relative` set has its bound as a multiple of the latency of the space's reference network
    on the same device, until `resolve` turns it into an absolute one.
    """

    metric: str
    bound: float
    relative: bool = False

    @property
    def is_upper(self) -> bool:
        """True when the metric must stay at or under the bound."""
        return self.metric != "throughput_fps"

    @property
    def sign(self) -> int:
        """1 where greater values break the budget, −1 where smaller ones do."""
        return 1 if self.is_upper else -1

    def violation(self, value: float) -> float:
        """Return by how much a value breaks the budget: log(value / bound), negated for one from below."""
        return self.sign * math.log(value / self.bound)

    def meets(self, value: float) -> bool:
        """Return whether a value of the metric is within the budget."""
        return value <= self.bound if self.is_upper else value >= self.bound

    def resolve(self, reference: float) -> Budget:
        """Return the absolute budget, given the reference network's value of the metric."""
        return Budget(self.metric, self.bound * reference) if self.relative else self

    @classmethod
    def just_met_by(cls, metric: str, value: float) -> Budget:
        """Return the tightest budget of four digits that a value meets: typed in as shown, it is met."""
        step = 10.0 ** (math.floor(math.log10(value)) - 3)
        round_outward = math.floor if metric == "throughput_fps" else math.ceil
        return cls(metric, float(f"{round_outward(value / step) * step:.4g}"))

    def __str__(self) -> str:
        if self.relative:
            return f"{self.bound:g}x the reference network's latency"
        name, _, unit = self.metric.partition("_")
        relation = "<=" if self.is_upper else ">="
        return f"{name} {relation} {self.bound:.4g} {unit.replace('mj', 'mJ')}"


def parse_budget(text: str) -> Budget:
    """Return the budget a user wrote.

    Raises:
        UsageError: the text is not a budget; the message says how to write one.
    """
    relative = _RELATIVE.fullmatch(text.strip())
    if relative:
        return Budget("latency_ms", _positive(relative[1], text), relative=True)
    match = _ABSOLUTE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"'{text}' is not a budget; {_HELP}")
    name, relation, number, unit = match.groups()
    known = _UNITS.get(unit.lower().replace("µ", "u"))
    if known is None:
        raise UsageError(f"budget '{text}': unknown unit '{unit}'{nearest(unit, _UNITS)}")
    metric, factor = known
    expected = metric.partition("_")[0]
    if name is not None and name.lower() != expected:
        raise UsageError(f"budget '{text}': {unit} measures {expected}, not {name}; {_HELP}")
    if relation is not None and relation[0] != _RELATIONS[expected][0]:
        raise UsageError(f"budget '{text}': a bound on {expected} is written with {_RELATIONS[expected]}")
    return Budget(metric, _positive(number, text) * factor)


def _positive(number: str, text: str) -> float:
    value = float(number)
    if not 0 < value < float("inf"):
        raise UsageError(f"budget '{text}': the bound must be a positive number")
    return value
