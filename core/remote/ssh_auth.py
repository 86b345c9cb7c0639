"""Who we are: keys from files and from ssh-agent. No password, no question on the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ehdnas.core.errors import DeviceSetupError
from ehdnas.core.remote.ssh_config import Target

if TYPE_CHECKING:
    import paramiko


def log_in(transport: paramiko.Transport, target: Target) -> None:
    """Offer keys until one is taken: the target's that the agent holds, its files, then the agent's others.

    Raises:
        DeviceSetupError: no key was taken, with what was tried.
    """
    import paramiko

    notes: list[str] = []
    agent = _agent(notes)
    try:
        for label, key in _candidates(target, agent, notes):
            try:
                further = transport.auth_publickey(target.user, key)
            except paramiko.BadAuthenticationType as error:
                raise DeviceSetupError(
                    f"{target.where} takes no keys, only {', '.join(error.allowed_types)}; "
                    f"set PubkeyAuthentication yes there"
                ) from error
            except paramiko.AuthenticationException as error:
                notes.append(f"{label}: {str(error).rstrip('.').lower()}")
                if not transport.is_active():  # MaxAuthTries is used up
                    break
                continue
            if not further:
                return
            notes.append(f"{label}: taken, but {' and '.join(further)} is asked for as well")
    finally:
        if agent is not None:
            agent.close()
    tried = "; ".join(notes) or "there is none, in files or in ssh-agent"
    raise DeviceSetupError(
        f"{target.where} let no key of ours in as {target.user} ({tried}); "
        f"put one there with: ssh-copy-id -p {target.port} {target.user}@{target.host}"
    )


def _agent(notes: list[str]) -> paramiko.Agent | None:
    import paramiko

    try:
        return paramiko.Agent()
    except (paramiko.SSHException, OSError, EOFError) as error:
        notes.append(f"ssh-agent: {error}")
        return None


def _candidates(
    target: Target, agent: paramiko.Agent | None, notes: list[str]
) -> Iterator[tuple[str, paramiko.PKey]]:
    """Keys in the order of OpenSSH, each with its name for messages."""
    held = list(agent.get_keys()) if agent is not None else []
    wanted = {blob for path in target.identities if (blob := _public_blob(path))}
    for key in held:
        if key.get_base64() in wanted:
            yield "ssh-agent", key
    for path in target.identities:
        if path.is_file() and (loaded := _load(path, notes)) is not None:
            yield str(path), loaded
    for key in held:
        if key.get_base64() not in wanted and not target.identities_only:
            yield "ssh-agent", key


def _public_blob(path: Path) -> str:
    """The base64 of the public half beside a private key, or ''."""
    try:
        return path.with_name(f"{path.name.removesuffix('.pub')}.pub").read_text().split()[1]
    except (OSError, ValueError, IndexError):
        return ""


def _load(path: Path, notes: list[str]) -> paramiko.PKey | None:
    """The private key in `path`; None, and a note, where it cannot be used."""
    import paramiko

    if path.name.endswith(".pub"):  # IdentityFile may name the public half of a key in the agent
        return None
    try:
        return paramiko.PKey.from_path(path)
    except (paramiko.PasswordRequiredException, TypeError):
        notes.append(f"{path}: has a passphrase, run ssh-add {path}")
    except Exception as error:  # whatever a damaged or newer key file makes the library raise
        notes.append(f"{path}: cannot be read ({error or type(error).__name__})")
    return None
