"""Devices: the built-in ones, the user's own, and the settings laid over them."""

from __future__ import annotations

import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

import tomli_w
from platformdirs import user_config_path

from ehdnas.core.device import Device, parse_device, read_device
from ehdnas.core.errors import DeviceError, UsageError
from ehdnas.core.files import write_text
from ehdnas.core.plugins import plugin_names
from ehdnas.core.text import nearest
from ehdnas.profilers.devices import builtin_devices

_HOSTLESS = ("local", "e2e_perf")


def user_devices() -> Path:
    """Return the folder of the user's own device files, which also holds settings for built-in ones."""
    return user_config_path("ehdnas") / "devices"


def device_files() -> dict[str, list[Path]]:
    """Return, for each device, the files that describe it, the later laid over the earlier."""
    found = {name: [path] for name, path in builtin_devices().items()}
    for path in sorted(user_devices().glob("*.toml")):
        found.setdefault(path.stem, []).append(path)
    return found


def find_device(name: str) -> Device:
    """Return a device by name.

    Raises:
        UsageError: no such device; the message lists those there are.
    """
    paths = device_files().get(name)
    if paths is None:
        raise UsageError(f"unknown device '{name}'{nearest(name, device_files())}")
    overrides = _table(paths[1]) if len(paths) > 1 else {}
    return read_device(paths[0], overrides)


def every_device() -> list[Device]:
    """Return all devices, by name."""
    return [find_device(name) for name in sorted(device_files())]


def add_device(source: Path) -> Device:
    """Take a device file into the user's folder, under the name it gives itself.

    Raises:
        UsageError: it is no device file, or a device of that name exists.
    """
    device = read_device(source)
    if device.name in device_files():
        raise UsageError(
            f"device '{device.name}' exists; change it with `ehdnas devices set`, or rename yours"
        )
    _require_usable(device)
    write_text(user_devices() / f"{device.name}.toml", source.read_text())
    return device


def set_device(name: str, assignments: list[str]) -> Device:
    """Change settings of a device, given as `key=value`, in the user's folder.

    Raises:
        UsageError: an unknown device or key, or a value of the wrong type.
    """
    before = find_device(name)
    path = user_devices() / f"{name}.toml"
    table = _table(path) if path.is_file() else {}
    for assignment in assignments:
        key, sign, value = assignment.partition("=")
        if not sign:
            raise UsageError(f"'{assignment}': write key=value, for example host=pi@raspberrypi.local")
        if key.strip() == "host" and before.kind in _HOSTLESS:
            raise UsageError(f"device '{name}' is of kind '{before.kind}', which has no host")
        table[key.strip()] = _value(key.strip(), value.strip())
    base = device_files()[name][0]
    described = {"name": name} if base == path else {"name": name, **_table(base)}
    device = parse_device({**described, **table}, f"device '{name}'")
    _require_usable(device)
    write_text(path, tomli_w.dumps(table))
    return device


def set_options(name: str, options: dict[str, Any]) -> Device:
    """Lay options over a device's own, in the user's folder.

    Raises:
        UsageError: an unknown device.
    """
    before = find_device(name)
    path = user_devices() / f"{name}.toml"
    table = _table(path) if path.is_file() else {}
    table["options"] = {**before.options, **options}
    write_text(path, tomli_w.dumps(table))
    return find_device(name)


def remove_device(name: str) -> bool:
    """Remove the user's device, or what was set for a built-in one; return whether the device is still there.

    Raises:
        UsageError: no such device, or a built-in one for which nothing was set.
    """
    find_device(name)
    path = user_devices() / f"{name}.toml"
    if not path.is_file():
        raise UsageError(
            f"device '{name}' is built in and nothing was set for it; there is nothing to remove"
        )
    path.unlink()
    return name in device_files()


def _require_usable(device: Device) -> None:
    """Raise UsageError where the device's options cannot be right; a missing host may come later."""
    if is_reachable(device):
        from ehdnas.profilers.base import find_profiler

        with suppress(DeviceError):
            find_profiler(device)


def is_reachable(device: Device) -> bool:
    """Return whether something installed reaches devices of this kind."""
    return device.kind in plugin_names("ehdnas.profilers")


def _table(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"cannot read device file {path}: {error}") from error


def _value(key: str, text: str) -> str | int:
    field = Device.model_fields.get(key)
    return int(text) if field is not None and field.annotation is int and text.isdigit() else text
