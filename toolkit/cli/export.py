"""What `ehdnas export` is asked for: the last trained network, a run's, or a genotype untrained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ehdnas.cli.options import find_run, make_context
from ehdnas.core.errors import UsageError


def export_command(
    genotype: str | None,
    target: str,
    untrained: bool,
    run: str | None,
    out: Path | None,
    flags: dict[str, Any],
) -> list[dict[str, Any]]:
    """Check what was asked for and hand it to the export stage; return one record a file."""
    if untrained != (genotype is not None):
        raise UsageError("a genotype is exported with random weights: give both GENOTYPE and --untrained")
    if untrained and out is None:
        raise UsageError("say where to: --out DIR")
    found = None if untrained else find_run(run, "run `ehdnas search`, then `ehdnas train`")
    context = make_context(flags, found)
    from ehdnas.pipeline import export as stage

    targets = stage.known_targets(target)
    if found is not None:
        return stage.export_run(context, found, targets, out)
    assert genotype is not None and out is not None
    return stage.export_untrained(context, genotype, targets, out)
