"""Devices on the command line: added, copied, several of a kind, set up, and shown to fit a terminal."""

import fcntl
import json
import os
import pty
import re
import struct
import sys
import termios

import pytest

from ehdnas.core.remote import LocalTransport
from ehdnas.pipeline.devices import find_device
from ehdnas.profilers.base import Check, FileProfiler

COLUMNS = 80


@pytest.fixture(autouse=True)
def _boards_are_reachable(monkeypatch):
    monkeypatch.setattr("ehdnas.pipeline.devices.is_reachable", lambda device: True)


def on_terminal(*arguments, columns=COLUMNS):
    """What a command writes to a terminal of so many columns, without its styles."""
    child, terminal = pty.fork()
    if child == 0:
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        # Not os.environ's own: readline sets COLUMNS behind its back.
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        os.execve(sys.executable, [sys.executable, "-m", "ehdnas", *arguments], environment)
    written = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:
            break
        if not piece:
            break
        written += piece
    os.waitpid(child, 0)
    os.close(terminal)
    return re.sub(r"\x1b\[[0-9;]*m", "", written.decode()).replace("\r\n", "\n")


def shown(ehdnas, name):
    return json.loads(ehdnas("devices", "show", name, "--json").out)


def test_a_device_is_copied_and_changed(project, ehdnas):
    result = ehdnas(
        "devices", "add", "mypi", "--from", "pi4", "host=pi@10.0.0.7", "threads=4", "options.cpus=2,3",
        "options.delegate=libx.so", "options.proxy_command=true", "options.hottest_c=70", "--json",
    )  # fmt: skip
    assert result.code == 0, result.err
    mine = shown(ehdnas, "mypi")
    assert (mine["host"], mine["threads"], mine["board_of"]) == ("pi@10.0.0.7", 4, "")
    assert mine["options"] == {
        "model": "Raspberry Pi 4", "system_bits": 64, "hottest_c": 70, "cpus": [2, 3], "delegate": "libx.so",
        "proxy_command": True,
    }  # fmt: skip
    assert ehdnas("devices", "set", "mypi", "options.cpus=1").code == 0
    assert shown(ehdnas, "mypi")["options"]["cpus"] == [1]
    assert shown(ehdnas, "mypi")["options"]["delegate"] == "libx.so", "one option leaves the others"
    assert shown(ehdnas, "pi4")["host"] == ""


def test_boards_of_a_device_follow_it(project, ehdnas):
    assert ehdnas("devices", "add", "pi4-1", "--board-of", "pi4", "host=pi@one").code == 0
    assert ehdnas("devices", "set", "pi4", "host=pi@zero", "options.hottest_c=60").code == 0
    board = find_device("pi4-1")
    assert (board.family, board.host, board.runtime) == ("pi4", "pi@one", "litert")
    assert board.options["hottest_c"] == 60 and board.title == find_device("pi4").title
    assert ehdnas("devices", "set", "pi4-1", "options.hottest_c=65").code == 0
    assert find_device("pi4-1").options == {"model": "Raspberry Pi 4", "system_bits": 64, "hottest_c": 65}
    assert "itself a board" in ehdnas("devices", "add", "x", "--board-of", "pi4-1").err
    assert "unknown device 'pi9'" in ehdnas("devices", "add", "x", "--board-of", "pi9").err
    assert "no other device" in ehdnas("devices", "set", "pi4", "board_of=pi4").err
    assert "board of pi4" in ehdnas("devices").out


def test_what_has_boards_stays(project, ehdnas):
    assert ehdnas("devices", "add", "mypi", "--from", "pi4").code == 0
    assert ehdnas("devices", "add", "mypi-1", "--board-of", "mypi", "host=a").code == 0
    assert "has boards (mypi-1)" in ehdnas("devices", "remove", "mypi").err
    assert ehdnas("devices", "remove", "mypi-1").code == 0
    assert ehdnas("devices", "remove", "mypi").code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("add", "x; rm -rf ~", "--from", "pi4"),
        ("add", "../x", "--from", "pi4"),
        ("add", "a\nb", "--from", "pi4"),
        ("add", "pi5", "--from", "pi4"),
        ("add", "x", "--from", "pi4", "--board-of", "pi4"),
        ("add", "x.toml", "host=me@here"),
        ("set", "pi4", "host=; rm -rf ~"),
        ("set", "pi4", "host=-oProxyCommand=x"),
        ("set", "pi4", 'host=a"b'),
        ("set", "pi4", "host=a\nb"),
        ("set", "pi4", "host=a b"),
        ("set", "android", "host=a b"),
        ("set", "android", "host=-x"),
        ("set", "local", "host=me@here"),
        ("set", "pi4", "options=x"),
        ("set", "pi4", "options.=x"),
        ("set", "pi4", "name=x"),
        ("set", "pi4", "source.x=y"),
        ("set", "pi4", "threads=many"),
        ("install", "local"),
        ("install", "ehdnas-generic"),
        ("install", "android"),
        ("install", "nowhere"),
        ("install", "pi4", "--remove", "--wheels", "."),
    ],
)
def test_what_cannot_be_right_is_refused_in_one_line(project, ehdnas, arguments):
    before = ehdnas("devices", "--json").out
    result = ehdnas("devices", *arguments)
    assert result.code in (2, 4) and result.err.count("\n") == 1, result.err
    assert ehdnas("devices", "--json").out == before


@pytest.mark.parametrize("command", [("devices",), ("devices", "show", "jetson-nano"), ("config",)])
def test_tables_fit_a_terminal_and_are_whole_in_a_pipe(project, ehdnas, command):
    ehdnas("devices", "set", "pi5", "host=somebody@a-rather-long-name.of-a-board.example.org")
    written = on_terminal(*command)
    assert max(map(len, written.splitlines())) <= COLUMNS
    piped = ehdnas(*command).out
    for text in (written, piped):
        assert all(line == line.rstrip() for line in text.splitlines())
    assert "…" not in piped
    if command == ("devices",):
        assert "somebody@a-rather-long-name.of-a-board.example.org" in piped
        assert piped.index("pi5") < piped.index("ehdnas-generic"), "boards come before what is simulated"


def test_narrow_terminals_get_narrow_tables(project):
    assert max(map(len, on_terminal("config", columns=40).splitlines())) <= 40


class Fake(FileProfiler):
    """A board that is this machine, with checks of every kind."""

    def check(self):
        return [
            Check("one", True, "fine"),
            Check("two", False, "slow " * 30, "make " + "it-faster " * 20, advice=True),
            Check("three", False, "broken", "ehdnas devices install pi4"),
        ][: self.device.threads]

    def measure(self, path, protocol):
        raise AssertionError("looking at a board measures nothing")

    def open(self):
        return LocalTransport()


@pytest.fixture
def fake(project, ehdnas, monkeypatch):
    assert ehdnas("devices", "set", "pi4", "host=pi@board").code == 0
    monkeypatch.setattr("ehdnas.profilers.base.find_profiler", Fake)


def test_doctor_numbers_its_checks_and_advice_is_no_failure(fake, ehdnas):
    assert ehdnas("devices", "set", "pi4", "threads=2").code == 0
    result = ehdnas("doctor", "--device", "pi4")
    assert result.code == 0
    lines = result.out.splitlines()
    assert lines[0] == " 1 ✓  one: fine" and lines[1].startswith(" 2 !  two: slow")
    assert lines[2] == "    → make " + "it-faster " * 19 + "it-faster"
    assert ehdnas("devices", "set", "pi4", "threads=3").code == 0
    result = ehdnas("devices", "check", "pi4")
    assert result.code == 4
    assert result.out.splitlines()[3:] == [" 3 ✗  three: broken", "    → ehdnas devices install pi4"]
    rows = json.loads(ehdnas("doctor", "--device", "pi4", "--json").out)["checks"]
    assert [row["advice"] for row in rows] == [False, True, False]


def test_a_runtime_is_installed_and_removed(fake, ehdnas, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("# nothing\n")
    monkeypatch.setattr("ehdnas.profilers.board.install.board_requirements", lambda: requirements)
    result = ehdnas("devices", "install", "pi4")
    assert result.code == 0, result.err
    assert "is ready" in result.out and f"{tmp_path}/.local/share/ehdnas-board/bin/python" in result.out
    again = json.loads(ehdnas("devices", "install", "pi4", "--json").out)
    assert "already" in again["done"] and again["versions"]["python"]
    assert "removed" in ehdnas("devices", "install", "pi4", "--remove").out
    assert "nothing to remove" in ehdnas("devices", "install", "pi4", "--remove").err


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("threads=2", "threads 2"),
        ("precision=int8", "precision int8"),
        ("options.cpus=0,1", "options"),
        ("runtime=onnxruntime", "runtime onnxruntime"),
    ],
)
def test_boards_whose_figures_would_not_be_of_one_kind_are_refused(project, ehdnas, setting, said):
    for name, settings in (("pi4-1", ()), ("pi4-2", (setting,))):
        added = ehdnas("devices", "add", name, "--board-of", "pi4", "host=pi@10.0.0.7", *settings)
        assert added.code == 0, added.err
    refused = ehdnas("profile", "--device", "pi4-1,pi4-2")
    assert refused.code == 2 and f"board 'pi4-2' has {said}" in refused.err


def test_a_device_that_has_boards_cannot_become_one(project, ehdnas):
    assert ehdnas("devices", "add", "pi4-1", "--board-of", "pi4", "host=pi@10.0.0.7").code == 0
    refused = ehdnas("devices", "set", "pi4", "board_of=linux")
    assert refused.code == 2 and "has boards (pi4-1)" in refused.err


def test_one_board_without_a_host_does_not_silence_the_others(project, ehdnas):
    for name, settings in (("pi4-1", ()), ("pi4-2", ("host=me@no-such-host.invalid",))):
        assert ehdnas("devices", "add", name, "--board-of", "pi4", *settings).code == 0
    checked = ehdnas("doctor", "--device", "pi4", "--json")
    one, other = json.loads(checked.out)["checks"]
    assert checked.code == 4 and not one["passed"] and "has no host" in one["detail"]
    assert (other["board"], other["name"], other["passed"]) == ("pi4-2", "reachable", False)


def test_a_list_of_devices_is_refused_where_one_is_meant(project, ehdnas):
    (project / "m.tflite").write_bytes(b"x")
    for name in ("pi4-1", "pi4-2"):
        assert ehdnas("devices", "add", name, "--board-of", "pi4", "host=pi@10.0.0.7").code == 0
    refused = ehdnas("measure", "m.tflite", "--device", "pi4-1,pi4-2")
    assert refused.code == 2 and "on one device" in refused.err


def test_an_edge_tpu_without_a_compiler_is_said_at_once(project, ehdnas, monkeypatch):
    monkeypatch.setenv("PATH", str(project))
    assert ehdnas("devices", "set", "coral", "host=me@box").code == 0
    refused = ehdnas("profile", "--device", "coral", "--samples", "10")
    assert refused.code == 6 and "edgetpu_compiler" in refused.err and "data:" not in refused.err
