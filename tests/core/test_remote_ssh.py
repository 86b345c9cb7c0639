"""What a network can do to a transport in use: a real sshd that dies, fills up, or falls silent."""

import os
import pwd
import shutil
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from sshd import Relay, a_while, fails, processes, relayed, until

from ehdnas.core.errors import DeviceError
from ehdnas.core.remote import CommandTimeoutError, ConnectionLostError, SshOptions, shell, ssh

pytest_plugins = ("sshd_fixtures",)

NAP = a_while()


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setenv("COLUMNS", "5000")  # ps would cut its lines


def test_a_silent_link_is_noticed_and_a_quiet_program_is_not(sshd, tmp_path, capfd):
    assert SshOptions().silence_s + 1 < 15
    options = {"keepalive_s": 0.2, "silence_s": 1.0}
    with Relay(sshd.port) as relay, relayed(sshd, relay, tmp_path, **options) as transport:
        assert transport.run(["sleep", "2"], 10).code == 0
        threading.Timer(0.3, relay.frozen.set).start()
        start = time.monotonic()
        with pytest.raises(ConnectionLostError, match=r"lost during sleep \(nothing came for 1 s\)"):
            transport.run(["sleep", "30"], 60)
        assert time.monotonic() - start < 5
    assert capfd.readouterr() == ("", "")


def test_a_program_does_not_outlive_its_limit_behind_a_dead_link(sshd, tmp_path, monkeypatch):
    monkeypatch.setattr(shell, "_BACKSTOP_S", 0)
    options = {"keepalive_s": 0.2, "silence_s": 1.0}
    with Relay(sshd.port) as relay, relayed(sshd, relay, tmp_path, **options) as transport:
        transport.run(["true"], 10)
        threading.Timer(0.3, relay.frozen.set).start()
        with pytest.raises(ConnectionLostError):
            transport.run(["sleep", NAP], 4)
        assert processes(NAP)  # its sshd does not know yet
        assert until(lambda: not processes(NAP), 5)


@pytest.mark.parametrize("tools", ["", "busybox"])
def test_behind_a_link_that_falls_silent_nothing_stays(own_sshd, tmp_path, monkeypatch, tools):
    environment = {}
    if tools:
        if not shutil.which(tools):
            pytest.skip(f"no {tools} here: apt-get install {tools}")
        environment["PATH"] = path_of(tmp_path)
        for program in ("sh", "mktemp", "rm", "sleep", "timeout", "setsid", "true"):
            (environment["PATH"] / program).symlink_to(shutil.which(tools))
    options = {"keepalive_s": 0.2, "silence_s": 1.0, "beat_s": 0.3, "dead_s": 1}
    mark = f"ehdnas-test-{NAP}:"
    monkeypatch.setattr(ssh, "new_mark", lambda: mark)
    with (
        own_sshd(**environment) as server,
        Relay(server.port) as relay,
        relayed(server, relay, tmp_path, **options) as transport,
    ):
        folder = Path(transport.put(server.config, "file")).parent
        transport.run(["sleep", "1.5"], 10)
        assert folder.exists()
        threading.Timer(0.3, relay.frozen.set).start()
        with pytest.raises(ConnectionLostError):
            transport.run(["sh", "-c", f"cd /; sleep {NAP} & sleep {NAP}"], 60)
        assert until(lambda: not folder.exists())
        assert until(lambda: not processes(NAP))  # the mark holds it: not the shells either
        assert relay.frozen.is_set()


def test_a_folder_that_was_given_up_is_a_lost_connection(sshd):
    with sshd.transport(beat_s=60, dead_s=1) as transport:
        transport.run(["true"], 10)
        assert until(transport._session.given_up)
        with pytest.raises(ConnectionLostError, match="heard nothing from here and removed our folder"):
            transport.run(["true"], 10)
        with pytest.raises(ConnectionLostError, match="upload of config"):
            transport.put(sshd.config, "file")


def test_a_client_that_is_killed_leaves_nothing(sshd):
    code = (
        "import sys; from pathlib import Path; from ehdnas.core.remote import SshOptions, SshTransport\n"
        "transport = SshTransport('board', SshOptions(config=Path(sys.argv[1])))\n"
        "print(transport.put(Path(sys.argv[1]), 'file'), flush=True)\n"
        "transport.run(['sleep', sys.argv[2]], 60)"
    )
    client = subprocess.Popen(
        [sys.executable, "-c", code, sshd.config, NAP], stdout=subprocess.PIPE, text=True
    )
    path = client.stdout.readline().strip()
    assert os.path.isfile(path)
    assert until(lambda: processes(NAP))
    client.kill()
    client.wait()
    client.stdout.close()
    assert until(lambda: not processes(NAP))
    assert until(lambda: not os.path.exists(os.path.dirname(path)))


def test_the_connection_dies_while_a_program_runs(own_sshd, tmp_path, capfd):
    with own_sshd() as server:
        transport = server.transport()
        (tmp_path / "file").write_bytes(b"x")
        folder = Path(transport.put(tmp_path / "file", "file")).parent
        threading.Timer(0.5, server.kill_sessions).start()
        start = time.monotonic()
        with pytest.raises(ConnectionLostError, match="lost during sleep"):
            transport.run(["sleep", NAP], 30)
        assert time.monotonic() - start < 5
        assert until(lambda: not processes(NAP))
        assert until(lambda: not folder.exists())
        with pytest.raises(ConnectionLostError):
            transport.put(tmp_path / "file", "file")
        transport.close()
        with transport:
            assert transport.run(["true"], 10).code == 0
    assert capfd.readouterr() == ("", "")


def test_the_connection_dies_while_a_file_travels(own_sshd, tmp_path):
    with own_sshd() as server, server.transport() as transport:
        (tmp_path / "large").write_bytes(bytes(200 * 2**20))
        folder = Path(transport.put(server.config, "file")).parent
        threading.Timer(0.3, server.kill_sessions).start()
        with pytest.raises(ConnectionLostError, match="lost during the upload of large"):
            transport.put(tmp_path / "large", "large")
        assert until(lambda: not folder.exists(), 8)
    with server.transport() as transport:
        fails(transport, "Connection refused")


def test_a_shell_that_is_killed_is_not_a_lost_connection(sshd):
    with sshd.transport() as transport:
        with pytest.raises(DeviceError, match="was killed there") as caught:
            # The parent of the group's leader is the shell that waits for it.
            transport.run(["sh", "-c", "kill -KILL $(ps -o ppid= -p $(ps -o ppid= -p $$))"], 10)
        assert not isinstance(caught.value, ConnectionLostError)
        assert transport.run(["true"], 10).code == 0


def test_start_up_files_that_print(own_sshd):
    if not pwd.getpwuid(os.getuid()).pw_shell.endswith("bash"):
        pytest.skip("the login shell is not bash, which reads ~/.bashrc before a command over ssh")
    with own_sshd() as server, server.transport() as transport:
        (server.folder / ".bashrc").write_text("echo Welcome; echo $PPID; echo Careful >&2\n")
        done = subprocess.run(["ssh", "-F", server.config, "board", "true"], capture_output=True)
        assert done.stdout.startswith(b"Welcome")
        path = transport.put(server.config, "file")
        done = transport.run(["cat", "file"], 10)
        assert done.stdout == server.config.read_bytes()
        assert done.stderr == b""
        assert stat.S_IMODE(Path(path).parent.stat().st_mode) == 0o700


def test_a_login_shell_that_does_something_else(own_sshd):
    with own_sshd("ForceCommand echo This account is not available") as server:
        fails(server.transport(), "cannot make a folder .* This account is not available")


def test_no_folder_can_be_made(own_sshd, tmp_path):
    with own_sshd(TMPDIR=tmp_path / "absent") as server:
        fails(server.transport(), "cannot make a folder on .*TMPDIR")


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk: small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a file system of 1 MB cannot be mounted: needs root and the right to mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_and_then_a_read_only_disk(own_sshd, small_disk, tmp_path):
    (tmp_path / "large").write_bytes(bytes(5 * 2**20))
    with own_sshd(TMPDIR=small_disk) as server, server.transport() as transport:
        with pytest.raises(
            DeviceError, match=r"cannot write .*/large on board.*: 5.0 MiB needed, [01].. MiB free"
        ):
            transport.put(tmp_path / "large", "large")
        (tmp_path / "half").write_bytes(bytes(600_000))  # too small to be asked about
        transport.put(tmp_path / "half", "half")
        with pytest.raises(DeviceError, match=r"cannot write .*/other on board.*free some space"):
            transport.put(tmp_path / "half", "other")
        transport.run(["rm", "half"], 10)
        assert transport.run(["ls", "-A"], 10).stdout == b""
        transport.put(server.config, "small")
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
        with pytest.raises(DeviceError, match=r"cannot write .*/other"):
            transport.put(server.config, "other")
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert list(small_disk.iterdir()) == []


def path_of(tmp_path, *programs):
    """A folder for PATH that holds only these."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for program in programs:
        (folder / program).symlink_to(shutil.which(program))
    return folder


def test_a_damaged_upload_is_refused(own_sshd, tmp_path):
    folder = path_of(tmp_path, "sh", "mktemp", "rm", "sleep", "ls")
    (folder / "sha256sum").write_text(f"#!/bin/sh\necho {'0' * 64}\n")
    (folder / "sha256sum").chmod(0o755)
    with own_sshd(PATH=folder) as server, server.transport() as transport:
        with pytest.raises(DeviceError, match="arrived damaged"):
            transport.put(server.config, "file")
        assert transport.run(["ls", "-A"], 10).stdout == b""


def test_a_machine_without_timeout_setsid_and_sha256sum(own_sshd, tmp_path):
    folder = path_of(tmp_path, "sh", "mktemp", "rm", "sleep", "cat")
    with own_sshd(PATH=folder) as server, server.transport() as transport:
        path = transport.put(server.config, "file")
        assert transport.run(["cat", "file"], 10).stdout == server.config.read_bytes()
        assert transport.run(["timeout", "1", "cat"], 10).code == 127
        with pytest.raises(CommandTimeoutError):
            transport.run(["sleep", NAP], 0.5)
        assert not processes(NAP)
    assert not Path(path).parent.exists()


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
def test_any_shell_will_do(own_sshd, tmp_path, shell):
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here: apt-get install {shell}")
    folder = path_of(tmp_path, "mktemp", "rm", "sleep", "cat", "timeout", "setsid", "true")
    (folder / "sh").symlink_to(shutil.which(shell))
    with own_sshd(PATH=folder) as server, server.transport() as transport:
        path = transport.put(server.config, "file")
        done = transport.run(["sh", "-c", f"cat file; echo error >&2; sleep {NAP} & exit 3"], 10)
        assert (done.code, done.stdout, done.stderr) == (3, server.config.read_bytes(), b"error\n")
        assert transport.run(["sh", "-c", "kill -9 $$"], 10).code == 137
        with pytest.raises(CommandTimeoutError):
            transport.run(["sh", "-c", f"sleep {NAP} & sleep {NAP}"], 0.5)
        assert until(lambda: not processes(NAP))
    assert not Path(path).parent.exists()


def test_a_silent_link_beneath_a_jump(sshd, tmp_path):
    with Relay(sshd.port) as relay:
        alias = f"HostKeyAlias [127.0.0.1]:{sshd.port}"
        text = f"Host far\n    HostName 127.0.0.1\n    Port {sshd.port}\n    ProxyJump near\n"
        text += f"Host near\n    HostName 127.0.0.1\n    Port {relay.port}\n    {alias}"
        config = sshd.config_with(tmp_path / "config", text)
        with sshd.transport("far", config=config, keepalive_s=0.2, silence_s=1.0) as transport:
            assert transport.run(["true"], 10).code == 0
            relay.frozen.set()
            with pytest.raises(ConnectionLostError):
                transport.run(["sleep", "30"], 60)
