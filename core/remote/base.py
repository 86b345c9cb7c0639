"""What every way to a machine offers, and the checks they share."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from ehdnas.core.errors import DataError, DeviceError, DeviceSetupError, UsageError

OUTPUT_CAP_BYTES = 16 * 2**20
# From the polite signal to the one that cannot be refused, in seconds.
KILL_AFTER_S = 5
# All arguments travel as one argument of the login shell; Linux takes 128 KiB for one.
_MAX_COMMAND_BYTES = 100_000
_MAX_NAME_BYTES = 200


class CommandTimeoutError(DeviceError):
    """A command ran past its limit and was ended; the machine can still be used."""


class HostKeyError(DeviceSetupError):
    """The machine is not known, or not the one that is known."""


class ConnectionLostError(DeviceError):
    """The machine stopped answering while it was in use."""


@dataclass(frozen=True)
class Completed:
    """How a command ended.

    `code` is what a shell would give: 126 not executable, 127 no such program, 128 + n killed by signal n.
    `stdout` and `stderr` hold at most 16 MiB each; `truncated` says that more came and was let go.
    """

    code: int
    stdout: bytes
    stderr: bytes
    truncated: bool = False


class Transport(ABC):
    """A folder of our own on a machine, and the means to run commands in it.

    A context manager: it opens at the first use, and leaving it removes the folder and ends what was started.
    One command at a time.
    """

    @abstractmethod
    def put(self, source: Path, name: str) -> str:
        """Copy the file `source` into our folder as `name`; return its absolute path there.

        The file there is whole or absent, replaces one of that name, and can be run when `source` can.

        Raises:
            DataError: `source` cannot be read.
            DeviceError: the machine cannot be reached, or cannot take the file.
            UsageError: `name` is not a plain file name.
        """

    @abstractmethod
    def run(self, arguments: Sequence[str], timeout_s: float) -> Completed:
        """Run a program in our folder, without standard input, for at most `timeout_s` seconds.

        The arguments arrive as they are: no shell reads them. What the program left running is ended with it.

        Raises:
            CommandTimeoutError: it ran past the limit; it has been ended.
            ConnectionLostError: the machine stopped answering.
            DeviceError: the machine cannot be reached, or could not start anything.
            UsageError: the arguments cannot be passed to a program.
        """

    @abstractmethod
    def get(self, name: str, target: Path) -> None:
        """Copy the file `name` of our folder to `target`, whole or not at all.

        Raises:
            DeviceError: the machine cannot be reached, or has no such regular file; links are not followed.
            EhdnasError: `target` cannot be written.
            UsageError: `name` is not a plain file name.
        """

    @abstractmethod
    def close(self) -> None:
        """End what was started and remove our folder, as far as the machine lets us; never raises."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_name(name: str) -> None:
    """Refuse a `name` that could leave our folder or be read as an option.

    Raises:
        UsageError: it is not a plain file name.
    """
    # Printable: neither line ends, which the tools over there cannot take, nor what UTF-8 cannot say.
    plain = name.isprintable() and "/" not in name and name not in ("", ".", "..")
    if not plain or name.startswith("-") or len(name.encode()) > _MAX_NAME_BYTES:
        raise UsageError(
            f"{name!r} cannot name a file on a device: give a plain file name, such as model.onnx"
        )


def check_arguments(arguments: Sequence[str]) -> None:
    """Refuse arguments that no program could be given.

    Raises:
        UsageError: there are none, they are too long, or one holds a NUL or is not text.
    """
    if not arguments or not arguments[0] or arguments[0].startswith("-"):
        raise UsageError(f"{list(arguments)!r} is no command: its first item must name a program")
    joined = shlex.join(arguments)
    try:
        size = len(joined.encode())
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{joined!r} holds an argument that is not UTF-8; rename the file it names"
        ) from error
    if "\0" in joined or size > _MAX_COMMAND_BYTES:
        raise UsageError(
            f"{joined[:60]!r}...: arguments of {size} bytes; give at most {_MAX_COMMAND_BYTES}, and no NUL"
        )


def check_source(source: Path) -> None:
    """Refuse a `source` that is not a file.

    Raises:
        DataError: it is absent or something else.
    """
    if not source.is_file():
        raise DataError(f"cannot send {source}: no such file; give the path of an existing file")


def too_slow(arguments: Sequence[str], where: str, timeout_s: float) -> CommandTimeoutError:
    """Return the error for a command that was ended after `timeout_s` seconds."""
    return CommandTimeoutError(
        f"{arguments[0]} on {where} did not end within {timeout_s:g} s and was stopped; give it more time"
    )
