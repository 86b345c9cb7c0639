"""What every transport promises: this machine directly, over a real sshd, and through a stand-in for adb."""

import os
import signal
import stat
import sys
import threading
import time
from pathlib import Path

import adb_stand_in
import pytest
from sshd import a_while, gone_within, processes

from ehdnas.core.errors import DataError, DeviceError, EhdnasError, UsageError
from ehdnas.core.remote import (
    AdbTransport,
    CommandTimeoutError,
    Completed,
    LocalTransport,
    process,
    shell,
    ssh,
)

pytest_plugins = ("sshd_fixtures",)


@pytest.fixture(params=["local", "ssh", "adb"])
def transport(request, tmp_path_factory, monkeypatch):
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    if request.param == "adb":
        adb_stand_in.install(tmp_path_factory.mktemp("adb"), monkeypatch)
        new = AdbTransport("emulator-5554")
    else:
        new = LocalTransport() if request.param == "local" else request.getfixturevalue("sshd").transport()
    with new as it:
        yield it


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "a source.bin"
    path.write_bytes(os.urandom(3_000_000))
    return path


def python(code, *arguments):
    return [sys.executable, "-c", code, *arguments]


def test_a_file_goes_there_and_comes_back(transport, source, tmp_path):
    path = transport.put(source, "the model's file (1).bin")
    assert path.startswith("/")
    assert path.endswith("/the model's file (1).bin")
    assert transport.run(["cp", path, "a copy"], 10) == Completed(0, b"", b"")
    transport.get("a copy", tmp_path / "new folder" / "back.bin")
    assert (tmp_path / "new folder" / "back.bin").read_bytes() == source.read_bytes()
    assert transport.run(["ls", "-A"], 10).stdout == b"a copy\nthe model's file (1).bin\n"


def test_a_file_replaces_one_of_the_same_name_and_may_be_empty(transport, source, tmp_path):
    transport.put(source, "file")
    (tmp_path / "empty").touch()
    transport.put(tmp_path / "empty", "file")
    transport.get("file", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b""


def test_a_program_that_is_sent_can_be_run(transport, tmp_path):
    (tmp_path / "tool").write_text("#!/bin/sh\necho ran in $(pwd)\n")
    (tmp_path / "tool").chmod(0o755)
    path = transport.put(tmp_path / "tool", "tool")
    assert transport.run(["./tool"], 10).stdout.decode() == f"ran in {os.path.dirname(path)}\n"
    assert transport.run([path], 10).code == 0


def test_arguments_arrive_as_they_are(transport):
    arguments = [
        *("; rm -rf x", "$(id)", "`id`", "it's", '"both"', "a\nb", "", "*", "~", "\\n", "é", "&", "-k", "!1"),
        *("--", "tab\there", "{a,b}", "#", "%s", "A=b", " two  blanks "),
    ]
    done = transport.run(python("import sys; print(ascii(sys.argv[1:]))", *arguments), 10)
    assert done.stdout.decode() == ascii(arguments) + "\n"
    assert done.stderr == b""


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -KILL $$", 137), ("kill -SEGV $$", 139)]
)
def test_exit_codes(transport, script, code):
    assert transport.run(["sh", "-c", script], 10).code == code


def test_a_program_that_is_not_there_or_cannot_be_run(transport, source):
    missing = transport.run(["no-such-compiler"], 10)
    assert missing.code == 127
    assert b"no-such-compiler" in missing.stderr
    assert transport.run([transport.put(source, "data")], 10).code == 126


def test_both_streams_at_once_in_full(transport):
    code = """
import sys
for at in range(3000):
    sys.stdout.write("o" * 1000)
    sys.stderr.write("e" * 1000)
"""
    done = transport.run(python(code), 30)
    assert (done.code, done.stdout, done.stderr) == (0, b"o" * 3_000_000, b"e" * 3_000_000)
    assert not done.truncated


def test_output_is_capped_and_the_program_goes_on(transport):
    done = transport.run(python("import sys; sys.stdout.write('o' * 20_000_000); sys.exit(5)"), 60)
    assert done.code == 5
    assert done.truncated
    assert 16_000_000 < len(done.stdout) <= 16 * 2**20


def test_standard_input_is_empty(transport):
    assert transport.run(["cat"], 10) == Completed(0, b"", b"")


def test_a_quick_program_is_quick(transport):
    transport.run(["true"], 10)
    start = time.monotonic()
    for _ in range(5):
        transport.run(["true"], 10)
    assert time.monotonic() - start < 5


def test_what_outlasts_its_limit_is_ended_with_its_children(transport):
    naps = a_while(), a_while()
    start = time.monotonic()
    with pytest.raises(CommandTimeoutError, match=r"sh on .* did not end within 0.5 s") as caught:
        transport.run(["sh", "-c", f"sleep {naps[0]} & sleep {naps[1]}"], 0.5)
    assert caught.value.exit_code == 4
    assert time.monotonic() - start < 4
    assert gone_within(1, naps[0]) == gone_within(1, naps[1]) == []
    assert transport.run(["echo", "still here"], 10).stdout == b"still here\n"


def test_what_refuses_to_end_is_killed(transport, monkeypatch):
    for module in (process, ssh, shell):
        monkeypatch.setattr(module, "KILL_AFTER_S", 1)
    nap = a_while()
    script = f"trap '' TERM; sleep {nap} & while true; do wait; done"
    with pytest.raises(CommandTimeoutError):
        transport.run(["sh", "-c", script], 0.5)
    assert gone_within(2, nap) == []


def test_an_interrupt_ends_the_program(transport):
    nap = a_while()
    transport.run(["true"], 10)
    threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        transport.run(["sleep", nap], 30)
    assert gone_within(1, nap) == []


def test_what_a_program_leaves_running_is_ended(transport):
    nap = a_while()
    start = time.monotonic()
    done = transport.run(["sh", "-c", f"sleep {nap} & echo done"], 10)
    assert (done.code, done.stdout) == (0, b"done\n")
    assert time.monotonic() - start < 4
    assert gone_within(1, nap) == []


def test_the_folder_is_private_and_gone_afterwards(transport, source):
    folder = Path(transport.put(source, "file")).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    other = Path(transport.put(source, "other")).parent
    assert other == folder
    transport.close()
    assert not folder.exists()
    transport.close()
    again = Path(transport.put(source, "file")).parent
    assert again.name != folder.name


def test_nothing_is_left_running(transport, monkeypatch):
    mark = f"ehdnas-test-{a_while()}:"
    monkeypatch.setenv("COLUMNS", "5000")  # ps would cut its lines
    for module in (process, ssh):
        monkeypatch.setattr(module, "new_mark", lambda: mark)
    for _ in range(2):
        assert transport.run(["sh", "-c", "sleep 0.1; exit 3"], 10).code == 3
    with pytest.raises(CommandTimeoutError):
        transport.run(["sleep", "60"], 0.2)
    assert len(processes(mark)) >= 1  # what holds our folder
    transport.close()
    assert gone_within(1, mark) == []


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/etc/passwd", "-rf", "a\nb", "a\0b", "\ud800", "x" * 300]
)
def test_only_plain_file_names(transport, source, tmp_path, name):
    with pytest.raises(UsageError, match="cannot name a file"):
        transport.put(source, name)
    with pytest.raises(UsageError, match="cannot name a file"):
        transport.get(name, tmp_path / "target")


@pytest.mark.parametrize("arguments", [[], [""], ["-x"], ["a\0b"], ["a", "\ud800"], ["x" * 200_000]])
def test_arguments_that_cannot_be_passed(transport, arguments):
    with pytest.raises(UsageError):
        transport.run(arguments, 10)


def test_a_local_file_that_is_not_there(transport, tmp_path):
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(DataError, match="cannot send"):
            transport.put(path, "file")


def test_a_file_that_is_not_there_leaves_nothing(transport, tmp_path):
    (tmp_path / "target").write_text("as it was")
    transport.run(["mkdir", "folder"], 10)
    transport.run(["ln", "-s", "/etc/passwd", "link"], 10)
    transport.run(["mkfifo", "pipe"], 10)
    for name in ("absent", "folder", "link", "pipe"):
        with pytest.raises(DeviceError, match=f"cannot read .*/{name}"):
            transport.get(name, tmp_path / "target")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert (tmp_path / "target").read_text() == "as it was"


def test_a_target_that_cannot_be_written(transport, source, tmp_path):
    transport.put(source, "file")
    (tmp_path / "a file").touch()
    with pytest.raises(EhdnasError, match="cannot write") as caught:
        transport.get("file", tmp_path / "a file" / "target")
    assert not isinstance(caught.value, DeviceError)


def test_no_link_is_followed_in_sending(transport, source, tmp_path):
    (tmp_path / "outside").write_text("as it was")
    transport.run(["ln", "-s", str(tmp_path / "outside"), "file"], 10)
    transport.put(source, "file")
    assert (tmp_path / "outside").read_text() == "as it was"
    assert transport.run(["test", "-L", "file"], 10).code == 1
