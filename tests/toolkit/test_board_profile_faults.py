"""A profile that is interrupted, or whose board breaks down, goes on: every network is measured once."""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import suppress

import pytest
import quick_profile
from faults import refused
from quick_profile import Exports, hasten
from sshd import left_there, new_key, until

pytest_plugins = ("sshd_fixtures", "board_fixtures", "fault_fixtures")

PROFILE = ("profile", "--device", "board", "--samples", 10, "--channels", 4, "--cells", 3, "--all")


def stored(project):
    """How often each subject is in the database."""
    path = project / ".ehdnas" / "measurements.db"
    with suppress(sqlite3.OperationalError), sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        return dict(database.execute("SELECT subject, count(*) FROM measurements GROUP BY subject"))
    return {}  # it is being made


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
