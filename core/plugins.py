"""Plug-ins by entry point: spaces, exporters and device kinds, ours and other packages' alike."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from ehdnas.core.errors import UsageError
from ehdnas.core.text import nearest


def plugin_names(group: str) -> list[str]:
    """Return the names registered under an entry-point group such as `ehdnas.spaces`."""
    return sorted({entry.name for entry in entry_points(group=group)})


def load_plugin(group: str, name: str) -> Any:
    """Return the object registered as `name` under `group`.

    Raises:
        UsageError: nothing of that name is registered; the message lists what is. Or what is registered
            cannot be imported, or is two things.
    """
    kind = group.rpartition(".")[2].removesuffix("s")
    found = {entry.value: entry for entry in entry_points(group=group, name=name)}
    if not found:
        raise UsageError(f"unknown {kind} '{name}'{nearest(name, plugin_names(group))}")
    if len(found) > 1:
        raise UsageError(f"{kind} '{name}' is both {' and '.join(sorted(found))}; rename one's entry point")
    ((value, entry),) = found.items()
    try:
        return entry.load()
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"{kind} '{name}' cannot be loaded from {value}: {error}; install it again"
        ) from error
