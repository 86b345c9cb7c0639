"""A project folder of its own for every test, and the command line called in it."""

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass

import pytest

TINY = """
channels = 4
cells = 3
samples = 120
search_epochs = 2
finalists = 2
trial_epochs = 1
train_epochs = 2
batch_size = 64
"""


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _own_configuration(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty folder, made the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session", autouse=True)
def _brief_fits():
    """Predictors that are fitted quickly: how well they fit is for tests/search to say."""
    from ehdnas.search.predictor import embedding, regression

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding, "_STEPS", 10)
        patch.setattr(regression, "_ROUNDS", (10, 5, 5))
        yield


@pytest.fixture(scope="session")
def profiled(tmp_path_factory, _brief_fits):
    """The workspace of a project of TINY settings default device profiled: made once, then copied."""
    from ehdnas.cli import main

    folder = tmp_path_factory.mktemp("profiled")
    (folder / "ehdnas.toml").write_text(TINY)
    with chdir(folder):
        assert main(["profile", "--device", "ehdnas-generic"]) == 0
    return folder / ".ehdnas"


@pytest.fixture(scope="session")
def searched(tmp_path_factory, profiled):
    """That workspace once a search has been made in it: made once, then copied."""
    from ehdnas.cli import main

    folder = tmp_path_factory.mktemp("searched")
    (folder / "ehdnas.toml").write_text(TINY)
    shutil.copytree(profiled, folder / ".ehdnas")
    with chdir(folder):
        assert main(["search"]) == 0
    return folder / ".ehdnas"


@pytest.fixture
def tiny(project, profiled):
    """A project whose settings make every stage take seconds, its default device profiled."""
    (project / "ehdnas.toml").write_text(TINY)
    shutil.copytree(profiled, project / ".ehdnas")
    return project


@pytest.fixture
def found(project, searched):
    """A project of the same settings, its search done."""
    (project / "ehdnas.toml").write_text(TINY)
    shutil.copytree(searched, project / ".ehdnas", symlinks=True)
    return project


@pytest.fixture
def ehdnas():
    """Call the command line in this process: ehdnas("search", "--seed", "1") -> Result."""
    from ehdnas.cli import main

    def call(*arguments):
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main([str(argument) for argument in arguments])
        return Result(code, out.getvalue(), err.getvalue())

    return call


@pytest.fixture
def killed():
    """Start a command, kill -9 it as soon as `ready()` is true, and say whether it was still running."""

    def start(folder, arguments, ready, limit_s=120):
        process = subprocess.Popen(
            [sys.executable, "-m", "ehdnas", *arguments], cwd=folder, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        end = time.monotonic() + limit_s
        while process.poll() is None and not ready():
            assert time.monotonic() < end, f"{arguments} never got there"
            time.sleep(0.005)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        return process.wait() == -signal.SIGKILL

    return start
