"""What can go wrong with a board: one line and the right exit code, nothing left there, nothing lost here."""

import getpass
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import venv
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
import quick_profile
from onnx import TensorProto, helper
from quick_profile import Exports, hasten
from sshd import Relay, left_there, new_key, running_with, until

from ehdnas.core.errors import DeviceError
from ehdnas.core.remote.shell import hold_command
from ehdnas.pipeline.devices import find_device
from ehdnas.profilers.base import find_profiler
from ehdnas.profilers.board.smoke import smoke_model

pytest_plugins = ("sshd_fixtures", "board_fixtures", "fault_fixtures")

MIB = 2**20
PROFILE = ("profile", "--device", "board", "--samples", 10, "--channels", 4, "--cells", 3, "--all")
LONG = ("--sustained", 0.5)


@pytest.fixture
def measure(ehdnas, brief, relu):
    return lambda *arguments, file=relu: ehdnas("measure", file, "--device", "board", *arguments)


def refused(done, code, *words):
    """It ended with that code, and one line that holds these words, the last."""
    *others, last = done.err.strip().splitlines()
    assert done.code == code, done.err
    assert last.startswith("error: ") and all(word in last for word in words), done.err
    assert not [line for line in others if line.startswith(("error: ", "Traceback"))]
    return last


def stored(project):
    """How often each subject is in the database."""
    path = project / ".ehdnas" / "measurements.db"
    with suppress(sqlite3.OperationalError), sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        return dict(database.execute("SELECT subject, count(*) FROM measurements GROUP BY subject"))
    return {}  # it is being made


def agents(sshd):
    """The agents that time something there: pid -> command line."""
    found = running_with(f"TMPDIR={sshd.tmp}")
    return {
        pid: words
        for pid, words in found.items()
        if "--window-s" in words and Path(words.split()[0]).name.startswith("python")
    }


def meanwhile(condition, action):
    """Do something, in a thread, as soon as a condition holds."""
    threading.Thread(target=lambda: until(condition, 30) and action(), daemon=True).start()


def prefer(home, text):
    """Put lines before the others of ~/.ssh/config."""
    config = home / ".ssh" / "config"
    config.write_text(f"{text}\n{config.read_text()}")


def relayed(home, sshd, relay):
    prefer(home, f"Host board-host\n    Port {relay.port}\n    HostKeyAlias [127.0.0.1]:{sshd.port}")


@pytest.fixture
def large(project):
    """A file that takes a while to travel, and says the same as the small one."""
    model = onnx.load_from_string(smoke_model(".onnx"))
    model.doc_string = "x" * (8 * MIB)
    onnx.save(model, project / "large.onnx")
    return project / "large.onnx"


@pytest.fixture
def broad(project):
    """A file that gives 4 MB for 4 bytes."""
    graph = helper.make_graph(
        [helper.make_node("Tile", ["x", "n"], ["y"])],
        "broad",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, MIB])],
        [helper.make_tensor("n", TensorProto.INT64, [2], [1, MIB])],
    )
    path = project / "broad.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_the_connection_dies_during_an_upload(board, home, measure, large):
    with board() as sshd, Relay(sshd.port, after_bytes=MIB, then=sshd.kill_sessions) as relay:
        relayed(home, sshd, relay)
        refused(
            measure(file=large), 4, "the connection to board-host", "lost during the upload of large.onnx"
        )
        assert measure(file=large).code == 0


def test_the_connection_dies_while_the_agent_runs(board, measure):
    with board() as sshd:
        meanwhile(lambda: agents(sshd), sshd.kill_sessions)
        refused(measure(*LONG), 4, "the connection to board-host", "was lost during", "try again")
        assert measure().code == 0


def test_the_connection_dies_while_outputs_come_back(board, home, broad):
    images = np.zeros((8, 1), np.float32)
    with board() as sshd, Relay(sshd.port, after_bytes=MIB, then=sshd.kill_sessions) as relay:
        relayed(home, sshd, relay)
        with find_profiler(find_device("board")) as profiler:
            with pytest.raises(DeviceError, match=r"lost during the download of outputs.npy"):
                profiler.outputs(broad, images)
            assert profiler.outputs(broad, images).shape == (8, MIB)


@pytest.fixture(params=["dash", "bash", "busybox"])
def holding(request, tmp_path):
    """A function that has one shell or another hold a folder in `there`, and hear nothing.

    Programs in `tmp_path` come before others.
    """
    if not shutil.which(request.param):
        pytest.skip(f"no {request.param} here: apt-get install {request.param}")
    (tmp_path / "sh").symlink_to(shutil.which(request.param))
    (tmp_path / "there").mkdir()

    def start(stdout):
        return subprocess.Popen(
            ["sh", "-c", hold_command("mark:", 30)],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.DEVNULL,
            env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path / "there")},
        )

    return start


def test_a_connection_that_falls_while_our_folder_is_made_leaves_none(holding, tmp_path):
    near, far = os.pipe()
    os.close(near)
    with holding(far):
        os.close(far)
    assert list((tmp_path / "there").iterdir()) == []


OVERTAKEN = """\
#!/bin/sh
{rm} "$@" || exit
test -e {mark} && exit
touch {mark}
for folder; do :; done
mkdir "$folder" && touch "$folder/late"
exit 1
"""


@pytest.mark.parametrize("heard", [True, False])
def test_a_file_that_is_written_while_our_folder_is_removed_goes_too_and_soon(holding, tmp_path, heard):
    # An upload does so: its last requests are carried out when the connection has fallen.
    (tmp_path / "rm").write_text(OVERTAKEN.format(rm=shutil.which("rm"), mark=tmp_path / "mark"))
    (tmp_path / "rm").chmod(0o755)
    near, far = os.pipe()
    if not heard:
        os.close(near)
    start = time.monotonic()
    with holding(far):
        os.close(far)
    assert (tmp_path / "mark").exists() and list((tmp_path / "there").iterdir()) == []
    assert time.monotonic() - start < 4
    if heard:
        os.close(near)


def test_the_agent_is_killed(board, measure):
    with board() as sshd:
        meanwhile(lambda: agents(sshd), lambda: [os.kill(pid, signal.SIGKILL) for pid in agents(sshd)])
        refused(measure(*LONG), 1, "relu.onnx: the process was ended by SIGKILL", "memory")
        assert measure().code == 0


def test_an_unknown_host_is_refused_with_the_line_to_add(board, measure):
    with board() as sshd:
        hosts = sshd.folder / "known_hosts"
        hosts.write_text("")
        last = refused(measure(), 4, "is not a known host", f"add this line to {hosts}: ")
        hosts.write_text(last.partition(f"add this line to {hosts}: ")[2] + "\n")
        assert measure().code == 0


def test_a_host_whose_key_has_changed_is_refused(board, measure, tmp_path):
    with board() as sshd:
        other = new_key(tmp_path / "other")
        (sshd.folder / "known_hosts").write_text(f"[127.0.0.1]:{sshd.port} {other}\n")
        refused(measure(), 4, "host key of board-host", "has changed", "ssh-keygen -R")


def test_a_key_that_is_not_let_in_says_so(board, measure, tmp_path):
    with board() as sshd:
        (sshd.folder / "authorized_keys").write_text(new_key(tmp_path / "other") + "\n")
        refused(measure(), 4, "let no key of ours in", "ssh-copy-id")


def test_a_closed_port_says_so(board, measure):
    with board() as sshd:
        sshd.stop()
        refused(measure(), 4, "cannot connect to board-host", "Connection refused")
        sshd.start()
        assert measure().code == 0


def test_a_host_that_accepts_and_says_nothing_is_given_up(board, home, measure, hurried):
    hurried(connect_s=1)
    with board(), socket.create_server(("127.0.0.1", 0)) as mute:
        prefer(home, f"Host board-host\n    Port {mute.getsockname()[1]}")
        start = time.monotonic()
        refused(measure(), 4, "no answer as an SSH server within 1 s")
        assert time.monotonic() - start < 5


def silenced(board, home, measure, noticed_s, gone_s):
    """A link that falls silent while the agent runs: noticed here, and over there while it still is."""
    with board() as sshd, Relay(sshd.port) as relay:
        relayed(home, sshd, relay)
        begin = []
        meanwhile(lambda: agents(sshd), lambda: (begin.append(time.monotonic()), relay.frozen.set()))
        refused(measure("--sustained", 2), 4, "was lost during", "nothing came for")
        assert time.monotonic() - begin[0] < noticed_s
        left = left_there(sshd.tmp, gone_s)
        assert left == ({}, []) and time.monotonic() - begin[0] < gone_s, left
        assert relay.frozen.is_set()
        relay.frozen.clear()
        assert measure().code == 0


def test_behind_a_link_that_falls_silent_the_agent_ends_itself(board, home, measure, hurried):
    hurried(keepalive_s=0.2, silence_s=1, beat_s=0.3, dead_s=1)
    silenced(board, home, measure, 3, 8)


@pytest.mark.slow
def test_a_silent_link_is_noticed_within_15_s_and_the_agent_is_gone_within_60(board, home, measure):
    silenced(board, home, measure, 15, 60)


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


@pytest.fixture
def profiled(ehdnas, hurried, monkeypatch):
    """A function that profiles, with `then` happening before the fourth network."""

    def run(then=None, *arguments):
        hasten(monkeypatch.setattr, Exports(4 if then else 0, then))
        return ehdnas(*PROFILE, *arguments)

    return run


def once_each(project, number=10):
    return list(stored(project).values()) == [1] * number


def test_a_profile_goes_on_after_the_connection_was_killed(board, profiled, project):
    with board() as sshd:
        done = profiled(sshd.kill_sessions)
        assert done.code == 0, done.err
    assert once_each(project)


def away(sshd):
    sshd.stop()
    return sshd.start


def of_another_key(sshd):
    hosts = sshd.folder / "known_hosts"
    before = hosts.read_text()
    hosts.write_text(f"[127.0.0.1]:{sshd.port} {new_key(sshd.folder / 'other')}\n")
    sshd.kill_sessions()
    return lambda: hosts.write_text(before)


def full(sshd):
    sshd.kill_sessions()  # what the disk has now would be let go of later, and make room
    assert until(lambda: not list(sshd.tmp.iterdir()))
    with suppress(OSError), (sshd.tmp / "filler").open("wb", 0) as stream:
        while True:
            stream.write(bytes(1024))
    return (sshd.tmp / "filler").unlink


@pytest.mark.parametrize(
    ("becomes", "said"),
    [
        (away, "Connection refused"),
        (of_another_key, "has changed"),
        pytest.param(full, "free some space", marks=pytest.mark.slow),
    ],
)
def test_a_board_that_stays_broken_ends_a_profile_which_then_goes_on(
    board, profiled, project, request, becomes, said
):
    environment = {"TMPDIR": request.getfixturevalue("small_disk")} if becomes is full else {}
    mend = []
    with board(**environment) as sshd:
        done = profiled(lambda: mend.append(becomes(sshd)))
        refused(done, 4, "7 networks left", said, "what was measured is kept")
        assert once_each(project, 3)
        mend[0]()
        assert profiled(None, "--resume").code == 0
    assert once_each(project)


ABORTS_SOME = "import os, sys\nif b'abort' in open(sys.orig_argv[3], 'rb').read(): os.abort()\n"


def test_a_network_that_brings_the_runtime_down_fails_alone_and_is_tried_the_next_time(
    board, profiled, project, tmp_path
):
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "sitecustomize.py").write_text(ABORTS_SOME)
    with board(PYTHONPATH=modules):
        done = profiled(lambda: b"abort", "--samples", 11)
        assert (
            done.code == 0
            and "could not be measured: network.onnx: the process was ended by SIGABRT" in done.err
        )
        assert once_each(project, 10)
        assert profiled(None, "--resume", "--samples", 11).code == 0
    assert once_each(project, 11)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_profile_that_is_interrupted_or_killed_goes_on(board, profiled, project, number, code):
    with board() as sshd:
        command = [sys.executable, quick_profile.__file__, *map(str, PROFILE)]
        environment = {**os.environ, "TMPDIR": str(project)}  # a kill leaves what it was writing here
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        assert until(lambda: len(stored(project)) >= 3, 60)
        process.send_signal(number)
        *_, last = process.communicate(timeout=20)[1].strip().splitlines()
        assert process.returncode == code
        if number == signal.SIGINT:
            assert last == "error: interrupted; what was finished is kept: go on with --resume"
        left = left_there(sshd.tmp, 8)
        assert left == ({}, []), left
        kept = stored(project)
        assert 3 <= len(kept) < 10
        assert profiled(None, "--resume").code == 0
        assert kept.items() <= stored(project).items()
    assert once_each(project)


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
