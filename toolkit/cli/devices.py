"""The commands about devices: list, show, add, set, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ehdnas.cli import options as o
from ehdnas.cli.output import emit_json, emit_pairs, emit_table
from ehdnas.core.device import Device

devices_app = typer.Typer(help="List, show, add and set devices.", invoke_without_command=True)


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
    emit_table(
        ["device", "kind", "what it is", "state"],
        [[device.name, device.kind, device.title, _state(device)] for device in found],
    )


@devices_app.command("show")
def show(name: str, json: o.Json = False) -> None:
    """Show everything about a device."""
    from ehdnas.pipeline.devices import find_device

    _show(find_device(name), json)


@devices_app.command("add")
def add(file: Annotated[Path, typer.Argument(help="A device's TOML file.")], json: o.Json = False) -> None:
    """Take a device file of your own into use."""
    from ehdnas.pipeline.devices import add_device

    _show(add_device(file), json)


@devices_app.command("set")
def set_(
    name: str,
    assignments: Annotated[
        list[str], typer.Argument(help="key=value, for example host=pi@raspberrypi.local")
    ],
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


def doctor(device: o.DeviceName = None, json: o.Json = False) -> int:
    """Check that a device can be used, each failure with what mends it. Exits 4 if one fails."""
    from ehdnas.core.errors import DeviceError
    from ehdnas.pipeline.devices import find_device
    from ehdnas.profilers.base import find_profiler

    found = find_device(device or "local")
    checks = find_profiler(found).check()
    if json:
        rows = [{"name": c.name, "passed": c.passed, "detail": c.detail, "mend": c.mend} for c in checks]
        emit_json("doctor", {"device": found.name, "checks": rows})
    else:
        for number, check in enumerate(checks, 1):
            mend = "" if check.passed else f"; {check.mend}"
            typer.echo(f"{number:2} {'✓' if check.passed else '✗'} {check.name}: {check.detail}{mend}")
    return 0 if all(check.passed for check in checks) else DeviceError.exit_code


def _state(device: Device) -> str:
    from ehdnas.pipeline.devices import is_reachable

    if not is_reachable(device):
        return f"not there yet: nothing installed reaches kind '{device.kind}'"
    if device.simulated:
        return "simulated"
    if device.kind == "local":
        return "ready"
    return device.host or "no host set"


def _show(device: Device, json: bool) -> None:
    fields = device.model_dump()
    if json:
        emit_json("device", fields)
        return
    options = fields.pop("options")
    emit_pairs({key: str(value) for key, value in {**fields, **options}.items() if value != ""})
