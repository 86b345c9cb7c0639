"""Plug-ins by entry point: spaces, exporters and device kinds, ours and other packages' alike."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from ehdnas.core.errors import UsageError
from ehdnas.core.text import nearest


def plugin_names(group: str) -> list[str]:
    """Return the names registered under an entry-point group such as `ehdnas.spaces`."""
    return sorted(_entries(group))


def load_plugin(group: str, name: str) -> Any:
    """Return the object registered as `name` under `group`.

    Raises:
        UsageError: nothing of that name is registered; the message lists what is.
    """
    found = _entries(group).get(name)
    if found is None:
        kind = group.rpartition(".")[2].removesuffix("s")
        raise UsageError(f"unknown {kind} '{name}'{nearest(name, plugin_names(group))}")
    return found.load()


def _entries(group: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=group)}
