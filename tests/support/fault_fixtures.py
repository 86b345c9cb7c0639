"""Boards that things happen to: an sshd each, which is the device `board` of the command line."""

import os
import subprocess
import tempfile
from contextlib import contextmanager
from functools import partial

import pytest
from sshd import left_there, running_sshd

from ehdnas.core.remote import SshOptions
from ehdnas.profilers.board.smoke import smoke_model


@pytest.fixture
def relu(project):
    (project / "relu.onnx").write_bytes(smoke_model(".onnx"))
    return project / "relu.onnx"


@pytest.fixture
def board(tmp_path, known_board, monkeypatch):
    """A function that starts an sshd, the device `board`, as a context; at its end nothing may be left there.

    Nor here, of the files that are made on the way.
    """
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(here))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)

    @contextmanager
    def start(*settings, device=(), **environment):
        folder = tmp_path / "there"
        (folder / "tmp").mkdir(parents=True)
        there = environment.setdefault("TMPDIR", folder / "tmp")
        with running_sshd(folder, *settings, **environment) as sshd:
            sshd.tmp = there
            known_board(sshd, "board", "onnxruntime", *device)
            yield sshd
            running, lying = left_there(there, 8)
            assert not running and not set(lying) - {str(there / "filler")}, (running, lying)
        assert list(here.glob("ehdnas*")) == []

    return start


@pytest.fixture
def hurried(monkeypatch):
    """A function that changes how long is waited for boards: hurried(connect_s=1)."""
    from ehdnas.pipeline import fleet

    def change(**options):
        monkeypatch.setattr("ehdnas.profilers.ssh.SshOptions", partial(SshOptions, **options))

    monkeypatch.setattr(fleet, "run_jobs", partial(fleet.run_jobs, back_off_s=0.05))
    return change


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB, which can be filled and made read-only."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a file system of 1 MB cannot be mounted: needs root and the right to mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
