"""Boards that things happen to: an sshd each, which is the device `board` of the command line."""

import os
import subprocess
import tempfile
from contextlib import contextmanager
from functools import partial

import onnx
import pytest
from onnx import TensorProto, helper
from sshd import left_there, running_sshd

from ehdnas.core.remote import SshOptions
from ehdnas.profilers.board.smoke import smoke_model

MIB = 2**20


@pytest.fixture
def relu(project):
    (project / "relu.onnx").write_bytes(smoke_model(".onnx"))
    return project / "relu.onnx"


@pytest.fixture
def measure(ehdnas, brief, relu):
    return lambda *arguments, file=relu: ehdnas("measure", file, "--device", "board", *arguments)


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
