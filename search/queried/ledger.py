"""What a search may ask and was told: accuracies, which are scarce, and values of the budgets' metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from ehdnas.core.errors import UsageError
from ehdnas.search.spaces.base import Architecture


class Accuracies(Protocol):
    """Whatever answers with accuracies: a table of them, or a training of each network asked about."""

    def query(self, architecture: Architecture) -> float:
        """Return the accuracy of the trained network, a share of 1; asking it twice gives the same."""
        ...


@dataclass(frozen=True)
class Seen:
    """A network whose accuracy, a share of 1, and value, in the metric's unit, are known."""

    architecture: Architecture
    accuracy: float
    value: float


class Ledger:
    """Asks, keeps what was answered, and counts; what is known already is told again at no cost.

    Args:
        accuracies: asked at most `queries` times.
        measure: gives a network's value of the budgets' metric; asked at most `measurements` times.
        known: values measured before the search, which count for nothing.
    """

    def __init__(
        self,
        accuracies: Accuracies,
        measure: Callable[[Architecture], float],
        queries: int,
        measurements: int,
        known: Mapping[Architecture, float] | None = None,
    ) -> None:
        self._accuracies, self._measure = accuracies, measure
        self._queries, self._measurements = queries, measurements
        self._known = len(known or {})
        self.accuracies: dict[Architecture, float] = {}
        """By network, in the order in which they were asked for."""
        self.values: dict[Architecture, float] = dict(known or {})
        """By network, those known before included."""

    @property
    def queries_left(self) -> int:
        """How many accuracies may still be asked for."""
        return self._queries - len(self.accuracies)

    @property
    def measurements_left(self) -> int:
        """How many values may still be measured."""
        return self._measurements - (len(self.values) - self._known)

    def query(self, architecture: Architecture) -> float:
        """Return the accuracy of a network.

        Raises:
            UsageError: it is not known, and no query is left.
        """
        if architecture not in self.accuracies:
            if self.queries_left <= 0:
                raise UsageError(f"all {self._queries} accuracy queries are used; allow more, or stop")
            self.accuracies[architecture] = self._accuracies.query(architecture)
        return self.accuracies[architecture]

    def measure(self, architecture: Architecture) -> float:
        """Return the value of a network, in the metric's unit.

        Raises:
            UsageError: it is not known, and no measurement is left.
        """
        if architecture not in self.values:
            if self.measurements_left <= 0:
                raise UsageError(f"all {self._measurements} measurements are used; allow more, or stop")
            self.values[architecture] = self._measure(architecture)
        return self.values[architecture]

    @property
    def seen(self) -> list[Seen]:
        """The networks whose accuracy and value are both known, in the order of the queries."""
        return [
            Seen(one, accuracy, self.values[one])
            for one, accuracy in self.accuracies.items()
            if one in self.values
        ]
