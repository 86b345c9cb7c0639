"""A machine reached over SSH: keys only, host keys verified, nothing left running or lying about."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ehdnas.core.errors import DeviceError
from ehdnas.core.remote.base import (
    KILL_AFTER_S,
    Completed,
    Transport,
    check_arguments,
    check_name,
    check_source,
    too_slow,
)
from ehdnas.core.remote.capture import Capture
from ehdnas.core.remote.shell import (
    after_mark,
    available_bytes,
    held_folder,
    hold_command,
    last_line,
    new_mark,
    run_command,
)
from ehdnas.core.remote.ssh_config import SshOptions, parse_address
from ehdnas.core.remote.ssh_connection import Connection
from ehdnas.core.remote.ssh_errors import answered_within, device_errors
from ehdnas.core.remote.ssh_files import download, open_sftp, upload
from ehdnas.core.remote.ssh_route import connect

if TYPE_CHECKING:
    import paramiko

_DRAIN_S = 3.0  # for the last output to arrive once the program is known to have ended
_HASH_S = 600.0  # sha256sum of a large file on a slow card
_SPACE_S = 30.0
_ASK_FOR_SPACE_BYTES = 2**20  # below, the question takes longer than an attempt


@dataclass
class _Session:
    """An open connection and our folder there, which lives as long as `holder` does."""

    connection: Connection
    holder: paramiko.Channel
    folder: str
    sftp: paramiko.SFTPClient | None = None

    def given_up(self) -> bool:
        """Return whether the folder was removed over there, because nothing was heard from here."""
        if self.holder.exit_status == -1:  # it runs, or fell with the connection
            return False
        self.connection.lost_why = "it heard nothing from here and removed our folder"
        return True

    def beat(self) -> None:
        """Give signs of life until the holder ends or its input is closed; a thread's body."""
        with contextlib.suppress(OSError):
            while not self.holder.status_event.wait(self.connection.options.beat_s):
                self.holder.sendall(b"\n")


class SshTransport(Transport):
    """Reaches `[user@]host[:port]`, or an alias of ~/.ssh/config, with the user's keys.

    HostName, User, Port, IdentityFile, IdentitiesOnly, ProxyJump, UserKnownHostsFile and HostKeyAlias are
    honoured, ProxyCommand when `SshOptions` allows it; sections with `Match exec` are passed over. The agent
    is asked for signatures and never forwarded. Over there it needs sh, mktemp and SFTP; `timeout`, `setsid`,
    `df` and `sha256sum` are used where they exist. Over a link that went silent the folder lasts for
    `SshOptions.dead_s`, given `timeout`, and so does a program, given /proc too, else until its limit.

    Raises:
        UsageError: the address is malformed.
    """

    def __init__(self, address: str, options: SshOptions | None = None) -> None:
        parse_address(address)
        self._address, self._options = address, options or SshOptions()
        self._session: _Session | None = None

    def put(self, source: Path, name: str) -> str:
        """Upload `source`; see `Transport.put`."""
        check_name(name)
        check_source(source)
        session = self._open()
        path = f"{session.folder}/{name}"
        with self._noticing_loss(f"the upload of {source.name}"):
            self._check_space(source, path)
            upload(self._sftp(), source, path, session.connection.target.where, self._sha256)
        return path

    def run(self, arguments: Sequence[str], timeout_s: float) -> Completed:
        """Run a program there; see `Transport.run`."""
        check_arguments(arguments)
        session = self._open()
        mark = new_mark()
        deadline = time.monotonic() + timeout_s
        with self._noticing_loss(arguments[0]):
            channel = self._exec(session.connection, run_command(mark, session.folder, arguments, timeout_s))
            out, err = Capture(channel.recv), Capture(channel.recv_stderr)
            try:
                in_time = channel.status_event.wait(max(0.0, deadline - time.monotonic()))
            finally:
                _end(channel)
            stands = session.connection.alive(1.0 if channel.exit_status == -1 else 0.0)
            if not stands or session.given_up():
                raise session.connection.lost(arguments[0])
        if not in_time:
            raise too_slow(arguments, session.connection.target.where, timeout_s)
        stdout, stderr = out.bytes(_DRAIN_S), err.bytes(_DRAIN_S)
        channel.close()
        return self._completed(channel.exit_status, stdout, stderr, mark, out.truncated or err.truncated)

    def get(self, name: str, target: Path) -> None:
        """Download a file of our folder; see `Transport.get`."""
        check_name(name)
        session = self._open()
        with self._noticing_loss(f"the download of {name}"):
            download(self._sftp(), f"{session.folder}/{name}", target, session.connection.target.where)

    def close(self) -> None:
        """Let go of our folder, wait a moment for it to be removed, and hang up."""
        session, self._session = self._session, None
        if session is None:
            return
        with contextlib.suppress(Exception):  # the machine may be gone: then its sshd notices, and cleans up
            session.holder.shutdown_write()
            session.holder.status_event.wait(KILL_AFTER_S)
        session.connection.close()

    def _open(self) -> _Session:
        if self._session is None:
            connection = connect(self._address, self._options)
            try:
                self._session = self._hold_folder(connection)
            except BaseException:
                connection.close()
                raise
        return self._session

    def _hold_folder(self, connection: Connection) -> _Session:
        mark, output = new_mark(), b""
        where = connection.target.where
        with device_errors(
            f"cannot make a folder on {where}", "check that commands can be run there over ssh"
        ):
            command = hold_command(mark, self._options.dead_s)
            channel = self._exec(connection, command, merged=True)
            deadline = time.monotonic() + self._options.answer_s
            while not (folder := held_folder(output, mark)) and time.monotonic() < deadline:
                output = (output + channel.recv(2**14))[-(2**17) :]
                if channel.exit_status_ready() and not channel.recv_ready():
                    folder = held_folder(output, mark)
                    break
        if not folder:
            raise DeviceError(
                f"cannot make a folder on {where}: {last_line(output) or 'its login shell said nothing'}; "
                f"it needs sh, mktemp and a writable /tmp or TMPDIR"
            )
        session = _Session(connection, channel, folder)
        threading.Thread(target=session.beat, daemon=True).start()
        return session

    def _exec(self, connection: Connection, command: str, merged: bool = False) -> paramiko.Channel:
        """Start a command of the login shell; refused or unanswered requests are DeviceErrors."""
        remedy = "try again, or restart sshd there"
        with device_errors(f"cannot start a command on {connection.target.where}", remedy):
            channel = connection.session()
            channel.set_combine_stderr(merged)
            with answered_within(channel, self._options.answer_s):
                channel.exec_command(command)
            channel.settimeout(None)  # a program may be quiet for as long as it runs
            return channel

    def _sftp(self) -> paramiko.SFTPClient:
        session = self._open()
        if session.sftp is None:
            session.sftp = open_sftp(session.connection)
        return session.sftp

    def _check_space(self, source: Path, path: str) -> None:
        needed = source.stat().st_size
        if needed < _ASK_FOR_SPACE_BYTES:
            return
        session = self._open()
        free = available_bytes(self.run(["df", "-Pk", session.folder], _SPACE_S).stdout)
        if free is not None and free < needed:
            raise DeviceError(
                f"cannot write {path} on {session.connection.target.where}: {needed / 2**20:.1f} MiB needed, "
                f"{free / 2**20:.1f} MiB free; free some space there, or set TMPDIR there to another disk"
            )

    def _sha256(self, path: str) -> str:
        done = self.run(["sha256sum", "--", path], _HASH_S)
        return done.stdout.decode(errors="replace").split(" ")[0].lstrip("\\") if done.code == 0 else ""

    def _completed(self, code: int, stdout: bytes, stderr: bytes, mark: str, truncated: bool) -> Completed:
        own, own_err = after_mark(stdout, mark), after_mark(stderr, mark)
        if code == -1:  # the shell around the program was killed, and the connection stands
            raise DeviceError(
                f"the command on {self._address} was killed there; is it out of memory? (dmesg says)"
            )
        if own is None:
            said = last_line(stderr) or last_line(stdout) or "it said nothing"
            raise DeviceError(
                f"the login shell of {self._address} did not run our command: {said}; try ssh by hand"
            )
        return Completed(code, own, stderr if own_err is None else own_err, truncated)

    @contextlib.contextmanager
    def _noticing_loss(self, doing: str) -> Iterator[None]:
        """Say that the connection was lost, where that is why something failed."""
        try:
            yield
        except DeviceError as error:
            session = self._session
            if session is not None and (not session.connection.alive(0.2) or session.given_up()):
                raise session.connection.lost(doing) from error
            raise


def _end(channel: paramiko.Channel) -> None:
    """End the program if it still runs: it is, over there, when its standard input closes."""
    if channel.status_event.is_set():
        return
    with contextlib.suppress(Exception):  # the connection may be gone, and the program with it
        channel.shutdown_write()
        channel.status_event.wait(KILL_AFTER_S + 2)
        channel.close()
