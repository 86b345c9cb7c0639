"""A search's run: the settings it is made with, and whether the last one can go on."""

from __future__ import annotations

from typing import Any

from ehdnas.pipeline.context import Context
from ehdnas.search.loop import require_same
from ehdnas.settings import PLACE_SETTINGS, kept_by_runs
from ehdnas.workspace import Run


def run_settings(context: Context) -> dict[str, Any]:
    """Return the settings a run is made with, in the form it keeps them, and its devices."""
    devices = [one.device for one in context.each_device()]
    named = ",".join(device.name for device in devices)
    settings = {**kept_by_runs(context.settings), "device": named}
    return {"settings": settings, "devices": [device.model_dump() for device in devices]}


def unfinished(context: Context) -> Run | None:
    """Return the latest run, which a search goes on with; None where there is none.

    Raises:
        UsageError: it was made with other settings; the message says which differ.
    """
    run = context.workspace.latest()
    if run is not None:
        before, now = run.read("run"), run_settings(context)
        ours, theirs = (
            {key: value for key, value in one["settings"].items() if key not in PLACE_SETTINGS}
            for one in (now, before)
        )
        require_same(ours, theirs, f"run {run.name}")
    return run
