"""Which address gives which transport, and what only this machine's own or adb's has to show."""

import os
import subprocess
import sys

import adb_stand_in
import pytest
from sshd import a_while, fails, processes, until

from ehdnas.core.errors import DeviceError, UsageError
from ehdnas.core.remote import (
    AdbTransport,
    ConnectionLostError,
    LocalTransport,
    SshOptions,
    SshTransport,
    open_transport,
)


def test_an_address_gives_its_transport():
    assert isinstance(open_transport(""), LocalTransport)
    assert isinstance(open_transport("local"), LocalTransport)
    for address in ("board", "me@board", "me@10.0.0.2:2222", "[::1]:22", "me@[fe80::1%eth0]"):
        assert isinstance(open_transport(address), SshTransport)
    for address in (
        "-oProxyCommand=x",
        "a b",
        "me@",
        "board:0",
        "board:99999",
        "a;b",
        "me@-x",
        "a/b",
        "$(x)",
    ):
        with pytest.raises(UsageError, match="is no address"):
            open_transport(address)
    assert isinstance(open_transport("adb:"), AdbTransport)
    assert open_transport("adb:emulator-5554")._serial == "emulator-5554"
    assert open_transport("board", SshOptions(answer_s=1))._options.answer_s == 1


def test_the_import_is_light():
    code = "import sys, ehdnas.core.remote; print('paramiko' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_this_machine_is_left_clean_by_a_process_that_is_killed(monkeypatch):
    monkeypatch.setenv("COLUMNS", "5000")  # ps would cut its lines
    nap = a_while()
    code = (
        "import sys; from pathlib import Path; from ehdnas.core.remote import LocalTransport, process\n"
        "process.new_mark = lambda: f'ehdnas-test-{sys.argv[1]}:'\n"
        "transport = LocalTransport()\n"
        "print(transport.put(Path(sys.executable), 'file'), flush=True)\n"
        "transport.run(['sh', '-c', f'sleep {sys.argv[1]} & sleep {sys.argv[1]}'], 60)"
    )
    client = subprocess.Popen([sys.executable, "-c", code, nap], stdout=subprocess.PIPE, text=True)
    path = client.stdout.readline().strip()
    assert os.path.isfile(path)
    assert until(lambda: len([line for line in processes(nap) if line.startswith("sleep")]) == 2)
    client.kill()
    client.wait()
    client.stdout.close()
    assert until(lambda: not processes(nap))  # the mark holds it: not the shells either
    assert not os.path.exists(os.path.dirname(path))


def test_this_machine_without_a_folder_or_a_path(monkeypatch, tmp_path):
    with LocalTransport() as transport:
        folder = transport.run(["pwd"], 10).stdout.decode().strip()
        os.rmdir(folder)
        with pytest.raises(DeviceError, match=f"did not run our command: .*{folder}.*start over"):
            transport.run(["true"], 10)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "absent"))
    fails(LocalTransport(), "cannot make a folder on this machine: .*TMPDIR")
    monkeypatch.delenv("TMPDIR")
    monkeypatch.setenv("PATH", str(tmp_path))
    with LocalTransport() as transport:
        assert transport.run(["true"], 10).code == 0


def test_a_holder_that_ends_is_a_lost_connection():
    with LocalTransport() as transport:
        transport.run(["true"], 10)
        transport._holder.terminate()
        transport._holder.wait()
        with pytest.raises(ConnectionLostError, match="this machine was lost during true"):
            transport.run(["true"], 10)
        transport.close()
        assert transport.run(["true"], 10).code == 0


@pytest.mark.parametrize(
    ("devices", "serial", "said"),
    [
        ("", "", "no devices/emulators found'; plug it in"),
        ("a device\nb device\n", "", "more than one device/emulator'; give the serial"),
        ("a unauthorized\n", "a", "device a: .*unauthorized.*unlock its screen and allow USB debugging"),
        ("a offline\n", "", "device offline'; unplug it"),
        ("a device\n", "b", "'b' not found.*check the serial number"),
        ("a recovery\n", "a", "'recovery'; start Android on it"),
    ],
)
def test_an_android_device_that_cannot_be_used(tmp_path, monkeypatch, devices, serial, said):
    adb_stand_in.install(tmp_path, monkeypatch, devices)
    fails(AdbTransport(serial), said)


def test_an_android_device_is_taken_by_its_serial_number(tmp_path, monkeypatch):
    adb_stand_in.install(tmp_path, monkeypatch, "a device\n10.0.0.7:5555 device\n")
    with AdbTransport("10.0.0.7:5555") as transport:
        assert transport.run(["true"], 10).code == 0
    adb_stand_in.install(tmp_path, monkeypatch, "a device\n")
    with AdbTransport() as transport:
        assert transport.run(["true"], 10).code == 0
    for serial in ("-s", "a b", "a;b", "$(x)", "a/b"):
        with pytest.raises(UsageError, match="no serial number"):
            AdbTransport(serial)


def test_adb_that_is_absent_old_or_damages_files(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"content")
    adb_stand_in.install(tmp_path, monkeypatch)
    with AdbTransport() as transport:
        (tmp_path / "damaging").touch()
        with pytest.raises(DeviceError, match="arrived damaged"):
            transport.put(tmp_path / "file", "file")
        assert transport.run(["ls", "-A"], 10).stdout == b""
        transport.run(["mkdir", "file"], 10)
        (tmp_path / "damaging").unlink()
        with pytest.raises(DeviceError, match="a folder has that name"):
            transport.put(tmp_path / "file", "file")
        (tmp_path / "old").touch()
        with pytest.raises(DeviceError, match="Android 7 or later"):
            transport.run(["true"], 10)
    monkeypatch.setenv("PATH", "/nowhere")
    fails(AdbTransport(), r"adb is not on PATH here: install .*platform-tools")
