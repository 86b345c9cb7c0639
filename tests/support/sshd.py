"""A real sshd on loopback, with keys and configuration of its own; and a relay that spoils the link to it."""

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

import pytest

from ehdnas.core.errors import DeviceError
from ehdnas.core.remote import SshOptions, SshTransport

_SSHD = shutil.which("sshd") or "/usr/sbin/sshd"

SERVER = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
PidFile none
AuthorizedKeysFile {folder}/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 100
MaxSessions 50
Subsystem sftp internal-sftp
"""

CLIENT = """\
Host board
    HostName 127.0.0.1
    Port {port}
Host *
    User {user}
    IdentityFile {folder}/client
    UserKnownHostsFile {folder}/known_hosts
"""


class Sshd:
    """A running sshd: `config` is an ssh configuration in which it is called board."""

    def __init__(self, folder, process, port):
        self.folder, self.process, self.port = folder, process, port
        self.config = folder / "config"

    def transport(self, address="board", **options):
        return SshTransport(address, SshOptions(**{"config": self.config, **options}))

    def config_with(self, path, text):
        """Write another configuration: `text`, then the usual one."""
        path.write_text(text + "\n" + self.config.read_text())
        return path

    def kill_sessions(self):
        """Kill the processes that serve connections, as a crash would; the listener stays."""
        for pid in servers_below(self.process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self):
        """Kill it and its sessions, as a power cut would; `start` brings it back at the same address."""
        doomed = [self.process, *servers_below(self.process.pid)]
        self.process.kill()
        for pid in doomed[1:]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def start(self):
        """Listen again after `stop`."""
        self.process = start_listening(self.folder)
        wait_for_banner(self.port, self.process, self.folder / "log")


class Relay:
    """Passes connections on to `port`; can turn the first few away, and can go silent without closing.

    `then` is called, once, when more than `after_bytes` have passed in one direction of a connection.
    """

    def __init__(self, port, turn_away=0, after_bytes=0, then=None):
        self._to, self._turn_away = port, turn_away
        self._after_bytes, self._then = after_bytes, then
        self.frozen = threading.Event()
        self.accepted = 0
        self._open = [socket.create_server(("127.0.0.1", 0))]
        self.port = self._open[0].getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with suppress(OSError):
            while True:
                near, _ = self._open[0].accept()
                self.accepted += 1
                if self.accepted <= self._turn_away:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self._to))
                self._open += [near, far]
                for sock in (near, far):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, one, other):
        passed = 0
        try:
            while data := one.recv(2**16):
                passed += len(data)
                if self._then and passed > self._after_bytes:
                    then, self._then = self._then, None
                    then()
                while self.frozen.is_set():
                    time.sleep(0.02)
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:  # an end that was reset must not look like a silent one
            for sock in (one, other):
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.frozen.clear()
        for sock in self._open:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


def servers_below(pid):
    """The sshd processes that `pid` started, itself or through one another; not the commands they run."""
    command = ["ps", "-eo", "pid=,ppid=,comm="]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in text.splitlines()]
    below = [int(child) for child, parent, name in rows if int(parent) == pid and name.startswith("sshd")]
    return [further for one in below for further in (one, *servers_below(one))]


def new_key(path):
    """Make a key pair without a passphrase; return the public half as `type base64`."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return " ".join(path.with_name(f"{path.name}.pub").read_text().split()[:2])


@contextmanager
def running_sshd(folder, *settings, **environment):
    """Start an sshd with `settings` before the usual ones; skips the test where there is none to start.

    `environment` is that of its commands. Their home is `folder`, lest the user's own start-up files join in.
    """
    if not Path(_SSHD).is_file() or not shutil.which("ssh-keygen"):
        pytest.skip("no OpenSSH server: apt-get install openssh-server")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd separates its privileges
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    host_key, client_key = new_key(folder / "host"), new_key(folder / "client")
    names = {"port": port, "folder": folder, "user": getpass.getuser()}
    variables = " ".join(f'"{name}={value}"' for name, value in {"HOME": folder, **environment}.items())
    (folder / "sshd_config").write_text("\n".join([*settings, f"SetEnv {variables}", SERVER.format(**names)]))
    (folder / "authorized_keys").write_text(client_key + "\n")
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    (folder / "config").write_text(CLIENT.format(**names))
    server = Sshd(folder, start_listening(folder), port)
    try:
        wait_for_banner(port, server.process, folder / "log")
        yield server
    finally:
        server.process.terminate()
        try:
            server.process.wait(5)
        except subprocess.TimeoutExpired:
            server.process.kill()
            server.process.wait()


def start_listening(folder):
    with (folder / "log").open("ab") as log:
        command = [_SSHD, "-D", "-e", "-f", str(folder / "sshd_config")]
        return subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL)


@contextmanager
def several_sshds(folder: Path, number: int):
    """So many sshds, each with keys of its own, and a folder `tmp` for what is put there."""
    if number == 0:
        yield []
        return
    place = folder / f"sshd{number}"
    (place / "tmp").mkdir(parents=True)
    with running_sshd(place, TMPDIR=place / "tmp") as one, several_sshds(folder, number - 1) as others:
        yield [one, *others]


def wait_for_banner(port, process, log):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as sock:
            if sock.recv(4) == b"SSH-":
                return
        time.sleep(0.02)
    raise RuntimeError(f"sshd did not start: {log.read_text()}")


def fails(transport, match, kind=DeviceError):
    """Opening fails with one line that matches; return it."""
    with transport, pytest.raises(kind, match=match) as caught:
        transport.run(["true"], 10)
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)
    return str(caught.value)


def until(condition, seconds=3):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def relayed(sshd, relay, tmp_path, **options):
    """A transport through the relay, whose port known_hosts need not have."""
    config = sshd.config_with(
        tmp_path / "relayed", f"Host board\n    Port {relay.port}\n    HostKeyAlias [127.0.0.1]:{sshd.port}"
    )
    return sshd.transport(config=config, **options)


def processes(token):
    """The command lines of running processes that hold `token`."""
    text = subprocess.run(["ps", "-eww", "-o", "args="], capture_output=True, text=True, check=True).stdout
    return [line for line in text.splitlines() if token in line]


def gone_within(seconds, token):
    """Wait for processes of that token to end; return those that have not."""
    deadline = time.monotonic() + seconds
    while (left := processes(token)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def running_with(variable):
    """Processes with `NAME=value` in their environment, all that an sshd started: pid -> command line."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if variable.encode() in (folder / "environ").read_bytes().split(b"\0"):
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                found[int(folder.name)] = words.decode(errors="replace")
    return found


def left_there(tmp, seconds):
    """What an sshd whose commands have TMPDIR `tmp` has left: pid -> command line, and what lies in it.

    Both are empty as soon as all is gone; what runs is given so many seconds to end.
    """
    until(lambda: not running_with(f"TMPDIR={tmp}"), seconds)
    running = running_with(f"TMPDIR={tmp}")
    return running, [f"{top}/{name}" for top, *names in os.walk(tmp) for name in chain(*names)]


def a_while():
    """A number of seconds that no other process sleeps for."""
    return f"{secrets.randbelow(10**6) + 4 * 10**6}"
