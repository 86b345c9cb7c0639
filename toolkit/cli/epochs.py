"""Epochs as they are shown: a table that grows on a terminal, a line elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.progress import Progress
from rich.table import Table

from ehdnas.core.text import numbers

_ROWS = 12  # the last epochs, so that the table stays on the screen
_LEFT_OUT = ("architecture_loss", "learning_rate")  # TensorBoard has them too
_HEADS = {"violation": "to budget"}


def cells(record: Mapping[str, Any]) -> dict[str, str]:
    """Return what is shown of an epoch's record, by the head of its column.

    A violation, log(predicted / bound), is shown in per cent above or below the bound.
    """
    shown = {}
    for key, value in numbers(record):
        name, _, of = key.partition(".")
        if name not in _LEFT_OUT:
            head = _HEADS.get(name, name.replace("_", " "))
            shown[f"{head} {of}".rstrip()] = _text(name, value)
    return shown


def line(record: Mapping[str, Any], total: int) -> str:
    """Return an epoch's record in one line."""
    shown = cells(record)
    epoch = int(shown.pop("epoch")) + 1
    return ", ".join([f"epoch {epoch}/{total}", *(f"{head} {text}" for head, text in shown.items())])


class EpochProgress(Progress):
    """A bar, and above it a table of the last epochs, once there are any."""

    records: Sequence[Mapping[str, Any]] = ()

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield the table, then the bar."""
        if self.records:
            yield table(self.records)
        yield self.make_tasks_table(self.tasks)


def table(records: Sequence[Mapping[str, Any]]) -> Table:
    """Return the last epochs as a table; a column that an epoch lacks is empty there."""
    rows = [cells(record) for record in records[-_ROWS:]]
    heads = list(dict.fromkeys(head for row in rows for head in row))
    made = Table(*heads, box=None, pad_edge=False)
    for column in made.columns:
        column.justify = "right"
    for row in rows:
        row["epoch"] = str(int(row["epoch"]) + 1)
        made.add_row(*(row.get(head, "") for head in heads))
    return made


def _text(name: str, value: float) -> str:
    if name == "accuracy":
        return f"{value:.1%}"
    if name == "violation" and math.isfinite(value):
        return f"{math.expm1(min(value, 9.0)):+.0%}"
    return f"{value:.4g}"
