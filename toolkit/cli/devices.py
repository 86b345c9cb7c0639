"""The commands about devices: list, show, add, set, check, install, remove, and doctor."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ehdnas.cli import options as o
from ehdnas.cli.output import emit_indented, emit_json, emit_pairs, emit_table
from ehdnas.core.errors import UsageError

if TYPE_CHECKING:
    from ehdnas.core.device import Device
    from ehdnas.profilers.base import Check

devices_app = typer.Typer(help="List, show, add, set, check and set up devices.", invoke_without_command=True)

_ASSIGNMENT = "key=value, for example host=pi@raspberrypi.local or options.cpus=2,3"
Assignments = Annotated[list[str] | None, typer.Argument(help=_ASSIGNMENT)]
_LATER = 6  # where the further lines of a check begin


@devices_app.callback()
def devices(context: typer.Context, json: o.Json = False) -> None:
    """List the devices there are."""
    if context.invoked_subcommand is None:
        list_devices(json)


@devices_app.command("list")
def list_devices(json: o.Json = False) -> None:
    """List the devices there are."""
    from ehdnas.pipeline.devices import every_device

    found = every_device()
    if json:
        emit_json("devices", {"devices": [device.model_dump() for device in found]})
        return
    clocked = [device for device in found if not device.simulated]
    emit_table(
        ["device", "kind", "what it is", "state"],
        [[device.name, device.kind, device.title, _state(device)] for device in clocked],
        "Devices that files are timed on",
    )
    typer.echo()
    emit_table(
        ["device", "what it is"],
        [[device.name, device.title] for device in found if device.simulated],
        "Simulated accelerators, which need no hardware",
    )


@devices_app.command("show")
def show(name: str, json: o.Json = False) -> None:
    """Show everything about a device."""
    from ehdnas.pipeline.devices import find_device

    _show(find_device(name), json)


@devices_app.command("add")
def add(
    file: Annotated[str, typer.Argument(help="A device's TOML file, or the new device's name.")],
    assignments: Assignments = None,
    from_: Annotated[
        str | None, typer.Option("--from", help="The device that it is a copy of.", metavar="DEVICE")
    ] = None,
    board_of: Annotated[
        str | None, typer.Option(help="The device that it is one of several boards of.", metavar="DEVICE")
    ] = None,
    json: o.Json = False,
) -> None:
    """Take a device file of your own into use, or add a device that is like another."""
    from ehdnas.pipeline.devices import add_board, add_device, copy_device

    given = assignments or []
    if from_ and board_of:
        raise UsageError("give --from or --board-of, not both")
    if from_:
        device = copy_device(file, from_, given)
    elif board_of:
        device = add_board(file, board_of, given)
    elif given:
        raise UsageError("key=value goes with --from or --board-of; a file says everything itself")
    else:
        device = add_device(Path(file))
    _show(device, json)


@devices_app.command("set")
def set_(
    name: str,
    assignments: Annotated[list[str], typer.Argument(help=_ASSIGNMENT)],
    json: o.Json = False,
) -> None:
    """Change a device's settings, for example where it is reached."""
    from ehdnas.pipeline.devices import set_device

    _show(set_device(name, assignments), json)


@devices_app.command("remove")
def remove(name: str, json: o.Json = False) -> None:
    """Remove a device of your own, or what you set for a built-in one."""
    from ehdnas.pipeline.devices import remove_device

    left = remove_device(name)
    if json:
        emit_json("devices", {"removed": name, "built_in": left})
    else:
        emit_pairs({"removed": f"your settings for {name}; it is as built in" if left else name})


@devices_app.command("check")
def check(name: str, json: o.Json = False) -> int:
    """Check that a device can be used, as `ehdnas doctor --device NAME` does."""
    return doctor(name, json)


@devices_app.command("install")
def install(
    name: str,
    wheels: Annotated[
        Path | None, typer.Option(help="Folder of wheels, for a board without internet.", metavar="DIR")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove what was installed.")] = False,
    json: o.Json = False,
) -> None:
    """Set up the runtime on a board, in a folder of its own; nothing else there is touched."""
    from ehdnas.cli.screen import Screen
    from ehdnas.pipeline.devices import install_device

    if remove and wheels:
        raise UsageError("--remove takes no --wheels")
    done, versions = install_device(name, wheels, remove, Screen().say)
    if json:
        emit_json("devices", {"device": name, "done": done, "versions": versions})
    else:
        emit_pairs({name: done, **versions})


def doctor(device: o.DeviceName = None, json: o.Json = False) -> int:
    """Check that a device can be used, each failure with what mends it; exits 4 if one fails."""
    from ehdnas.core.errors import DeviceError
    from ehdnas.pipeline.boards import find_boards
    from ehdnas.pipeline.health import compiler_checks
    from ehdnas.settings import export_options, load_settings
    from ehdnas.workspace import find_workspace

    device_of, boards = find_boards(device or "local")
    found = {board.name: _checks(board, alone=len(boards) == 1) for board in boards}
    options = export_options(load_settings({}, find_workspace().project).settings)
    # One compiler serves every board, so that it is looked at once.
    found[boards[-1].name].extend(compiler_checks(device_of, options))
    if json:
        checks = [{"board": name, **asdict(check)} for name, checks in found.items() for check in checks]
        emit_json("doctor", {"device": device_of.name, "checks": checks})
    else:
        for name, of_board in found.items():
            if len(found) > 1:
                typer.echo(f"{name}:")
            for number, check in enumerate(of_board, 1):
                _show_check(number, check)
    every = [check for of_board in found.values() for check in of_board]
    return 0 if all(check.passed or check.advice for check in every) else DeviceError.exit_code


def _checks(board: Device, alone: bool) -> list[Check]:
    """Return the checks on a board; one that cannot be reached at all is not to silence the others."""
    from ehdnas.core.errors import DeviceError
    from ehdnas.profilers.base import find_profiler
    from ehdnas.profilers.board.profiler import failed

    try:
        return find_profiler(board).check()
    except DeviceError as error:
        if alone:
            raise
        return [failed("description", error)]


def _show_check(number: int, check: Check) -> None:
    sign = "✓" if check.passed else "!" if check.advice else "✗"
    emit_indented(f"{number:2} {sign}  {check.name}: {check.detail}", _LATER)
    if not check.passed and check.mend:
        # One line whatever the terminal: it is there to be copied.
        typer.echo(f"{'→':>{_LATER - 1}} {check.mend.strip()}")


def _state(device: Device) -> str:
    from ehdnas.pipeline.conditions import TABLE
    from ehdnas.pipeline.devices import is_reachable

    if device.kind == TABLE:
        return "imported figures, nothing to reach"
    if not is_reachable(device):
        return f"not there yet: nothing installed reaches kind '{device.kind}'"
    if device.simulated:
        return "simulated"
    if device.kind == "local":
        return "ready"
    if device.kind == "adb":
        return device.host or "the only one on adb"
    where = device.host or "no host set"
    return f"{where}, board of {device.board_of}" if device.board_of else where


def _show(device: Device, json: bool) -> None:
    fields = device.model_dump()
    if json:
        emit_json("device", fields)
        return
    options = {f"options.{key}": value for key, value in fields.pop("options").items()}
    emit_pairs({key: str(value) for key, value in {**fields, **options}.items() if value != ""})
