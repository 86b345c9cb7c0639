"""The commands about measurements: list, export, import."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ehdnas.cli import options as o
from ehdnas.cli.output import emit_json, emit_pairs, emit_table

if TYPE_CHECKING:
    from ehdnas.profilers.store.store import Group

measurements_app = typer.Typer(
    help="List measurements, and hand them on to other machines.", invoke_without_command=True
)
File = Annotated[Path, typer.Argument(help="A .csv or .parquet file.")]


@measurements_app.callback()
def measurements(context: typer.Context, json: o.Json = False) -> None:
    """List what has been measured and simulated here."""
    if context.invoked_subcommand is None:
        list_measurements(json)


@measurements_app.command("list")
def list_measurements(json: o.Json = False) -> None:
    """List what has been measured and simulated here."""
    from ehdnas.pipeline.measurements import list_groups
    from ehdnas.workspace import find_workspace

    found = list_groups(find_workspace())
    if json:
        emit_json("measurements", {"groups": [asdict(group) for group in found]})
    elif not found:
        typer.echo("nothing has been measured here yet; start with `ehdnas profile`")
    for title, groups in () if json else groupby(found, _title):
        _show(title, groups)


@measurements_app.command("export")
def export(file: File, device: o.DeviceName = None, json: o.Json = False) -> None:
    """Write measurements to a file, without what says who measured and where."""
    from ehdnas.pipeline.measurements import export_measurements
    from ehdnas.workspace import find_workspace

    count = export_measurements(find_workspace(), file, device)
    if json:
        emit_json("measurements", {"file": str(file), "exported": count})
    else:
        emit_pairs({"exported": f"{count} measurements", "file": str(file)})


@measurements_app.command("import")
def import_(
    file: File,
    origin: Annotated[str, typer.Option(help="Where they come from; the file's name by default.")] = "",
    json: o.Json = False,
) -> None:
    """Add the measurements of a file; those measured here go before them."""
    from ehdnas.pipeline.measurements import import_measurements
    from ehdnas.workspace import find_workspace

    added, known = import_measurements(find_workspace(), file, origin)
    if json:
        emit_json("measurements", {"file": str(file), "added": added, "known": known})
    else:
        emit_pairs({"added": f"{added} measurements", "known before": str(known)})


def _title(group: Group) -> str:
    return f"{group.device}, {group.precision}, protocol {group.protocol}"


def _show(title: str, groups: Iterable[Group]) -> None:
    emit_table(
        ["space", "shape", "networks", "measured", "imported", "latency, ms"],
        [[g.space, g.shape, str(g.networks), str(g.measured), str(g.imported), _latency(g)] for g in groups],
        title,
    )


def _latency(group: Group) -> str:
    if group.fastest_ms is None or group.slowest_ms is None:
        return "unknown"
    return f"{group.fastest_ms:.3g}–{group.slowest_ms:.3g}"
