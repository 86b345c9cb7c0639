"""The link to a board, and who is let in: what breaks is said in one line, and nothing is left over there."""

import os
import shutil
import socket
import subprocess
import time

import numpy as np
import pytest
from fault_fixtures import MIB
from faults import LONG, agents, meanwhile, prefer, refused, relayed
from sshd import Relay, left_there, new_key

from ehdnas.core.errors import DeviceError
from ehdnas.core.remote.shell import hold_command
from ehdnas.pipeline.devices import find_device
from ehdnas.profilers.base import find_profiler

pytest_plugins = ("sshd_fixtures", "board_fixtures", "fault_fixtures")


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
