"""What goes wrong on a board: one line and the right exit code, nothing left there, nothing private told."""

import getpass
import os
import re
import signal
import socket
import sqlite3
import subprocess
import time
import venv
from pathlib import Path

import numpy as np
import pytest
from faults import LONG, agents, meanwhile, refused

from ehdnas.core.errors import DeviceError
from ehdnas.pipeline.devices import find_device
from ehdnas.profilers.base import find_profiler
from ehdnas.profilers.board.smoke import smoke_model

pytest_plugins = ("sshd_fixtures", "board_fixtures", "fault_fixtures")


def test_the_agent_is_killed(board, measure):
    with board() as sshd:
        meanwhile(lambda: agents(sshd), lambda: [os.kill(pid, signal.SIGKILL) for pid in agents(sshd)])
        refused(measure(*LONG), 1, "relu.onnx: the process was ended by SIGKILL", "memory")
        assert measure().code == 0


def test_a_full_disk_says_so(board, measure, large, small_disk):
    with board(TMPDIR=small_disk) as sshd:
        refused(measure(file=large), 4, f"cannot write {small_disk}", "8.0 MiB needed", "free some space")
        (sshd.tmp / "filler").write_bytes(bytes(1020 * 1024))
        refused(measure(), 4, "agent.py on board-host", "free some space")
        (sshd.tmp / "filler").unlink()
        assert measure().code == 0


def test_outputs_that_do_not_fit_on_the_disk(board, broad, small_disk):
    with (
        board(TMPDIR=small_disk),
        find_profiler(find_device("board")) as profiler,
        pytest.raises(DeviceError, match=r"cannot write outputs.npy: .*; free some space"),
    ):
        profiler.outputs(broad, np.zeros((8, 1), np.float32))


def test_a_read_only_disk_says_so(board, measure, small_disk):
    remount = ["mount", "-o", "remount,ro", str(small_disk)]
    with board(TMPDIR=small_disk):
        subprocess.run(remount, check=True)
        refused(measure(), 4, "cannot make a folder on board-host", "Read-only", "TMPDIR")
        subprocess.run([word.replace(",ro", ",rw") for word in remount], check=True)
        assert measure().code == 0


def test_a_board_without_a_runtime_or_without_python_says_how_to_install_it(board, ehdnas, measure, tmp_path):
    venv.create(tmp_path / "bare", with_pip=False)
    with board(device=[f"options.python={tmp_path}/bare/bin/python"]):
        refused(measure(), 4, "no interpreter for .onnx", "ehdnas devices install board")
        assert ehdnas("devices", "set", "board", "options.python=/nowhere/python3").code == 0
        refused(measure(), 4, "device 'board' has no /nowhere/python3", "options.python=")


def test_a_file_that_the_runtime_refuses_is_the_files_fault(board, measure, project):
    (project / "broken.onnx").write_bytes(os.urandom(1000))
    with board():
        refused(measure(file=project / "broken.onnx"), 1, "broken.onnx: onnxruntime", "refused it")
        assert measure().code == 0


ABORTS = "import os\ndef SessionOptions(): os.abort()\n"


def test_a_file_that_brings_the_runtime_down_is_the_files_fault(board, measure, tmp_path):
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "onnxruntime.py").write_text(ABORTS)
    with board(PYTHONPATH=modules):
        refused(measure(), 1, "relu.onnx: the process was ended by SIGABRT while it loaded or ran the model")
        (modules / "onnxruntime.py").unlink()
        assert measure().code == 0


NOISE = "import sys\nsys.stdout.write('EHDNAS-AGENT-1 {not it}\\nno line end')\nsys.stderr.write('careful')\n"


def test_banners_start_up_files_and_chatter_do_no_harm(board, measure, tmp_path):
    (tmp_path / "banner").write_text("Welcome!\n" * 100)
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "sitecustomize.py").write_text(NOISE)
    with board(f"Banner {tmp_path / 'banner'}", PYTHONPATH=modules) as sshd:
        for name in (".bashrc", ".profile", ".bash_profile"):
            (sshd.folder / name).write_text("echo Last login: never; echo careful >&2; printf x\n")
        done = measure()
        assert done.code == 0, done.err


JUMPS = """
import time
now, calls = time.time, []
time.time = lambda: calls.append(0) or now() * (-1) ** len(calls)
"""


def test_a_clock_that_jumps_changes_no_figure(board, measure, tmp_path, project):
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "sitecustomize.py").write_text(JUMPS)
    with board(PYTHONPATH=modules):
        assert measure().code == 0
    with sqlite3.connect(project / ".ehdnas" / "measurements.db") as database:
        ((latency_ms, created),) = database.execute(
            "SELECT json_extract(metrics, '$.latency_ms'), created_at FROM measurements"
        )
    assert 0 < latency_ms < 1000 and created[:4] == time.strftime("%Y")


NASTY = "; touch pwned; 'a\" $(touch pwned) `touch pwned`\n-rf *.onnx"


def test_what_a_model_file_is_called_does_no_harm(board, measure, project):
    (project / NASTY).write_bytes(smoke_model(".onnx"))
    (project / f"-{NASTY}").write_bytes(os.urandom(1000))
    with board() as sshd:
        assert measure(file=Path(NASTY)).code == 0
        refused(measure(file=project / f"-{NASTY}"), 1, "refused it")
        (project / f"x{NASTY}; touch pwned").write_bytes(smoke_model(".onnx"))
        refused(measure(file=project / f"x{NASTY}; touch pwned"), 2, "export it to one")
        assert not [path for path in project.rglob("*") if path.name == "pwned" and path.exists()]
        assert not list(sshd.folder.rglob("pwned"))


COMMANDS = [
    *("host=a; touch pwned", "host=-oProxyCommand=x", "host=$(x)", "host=a\nb"),
    *("options.python=python3; x", "options.python=/bin/rm", "options.folder=a; rm -rf ~"),
    *("options.tool=/bin/sh", "runtime=x; y"),
]


@pytest.mark.parametrize("assignment", COMMANDS)
def test_what_a_device_is_told_to_be_cannot_be_a_command(ehdnas, measure, assignment):
    added = ehdnas("devices", "add", "board", "--from", "linux", "host=nowhere", assignment)
    refused(added if added.code else measure(), 2)


@pytest.mark.parametrize("name", ["; rm -rf x", "a b", "a\nb", "'a'", "../a", "-a", "$(a)"])
def test_a_device_name_is_a_plain_word(project, ehdnas, name):
    assert ehdnas("devices", "add", "--from", "linux", "--", name, "host=a").code == 2


def test_no_key_and_no_address_is_written_down_or_handed_on(board, ehdnas, relu, project, home, tmp_path):
    with board() as sshd:
        one = ehdnas("--debug", "measure", relu, "--device", "board", "--protocol", "quick")
        assert one.code == 0, one.err
        assert ehdnas("measurements", "export", "handed-on.csv").code == 0
        (sshd.folder / "authorized_keys").write_text("")
        other = ehdnas("--debug", "measure", relu, "--device", "board", "--again")
        assert other.code == 4 and "Traceback" in other.err
        secret = [line for line in (sshd.folder / "client").read_text().splitlines() if "KEY" not in line]
        written = [path for path in (project / ".ehdnas").rglob("*") if path.is_file()]
        written += [path for path in home.rglob("*") if path.is_file()]
        text = b"".join(path.read_bytes() for path in written).decode(errors="replace")
        said = "".join((one.out, one.err, other.out, other.err, text))
        assert not [line for line in secret if line in said]
        handed_on = (project / "handed-on.csv").read_text()
    private = ["board-host", "127.0.0.1", getpass.getuser(), socket.gethostname(), str(home), str(tmp_path)]
    private += [str(sshd.port), "id_", "ssh_config", str(sshd.folder)]
    assert "latency_ms" in handed_on
    assert not [word for word in private if re.search(rf"\b{re.escape(word)}", handed_on)]
