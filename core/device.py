"""A device: a named target, described in one TOML file. No command strings: what runs is code."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ehdnas.core.errors import UsageError
from ehdnas.core.text import nearest


class Device(BaseModel):
    """A device as its TOML file describes it.

    `kind` names the profiler plug-in that reaches it (`local`, `ssh`, `adb`, `e2e_perf`, ...); `host` says
    where: `[user@]host[:port]` over SSH, a serial number over adb. `board_of` names the device that this is
    one of several boards of: what is measured on any of them counts as measured on that device.
    `options` is the file's table of that name; only the profiler of that kind reads and checks it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    kind: str
    title: str
    description: str = ""
    runtime: str = ""
    precision: str = "fp32"
    threads: int = Field(default=1, ge=1, le=256)
    host: str = ""
    board_of: str = ""
    source: str = ""
    options: dict[str, Any] = Field(default_factory=dict)

    @property
    def family(self) -> str:
        """The name that measurements are kept under: that of the device this is a board of, or its own."""
        return self.board_of or self.name

    @property
    def simulated(self) -> bool:
        """True when figures come from a model of the device, not from a clock."""
        return self.kind == "e2e_perf"


def read_device(path: Path, overrides: dict[str, Any] | None = None) -> Device:
    """Return the device described by a TOML file, with the user's `overrides` laid over it.

    Raises:
        UsageError: the file is not TOML, or a key is unknown, missing or of the wrong type.
    """
    try:
        table = tomllib.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"cannot read device file {path}: {error}") from error
    return parse_device({"name": path.stem, **table, **(overrides or {})}, str(path))


def parse_device(table: dict[str, Any], where: str) -> Device:
    """Return the device a table describes; `where` names its origin in error messages.

    Raises:
        UsageError: a key is unknown, missing or of the wrong type.
    """
    for key in table:
        if key not in Device.model_fields:
            raise UsageError(f"{where}: unknown key '{key}'{nearest(key, Device.model_fields)}")
    try:
        return Device(**table)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{where}: key '{key}': {first['msg']}") from error
