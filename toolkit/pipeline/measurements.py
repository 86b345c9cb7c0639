"""The workspace's measurements: what there is, and their exchange with other machines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

from ehdnas.core.errors import DataError, UsageError
from ehdnas.core.plugins import plugin_names
from ehdnas.core.text import nearest
from ehdnas.profilers.protocol import QUICK, STANDARD
from ehdnas.profilers.store import exchange
from ehdnas.profilers.store.store import Group, MeasurementStore
from ehdnas.workspace import Workspace


def list_groups(workspace: Workspace) -> list[Group]:
    """Return what the workspace has, by device, precision, protocol, space and shape."""
    if not workspace.database.is_file():
        return []
    with MeasurementStore(workspace.database) as store:
        return [replace(group, protocol=_named(group.protocol)) for group in store.groups()]


def _named(conditions: str) -> str:
    """Say `standard` or `quick` where that is the protocol meant."""
    for protocol in (STANDARD, QUICK):
        conditions = conditions.replace(protocol.settings_hash, protocol.name)
    return conditions


def export_measurements(workspace: Workspace, path: Path, device: str | None = None) -> int:
    """Write the measurements, or a device's, to a .csv or .parquet file, and return how many.

    Raises:
        UsageError: there are none, or the suffix is another.
    """
    if not workspace.database.is_file():
        raise UsageError(f"nothing has been measured in {workspace.project} yet; run `ehdnas profile` first")
    with MeasurementStore(workspace.database) as store:
        known = store.devices()
        if device is not None and device not in known:
            raise UsageError(f"nothing has been measured on '{device}'{nearest(device, known)}")
        return exchange.export(store, path, device)


def import_measurements(workspace: Workspace, path: Path, origin: str = "") -> tuple[int, int]:
    """Add a file's measurements; return how many were added, and how many were known before.

    Raises:
        DataError: something in the file cannot be right, and nothing of it was added; or it holds no rows.
        UsageError: the suffix is none of an exported file.
    """
    if not path.is_file():
        raise DataError(f"no such file: {path}")
    with MeasurementStore(workspace.database) as store:
        added, known = exchange.import_(store, path, origin, _checker())
    if not added + known:
        raise DataError(f"{path} holds no rows; nothing was imported")
    return added, known


def _checker() -> Callable[[str, str], None]:
    """Return what refuses subjects that the space of their name cannot read back: later they would be in
    the way of every search, and nothing is ever deleted."""
    installed = plugin_names("ehdnas.spaces")

    @cache
    def check(space: str, subject: str) -> None:
        if space not in installed:
            return
        from ehdnas.search.spaces.base import find_space

        found = find_space(space)
        if found.text(found.parse(subject)) != subject:
            raise UsageError(f"'{subject[:100]}' is not the shortest form of a network of space '{space}'")

    return check
