"""The `[options]` table of a device whose files are timed by a clock. Names and paths; never commands."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ehdnas.core.device import Device
from ehdnas.core.errors import UsageError
from ehdnas.core.text import nearest

_PLAIN = "[A-Za-z0-9_~/.+@:-]*"
Name = Annotated[str, Field(pattern=f"^{_PLAIN}$", max_length=200)]
# What is run or loaded is one of a few programs, wherever it lies: a device file from elsewhere can name no
# other.
Python = Annotated[str, Field(pattern=f"^({_PLAIN}/)?python[0-9.]*$|^$", max_length=200)]
Library = Annotated[str, Field(pattern=f"^({_PLAIN}/)?lib[A-Za-z0-9_+-]+\\.so[0-9.]*$|^$", max_length=200)]
Tool = Annotated[
    str, Field(pattern=f"^({_PLAIN}/)?(benchmark_model[A-Za-z0-9_.-]*|trtexec)$|^$", max_length=200)
]


def _is_under_home(folder: str) -> str:
    path = PurePosixPath(folder.removeprefix("~/"))
    if path.is_absolute() or not path.parts or {"..", "~"} & set(path.parts):
        raise ValueError("not under the home")
    return folder


_WANTED = {
    "python": "name a Python, such as /usr/bin/python3",
    "folder": "name a folder under the home, without '..' or blanks",
    "cpus": "give the numbers of cores, such as 2,3",
    "delegate": "name a shared library, such as libedgetpu.so.1",
    "tool": "name benchmark_model or trtexec, by path",
}


class BoardOptions(BaseModel):
    """What is particular about one machine.

    `python` is the Python that runs the agent, by default the one that `ehdnas devices install` set up in
    `folder`, else `python3`. `cpus` pins the measurement to cores. `delegate` is the shared library of an
    accelerator, such as libedgetpu.so.1, and `delegate_options` what it is given. `tool` is the timer for
    machines without Python or with a runtime of their own: `benchmark_model` or `trtexec`, by path.
    `model` is what the machine calls itself, in part; `doctor` warns where it calls itself something else.
    `power_rail` is the label of the supply that energy is read from. `system_bits` refuses a system of
    other than that many bits. `clock` is that of the Edge TPU's runtime. `hottest_c` is the temperature from
    which `doctor` warns. `proxy_command` lets ~/.ssh/config run its ProxyCommand.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    python: Python = ""
    folder: Annotated[Name, AfterValidator(_is_under_home)] = ".local/share/ehdnas-board"
    cpus: tuple[Annotated[int, Field(ge=0, lt=1024)], ...] = ()
    delegate: Library = ""
    delegate_options: dict[Name, Name] = Field(default_factory=dict)
    tool: Tool = ""
    model: Annotated[str, Field(pattern=r"^[A-Za-z0-9 ().-]*$", max_length=100)] = ""
    power_rail: Name = ""
    system_bits: Literal[0, 32, 64] = 0
    clock: Literal["", "standard", "maximum"] = ""
    hottest_c: float = Field(default=75.0, gt=0, le=150)
    proxy_command: bool = False


def board_options(device: Device) -> BoardOptions:
    """Return a device's options, checked.

    Raises:
        UsageError: an option is unknown, or its value cannot be right.
    """
    known = BoardOptions.model_fields
    for key in device.options:
        if key not in known:
            raise UsageError(f"device '{device.name}': unknown option '{key}'{nearest(key, known)}")
    try:
        return BoardOptions(**device.options)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        wanted = _WANTED.get(where.partition(".")[0], first["msg"])
        raise UsageError(
            f"device '{device.name}': option '{where}' is {first['input']!r}: {wanted}"
        ) from error
