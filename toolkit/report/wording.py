"""How figures are written for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ehdnas.report.data import BudgetData


def quantity(metric: str) -> tuple[str, str]:
    """Return the name and unit of a unit-bearing metric: "energy_mj" is ("energy", "mJ")."""
    name, _, unit = metric.rpartition("_")
    return (name.replace("_", " "), {"mj": "mJ", "mb": "MB"}.get(unit, unit)) if name else (metric, "")


def with_unit(value: float, metric: str) -> str:
    """Return a metric's value with its unit, in four digits, or whole where it has more."""
    return f"{f'{value:.4g}' if value < 1e4 else whole(round(value))} {quantity(metric)[1]}".strip()


def budgets(asked: Sequence[BudgetData]) -> str:
    """Return budgets with their devices in one line: "latency <= 8 ms on coral"."""
    return " and ".join(f"{one.text} on {one.device}" for one in asked)


def percent(share: float) -> str:
    """Return a share of 1 as a percentage."""
    return f"{100 * share:.1f} %"


def whole(number: int) -> str:
    """Return a whole number with its thousands apart."""
    return f"{number:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def size(size_bytes: int) -> str:
    """Return a file's size as people say it: "512 bytes", "1.2 MB" (a million bytes)."""
    for unit, factor in (("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.3g} {unit}"
    return f"{size_bytes} bytes"


def relation(value: float, bound: float) -> str:
    """Return how far a value is from its bound: "12.0 % under the bound"."""
    name = "under" if value <= bound else "over"
    return f"{percent(abs(value / bound - 1))} {name} the bound" if bound else ""


def printable(text: str) -> str:
    """Return a text with a question mark for every character that cannot be shown, a lone surrogate say."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
