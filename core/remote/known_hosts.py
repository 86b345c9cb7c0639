"""Is the machine that answers the one meant? Host keys against the user's known_hosts."""

from __future__ import annotations

import binascii
import fnmatch
import hmac
from typing import TYPE_CHECKING

from ehdnas.core.errors import DeviceError
from ehdnas.core.remote.base import HostKeyError
from ehdnas.core.remote.ssh_config import Target

if TYPE_CHECKING:
    import paramiko


def known_keys(target: Target) -> tuple[list[paramiko.PKey], list[paramiko.PKey]]:
    """Return the keys that known_hosts gives for the target, and those that it says are revoked.

    Certificate authorities are not supported: their lines are passed over, so such a host is unknown.

    Raises:
        DeviceError: a known_hosts file exists and cannot be read.
    """
    trusted: list[paramiko.PKey] = []
    revoked: list[paramiko.PKey] = []
    for path in target.known_hosts:
        try:
            lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        except OSError as error:
            raise DeviceError(f"cannot read {path}: {error.strerror}; check its permissions") from error
        for line in lines:
            marker, _, rest = line.strip().partition(" ") if line.lstrip().startswith("@") else ("", "", line)
            if marker in ("", "@revoked") and (key := _key_of(rest.strip(), target.host_key_name)):
                (revoked if marker else trusted).append(key)
    return trusted, revoked


def check_host_key(target: Target, key: paramiko.PKey) -> None:
    """Refuse a machine whose key is not the one that known_hosts has for it.

    Raises:
        HostKeyError: the host is unknown, its key has changed, or was revoked.
    """
    trusted, revoked = known_keys(target)
    name, where = target.host_key_name, target.where
    offered = f"{key.get_name()} {key.fingerprint}"
    if key in revoked:
        raise HostKeyError(
            f"{where} offers the host key {offered}, which known_hosts says is revoked; do not use it"
        )
    if key in trusted:
        return
    files = target.known_hosts
    file = str(next((path for path in files if path.exists()), files[0])) if files else "~/.ssh/known_hosts"
    if trusted:
        raise HostKeyError(
            f"the host key of {where} has changed: it offers {offered}, {file} has "
            f"{', '.join(known.fingerprint for known in trusted)}; someone may be listening in. "
            f"If you know why it changed: ssh-keygen -R '{name}' -f '{file}', then add the new key"
        )
    raise HostKeyError(
        f"{where} is not a known host; if its host key really is {offered} "
        f"(ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub on the machine says), "
        f"add this line to {file}: {name} {key.get_name()} {key.get_base64()}"
    )


def _key_of(line: str, name: str) -> paramiko.PKey | None:
    """The key of one line of known_hosts, if the line is about `name` and can be read."""
    import paramiko
    from paramiko.hostkeys import HostKeyEntry, InvalidHostKey

    names = line.split(None, 1)[0].split(",") if line and not line.startswith("#") else []
    if not _about(names, name):
        return None
    try:
        entry = HostKeyEntry.from_line(" ".join(line.split()))
    except (paramiko.SSHException, InvalidHostKey, ValueError):
        return None
    return entry.key if entry else None


def _about(patterns: list[str], name: str) -> bool:
    """OpenSSH's matching: hashed names, `*` and `?`, and `!` that overrules."""
    from paramiko.hostkeys import HostKeys

    found = False
    for pattern in patterns:
        if pattern.startswith("|1|"):
            try:
                found |= hmac.compare_digest(HostKeys.hash_host(name, pattern), pattern)
            except (binascii.Error, AssertionError, IndexError, ValueError):
                continue
        elif fnmatch.fnmatchcase(name, pattern.lstrip("!").lower().replace("[", "[[]")):
            if pattern.startswith("!"):
                return False
            found = True
    return found
