"""Operations and cells timed one by one on a device: the look-up table that whole networks are compared with.

A look-up table, as in FBNet and ProxylessNAS, adds up what each operation takes when it is run alone. On a
device that overlaps, fuses or caches across operations the sum is wrong, which is what a predictor learnt
from whole networks is for; EH-DNAS (arXiv 2111.12299) compares itself with such a table.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ehdnas.core.errors import UsageError
from ehdnas.core.graph import trace
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.fleet import measure_on_boards
from ehdnas.pipeline.measuring import Limit
from ehdnas.pipeline.meter import Meter, Records
from ehdnas.search.predictor.facts import OP_LATENCY, Costs, SpaceFacts
from ehdnas.search.predictor.quality import Quality, quality_of
from ehdnas.search.spaces.base import Decision, Image, NetworkShape, Part, Parts, Space

_FEW = 3  # measured networks, below which the sum is compared with nothing


@dataclass(frozen=True)
class OpTime:
    """One operation or cell at one size, timed alone."""

    name: str
    inputs: str
    latency_ms: float
    marked: list[str]


@dataclass(frozen=True)
class OpTable:
    """Every distinct part of a space at one shape, and how well their sum gives whole networks."""

    operations: list[OpTime]
    cells: list[OpTime]
    sum_quality: Quality | None

    def as_json(self) -> dict[str, Any]:
        """Return the table as JSON-able data."""
        quality = None if self.sum_quality is None else asdict(self.sum_quality)
        return {
            "operations": [asdict(row) for row in self.operations],
            "cells": [asdict(row) for row in self.cells],
            "sum_of_operations": quality,
        }


def profile_ops(context: Context, meter: Meter, minutes: float | None = None) -> OpTable:
    """Time every distinct operation of the space, and the cells of its reference network, on the device.

    Raises:
        UsageError: the device is simulated: `ehdnas simulate` gives a network layer by layer.
        DeviceError, MeasurementError: as `measure_on_boards`.
    """
    if context.device.simulated:
        raise UsageError(
            f"device '{context.device.name}' is simulated; `ehdnas simulate GENOTYPE` gives every layer"
        )
    parts = context.space.parts(context.shape)
    operations, cells = _Distinct(), _Distinct()
    for part in _all_of(parts):
        operations.subject(part)
    for cell in context.space.cells(context.space.reference, context.shape):
        cells.subject(cell)
    timed = {**operations.parts, **cells.parts}
    missing = [subject for subject in timed if meter.store.find(meter.part_key(subject)) is None]
    context.reporter.say(
        f"profile: {len(timed)} operations and cells ({context.shape}) on {context.device.name}, "
        f"{len(timed) - len(missing)} known already"
    )
    if missing:
        _measure(context, meter, timed, missing, Limit(len(timed), minutes))
    return OpTable(
        _rows(meter, operations.parts),
        _rows(meter, cells.parts),
        _sum_quality(meter, with_operation_times(meter, context.facts)),
    )


def _measure(
    context: Context, meter: Meter, timed: dict[str, Part], missing: list[str], limit: Limit
) -> None:
    done = len(timed) - len(missing)

    def make(subject: str, folder: Path) -> Path:
        return meter.instrument.candidates.export_part(timed[subject], folder)

    def count() -> None:
        nonlocal done
        done += 1
        context.reporter.progress(done, len(timed), "operations")

    keys = [meter.part_key(subject) for subject in missing]
    measure_on_boards(context, meter, keys, make, limit.is_over, count)
    if done < len(timed):
        context.reporter.warn(f"profile: {len(timed) - done} of {len(timed)} operations are not measured yet")


def _all_of(parts: Parts) -> list[Part]:
    return [*parts.fixed, *(part for _, own in parts.by_decision() for part in own)]


class _Distinct:
    """Tells parts apart by what they compute: those that differ in name or place alone take the same time."""

    def __init__(self) -> None:
        self._digests: dict[tuple[int, tuple[Image, ...]], str] = {}
        self.parts: dict[str, Part] = {}

    def subject(self, part: Part) -> str:
        """Return what a part is kept under, like `sep_conv_3x3@16x32x32#1f0c55d2`; '' if it does nothing."""
        key = (id(part.module), part.inputs)
        if key not in self._digests:
            self._digests[key] = _digest(part)
        if not self._digests[key]:
            return ""
        subject = f"{_label(part)}@{_inputs(part)}#{self._digests[key]}"
        self.parts.setdefault(subject, part)
        return subject


def _digest(part: Part) -> str:
    nodes = trace(part.module.eval(), part.inputs).nodes
    computed = [(node.op, sorted(node.attrs.items()), node.output.shape) for node in nodes]
    return hashlib.sha256(repr(computed).encode()).hexdigest()[:8] if nodes else ""


def _label(part: Part) -> str:
    return part.name.rsplit(".", 1)[-1]


def _inputs(part: Part) -> str:
    return "+".join("x".join(map(str, one)) for one in part.inputs)


def _rows(meter: Meter, parts: dict[str, Part]) -> list[OpTime]:
    found = {subject: meter.store.find(meter.part_key(subject)) for subject in parts}
    return [
        OpTime(_label(part), _inputs(part), one.metric("latency_ms"), one.flags)
        for subject, part in parts.items()
        if (one := found[subject]) is not None
    ]


def with_operation_times(records: Records, facts: SpaceFacts) -> SpaceFacts:
    """Return the facts with what every operation takes alone, `OP_LATENCY` in ms, among the costs.

    They are as given where there are no costs to lay them beside, or where an operation of the space was
    not timed on this device, at this shape and by this protocol.
    """
    stored = records.parts()
    if facts.costs is None or not stored:
        return facts
    subjects = _subjects(records.space, records.shape)
    if not subjects.every <= stored.keys():
        return facts

    def total(group: tuple[str, ...]) -> float:
        return sum(stored[subject].metric("latency_ms") for subject in group)

    costs = facts.costs
    chosen = torch.zeros(*costs.chosen.shape[:2], 1, dtype=torch.float64)
    for (slot, choice), group in subjects.chosen.items():
        chosen[slot, choice, 0] = total(group)
    together = torch.tensor([total(subjects.together[key]) for key in costs.keys], dtype=torch.float64)
    fixed = torch.tensor([total(subjects.fixed)], dtype=torch.float64)
    return replace(
        facts,
        costs=Costs(
            (*costs.names, OP_LATENCY),
            torch.cat([costs.chosen, chosen], 2),
            torch.cat([costs.fixed, fixed]),
            costs.keys,
            torch.cat([costs.together, together[:, None]], 1),
        ),
    )


@dataclass(frozen=True)
class _Subjects:
    """A space's parts by what they are kept under, those left out that do nothing, and so take no time."""

    fixed: tuple[str, ...]
    chosen: dict[Decision, tuple[str, ...]]
    together: dict[tuple[Decision, ...], tuple[str, ...]]

    @property
    def every(self) -> frozenset[str]:
        return frozenset(self.fixed).union(*self.chosen.values(), *self.together.values())


@lru_cache(maxsize=4)
def _subjects(space: Space, shape: NetworkShape) -> _Subjects:
    """Return the subjects of a space at one shape; seconds, in which every part is traced once."""
    parts, distinct = space.parts(shape), _Distinct()

    def named(group: tuple[Part, ...]) -> tuple[str, ...]:
        return tuple(subject for part in group if (subject := distinct.subject(part)))

    return _Subjects(
        named(parts.fixed),
        {decision: named(group) for decision, group in parts.chosen.items()},
        {key: named(group) for key, group in parts.together.items()},
    )


def _sum_quality(records: Records, facts: SpaceFacts) -> Quality | None:
    """Compare the sum of the operations with whole networks that are measured; None where few are."""
    measured = [(one, taken) for one, taken in records.measured() if "latency_ms" in taken.metrics]
    if len(measured) < _FEW:
        return None
    gates = records.space.encode_all([architecture for architecture, _ in measured]).double()
    sums = facts.total(gates, OP_LATENCY)
    if sums is None:
        return None
    return quality_of(sums.numpy(), np.array([one.metric("latency_ms") for _, one in measured]))
