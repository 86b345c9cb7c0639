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
from ehdnas.core.errors import UsageError

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
    column: Annotated[
        list[str] | None,
        typer.Option(help="Of a table of your own: a metric's column; a trailing % means in per cent, as in "
                     "accuracy=COLUMN%.",
                     metavar="METRIC=COLUMN"),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Of a table of your own: the name its figures go under.")
    ] = None,
    shape: Annotated[
        str | None, typer.Option(help="Of a table of your own: the networks' size, as `list` shows sizes.")
    ] = None,
    space: o.Space = None, json: o.Json = False,
) -> None:  # fmt: skip
    """Add the measurements of a file; those measured here go before them.

    The file is one that `export` wrote, or a table of your own with a network a row: a column arch or
    genotype, and the columns that --column names. A table becomes a device of its own, which `predict` knows.
    """
    if column or device or shape or space:
        _import_table(file, origin, column or [], device, shape, space, json)
        return
    from ehdnas.pipeline.measurements import import_measurements
    from ehdnas.workspace import find_workspace

    added, known = import_measurements(find_workspace(), file, origin)
    if json:
        emit_json("measurements", {"file": str(file), "added": added, "known": known})
    else:
        emit_pairs({"added": f"{added} measurements", "known before": str(known)})


def _import_table(
    file: Path, origin: str, columns: list[str], device: str | None, shape: str | None, space: str | None,
    json: bool,
) -> None:  # fmt: skip
    if not columns or device is None or shape is None:
        raise UsageError(
            "a table of your own needs --column METRIC=COLUMN, --device NAME and --shape, as in --column "
            "latency_ms=raspi4_ms --device raspi4 --shape c16x15-3x32x32-10-cifar"
        )
    context = o.make_context({"space": space})
    from ehdnas.pipeline.tables import import_table, parse_columns

    parsed = parse_columns(columns)
    done = import_table(context.workspace, file, context.space, device, shape, parsed, origin)
    if json:
        emit_json("measurements", {"file": str(file), "device": device, **asdict(done)})
        return
    first = f", the first of them {done.first_invalid}" if done.first_invalid else ""
    emit_pairs({
        "device": f"{device} (a table; how its figures were measured is not known)",
        "added": f"{done.added} networks",
        "known before": str(done.known),
        "left out": f"{done.empty} rows without a figure, {done.invalid} of networks that are not valid"
                    f"{first}",
        "next": f"ehdnas predict GENOTYPE --device {device} --space {context.space.name}",
    })  # fmt: skip


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
