"""Where the Edge TPU compiler runs: on this machine, in a container, or on an x86 host over SSH."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ehdnas.core.errors import EhdnasError, NotCompiledError, UsageError
from ehdnas.exporters.edgetpu.reader import printable

if TYPE_CHECKING:
    from ehdnas.core.remote import Completed, Transport

PROGRAM = "edgetpu_compiler"
_ENGINES = ("docker", "podman")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}")
_MOUNT = "/models"
_KILL_S = 30.0
# What a shell gives for a program that it cannot start, and a container engine for a container.
_CANNOT_START = (126, 127)
_NO_CONTAINER = 125
# What an engine says last of every mistake.
_SEE_HELP = ("Run '", "See '")


class Backend(ABC):
    """A place to compile: how to reach it, and how to start the compiler there."""

    @abstractmethod
    def open(self) -> Transport:
        """Return a transport that is not yet connected."""

    @abstractmethod
    def command(self, folder: str) -> list[str]:
        """Return the words that start the compiler, without its arguments; `folder` is the transport's."""

    def inside(self, folder: str) -> str:
        """Return the path by which the compiler sees the transport's folder."""
        return folder

    def require_started(self, done: Completed) -> None:
        """Return if the compiler ran at all, whatever came of it.

        Raises:
            NotCompiledError: it did not; the message says what to install.
        """
        if done.code in _CANNOT_START:
            raise NotCompiledError(f"not compiled: {self._absent()} ({last_line(done)})")

    def abandon(self, transport: Transport) -> None:  # noqa: B027 (most transports leave nothing running)
        """End what a run that was cut short may have left behind; never raises."""

    @abstractmethod
    def _absent(self) -> str:
        """Return what is wrong when the compiler is not there, and what to do about it."""


@dataclass(frozen=True)
class PathBackend(Backend):
    """The program at `path` on this machine."""

    path: str

    def open(self) -> Transport:
        """Return a transport to this machine."""
        return _local()

    def command(self, folder: str) -> list[str]:
        """Return the program."""
        return [self.path]

    def _absent(self) -> str:
        return f"{self.path} cannot be started here; it needs x86-64 Linux, so name a container or a host"


@dataclass(frozen=True)
class ContainerBackend(Backend):
    """An image with the compiler on its PATH, run by `engine`: no network, nothing else mounted, our user."""

    engine: str
    image: str
    name: str = field(default_factory=lambda: f"ehdnas-{secrets.token_hex(8)}")

    def open(self) -> Transport:
        """Return a transport to this machine."""
        return _local()

    def command(self, folder: str) -> list[str]:
        """Return the engine's command line up to the image."""
        # Without keep-id a rootless podman maps our user to one that cannot write into our folder.
        user = ["--userns", "keep-id"] if Path(self.engine).name == "podman" else []
        return [
            *(self.engine, "run", "--rm", "--network", "none", "--pull", "never"),
            *("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--name", self.name),
            *(*user, "--user", f"{os.getuid()}:{os.getgid()}"),
            *("--mount", f"type=bind,source={folder},target={_MOUNT}", "--workdir", _MOUNT),
            *("--entrypoint", PROGRAM, self.image),
        ]

    def inside(self, folder: str) -> str:
        """Return where the folder is mounted."""
        return _MOUNT

    def require_started(self, done: Completed) -> None:
        """Return if the compiler ran at all; see `Backend.require_started`."""
        if done.code == _NO_CONTAINER:
            engine = Path(self.engine).name
            raise NotCompiledError(
                f"not compiled: {engine} cannot run image '{self.image}' ({last_line(done)}); build or pull "
                f"the image, and see that `{engine} info` works"
            )
        super().require_started(done)

    def abandon(self, transport: Transport) -> None:
        """Kill the container: it outlives the engine's client."""
        with suppress(EhdnasError):
            transport.run([self.engine, "kill", self.name], _KILL_S)

    def _absent(self) -> str:
        return f"image '{self.image}' has no {PROGRAM} on its PATH; install it there"


@dataclass(frozen=True)
class SshBackend(Backend):
    """The compiler on the PATH of another machine."""

    address: str

    def open(self) -> Transport:
        """Return a transport to the machine."""
        from ehdnas.core.remote import open_transport

        return open_transport(self.address)

    def command(self, folder: str) -> list[str]:
        """Return the program's name, for the other machine to find."""
        return [PROGRAM]

    def _absent(self) -> str:
        return f"{self.address} has no {PROGRAM} that it can start; install it there (x86-64 Linux only)"


def find_backend(text: str) -> Backend | None:
    """Return the back end that `text` names: `auto`, `path`, `docker:IMAGE` or `ssh:USER@HOST`.

    None when it is `auto` and the compiler is not on PATH. No host is reached and no image looked for yet.

    Raises:
        UsageError: the text is none of these.
        NotCompiledError: the program or container engine that it needs is not on PATH.
    """
    kind, _, rest = text.partition(":")
    if text in ("auto", "path"):
        path = shutil.which(PROGRAM)
        if path is None and text == "path":
            raise NotCompiledError(
                f"not compiled: {PROGRAM} is not on PATH; install it from the vendor's apt repository (x86-64"
                " Linux only), or name a container, docker:IMAGE, or a host, ssh:USER@HOST"
            )
        return None if path is None else PathBackend(path)
    if kind == "docker" and _IMAGE.fullmatch(rest):
        return ContainerBackend(_engine(), rest)
    if kind == "ssh" and rest not in ("", "local"):
        backend = SshBackend(rest)
        backend.open().close()  # refuses an address that cannot be one
        return backend
    raise UsageError(
        f"'{printable(text[:100])}' is no back end for the Edge TPU compiler; give auto, path, docker:IMAGE "
        "or ssh:USER@HOST"
    )


def _engine() -> str:
    for name in _ENGINES:
        if path := shutil.which(name):
            return path
    raise NotCompiledError(
        "not compiled: neither docker nor podman is on PATH; install one, or name a host, ssh:USER@HOST"
    )


def _local() -> Transport:
    from ehdnas.core.remote import LocalTransport

    return LocalTransport()


def last_line(done: Completed) -> str:
    """Return the last telling line that a command printed, or its exit code."""
    for stream in (done.stderr, done.stdout):
        lines = [printable(line) for line in stream[-4096:].decode(errors="replace").splitlines()]
        telling = [line for line in lines if line and not line.startswith(_SEE_HELP)]
        if telling:
            return telling[-1][:200]
    return f"exit code {done.code}"
