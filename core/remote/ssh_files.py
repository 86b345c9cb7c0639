"""Files over SFTP: whole or absent at either end."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ehdnas.core.errors import DataError, DeviceError
from ehdnas.core.files import atomic_path
from ehdnas.core.remote.ssh_connection import Connection
from ehdnas.core.remote.ssh_errors import answered_within, device_errors

if TYPE_CHECKING:
    import paramiko

_CHUNK_BYTES = 2**18
_REQUESTS_AT_ONCE = 64


def open_sftp(connection: Connection) -> paramiko.SFTPClient:
    """Return an SFTP client on a channel of its own.

    Raises:
        DeviceError: the machine offers none, or does not answer.
    """
    import paramiko

    remedy = "install sftp-server there (OpenSSH's, also for Dropbear)"
    with device_errors(f"no SFTP on {connection.target.where}", remedy):
        channel = connection.session()
        with answered_within(channel, connection.options.answer_s):
            channel.invoke_subsystem("sftp")
            return paramiko.SFTPClient(channel)


def upload(
    sftp: paramiko.SFTPClient, source: Path, path: str, where: str, remote_sha256: Callable[[str], str]
) -> None:
    """Send `source` to `path` under a temporary name, compare, then rename.

    `remote_sha256` gives the digest of a file over there, '' where nothing can compute one.

    Raises:
        DataError: `source` cannot be read.
        DeviceError: it cannot be written there, or arrived damaged.
    """
    temporary = f"{path.rpartition('/')[0]}/.put-{secrets.token_hex(8)}"
    try:
        content = source.open("rb")
    except OSError as error:
        raise DataError(f"cannot read {source}: {error.strerror}; check its permissions") from error
    failed = f"cannot write {path} on {where}"
    with content:
        try:
            with device_errors(failed, "free some space there (df -h), or set TMPDIR there to another disk"):
                digest, size = _send(sftp, content, temporary)
                arrived = sftp.stat(temporary).st_size
            if arrived != size:  # sent in a row, the last pieces' errors are never read
                raise DeviceError(
                    f"{failed}: {arrived} bytes of {size} arrived; free some space there (df -h)"
                )
            if remote_sha256(temporary) not in ("", digest):
                raise DeviceError(f"{failed}: it arrived damaged; try again, and check the disk there")
            with device_errors(failed, "check the folder there"):
                sftp.posix_rename(temporary, path)
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the one to report
                sftp.remove(temporary)
            raise


def download(sftp: paramiko.SFTPClient, path: str, target: Path, where: str) -> None:
    """Fetch the regular file `path` to `target`, atomically.

    Raises:
        DeviceError: there is no such regular file there, or it did not come whole.
        EhdnasError: `target` cannot be written.
    """
    failed = f"cannot read {path} on {where}"
    with device_errors(failed, "see what the command printed"):
        found = sftp.lstat(path)
    if not stat.S_ISREG(found.st_mode or 0):
        raise DeviceError(f"{failed}: not a regular file; see what the command printed")
    with atomic_path(target) as temporary, temporary.open("wb") as copy:
        size = 0
        with device_errors(failed, "try again"):
            remote = sftp.open(path, "rb")
            _prefetch(remote, found.st_size or 0)
        with contextlib.closing(remote):
            while chunk := _receive(remote, failed):
                copy.write(chunk)
                size += len(chunk)
        if size != found.st_size:
            raise DeviceError(f"{failed}: {size} bytes of {found.st_size} came; try again when it is written")


def _send(sftp: paramiko.SFTPClient, content: BinaryIO, path: str) -> tuple[str, int]:
    """Write a new file at `path`; return the SHA-256 and the size of what was sent."""
    digest, size = hashlib.sha256(), 0
    with sftp.open(path, "wx") as remote:  # x: never through a file or a link that is already there
        remote.set_pipelined(True)
        while chunk := _local_chunk(content):
            remote.write(chunk)
            digest.update(chunk)
            size += len(chunk)
        remote.chmod(os.fstat(content.fileno()).st_mode & 0o700 | 0o600)
    return digest.hexdigest(), size


def _local_chunk(content: BinaryIO) -> bytes:
    try:
        return content.read(_CHUNK_BYTES)
    except OSError as error:
        raise DataError(f"cannot read {content.name}: {error.strerror}; check the disk") from error


def _prefetch(remote: Any, size: int) -> None:
    """Ask for the whole file at once; should the connection fall, it is `_receive` that says so."""
    ask = remote._prefetch_thread

    def ask_quietly(*arguments: Any) -> None:
        with contextlib.suppress(Exception):  # a thread's traceback would end up on the terminal
            ask(*arguments)

    remote._prefetch_thread = ask_quietly
    remote.prefetch(size, _REQUESTS_AT_ONCE)


def _receive(remote: paramiko.SFTPFile, failed: str) -> bytes:
    # Only what comes from there: an error of the local disk is atomic_path's to report.
    with device_errors(failed, "try again"):
        return remote.read(_CHUNK_BYTES)
