"""The commands, in the order a newcomer meets them."""

from __future__ import annotations

from typing import Annotated

import typer

import ehdnas
from ehdnas.cli import devices, export, inspect, loop, many, measurements

UsageProblem: type[typer.BadParameter] = typer.BadParameter.__bases__[0]
"""What typer raises for flags it cannot parse; named through a public class, since its home has moved."""

app = typer.Typer(
    help=(
        "From a device, a data set and a latency budget to a trained network that meets the budget on that "
        "device. Start with `ehdnas run`, or with `ehdnas measure FILE` on a model you have."
    ),
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"ehdnas {ehdnas.__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Describe the flags that come before any command; with no command, print the help."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


app.command("run")(loop.run)
app.command("profile")(loop.profile)
app.command("search")(loop.search)
app.command("sweep")(many.sweep)
app.command("train")(loop.train)
app.command("export")(export.export)
app.command("verify")(loop.verify)
app.command("report")(loop.report)
app.command("measure")(inspect.measure)
app.command("check")(export.check)
app.command("compile")(export.compile_)
app.command("simulate")(inspect.simulate)
app.command("calibrate")(inspect.calibrate)
app.command("label")(many.label)
app.command("predict")(inspect.predict)
app.command("doctor")(devices.doctor)
app.command("config")(inspect.config)
app.add_typer(devices.devices_app, name="devices")
app.add_typer(measurements.measurements_app, name="measurements")
