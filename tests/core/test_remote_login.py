"""Reaching a machine: host keys, our keys, ~/.ssh/config, jumps, and servers that are none. A real sshd."""

import re
import socket
import subprocess
import sys
import threading
import time

import pytest
from sshd import Relay, fails, new_key, relayed, until

from ehdnas.core.remote import ssh_connection

pytest_plugins = ("sshd_fixtures",)


@pytest.fixture(autouse=True)
def no_agent(monkeypatch):
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


def known_hosts(sshd, tmp_path, *lines):
    path = tmp_path / "hosts"
    path.write_text("".join(f"{line}\n" for line in lines))
    return sshd.config_with(tmp_path / "config", f"Host *\n    UserKnownHostsFile {path}")


def test_an_unknown_host_is_refused_with_the_line_to_add(sshd, tmp_path):
    config = known_hosts(sshd, tmp_path)
    message = fails(sshd.transport(config=config), r"not a known host.*SHA256:")
    line = re.search(r"add this line to (\S+): (.*)$", message)
    assert line[1] == str(tmp_path / "hosts")
    assert line[2] == (sshd.folder / "known_hosts").read_text().strip()
    (tmp_path / "hosts").write_text(line[2] + "\n")
    with sshd.transport(config=config) as transport:
        assert transport.run(["true"], 10).code == 0


def test_a_line_without_the_port_or_for_another_host_does_not_count(sshd, tmp_path):
    key = " ".join((sshd.folder / "host.pub").read_text().split()[:2])
    lines = [
        f"127.0.0.1 {key}",
        f"[127.0.0.2]:{sshd.port} {key}",
        f"@cert-authority * {key}",
        "broken",
        "# x",
    ]
    fails(sshd.transport(config=known_hosts(sshd, tmp_path, *lines)), "not a known host")


def test_a_changed_host_key_is_refused(sshd, tmp_path):
    other = new_key(tmp_path / "other")
    name = f"[127.0.0.1]:{sshd.port}"
    message = fails(
        sshd.transport(config=known_hosts(sshd, tmp_path, f"{name} {other}")), "host key .* has changed"
    )
    assert f"ssh-keygen -R '{name}' -f '{tmp_path / 'hosts'}'" in message


def test_a_revoked_host_key_is_refused(sshd, tmp_path):
    line = (sshd.folder / "known_hosts").read_text().strip()
    fails(sshd.transport(config=known_hosts(sshd, tmp_path, line, f"@revoked {line}")), "revoked")


def test_hashed_names_patterns_several_keys_and_aliases(sshd, tmp_path):
    line = (sshd.folder / "known_hosts").read_text().strip()
    key, other = line.split(" ", 1)[1], new_key(tmp_path / "other")
    name = f"[127.0.0.1]:{sshd.port}"
    config = known_hosts(sshd, tmp_path, f"{name} {other}", line)
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(tmp_path / "hosts")], check=True, capture_output=True)
    assert name not in (tmp_path / "hosts").read_text()
    for lines in (None, f"[127.0.0.*]:{sshd.port},!other {key}\n"):
        if lines:
            (tmp_path / "hosts").write_text(lines)
        with sshd.transport(config=config) as transport:
            assert transport.run(["true"], 10).code == 0
    (tmp_path / "hosts").write_text(f"*,!{name} {key}\n")
    fails(sshd.transport(config=config), "not a known host")
    (tmp_path / "hosts").write_text(f"pi4 {key}\n")
    config.write_text("Host *\n    HostKeyAlias pi4\n" + config.read_text())
    with sshd.transport(config=config) as transport:
        assert transport.run(["true"], 10).code == 0


def test_a_wrong_key_no_key_and_one_with_a_passphrase(sshd, tmp_path):
    new_key(tmp_path / "wrong")
    locked = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(tmp_path / "locked")]
    subprocess.run(locked, check=True, capture_output=True)
    for name, said in (("wrong", "failed"), ("locked", "run ssh-add"), ("absent", "there is none")):
        (tmp_path / "config").write_text(
            (sshd.config.read_text()).replace(f"{sshd.folder}/client", str(tmp_path / name))
        )
        message = fails(sshd.transport(config=tmp_path / "config"), f"let no key of ours in.*{said}")
        assert f"ssh-copy-id -p {sshd.port}" in message


def test_a_key_of_the_agent(sshd, tmp_path, monkeypatch):
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(tmp_path / "agent")], stdout=subprocess.DEVNULL)
    try:
        assert until((tmp_path / "agent").exists)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        subprocess.run(["ssh-add", "-q", str(sshd.folder / "client")], check=True, capture_output=True)
        text = sshd.config.read_text()
        (tmp_path / "config").write_text(text.replace(f"{sshd.folder}/client", str(tmp_path / "absent")))
        with sshd.transport(config=tmp_path / "config") as transport:
            assert transport.run(["sh", "-c", "echo $SSH_AUTH_SOCK"], 10).stdout == b"\n"  # not forwarded
        only = sshd.config_with(tmp_path / "only", "Host *\n    IdentitiesOnly yes")
        only.write_text(only.read_text().replace(f"{sshd.folder}/client", str(tmp_path / "absent")))
        fails(sshd.transport(config=only), "there is none")
    finally:
        agent.terminate()
        agent.wait()


def test_a_closed_port_and_a_name_that_is_none(sshd):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    message = fails(sshd.transport(f"127.0.0.1:{port}"), "Connection refused")
    assert f"127.0.0.1:{port}" in message
    fails(sshd.transport("no-such-host.invalid"), "cannot connect to no-such-host.invalid")


def test_a_server_that_says_nothing(sshd, capfd):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        start = time.monotonic()
        fails(sshd.transport(f"127.0.0.1:{mute.getsockname()[1]}", connect_s=1), "no answer .* within 1 s")
        assert time.monotonic() - start < 3
    assert capfd.readouterr() == ("", "")


def test_a_server_that_is_no_ssh_server(sshd, capfd):
    def answer(server):
        near, _ = server.accept()
        near.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 100)
        near.close()

    with socket.create_server(("127.0.0.1", 0)) as web:
        threading.Thread(target=answer, args=(web,), daemon=True).start()
        fails(sshd.transport(f"127.0.0.1:{web.getsockname()[1]}", connect_s=3), "cannot connect")
    assert capfd.readouterr() == ("", "")


def test_a_server_that_turns_the_first_calls_away(sshd, tmp_path, monkeypatch):
    with Relay(sshd.port, turn_away=2) as relay, relayed(sshd, relay, tmp_path) as transport:
        assert transport.run(["true"], 10).code == 0
        assert relay.accepted == 3
    monkeypatch.setattr(ssh_connection, "_TRIES", 2)
    with Relay(sshd.port, turn_away=99) as relay:
        fails(relayed(sshd, relay, tmp_path), "banner")
        assert relay.accepted == 2


def test_the_configuration_is_followed(sshd, tmp_path):
    (tmp_path / "more").write_text(f"Host inner\n    HostName 127.0.0.1\n    Port {sshd.port}\n")
    text = f"Host outer\n    Include {tmp_path}/mor*\n    HostName 127.0.0.1\n    Port {sshd.port}\n"
    config = sshd.config_with(tmp_path / "config", text)
    for name in ("inner", "outer"):
        with sshd.transport(name, config=config) as transport:
            assert transport.run(["true"], 10).code == 0
    fails(sshd.transport(config=tmp_path / "absent"), "cannot read")
    (tmp_path / "broken").write_text("Host 'x\n")
    fails(sshd.transport(config=tmp_path / "broken"), "broken")
    text = f"Match host board exec 'touch {tmp_path}/ran'\n    Port 1\n"
    with sshd.transport(config=sshd.config_with(tmp_path / "exec", text)) as transport:
        assert transport.run(["true"], 10).code == 0
    assert not (tmp_path / "ran").exists()


def test_small_packets_are_sent_at_once(sshd):
    with sshd.transport() as transport:
        transport.run(["true"], 10)
        sock = transport._session.connection.transport.sock
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_jump_hosts(sshd, tmp_path):
    far = f"Host far\n    HostName 127.0.0.1\n    Port {sshd.port}\n    ProxyJump "
    for jumps in ("board", f"board,127.0.0.1:{sshd.port}"):
        config = sshd.config_with(tmp_path / "config", far + jumps)
        with sshd.transport("far", config=config) as transport:
            transport.put(sshd.config, "file")
            assert transport.run(["cat", "file"], 10).stdout == sshd.config.read_bytes()
    fails(sshd.transport("far", config=sshd.config_with(tmp_path / "loop", far + "far")), "through itself")
    nowhere = sshd.config_with(tmp_path / "nowhere", far.replace(str(sshd.port), "1") + "board")
    fails(sshd.transport("far", config=nowhere), "cannot connect to far")


def test_a_proxy_command_only_when_allowed(sshd, tmp_path):
    relay = tmp_path / "relay.py"
    relay.write_text(
        "import socket, sys, threading, os\n"
        "far = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
        "def up():\n"
        "    while data := os.read(0, 65536): far.sendall(data)\n"
        "threading.Thread(target=up, daemon=True).start()\n"
        "while data := far.recv(65536): os.write(1, data)\n"
    )
    text = f"Host board\n    ProxyCommand {sys.executable} {relay} %p"
    config = sshd.config_with(tmp_path / "config", text)
    fails(sshd.transport(config=config), "allow_proxy_command")
    with sshd.transport(config=config, allow_proxy_command=True) as transport:
        assert transport.run(["echo", "through"], 10).stdout == b"through\n"
    broken = sshd.config_with(tmp_path / "broken", "Host board\n    ProxyCommand false")
    fails(sshd.transport(config=broken, allow_proxy_command=True, connect_s=3), "cannot connect")
    absent = sshd.config_with(tmp_path / "none", "Host board\n    ProxyCommand no-such-program")
    fails(sshd.transport(config=absent, allow_proxy_command=True), "cannot start ProxyCommand")
