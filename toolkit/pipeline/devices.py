"""Devices: the built-in ones, the user's own, and the settings laid over them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import tomli_w
from platformdirs import user_config_path

from ehdnas.core.device import Device, parse_device
from ehdnas.core.errors import DeviceError, UsageError
from ehdnas.core.files import write_text
from ehdnas.core.plugins import plugin_names
from ehdnas.core.remote.adb import SERIAL
from ehdnas.core.text import nearest
from ehdnas.pipeline.conditions import TABLE
from ehdnas.profilers.devices import builtin_devices

_HOSTLESS = ("local", "e2e_perf")
_FROM = "figures imported from "  # how the titles of tables begin


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
    """Return a device by name; a board of another device has that one's settings beneath its own.

    Raises:
        UsageError: no such device; the message lists those there are.
    """
    files = device_files()
    if name not in files:
        raise UsageError(f"unknown device '{name}'{nearest(name, files)}")
    return _parse(name, _described(name, files[name]), str(files[name][0]))


def every_device() -> list[Device]:
    """Return all devices, by name."""
    return [find_device(name) for name in sorted(device_files())]


def add_device(source: Path) -> Device:
    """Take a device file into the user's folder, under the name it gives itself.

    Raises:
        UsageError: it is no device file, or a device of that name exists.
    """
    table = {"name": source.stem, **_table(source)}
    device = _parse(str(table["name"]), table, str(source))
    _require_new(device.name)
    _require_usable(device)
    write_text(user_devices() / f"{device.name}.toml", source.read_text())
    return device


def copy_device(name: str, source: str, assignments: list[str]) -> Device:
    """Add a device that is as `source` is now, but for `assignments`, each `key=value`.

    Raises:
        UsageError: the name cannot be one or is taken, no such source, or an assignment cannot be right.
    """
    table = find_device(source).model_dump(exclude={"name"}, exclude_defaults=True)
    return _add_own(name, table, assignments)


def add_board(name: str, family: str, assignments: list[str]) -> Device:
    """Add one of several boards of the device `family`: its settings, whatever they become, but no host.

    Raises:
        UsageError: as `copy_device` does, or `family` is itself a board of another device.
    """
    return _add_own(name, {"board_of": find_device(family).name}, assignments)


def table_device(name: str, shape: str, source: str, held: Iterable[str]) -> Device:
    """Return the device that a table's figures are kept under, by its file; it is added where there is none.

    Devices are the user's, figures are a project's: where a project has none of another shape, the device
    becomes one of networks of this shape.

    Args:
        source: the name of the file that the figures come from, which the device's title tells.
        held: the shapes of networks whose figures the project has under this name.

    Raises:
        UsageError: a device that is measured has this name, or one whose networks are of another shape.
    """
    title = f"{_FROM}{source}"
    if name not in device_files():
        table = {"kind": TABLE, "title": title, "precision": "unknown", "options": {"shape": shape}}
        return _add_own(name, table, [])
    device = find_device(name)
    if device.kind != TABLE:
        raise UsageError(
            f"device '{name}' is measured, and how a table's figures were taken is not known; so that "
            f"the two are never mixed, give the table a name of its own, such as {name}-table"
        )
    before = device.options.get("shape")
    if before != shape and set(held) - {shape}:
        raise UsageError(
            f"device '{name}' is a table of networks of shape {before}; give those of another a device of "
            f"their own, or remove this one with `ehdnas devices remove {name}`"
        )
    told = [f"title={title}"] if device.title.startswith(_FROM) else []  # else the user has named it
    return set_device(name, [f"options.shape={shape}", *told])


def set_device(name: str, assignments: list[str]) -> Device:
    """Change settings of a device, given as `key=value` or `options.key=value`, in the user's folder.

    Raises:
        UsageError: an unknown device or key, or a value of the wrong type.
    """
    find_device(name)
    path = user_devices() / f"{name}.toml"
    table = _assigned(_table(path) if path.is_file() else {}, assignments)
    base = device_files()[name][0]
    described = {"name": name} if base == path else {"name": name, **_table(base)}
    device = _parse(name, _laid_over(described, table), f"device '{name}'")
    boards = [one.name for one in every_device() if one.board_of == name]
    if device.board_of and boards:
        raise UsageError(f"device '{name}' has boards ({', '.join(boards)}), and cannot be one itself")
    _require_usable(device)
    write_text(path, tomli_w.dumps(table))
    return device


def install_device(
    name: str, wheels: Path | None, remove: bool, say: Callable[[str], None]
) -> tuple[str, dict[str, str]]:
    """Set up a board's runtime in a folder of its own, or remove it.

    Returns what was done, in words, and the versions that are there now.

    Raises:
        UsageError: the device's kind takes none.
        DeviceError: the device cannot be reached, or what is installed on it does not work.
    """
    from ehdnas.profilers.base import find_profiler
    from ehdnas.profilers.board import install as board
    from ehdnas.profilers.board.options import board_options

    device = find_device(name)
    profiler = find_profiler(device)
    if device.kind in (*_HOSTLESS, "adb") or not hasattr(profiler, "open"):
        raise UsageError(
            f"device '{name}' is of kind '{device.kind}', on which nothing is installed; "
            "devices of kind 'ssh' take it"
        )
    options = board_options(device)
    with profiler.open() as there:
        if remove:
            return f"removed {board.remove(there, options)}", {}
        done = board.install(there, options, board.board_requirements(), say, wheels)
    return f"{done.python} {'was there already' if done.before else 'is ready'}", done.versions


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
    boards = [one.name for one in every_device() if one.board_of == name]
    if boards and name not in builtin_devices():
        raise UsageError(f"device '{name}' has boards ({', '.join(boards)}); remove those first")
    if not path.is_file():
        raise UsageError(
            f"device '{name}' is built in and nothing was set for it; there is nothing to remove"
        )
    path.unlink()
    return name in device_files()


def is_reachable(device: Device) -> bool:
    """Return whether something installed reaches devices of this kind."""
    return device.kind in plugin_names("ehdnas.profilers")


def _add_own(name: str, table: dict[str, Any], assignments: list[str]) -> Device:
    table = _assigned(table, assignments)
    device = _parse(name, {"name": name, **table}, f"device '{name}'")
    _require_new(device.name)
    _require_usable(device)
    write_text(user_devices() / f"{device.name}.toml", tomli_w.dumps(table))
    return device


def _require_new(name: str) -> None:
    if name in device_files():
        raise UsageError(f"device '{name}' exists; change it with `ehdnas devices set`, or rename yours")


def _require_usable(device: Device) -> None:
    """Raise UsageError where the host or the options cannot be right; a missing host may come later."""
    if device.host and device.kind in _HOSTLESS:
        raise UsageError(f"device '{device.name}' is of kind '{device.kind}', which has no host")
    if device.host and device.kind == "ssh":
        from ehdnas.core.remote.ssh_config import parse_address

        parse_address(device.host)
    elif device.host and not SERIAL.fullmatch(device.host):
        raise UsageError(f"device '{device.name}': host {device.host!r} is no serial number of `adb devices`")
    if is_reachable(device):
        from ehdnas.profilers.base import find_profiler

        with suppress(DeviceError):
            find_profiler(device)


def _described(name: str, paths: list[Path]) -> dict[str, Any]:
    described: dict[str, Any] = {"name": name}
    for path in paths:
        described = _laid_over(described, _table(path))
    return described


def _parse(name: str, table: dict[str, Any], where: str) -> Device:
    """Return the device of a table, over the settings of the device that it is a board of."""
    family = table.get("board_of")
    if not family:
        return parse_device(table, where)
    paths = device_files().get(family) if isinstance(family, str) else None
    if paths is None or family == name:
        raise UsageError(f"{where}: board_of names no other device ('{family}'); see `ehdnas devices`")
    base = _described(family, paths)
    if base.get("board_of"):
        raise UsageError(f"{where}: '{family}' is itself a board, of '{base['board_of']}'; name that one")
    # Each board is somewhere else: where the family is, if anywhere, says nothing of it.
    return parse_device(_laid_over({**base, "host": ""}, {**table, "name": name}), where)


def _laid_over(table: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = {**table, **over}
    options = [one["options"] for one in (table, over) if isinstance(one.get("options"), dict)]
    if len(options) == 2:
        both["options"] = {**options[0], **options[1]}
    return both


def _table(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"cannot read device file {path}: {error}") from error


def _assigned(table: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    """Return the table with each `key=value` in its place; a dot leads into a table within it."""
    table = {**table}
    for assignment in assignments:
        key, sign, value = (part.strip() for part in assignment.partition("="))
        if not sign:
            raise UsageError(f"'{assignment}': write key=value, for example host=pi@raspberrypi.local")
        place, parts = table, key.split(".")
        if not all(parts) or (len(parts) > 1 and parts[0] != "options") or key in ("name", "options"):
            raise UsageError(f"'{assignment}': this key cannot be set; options are set as options.KEY=VALUE")
        for part in parts[:-1]:
            inner = place.get(part)
            place[part] = {**inner} if isinstance(inner, dict) else {}
            place = place[part]
        if parts[1:] and not value:
            place.pop(parts[-1], None)  # `options.KEY=` goes back to what it was without it
        else:
            place[parts[-1]] = _option(parts[1:], value) if parts[1:] else _value(key, value)
    return table


def _value(key: str, text: str) -> str | int:
    field = Device.model_fields.get(key)
    return int(text) if field is not None and field.annotation is int and text.isdigit() else text


def _option(parts: list[str], text: str) -> Any:
    """Return an option's value: a list of numbers, a number, true or false, or else the text."""
    if parts == ["cpus"] or re.fullmatch(r"\d+(,\d+)+", text):
        words = [word.strip() for word in text.split(",") if word.strip()]
        return [int(word) if word.isdecimal() else word for word in words]
    if len(parts) > 1:
        return text
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, bool | int | float) else text
