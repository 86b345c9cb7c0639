"""Whom to reach and how: an address, what ~/.ssh/config says of it, and our own limits."""

from __future__ import annotations

import getpass
import glob
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ehdnas.core.errors import DeviceError, UsageError

# A host goes into a ProxyCommand and error messages: no blank, no shell character, no leading '-'.
_ADDRESS = re.compile(
    r"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.\\$-]*)@)?"
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+(?:%\w+)?)\]|(?P<host>[A-Za-z0-9_][A-Za-z0-9_.-]*))"
    r"(?::(?P<port>\d{1,5}))?"
)
_INCLUDE = re.compile(r"\s*include[\s=]+(.+)", re.IGNORECASE)
_SECTION = re.compile(r"\s*(host|match)[\s=]", re.IGNORECASE)
# Such a section asks a program on this machine: it is passed over, that is, made to match no host.
_MATCH_EXEC = re.compile(r"\s*match\b.*\bexec\b", re.IGNORECASE)
_MAX_INCLUDES = 8  # one within another
_DEFAULT_IDENTITIES = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")


@dataclass(frozen=True)
class SshOptions:
    """How long to wait, in seconds, and what ~/.ssh/config may do.

    `connect_s` bounds reaching and logging in to one machine, repeats included; `answer_s` the reply to one
    request. A keepalive goes out every `keepalive_s`; a link that brings nothing for `silence_s` is closed.
    The other end gets a sign of life every `beat_s`; after `dead_s` without one it ends what we started and
    removes our folder, as when this process is stopped for so long; 0 turns that off.
    A ProxyCommand runs a program on this machine, so it must be allowed.
    """

    config: Path | None = None
    connect_s: float = 20.0
    answer_s: float = 30.0
    keepalive_s: float = 4.0
    silence_s: float = 12.0
    beat_s: float = 10.0
    dead_s: float = 30.0
    allow_proxy_command: bool = False


@dataclass(frozen=True)
class Target:
    """A machine with every setting resolved. `name` is what the user wrote; `jumps` are addresses."""

    name: str
    host: str
    port: int
    user: str
    identities: tuple[Path, ...]
    identities_only: bool
    known_hosts: tuple[Path, ...]
    host_key_name: str
    jumps: tuple[str, ...]
    proxy_command: str

    @property
    def where(self) -> str:
        """The machine in an error message."""
        return f"{self.name} ({self.host} port {self.port})" if self.name != self.host else self.name


def parse_address(address: str) -> tuple[str, str, int | None]:
    """Return user ('' when absent), host and port (None when absent) of `[user@]host[:port]`.

    Raises:
        UsageError: it is no such thing.
    """
    match = _ADDRESS.fullmatch(address)
    port = int(match["port"]) if match and match["port"] else None
    if not match or (port is not None and not 0 < port < 65536):
        raise UsageError(
            f"{address!r} is no address: give user@host, user@host:port or a name of ~/.ssh/config"
        )
    return match["user"] or "", match["ipv6"] or match["host"], port


def resolve(address: str, options: SshOptions) -> Target:
    """Return the target of `address` as ~/.ssh/config completes it; what the address says comes first.

    Raises:
        UsageError: the address is malformed.
        DeviceError: the configuration cannot be read or understood.
    """
    user, host, port = parse_address(address)
    path = options.config or Path("~/.ssh/config").expanduser()
    found = _lookup(path, options.config is not None, host)
    try:
        port = port or int(found.get("port", 22))
        user = user or found.get("user") or getpass.getuser()
    except (ValueError, KeyError, OSError) as error:
        raise DeviceError(f"{path}: no user or port for {host} ({error}); write user@host:port") from error
    host_name = str(found.get("hostname", host)).lower()
    jump = found.get("proxyjump") or "none"
    command = found.get("proxycommand") or ""
    known_hosts = found.get("userknownhostsfile") or "~/.ssh/known_hosts ~/.ssh/known_hosts2"
    standard = host_name if port == 22 else f"[{host_name}]:{port}"
    return Target(
        name=address,
        host=host_name,
        port=port,
        user=user,
        identities=tuple(_paths(found.get("identityfile", _DEFAULT_IDENTITIES))),
        identities_only=found.get("identitiesonly", "no").lower() == "yes",
        known_hosts=tuple(_paths(_words(known_hosts))),
        host_key_name=str(found.get("hostkeyalias", standard)).lower(),
        jumps=() if jump.lower() == "none" else tuple(part.strip() for part in jump.split(",")),
        proxy_command=command,
    )


def _lookup(path: Path, given: bool, host: str) -> dict[str, Any]:
    import paramiko

    try:
        lines = _read(path, path.parent) if given or path.exists() else []
    except (OSError, ValueError) as error:
        raise DeviceError(f"cannot read {path}: {error}; mend or remove it") from error
    try:
        return dict(paramiko.SSHConfig.from_text("\n".join(lines)).lookup(host))
    except (paramiko.SSHException, ValueError, KeyError, OSError) as error:
        raise DeviceError(f"{path}: {error} (looking up {host}); mend it, or write user@host:port") from error


def _read(path: Path, folder: Path, depth: int = 0) -> list[str]:
    """The lines of a configuration with those of its Includes, which paramiko would ignore in silence."""
    lines, section = [], "Host *"
    for line in path.read_text().splitlines():
        if _SECTION.match(line):
            section = line = "Host !*" if _MATCH_EXEC.match(line) else line
        included = _INCLUDE.match(line)
        if not included or depth >= _MAX_INCLUDES:
            lines.append(line)
            continue
        for pattern in _words(included[1]):
            base = folder / Path(pattern).expanduser()
            for found in sorted(glob.glob(str(base))):
                lines += _read(Path(found), folder, depth + 1)
        lines.append(section)  # what follows belongs to the section that the Include stood in
    return lines


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _paths(names: Any) -> list[Path]:
    return [Path(os.path.expanduser(name)) for name in names if name.lower() != "none"]
